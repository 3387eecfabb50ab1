"""SVAMP: one set, of which this project's split takes the last problems to test."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.maths import svamp
from evaluation.loading import load
from evaluation.records import Problem, RecordError


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


@pytest.mark.parametrize(
    ("equation", "steps"),
    [
        ("( 8.0 - 3.0 )", ["8 - 3 = 5"]),
        ("( 1.0 - ( 12.0 / 48.0 ) )", ["12 / 48 = 0.25", "1 - 0.25 = 0.75"]),
        ("( ( 893835.0 + 644997.0 ) * 2.0 )", ["893835 + 644997 = 1538832", "1538832 * 2 = 3077664"]),
        ("7.0", []),
    ],
)
def test_an_equation_is_taken_one_operation_at_a_time(equation: str, steps: list[str]) -> None:
    assert svamp.steps(equation)[0] == steps


def problem(equation: str, answer: str = "5") -> Problem:
    return Problem(
        id="chal-0007", benchmark="svamp", kind="maths", prompt="?", gold=answer, meta={"equation": equation}
    )


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("", "there is no Equation"),
        *(
            (equation, "the equation .* cannot be computed")
            for equation in (
                "( 1.0 / 0.0 )",
                "( 2.0 ** 9.0 )",
                "x + 1",
                "( 1.0",
                "'a' * 3",
                "True + 4",
                "\0",
                "()",
                "5,",
            )
        ),
        ("1" * 400 + " - 5", "cannot be computed: int too large"),
        ("1" + " + 1" * 9999, "cannot be computed: maximum recursion depth"),
        ("( 2.0 + 4.0 )", r"gives 6, the answer is 5"),
        ("7.0", "gives 7, the answer is 5"),
        ("( 1e308 * 10.0 )", "gives inf"),
        ("( 1e999 - 1e999 )", "gives nan"),
    ],
)
def test_an_equation_that_does_not_give_the_answer_is_named_with_its_problem(equation: str, message: str) -> None:
    assert svamp.demonstrate([problem(" 3 + 2")], 0) == ["3 + 2 = 5\n\\boxed{5}"]
    with pytest.raises(RecordError, match=f"svamp, chal-0007: .*{message}") as raised:
        svamp.demonstrate([problem(equation)], 0)
    assert len(str(raised.value)) < 250


def test_demonstrations_end_in_the_answer_that_their_steps_give(benchmark_data: Path) -> None:
    problems = load(svamp.BENCHMARK, "train", benchmark_data)
    for problem, text in zip(problems, svamp.demonstrate(problems, 0), strict=True):
        *_, last, box = text.split("\n")
        assert (last.split(" = ")[1], box) == (problem.gold, f"\\boxed{{{problem.gold}}}")


def test_real_file(benchmark_data: Path) -> None:
    train, dev, test = ({p.prompt for p in load(svamp.BENCHMARK, s, benchmark_data)} for s in svamp.SPLITS)
    assert (len(train), len(dev), len(test)) == (500, 200, 300)
    assert len(train | dev | test) == 1000
