"""Problems of the user's own, from a local file: a benchmark that no module of this package knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Kind, Problem, RecordError, read_rows

COLUMNS = "prompt and gold, and where you like id; code also tests (an object, see docs/own.md), and beginning for base models"


def read_own(path: Path, name: str, kind: Kind, template: str | None) -> list[Problem]:
    """The problems of a .jsonl or .jsonl.gz file, as the benchmark `name`.

    Args:
        kind: how answers are graded. maths: `gold` is the answer; choice: its letter; code: the reference program, with `tests`.
        template: what the user message says, with {prompt} for the row's; None is the paper's instruction for maths, and the prompt alone
            for the others.

    Raises:
        RecordError: a row that is no problem, with its number; an id that occurs twice; no rows.
        OSError: the file cannot be read.
    """
    problems = []
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        question = text(row, ("prompt",), where)
        prompt = (template or (maths_prompt("{prompt}") if kind == "maths" else "{prompt}")).replace(
            "{prompt}", question
        )
        gold = row.get("gold")
        answer = (
            str(gold) if isinstance(gold, int | float) and not isinstance(gold, bool) else text(row, ("gold",), where)
        )
        tests = program_tests(row.get("tests"), where) if kind == "code" else {}
        meta = {"completion": text(row, ("beginning",), where)} if row.get("beginning") is not None else {}
        problems.append(Problem(str(row.get("id", number)), name, kind, prompt, answer, tests, meta))
    if not problems:
        raise RecordError(f"{path}: no problems")
    return check_set(problems, len(problems), str(path))


def program_tests(tests: Any, where: str) -> dict[str, Any]:
    """The value, if it is an object that `evaluation.graders.code` can use; else `RecordError`."""
    if (
        not isinstance(tests, dict)
        or not isinstance(tests.get("entry_point"), str)
        or not ({"asserts", "inputs"} & set(tests))
    ):
        raise RecordError(
            f"{where}: tests needs to be an object with entry_point and asserts or inputs, found {tests!r:.80}"
        )
    return tests
