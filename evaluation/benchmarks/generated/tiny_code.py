"""Very small programming tasks, made from a seed: "Write a Python function f(x) that returns x plus 17, then times 3."

The demonstrations are of mixed quality: half, and most of the longer ones, are one-line expressions without
parentheses, which are wrong wherever a product follows a sum (`return x + 17 * 3`). The others go step by step and name
each step in a comment first, as a program shows its work. Supervised fine-tuning imitates both; reinforcement learning
finds that the step-by-step form passes the tests.
"""

import dataclasses
import random

from evaluation.benchmarks.base import Benchmark
from evaluation.benchmarks.generated.synthetic import digest, draw_distinct, stream
from evaluation.records import Problem

NAME = "tiny_code"
PHRASES = {"+": "plus {}", "-": "minus {}", "*": "times {}"}
LENGTHS = (2, 3)
LARGEST = {"+": 20, "-": 20, "*": 9}
TEST_INPUTS = (3, 10, -4)
ONE_LINE_SHARE = {2: 0.5, 3: 0.75}
"""Share of demonstrations written as one expression without parentheses, by number of operations. Over half of all, so
that a greedy completion after SFT is one in most cases, and not by the toss of a coin."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """One task: operations (operator, operand) that the function applies to its argument, in order."""

    steps: tuple[tuple[str, int], ...]

    @property
    def computation(self) -> str:
        """What is computed; decides the split."""
        return " ".join(f"{operator}{operand}" for operator, operand in self.steps)

    @property
    def question(self) -> str:
        """The task in words."""
        steps = ", then ".join(PHRASES[operator].format(operand) for operator, operand in self.steps)
        return f"Write a Python function f(x) that returns x {steps}."

    def apply(self, value: int) -> int:
        """What a right function returns for `value`."""
        for operator, operand in self.steps:
            value = {"+": value + operand, "-": value - operand, "*": value * operand}[operator]
        return value

    @property
    def stepwise(self) -> str:
        """A right program: each operation in words, then as a statement."""
        body = "".join(
            f"    # {PHRASES[operator].format(operand)}\n    x = x {operator} {operand}\n"
            for operator, operand in self.steps
        )
        return f"def f(x):\n{body}    return x"

    @property
    def one_line(self) -> str:
        """The operations strung together without parentheses: wrong where a product follows a sum."""
        return "def f(x):\n    return x" + "".join(f" {operator} {operand}" for operator, operand in self.steps)


def draw_spec(rng: random.Random) -> Spec:
    """A random task of any split; its operators differ."""
    operators = rng.sample(sorted(PHRASES), rng.choice(LENGTHS))
    return Spec(tuple((operator, rng.randint(2, LARGEST[operator])) for operator in operators))


def to_problem(spec: Spec, split: str) -> Problem:
    """The benchmark record of a spec; `meta` holds the spec itself."""
    return Problem(
        id=f"{split}-{digest(spec.computation)}",
        benchmark=NAME,
        kind="code",
        prompt=spec.question,
        gold=spec.stepwise,
        tests={
            "entry_point": "f",
            "setup": "",
            "asserts": [f"assert f({value}) == {spec.apply(value)}" for value in TEST_INPUTS],
        },
        meta={"steps": [list(step) for step in spec.steps]},
    )


def spec_of(problem: Problem) -> Spec:
    """The spec that `to_problem` stored in `meta`. Raises `ValueError` for a problem of another benchmark."""
    if problem.benchmark != NAME:
        raise ValueError(f"{problem.id} is a problem of {problem.benchmark}, not of {NAME}")
    return Spec(tuple((operator, operand) for operator, operand in problem.meta["steps"]))


def generate(split: str, n: int, seed: int) -> list[Problem]:
    """`n` distinct tasks of `split`; they occur in no other split."""
    return [to_problem(spec, split) for spec in draw_distinct(draw_spec, NAME, split, n, seed)]


def fenced(program: str) -> str:
    """A completion that holds one program."""
    return f"```python\n{program}\n```"


def demonstrate(problems: list[Problem], seed: int) -> list[str]:
    """One demonstration for each task: step by step, or as one line that may be wrong."""
    demonstrations = []
    for problem in problems:
        spec, rng = spec_of(problem), stream(NAME, "demonstrate", seed, problem.id)
        demonstrations.append(
            fenced(spec.one_line if rng.random() < ONE_LINE_SHARE[len(spec.steps)] else spec.stepwise)
        )
    return demonstrations


BENCHMARK = Benchmark(name=NAME, kind="code", size=None, generate=generate, demonstrate=demonstrate)
