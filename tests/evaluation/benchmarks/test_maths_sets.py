"""AIME 2025, MATH-500 and OlympiadBench: their forms, and the gold answers of every maths set against the grader."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get
from evaluation.benchmarks.maths import aime25, math500, olympiadbench
from evaluation.graders.notation import whole_number
from evaluation.grading import Grader
from evaluation.loading import digest, load
from evaluation.records import RecordError

SIZES = {"aime24": 30, "aime25": 30, "amc23": 40, "gsm8k": 1319, "math500": 500, "olympiadbench": 674, "svamp": 300}


def olympiad_rows() -> list[dict[str, Any]]:
    return [
        {"id": 1606 + n, "question": f"{n}?", "final_answer": ["$1$", "$2$"] if n == 0 else [f"${n}$"]}
        for n in range(674)
    ]


def test_aime25_ids_are_those_of_the_papers_whatever_the_source_calls_them() -> None:
    hub = [{"id": str(n), "problem": f"{n}?", "answer": n} for n in range(30)]
    local = [row | {"id": f"aime25-{'II' if n >= 15 else 'I'}-{n % 15 + 1:02d}"} for n, row in enumerate(hub)]
    assert aime25.BENCHMARK.parse("test", hub) == aime25.BENCHMARK.parse("test", local)
    assert [aime25.BENCHMARK.parse("test", hub)[n].id for n in (0, 29)] == ["aime25-I-01", "aime25-II-15"]


def test_math500_has_short_ids() -> None:
    rows = [{"unique_id": f"test/algebra/{n}.json", "problem": f"{n}?", "answer": "\\frac12"} for n in range(500)]
    assert math500.parse("test", rows)[7].id == "algebra/7"
    with pytest.raises(RecordError, match="499 problems, the complete set has 500"):
        math500.parse("test", rows[1:])


def test_olympiadbench_joins_several_answers_and_leaves_out_the_withdrawn_problem() -> None:
    rows = olympiad_rows()
    problems = olympiadbench.parse("test", [{"id": 2592, "question": "?", "final_answer": ["1e-1"]}, *rows])
    assert (len(problems), problems[0].gold, problems[1].gold) == (674, "$1$,$2$", "$1$")
    rows[5]["final_answer"] = []
    with pytest.raises(RecordError, match="olympiadbench, row 6: final_answer must be a list of texts"):
        olympiadbench.parse("test", rows)


def test_other_copies_of_the_real_files_give_the_same_problems(benchmark_data: Path) -> None:
    def rows(path: str) -> list[dict[str, Any]]:
        file = benchmark_data / path
        text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
        return [json.loads(line) for line in text.splitlines()]

    assert aime25.BENCHMARK.parse("test", rows("aime25/areal_test.jsonl")) == load(
        aime25.BENCHMARK, "test", benchmark_data
    )
    assert math500.parse("test", rows("math500/test.jsonl.gz")) == load(math500.BENCHMARK, "test", benchmark_data)
    original = olympiadbench.parse("test", rows("olympiadbench/qwen_test.jsonl.gz"))
    ours = load(olympiadbench.BENCHMARK, "test", benchmark_data)
    assert [(p.id, p.prompt) for p in original] == [(p.id, p.prompt) for p in ours]


@pytest.mark.parametrize("name", SIZES)
def test_every_gold_answer_is_its_own_right_answer_and_not_its_neighbours(name: str, benchmark_data: Path) -> None:
    problems = load(get(name), "test", benchmark_data)
    assert len(problems) == SIZES[name] == get(name).size
    assert digest(problems) == get(name).digest
    with Grader(workers=1) as grader:
        assert {g.verdict for g in grader.grade([(p, f"so \\boxed{{{p.gold}}}", "stop") for p in problems])} == {
            "correct"
        }
        numbers = [
            (p, f"\\boxed{{{int(found) + 1}}}", "stop") for p in problems if (found := whole_number(p.gold)) is not None
        ]
        assert {g.verdict for g in grader.grade(numbers)} == {"wrong"}


@pytest.mark.parametrize("name", ["math500", "olympiadbench"])
def test_golds_that_need_algebra_also_equal_themselves_there(name: str, benchmark_data: Path) -> None:
    """In another form, since equal texts are equal without algebra, and a model seldom hits the very text."""
    problems = [p for p in load(get(name), "test", benchmark_data) if whole_number(p.gold) is None]
    forms = {r"\frac": r"\dfrac", r"\left(": r"\bigl(", r"\right)": r"\bigr)", "(": "( ", ",": " , ", "+": " + {}"}
    with Grader(workers=1, maths_timeout_s=60.0) as grader:
        for old, new in forms.items():
            changed = [(p, f"\\boxed{{{p.gold.replace(old, new)}}}", "stop") for p in problems if "where" not in p.gold]
            unequal = [
                item[1] for item, g in zip(changed, grader.grade(changed), strict=True) if g.verdict != "correct"
            ]
            assert unequal == [], (old, new)
