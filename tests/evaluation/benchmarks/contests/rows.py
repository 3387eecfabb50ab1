"""Rows in the form of LiveCodeBench's files, of tasks made for tests."""

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.records import write_jsonl

STDIN = "a, b = map(int, input().split())\nprint(a + b)"
FUNCTION = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b"
DATES = ("2023-05-01T00:00:00", "2023-06-01T00:00:00", "2023-07-01T00:00:00", "2023-08-01T10:30:00")


def texts(cases: Sequence[tuple[str, str]], kind: str = "stdin") -> str:
    """Cases as JSON, as the public ones are."""
    return json.dumps([{"input": one, "output": other, "testtype": kind} for one, other in cases])


def private(cases: Sequence[tuple[str, str]], kind: str = "stdin") -> str:
    """Cases as the private ones are."""
    return base64.b64encode(zlib.compress(pickle.dumps(texts(cases, kind)))).decode()


def row(
    name: str,
    question: str,
    public: Sequence[tuple[str, str]],
    hidden: Sequence[tuple[str, str]],
    function: str | None = None,
    starter: str = "",
    date: str = DATES[0],
) -> dict[str, Any]:
    """A row of the hub's files."""
    kind = "stdin" if function is None else "functional"
    return {
        "question_title": name,
        "question_content": question,
        "platform": "atcoder" if function is None else "leetcode",
        "question_id": name,
        "contest_id": "c1",
        "contest_date": date,
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": texts(public, kind),
        "private_test_cases": private(hidden, kind),
        "metadata": json.dumps({} if function is None else {"func_name": function}),
    }


def release(folder: Path, number: int) -> Path:
    """A data folder with the first file, of problems of both kinds in turn."""
    rows = []
    for n in range(number):
        question = f"Add two numbers ({n})."
        if n % 2:
            starter = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
            rows.append(row(f"p{n}", question, [("1\n2", "3")], [("5\n6", "11")], "add", starter, DATES[n % 4]))
        else:
            rows.append(
                row(f"p{n}", question, [("1 2\n", "3\n")], [("3 4\n", "7\n"), ("5 6\n", "11\n")], date=DATES[n % 4])
            )
    (folder / "livecodebench").mkdir()
    write_jsonl(folder / "livecodebench/test.jsonl", rows)
    return folder
