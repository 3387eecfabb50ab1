"""SVAMP: one set, of which this project's split takes the last problems to test."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.maths import svamp
from evaluation.loading import load
from evaluation.records import RecordError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svamp, "SPLITS", {"train": range(1, 2), "test": range(2, 3)})


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"ID": f"chal-{number}", "Body": "Ann has 3 pens. ", "Question": "How many?", "Answer": 3.0, **changes}


@pytest.mark.usefixtures("small")
def test_the_split_goes_by_the_number_in_any_order_of_rows() -> None:
    rows = [row(2, Answer="14.0"), row(1)]
    [train], [test] = svamp.parse("train", rows), svamp.parse("test", rows)
    assert (train.id, train.gold, test.id, test.gold) == ("chal-0001", "3", "chal-0002", "14")
    assert "problem:\nAnn has 3 pens. How many?\nPlease" in train.prompt


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(1)], "of its own"),
        ([{**row(1), "ID": "x"}], "of its own"),
        ([row(1, Answer=2.5)], "chal-1: the answer 2.5"),
        ([row(1, Body="")], "empty"),
        ([row(1)], "0 problems"),
    ],
)
def test_a_broken_set_is_named(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        svamp.parse("test", rows)


def test_real_file(benchmark_data: Path) -> None:
    train, dev, test = ({p.prompt for p in load(svamp.BENCHMARK, s, benchmark_data)} for s in svamp.SPLITS)
    assert (len(train), len(dev), len(test)) == (500, 200, 300)
    assert len(train | dev | test) == 1000
