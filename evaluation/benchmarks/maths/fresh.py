"""Contests of 2025 and 2026, and BeyondAIME: sets that came out after AIME 2024 and 2025 had been trained on widely.

HMMT's and BRUMO's answers are LaTeX; those of AIME 2026 and BeyondAIME are integers.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, integer, text
from evaluation.records import Problem, RecordError


def _latex(answer: Any, where: str) -> str:
    """An answer as text; some sources write whole numbers as numbers."""
    if isinstance(answer, str) and answer.strip():
        return answer.strip()
    if answer is None or isinstance(answer, str):
        raise RecordError(f"{where}: there is no answer")
    return integer(answer, where)


def _benchmark(name: str, size: int, hub: str, split: str, answer: Callable[[Any, str], str]) -> Benchmark:
    """Columns: problem, answer, and problem_idx or id; without these a problem is named by its place."""

    def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
        problems = []
        for number, row in enumerate(rows, start=1):
            where = f"{name}, row {number}"
            given = next((row[column] for column in ("problem_idx", "id") if row.get(column) is not None), number)
            prompt = maths_prompt(text(row, ("problem",), where).strip())
            id = f"{name}-{str(given).removeprefix(f'{name}-')}"
            problems.append(Problem(id, name, "maths", prompt, answer(row.get("answer"), where)))
        return check_set(problems, size, name)

    source = Source(local=f"{name}/{name}.jsonl", hub=hub, hub_split=split)
    return Benchmark(name=name, kind="maths", size=size, sources={"test": source}, parse=parse)


AIME26 = _benchmark("aime26", 30, "MathArena/aime_2026", "train", integer)
HMMT_FEB25 = _benchmark("hmmt_feb25", 30, "MathArena/hmmt_feb_2025", "train", _latex)
HMMT_NOV25 = _benchmark("hmmt_nov25", 30, "MathArena/hmmt_nov_2025", "train", _latex)
HMMT_FEB26 = _benchmark("hmmt_feb26", 33, "MathArena/hmmt_feb_2026", "train", _latex)
BRUMO25 = _benchmark("brumo25", 30, "MathArena/brumo_2025", "train", _latex)
BEYOND_AIME = _benchmark("beyond_aime", 100, "ByteDance-Seed/BeyondAIME", "test", integer)
