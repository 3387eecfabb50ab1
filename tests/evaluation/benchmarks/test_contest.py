"""AIME and AMC: ids from links, answers as integers, whole sets only."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.maths import aime24, amc23
from evaluation.loading import load
from evaluation.records import RecordError


def aime_rows(hub: bool = False) -> list[dict[str, Any]]:
    """Thirty made-up rows in the form of the hub's data set or of the local file."""
    rows = []
    for contest in ("II", "I"):  # out of order on purpose
        for number in range(1, 16):
            link = f"https://artofproblemsolving.com/wiki/index.php/2024_AIME_{contest}_Problems/Problem_{number}"
            row: dict[str, Any] = {"problem": f"What is {number}?", "answer": f"{number:03d}", "url": link}
            rows.append(
                row
                | ({"id": 60 + number, "solution": "...", "year": "2024"} if hub else {"id": f"x-{contest}-{number}"})
            )
    return rows


def test_hub_and_local_rows_give_the_same_problems() -> None:
    problems = aime24.BENCHMARK.parse("test", aime_rows(hub=True))
    assert problems == aime24.BENCHMARK.parse("test", aime_rows())
    assert [problem.id for problem in problems[:2]] == ["aime24-I-01", "aime24-I-02"]
    assert problems[-1].id == "aime24-II-15"


def test_prompt_is_the_papers_instruction() -> None:
    assert aime24.BENCHMARK.parse("test", aime_rows())[4].prompt == (
        "You are a helpful and accurate assistant for solving the following math problem:\nWhat is 5?\n"
        "Please reason step by step, and put the correct answer within \\boxed{} at last."
    )


@pytest.mark.parametrize(
    ("written", "gold"), [("073", "73"), ("000", "0"), (27.0, "27"), ("27.0", "27"), (9, "9"), ("1,234", "1234")]
)
def test_answers_become_plain_integers(written: object, gold: str) -> None:
    rows = aime_rows()
    rows[15]["answer"] = written
    assert aime24.BENCHMARK.parse("test", rows)[0].gold == gold


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "7.5"}, "aime24, row 1: the answer 7.5 is not a whole number"),
        ({"answer": None}, "aime24, row 1: the answer None"),
        ({"answer": "x+1"}, "'x\\+1' is not a whole number"),
        ({"problem": " "}, "aime24, row 1: column 'problem' is empty"),
        ({"problem": None}, "aime24, row 1: column 'problem' is empty"),
        ({"url": "https://example.org/2023_AIME_I_Problems/Problem_1"}, "is not one of a 2024 contest"),
    ],
)
def test_a_broken_row_is_named(change: dict[str, Any], message: str) -> None:
    rows = aime_rows()
    rows[0] |= change
    with pytest.raises(RecordError, match=message):
        aime24.BENCHMARK.parse("test", rows)


def test_an_incomplete_set_or_a_repeated_problem_is_refused() -> None:
    with pytest.raises(RecordError, match="29 problems, the complete set has 30"):
        aime24.BENCHMARK.parse("test", aime_rows()[1:])
    with pytest.raises(RecordError, match="aime24-I-01 occurs twice"):
        aime24.BENCHMARK.parse("test", [*aime_rows()[:-1], aime_rows()[15]])


def test_rows_without_links_keep_their_own_ids() -> None:
    rows = [{"id": number, "question": f"{number}?", "answer": float(number)} for number in range(40)]
    problems = amc23.BENCHMARK.parse("test", rows)
    assert [(problem.id, problem.gold) for problem in problems[:2]] == [("amc23-0", "0"), ("amc23-1", "1")]


def test_real_files(benchmark_data: Path) -> None:
    for benchmark, size in ((aime24.BENCHMARK, 30), (amc23.BENCHMARK, 40)):
        problems = load(benchmark, "test", benchmark_data)
        assert len(problems) == size == benchmark.size
        assert all(problem.gold == str(int(problem.gold)) for problem in problems)
    folder = benchmark_data / "aime24"
    # An independent copy, from before any normalisation: floats, leading zeros and other ids.
    raw = [json.loads(line) for line in (benchmark_data / "amc23" / "qwen_test.jsonl").read_text().splitlines()]
    assert amc23.BENCHMARK.parse("test", raw) == load(amc23.BENCHMARK, "test", benchmark_data)
    raw = [json.loads(line) for line in (folder / "qwen_test.jsonl").read_text().splitlines()]
    assert aime24.BENCHMARK.parse("test", raw) == load(aime24.BENCHMARK, "test", benchmark_data)
