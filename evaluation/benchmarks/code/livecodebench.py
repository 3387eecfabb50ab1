"""LiveCodeBench (Jain et al., 2024, arXiv:2403.07974): problems of programming contests, in six releases.

A release has the problems of those before it and one file more of the hub's `code_generation_lite`. A window of contest
dates is chosen by `where: {contest_date: {from: ..., to: ...}}`. Problems of AtCoder and Codeforces read standard
input, those of LeetCode are methods of a class Solution. Prompt, limit and comparison are those of its own runner: a
system message, and a question with a format; six seconds for each case (there on the clock, here of processor time);
lines, or their numbers, have to be equal; the standard library's names are there without an import.
"""

import datetime
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.code.contest_prompts import SYSTEM, prompt_of
from evaluation.benchmarks.code.payloads import PayloadError, unpacked
from evaluation.benchmarks.rows import check_set, text
from evaluation.graders.programs import packed
from evaluation.records import Problem, RecordError

SIZES = {"v1": 400, "v2": 511, "v3": 612, "v4": 713, "v5": 880, "v6": 1055}
"""Release -> its problems."""
FILES = ("test.jsonl", *(f"test{number}.jsonl" for number in range(2, 7)))
TIME_LIMIT_S, DIGITS = 6.0, 50_000


def parse(split: str, rows: Iterable[Mapping[str, Any]], release: str) -> list[Problem]:
    """The problems of a release. Columns: question_id, question_content, contest_date, platform, difficulty,
    starter_code, public_test_cases, private_test_cases, metadata.

    The tests are packed in a temporary folder, which is removed when this process ends.
    """
    name = f"livecodebench_{release}"
    folder = _folder()
    problems = [_problem(name, number, row, folder) for number, row in enumerate(rows, start=1)]
    return check_set(problems, SIZES[release], name)


def _problem(name: str, number: int, row: Mapping[str, Any], folder: Path) -> Problem:
    where = f"{name}, row {number}"
    problem_id = text(row, ("question_id",), where)
    try:
        function = _metadata(row, where).get("func_name")
        date = datetime.datetime.fromisoformat(text(row, ("contest_date",), where))
    except ValueError as error:
        raise RecordError(f"{where} ({problem_id}): metadata or contest_date: {error}") from error
    if function is not None and not isinstance(function, str):
        raise RecordError(f"{where} ({problem_id}): func_name is {function!r:.40}, not text")
    kind = "stdin" if function is None else "functional"
    try:
        stored = packed.pack(_cases(row, kind, where), folder / f"{number}.jsonl.gz")
    except (PayloadError, RecordError) as error:
        raise RecordError(f"{where} ({problem_id}): {error}") from error
    rules = {"comparison": "lines"} if function is None else {"function": function}
    return Problem(
        id=problem_id,
        benchmark=name,
        kind="code",
        # Read as it is: the lines of the question are part of the protocol.
        prompt=prompt_of(
            _as_it_is(row, "question_content", where),
            _as_it_is(row, "starter_code", where, may_be_empty=True),  # a program that reads standard input has none
        ),
        gold="",
        tests={"packed": stored, **rules, "time_limit_s": TIME_LIMIT_S, "star_imports": True, "digits": DIGITS},
        meta={
            # A time of day only where there is one, so that a window to a day ends with its first moment, as upstream.
            "contest_date": date.isoformat().removesuffix("T00:00:00"),
            "platform": text(row, ("platform",), where),
            "difficulty": text(row, ("difficulty",), where),
        },
        context=[{"role": "system", "content": SYSTEM}],
    )


def _metadata(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The JSON object in the column `metadata`. Raises `ValueError` where it is none; else as `text` does."""
    value = json.loads(text(row, ("metadata",), where))
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.40} is no object")
    return value


def _as_it_is(row: Mapping[str, Any], name: str, where: str, *, may_be_empty: bool = False) -> str:
    """The text of a column with its own line ends. Raises `RecordError` as `text` does, where it may not be empty."""
    if may_be_empty and name in row and not row[name]:
        return ""
    text(row, (name,), where)
    return str(row[name])


def _cases(row: Mapping[str, Any], kind: str, where: str) -> Iterator[dict[str, str]]:
    """Public cases, then private ones."""
    number = 0
    for column in ("public_test_cases", "private_test_cases"):
        for test in unpacked(text(row, (column,), where)):
            number += 1
            if test["testtype"] != kind:
                raise PayloadError(f"{column}: a test is {test['testtype']!r:.40}, the problem {kind}")
            if kind == "functional":
                _check_values(test, column)
            yield {"input": test["input"], "output": test["output"]}
    if not number:
        raise PayloadError("no tests")


def _check_values(test: Mapping[str, str], column: str) -> None:
    """A case of a function is JSON; of an argument that is not, no program could be right."""
    try:
        json.loads(test["output"])
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{column}: an expected value is not JSON: {test['output']!r:.60}: {error}") from error


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vcore-livecodebench-")


def _folder() -> Path:
    """A new folder in the temporary one, for another release may be loaded after this one."""
    return Path(tempfile.mkdtemp(dir=_temporary().name))


def _benchmark(release: str) -> Benchmark:
    files = FILES[: list(SIZES).index(release) + 1]
    parse_release: Callable[[str, Iterable[Mapping[str, Any]]], list[Problem]] = partial(parse, release=release)
    source = Source(local="livecodebench", hub="livecodebench/code_generation_lite", hub_split="test", files=files)
    return Benchmark(
        name=f"livecodebench_{release}", kind="code", size=SIZES[release], sources={"test": source}, parse=parse_release
    )


V1, V2, V3, V4, V5, V6 = map(_benchmark, SIZES)
