"""SVAMP (Patel et al., 2021, arXiv:2103.07191): one-step word problems, varied so that key words alone mislead.

The set is published as one of 1,000, `chal-1` to `chal-1000`. The split is this project's: 500 to train on, 200
to choose settings on, and the last 300 to test.
"""

import ast
import math
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
    """The data set's own equations, one operation a line, ending in the boxed answer.

    Raises:
        RecordError: a problem has no equation, one that cannot be computed, or one that does not give its answer.
    """
    return [_demonstration(problem) for problem in problems]


def _demonstration(problem: Problem) -> str:
    where = f"{NAME}, {problem.id}"
    if not (equation := problem.meta["equation"]):
        raise RecordError(f"{where}: there is no Equation to demonstrate with")
    try:
        lines, value = steps(equation)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError) as error:
        raise RecordError(f"{where}: the equation {equation!r:.80} cannot be computed: {error!s:.80}") from error
    if not math.isclose(value, float(problem.gold)):
        raise RecordError(f"{where}: the equation {equation!r:.80} gives {value:.15g}, the answer is {problem.gold}")
    return "\n".join([*lines, f"\\boxed{{{problem.gold}}}"])


def steps(equation: str) -> tuple[list[str], float]:
    """`( ( 8.0 + 3.0 ) - 2.0 )` as `8 + 3 = 11` and `11 - 2 = 9`, and its value.

    Raises:
        SyntaxError, ValueError, ArithmeticError, RecursionError: something else than numbers, the four operations and
            brackets, a division by 0, or more than can be computed.
    """
    lines: list[str] = []

    def value_of(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return float(node.value)
        if not isinstance(node, ast.BinOp) or type(node.op) not in OPERATIONS:
            raise ValueError(ast.unparse(node))
        sign, compute = OPERATIONS[type(node.op)]
        left, right = value_of(node.left), value_of(node.right)
        value = float(compute(left, right))
        lines.append(f"{left:.15g} {sign} {right:.15g} = {value:.15g}")
        return value

    value = value_of(ast.parse(equation.strip(), mode="eval").body)
    return lines, value


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=len(SPLITS["test"]),
    digest="ef34f2e97edb",
    sources=dict.fromkeys(SPLITS, Source(local=f"{NAME}/{NAME}.jsonl", hub="ChilleD/SVAMP", hub_split="train+test")),
    parse=parse,
    demonstrate=demonstrate,
)
