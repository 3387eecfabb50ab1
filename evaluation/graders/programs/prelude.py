"""Imports that LiveCodeBench's grader puts before a program: models leave out `from typing import List`, and more.

Its grader imports everything of nineteen modules. Here only those are imported that have a name which the program
mentions, in the same order, for a later one hides names of an earlier one: the same names mean the same, and a program
that needs none of them does not wait for `statistics`.
"""

import importlib
import re
from functools import cache

STAR = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
"""Modules whose names are there without an import, in the order of their import."""
NAMED = ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
         "itertools", "functools", "operator", "io", "sys", "json")  # fmt: skip
"""Modules that are there by their own name, afterwards."""
RECURSION = 50_000
_WORD = re.compile(r"[A-Za-z_]\w*")


def prelude(source: str) -> str:
    """The source that is to run before a program."""
    words = set(_WORD.findall(source))
    lines = [f"from {module} import *" for module in STAR if words & _names(module)]
    lines += [f"import {module}" for module in NAMED if module in words]
    return "\n".join([*lines, "import sys", f"sys.setrecursionlimit({RECURSION})"])


@cache
def _names(module: str) -> frozenset[str]:
    loaded = importlib.import_module(module)
    return frozenset(getattr(loaded, "__all__", [name for name in vars(loaded) if not name.startswith("_")]))
