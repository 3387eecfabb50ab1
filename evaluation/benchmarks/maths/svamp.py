"""SVAMP (Patel et al., 2021, arXiv:2103.07191): one-step word problems, varied so that key words alone mislead.

The set is published as one of 1,000, `chal-1` to `chal-1000`. The split is this project's: 500 to train on, 200
to choose settings on, and the last 300 to test.
"""

import ast
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, integer, text
from evaluation.records import Problem, RecordError

NAME = "svamp"
OPERATIONS = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
SPLITS = {"train": range(1, 501), "dev": range(501, 701), "test": range(701, 1001)}


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: ID (`chal-7`), Body, Question, Answer (a whole number); Equation, for demonstrations. All
    1,000 rows, in any order.
    """
    problems = {}
    for row in rows:
        name = text(row, ("ID",), NAME)
        if not (number := name.removeprefix("chal-")).isdecimal() or int(number) in problems:
            raise RecordError(f"{NAME}: the ID {name!r} is not `chal-` and a number of its own")
        question = f"{text(row, ('Body',), name).strip()} {text(row, ('Question',), name).strip()}"
        gold = integer(row.get("Answer"), f"{NAME}, {name}")
        problems[int(number)] = Problem(
            id=f"chal-{int(number):04d}",
            benchmark=NAME,
            kind="maths",
            prompt=maths_prompt(question),
            gold=gold,
            meta={"equation": str(row.get("Equation") or "")},
        )
    of_split = [problem for number, problem in sorted(problems.items()) if number in SPLITS[split]]
    return check_set(of_split, len(SPLITS[split]), f"{NAME} {split}")


def demonstrate(problems: list[Problem], seed: int) -> list[str]:
    """The data set's own equations, one operation a line, ending in the boxed answer."""
    return ["\n".join([*steps(problem.meta["equation"]), f"\\boxed{{{problem.gold}}}"]) for problem in problems]


def steps(equation: str) -> list[str]:
    """`( ( 8.0 + 3.0 ) - 2.0 )` as `8 + 3 = 11` and `11 - 2 = 9`.

    Raises:
        RecordError: something else than numbers, the four operations and brackets, or a division by 0.
    """
    lines: list[str] = []

    def value_of(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if not isinstance(node, ast.BinOp) or type(node.op) not in OPERATIONS:
            raise ValueError(ast.unparse(node))
        sign, compute = OPERATIONS[type(node.op)]
        left, right = value_of(node.left), value_of(node.right)
        value = compute(left, right)
        lines.append(f"{left:.15g} {sign} {right:.15g} = {value:.15g}")
        return float(value)

    try:
        value_of(ast.parse(equation, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError) as error:
        raise RecordError(f"{NAME}: the equation {equation!r} cannot be computed: {error}") from error
    return lines


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=len(SPLITS["test"]),
    digest="ef34f2e97edb",
    sources=dict.fromkeys(SPLITS, Source(local=f"{NAME}/{NAME}.jsonl", hub="ChilleD/SVAMP", hub_split="train+test")),
    parse=parse,
    demonstrate=demonstrate,
)
