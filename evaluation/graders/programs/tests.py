"""The tests of a program by cases, as `Problem.tests` has them (see `evaluation.graders.code`)."""

import ast
import dataclasses
import keyword
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from evaluation.graders.programs import packed
from evaluation.graders.programs.outputs import COMPARISONS, WITH_TOLERANCE, Comparison
from evaluation.graders.reachable import UNPARSABLE, syntax_tree
from evaluation.records import Problem
from evaluation.sandbox import NoCompiler, find_compiler

Language = Literal["python", "cpp"]

KEYS = {
    *("cases", "packed", "comparison", "tolerance", "checker", "time_limit_s", "function", "star_imports", "digits"),
    *("wrapped", "language", "memory_mib", "calls_main"),
}
LANGUAGES = ("python", "cpp")
CASE_KEYS = {"input", "output", "time_limit_s"}
LONGEST_CASE = 96 * 2**20
"""Characters of one case's input and output; more is refused, for the grader holds a case whole: some 385 MiB for one
of this length."""

LONGEST_OUTPUT = 16 * 2**20
"""Bytes that a program may print in one case; tests that expect more cannot be graded."""
LONGEST_LIMIT_S = 86_400.0
LEAST_MEMORY_MIB, MOST_MEMORY_MIB = 64, 16_384
"""Address space that tests may ask for: with a few MiB right programs in Python fail at their start, and no row of a
data set should lift what the sandbox is there to limit."""
REFUSED = "refused"
"""The entry of tests that cannot be graded here: the reason. Every program then gets a grader error that names it."""


class BadTests(ValueError):
    """Tests that are not as they should be."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An input, the output expected for it, and its own limit in CPU seconds, where it has one."""

    input: bytes
    output: bytes
    time_limit_s: float | None = None


@dataclasses.dataclass(frozen=True)
class CaseTests:
    """How the outputs of a program are compared, and its limit in CPU seconds for each case."""

    comparison: Comparison
    tolerance: float
    checker: str | None
    function: str | None
    wrapped: bool
    star_imports: bool
    digits: int
    time_limit_s: float | None
    tests: Mapping[str, Any]
    language: Language = "python"
    memory_mib: int | None = None
    calls_main: bool = False

    @property
    def number(self) -> int:
        """How many cases there are."""
        stored = self.tests.get("packed")
        return len(self.tests["cases"]) if stored is None else int(stored["cases"])

    def cases(self) -> Iterator[Case]:
        """The cases in their order, one at a time. Raises `BadTests` for one that is not as it should be."""
        stored = self.tests.get("packed")
        rows = self.tests["cases"] if stored is None else packed.read(stored)
        try:
            for number, row in enumerate(rows, start=1):
                yield _case(row, f"case {number}")
        except packed.PackedError as error:
            raise BadTests(str(error)) from error


def has_cases(tests: Mapping[str, Any]) -> bool:
    """Whether tests are of this kind."""
    return "cases" in tests or "packed" in tests or REFUSED in tests


def refusals(problems: Iterable[Problem]) -> dict[str, str]:
    """Problem -> why it cannot be graded here, of those that cannot."""
    return {problem.id: str(problem.tests[REFUSED]) for problem in problems if REFUSED in problem.tests}


def case_tests(tests: Mapping[str, Any]) -> CaseTests:
    """The tests, checked but for cases that are stored elsewhere. Raises `BadTests`."""
    if REFUSED in tests:
        raise BadTests(f"not graded here: {tests[REFUSED]}")
    if unknown := sorted(set(tests) - KEYS):
        raise BadTests(f"unknown {', '.join(unknown)}; tests by cases have {', '.join(sorted(KEYS))}")
    if ("cases" in tests) == ("packed" in tests):
        raise BadTests("tests have cases or packed, not both")
    if "cases" in tests:
        if not isinstance(tests["cases"], list) or not tests["cases"]:
            raise BadTests("cases needs to be a list of at least one case")
        for number, row in enumerate(tests["cases"], start=1):
            _case(row, f"case {number}")
    comparison = tests.get("comparison", "tokens")
    if comparison not in COMPARISONS:
        raise BadTests(f"comparison is {comparison!r:.40}, not one of {', '.join(COMPARISONS)}")
    tolerance = tests.get("tolerance")
    if (tolerance is not None) != (comparison in WITH_TOLERANCE) or not _positive(tolerance, or_none=True):
        raise BadTests(f"tolerance, a positive number, is for {', '.join(WITH_TOLERANCE)}, which need it")
    checker, function, limit_s = tests.get("checker"), tests.get("function"), tests.get("time_limit_s")
    for name, value in (("checker", checker), ("function", function)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise BadTests(f"{name} is {value!r:.40}, not text")
    if function is not None and (not function.isidentifier() or keyword.iskeyword(function)):
        raise BadTests(f"function is {function!r:.40}, and no function has such a name")
    if function is not None and (checker is not None or "comparison" in tests):
        raise BadTests("checker and comparison are for what a program prints; values of a function are equal or not")
    if checker is not None and "comparison" in tests:
        raise BadTests("a checker compares; leave out comparison")
    if checker is not None:
        _check_checker(checker)
    if not _limit(limit_s):
        raise BadTests(f"time_limit_s is {limit_s!r:.40}, not a positive number of seconds, at most a day")
    digits, star, wrapped = tests.get("digits", 0), tests.get("star_imports", False), tests.get("wrapped", False)
    if type(digits) is not int or digits < 0 or not isinstance(star, bool) or not isinstance(wrapped, bool):
        raise BadTests("digits is a number from 0 up, star_imports and wrapped are true or false")
    if wrapped and function is None:
        raise BadTests("wrapped is for values of a function")
    memory_mib, calls_main = tests.get("memory_mib"), tests.get("calls_main", False)
    if memory_mib is not None and not (type(memory_mib) is int and LEAST_MEMORY_MIB <= memory_mib <= MOST_MEMORY_MIB):
        bounds = f"{LEAST_MEMORY_MIB} to {MOST_MEMORY_MIB:,}"
        raise BadTests(f"memory_mib is {memory_mib!r:.40}, not a whole number of MiB, {bounds}")
    if not isinstance(calls_main, bool):
        raise BadTests("calls_main is true or false")
    language = language_of(tests)
    if language == "cpp":
        if others := sorted({"function", "star_imports", "digits", "calls_main"} & set(tests)):
            raise BadTests(f"{', '.join(others)}: is for Python; programs in C++ read standard input and print")
        try:
            find_compiler()
        except NoCompiler as error:
            raise BadTests(str(error)) from error
    rules = comparison, tolerance or 0.0, checker, function, wrapped, star, digits, limit_s, tests, language
    return CaseTests(*rules, memory_mib, calls_main)


def language_of(tests: Mapping[str, Any]) -> Language:
    """The language of the programs. Raises `BadTests` for one that is not known."""
    language = tests.get("language", "python")
    if language not in LANGUAGES:
        raise BadTests(f"language is {language!r:.40}, not one of {', '.join(LANGUAGES)}")
    return "cpp" if language == "cpp" else "python"


def _positive(value: Any, *, or_none: bool) -> bool:
    if value is None:
        return or_none
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _limit(value: Any) -> bool:
    return _positive(value, or_none=True) and (value is None or value <= LONGEST_LIMIT_S)


def _check_checker(source: str) -> None:
    """Raises `BadTests` for what is no Python, or plainly defines no `check`: on every output it would be in error."""
    try:
        tree = syntax_tree(source)
    except UNPARSABLE as error:
        raise BadTests(f"the checker is no Python: {error}") from error
    names = bound_names(tree)
    if not {"check", "*"} & set(names):
        raise BadTests("the checker defines no check(input, output, expected)")
    either = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node for node in tree.body if isinstance(node, either) and node.name == "check"]
    if len(functions) == names["check"] == 1 and not functions[0].decorator_list:
        if not _takes_three(functions[0]):
            raise BadTests("check of the checker has to take three arguments: input, output, expected")
        if isinstance(functions[0], ast.AsyncFunctionDef) or _yields(functions[0]):
            raise BadTests("check of the checker has to return true or false; it is async, or yields")


def bound_names(tree: ast.Module) -> Counter[str]:
    """The names that a program binds anywhere, each as often as it does; "*" where it imports all of a module."""
    names: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] += 1
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] += 1
        elif isinstance(node, ast.alias):
            names[node.asname or node.name] += 1
    return names


def _yields(function: ast.FunctionDef) -> bool:
    """Whether a call of it makes a generator; what functions within it do is their own."""
    inner: list[ast.AST] = list(function.body)
    while inner:
        node = inner.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.GeneratorExp):
            inner += ast.iter_child_nodes(node)
    return False


def _takes_three(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it can be called with three arguments by their places."""
    given = function.args
    places = len(given.posonlyargs) + len(given.args)
    needed = places - len(given.defaults)
    return needed <= 3 and (places >= 3 or given.vararg is not None) and None not in given.kw_defaults


def _case(row: Any, where: str) -> Case:
    if not isinstance(row, Mapping) or not {"input", "output"} <= set(row) <= CASE_KEYS:
        raise BadTests(f"{where}: expected input, output and where need be time_limit_s, found {row!r:.80}")
    texts, limit_s = (row["input"], row["output"]), row.get("time_limit_s")
    if not all(isinstance(text, str) for text in texts) or not _limit(limit_s):
        raise BadTests(f"{where}: input and output need to be text, time_limit_s 0 to 86,400: {row!r:.80}")
    if sum(map(len, texts)) > LONGEST_CASE:
        raise BadTests(f"{where}: {sum(map(len, texts))} characters; more than {LONGEST_CASE} are not graded")
    try:
        return Case(texts[0].encode(), texts[1].encode(), limit_s)
    except UnicodeEncodeError as error:
        raise BadTests(f"{where}: no valid text: {error.reason}") from None
