"""Custom problems: a benchmark from a user's local file, which no module of this package defines."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks.program_tests import checked_calls, checked_cases
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, text, valid_text
from evaluation.conversations import Turn, is_conversation, request_of
from evaluation.graders import choice
from evaluation.graders.extraction import boxed_answer
from evaluation.graders.notation import clean, value
from evaluation.graders.programs.tests import BadTests
from evaluation.loading import read_file
from evaluation.records import Kind, Problem, RecordError

_SOLUTION = re.compile(r"^[ \t]*####", re.MULTILINE)
_SENTENCE = re.compile(r"\s*(?:\w+,?\s+)?the\s+(?:final\s+|correct\s+)?answer\s+is\b", re.IGNORECASE)
COLUMNS = (
    "prompt and gold, and where you like id; "
    "code also tests (an object, see docs/own.md; with cases it needs no gold), and beginning for base models"
)
"""What the file has to hold where no column is named, for messages."""


def read_custom(path: Path, name: str, kind: Kind, template: str | None) -> list[Problem]:
    """The problems of a local file (`evaluation.loading.read_file` has the forms), as the benchmark `name`.

    Args:
        path: the file, with `COLUMNS`; a prompt is text, or a list of messages that ends with the user's.
        name: of the benchmark.
        kind: how answers are graded. `gold` is the answer for maths, its letter for choice, the reference program for
            code.
        template: the user message, with {prompt} for the row's; None is the paper's instruction for maths, and the
            prompt alone for the others.

    Raises:
        RecordError: a row is no problem, or no answer can ever equal its gold one (its number is named), an id occurs
            twice, or there are no rows.
        OSError: the file cannot be read.
    """
    return problems_of(read_file(path), path, name, kind, template)


def problems_of(
    rows: Iterable[tuple[int, Mapping[str, Any]]], path: Path, name: str, kind: Kind, template: str | None
) -> list[Problem]:
    """The problems in numbered rows of a file, which have `COLUMNS`; the rest, and errors, as in `read_custom`."""
    template = template or (maths_prompt("{prompt}") if kind == "maths" else "{prompt}")
    problems = []
    for number, row in rows:
        where = f"{path}:{number}"
        context: list[Turn] = []
        if is_conversation(row.get("prompt")):
            context, question = request_of(row["prompt"], f"{where}: prompt")
        else:
            question = text(row, ("prompt",), where)
        gold, given = row.get("gold"), row.get("tests")
        is_number = isinstance(gold, int | float) and not isinstance(gold, bool)
        # With cases no reference program is run.
        unneeded = gold is None and kind == "code" and isinstance(given, dict) and "cases" in given
        answer = "" if unneeded else str(gold) if is_number else text(row, ("gold",), where)
        tests = program_tests(given, where, answer) if kind == "code" else {}
        if isinstance(gold, float) and not math.isfinite(gold):
            raise RecordError(f"{where}: gold is {gold}, which no answer equals; write the answer, infinity as \\infty")
        if (reason := never_equal(kind, answer)) is not None:
            raise RecordError(f"{where}: no answer can equal the gold one, {answer!r:.80}: {reason}")
        meta = {"completion": text(row, ("beginning",), where)} if row.get("beginning") is not None else {}
        prompt = template.replace("{prompt}", question)
        problems.append(Problem(_id(row, number, where), name, kind, prompt, answer, tests, meta, context))
    if not problems:
        raise RecordError(f"{path}: no problems")
    return check_set(problems, len(problems), str(path))


def _id(row: Mapping[str, Any], number: int, where: str) -> str:
    """The row's id; its number where it has none, or null. Raises `RecordError` for one that no file can hold."""
    id = row.get("id")
    return str(number) if id is None else valid_text(str(id), f"{where}: column 'id'")


def never_equal(kind: Kind, gold: str) -> str | None:
    """Why the grader counts no answer as the gold one, whatever a model writes, or none but the same solution put into
    a box; None where one may be."""
    if kind == "choice" and choice.letter(gold) != gold:
        return "it has to be the letter of an option, A, B, ..., as a capital alone"
    if kind != "maths":
        return None
    if _SOLUTION.search(gold):
        return "it is a solution as GSM8K's files have it; the answer is what stands behind ####"
    if _SENTENCE.match(gold):
        return "it is a sentence; the answer alone has to stand there"
    if not clean(gold):
        return "nothing is left of it without markup and punctuation"
    if boxed_answer(f"\\boxed{{{gold}}}") is None and value(clean(gold)) is None:
        unclosed = "it has a brace that is never closed"
        return unclosed if gold.count("{") > gold.count("}") else "a box that holds it counts as a placeholder"
    return None


def program_tests(tests: Any, where: str, program: str = "") -> dict[str, Any]:
    """The value, which has to be an object that `evaluation.graders.code` can use.

    Args:
        tests: the value.
        where: the row, for messages.
        program: the reference program, which has to define the entry point; "" where there is none.

    Raises:
        RecordError: it is none; the message names the row and the key.
    """
    try:
        if isinstance(tests, dict) and "cases" in tests:
            checked_cases(tests)
            return tests
        if isinstance(tests, dict) and "entry_point" in tests:
            return checked_calls(tests, program)
    except BadTests as error:
        raise RecordError(f"{where}: tests: {error}") from error
    raise RecordError(
        f"{where}: tests needs to be an object with entry_point and asserts or inputs, or with cases, "
        f"found {tests!r:.80}"
    )
