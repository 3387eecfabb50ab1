"""GSM8K: answers after the mark, demonstrations that end in a box."""

from pathlib import Path

import pytest

from evaluation.benchmarks.maths import gsm8k
from evaluation.graders.extraction import boxed_answer
from evaluation.loading import load
from evaluation.records import RecordError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k, "SIZES", {"train": 1, "test": 1})


@pytest.mark.usefixtures("small")
def test_a_row_becomes_a_problem_and_a_demonstration() -> None:
    row = {"question": "How much?\r\n", "answer": "He pays 2*600 = $<<2*600=1200>>1200.\nMore: 34.\n#### 1,234"}
    problem = gsm8k.parse("train", [row])[0]
    assert (problem.id, problem.gold) == ("train-0001", "1234")
    assert "problem:\nHow much?\nPlease" in problem.prompt
    assert gsm8k.demonstrate([problem], 0) == ["He pays 2*600 = $1200.\nMore: 34.\n\\boxed{1234}"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("no mark 5", "gsm8k, train row 1: the answer has no solution"),
        ("#### 5", "no solution"),
        ("a\n#### five", "'five' is not a whole"),
    ],
)
def test_a_broken_row_is_named(answer: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        gsm8k.parse("train", [{"question": "?", "answer": answer}])


def test_real_files(benchmark_data: Path) -> None:
    test, train = (load(gsm8k.BENCHMARK, split, benchmark_data) for split in ("test", "train"))
    assert (len(test), len(train)) == (1319, 7473)
    demonstrations = gsm8k.demonstrate(train, 0)
    assert not any("<<" in text or "####" in text for text in demonstrations)
    assert [boxed_answer(text) for text in demonstrations] == [problem.gold for problem in train]
