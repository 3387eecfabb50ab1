"""OJBench (Wang et al., 2025, arXiv:2506.16395): 232 problems of China's NOI and of the ICPC, in C++ and in Python.

The set is a folder, a copy of the hub's repository: `prompts/full.jsonl`, and a folder for each problem in the form of
DMOJ's judge, `NOI/loj-ID/` and `ICPC/ID/`. A prompt, sent as it is, names the language, so the two are two benchmarks.
As in its own judge, a program has ten seconds for each case (there on DMOJ's clock of processor time), one GiB, and has
to pass all cases; a main() in Python that is never called is called; and three problems are passed by no program.
Python is CPython here and PyPy there.

A problem whose judge this project does not have stays in the set, and each program for it is the grader's error, with
the reason; it counts as not passed, and not as a failure of the grader. `where: {graded: true}` leaves such problems
out.
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.code.dmoj_problem import DmojProblem, NotGraded
from evaluation.benchmarks.rows import check_set, text
from evaluation.graders.programs import packed
from evaluation.graders.programs.tests import REFUSED
from evaluation.records import Problem, RecordError

SIZE = 232
LANGUAGES = ("cpp", "python")
SKIPPED = frozenset({"nwerc2023_H", "swerc2023_L", "loj-3897"})
"""Problems that its own judge leaves out: a program for one counts as not passed there."""
FOLDER = re.compile(r"[\w-][\w.-]*")
"""Names of folders: none that leads out of the set, as `..` does."""
RULES = {"time_limit_s": 10.0, "memory_mib": 1024}


def parse(split: str, rows: Iterable[Mapping[str, Any]], language: str) -> list[Problem]:
    """The problems in one language. Columns: id, prompt, dataset, language, difficulty; and `folder`, that of the set.

    The tests are packed in a temporary folder, which is removed when this process ends.
    """
    name = f"ojbench_{language}"
    cases = Path(tempfile.mkdtemp(dir=_temporary().name))
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"{name}, row {number}"
        if (found := text(row, ("language",), where)) not in LANGUAGES:
            raise RecordError(f"{where}: the language is {found!r:.40}, not one of {', '.join(LANGUAGES)}")
        if found == language:
            problems.append(_problem(name, row, language, where, cases / f"{number}.jsonl.gz"))
    return check_set(problems, SIZE, name)


def _problem(name: str, row: Mapping[str, Any], language: str, where: str, file: Path) -> Problem:
    given, dataset = row.get("id"), text(row, ("dataset",), where)
    if isinstance(given, bool) or not isinstance(given, int | str) or not given:
        raise RecordError(f"{where}: the id is {given!r:.40}, expected a number or text")
    if row.get("folder") is None:
        raise RecordError(f"{where}: the tests of {name} are in the set's folder; a file of prompts is not enough")
    problem_id = f"loj-{given}" if isinstance(given, int) else given
    if not FOLDER.fullmatch(problem_id) or not FOLDER.fullmatch(dataset):
        raise RecordError(f"{where}: {dataset}/{problem_id} is no name of a folder")
    try:
        tests = _tests(Path(row["folder"]) / dataset / problem_id, problem_id, language, file)
    except RecordError as error:
        raise RecordError(f"{where} ({problem_id}): {error}") from error
    return Problem(
        id=problem_id,
        benchmark=name,
        kind="code",
        prompt=str(row["prompt"]) if text(row, ("prompt",), where) else "",
        gold="",
        tests={"language": language} | tests if language == "cpp" else tests,
        meta={
            "dataset": dataset,
            "difficulty": text(row, ("difficulty",), where),
            "graded": REFUSED not in tests,
        },
    )


def _tests(folder: Path, problem_id: str, language: str, file: Path) -> dict[str, Any]:
    """The tests of a problem, or why it is not graded."""
    if problem_id in SKIPPED:
        return {REFUSED: "OJBench's own judge skips this problem"}
    try:
        problem = DmojProblem(folder)
        tests = {"packed": packed.pack(problem.cases(), file), **problem.rules, **RULES}
    except NotGraded as error:
        file.unlink(missing_ok=True)
        return {REFUSED: str(error)}
    return tests if language == "cpp" else {**tests, "calls_main": True}


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vcore-ojbench-")


def _benchmark(language: str) -> Benchmark:
    parse_language: Callable[[str, Iterable[Mapping[str, Any]]], list[Problem]] = partial(parse, language=language)
    source = Source(local="ojbench", hub="He-Ren/OJBench_testdata", hub_split="test", rows_in="prompts/full.jsonl")
    return Benchmark(name=f"ojbench_{language}", kind="code", size=SIZE, sources={"test": source}, parse=parse_language)


CPP, PYTHON = map(_benchmark, LANGUAGES)
