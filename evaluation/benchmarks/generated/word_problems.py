"""Word problems of two to four operations, made from a seed: "Mia has 15 coins, buys 7, loses 3, doubles them."

They are easy enough that a model of half a million parameters, trained for half a minute, can solve them by writing
down the steps, and too hard for it without. The demonstrations are of mixed quality, as scraped ones are: for some
kinds of problem most of them give the answer without working. Supervised fine-tuning imitates that; reinforcement
learning finds that working pays.
"""

import dataclasses
import random
from typing import Any

from evaluation.benchmarks.base import Benchmark
from evaluation.benchmarks.generated.synthetic import digest, draw_distinct, stream
from evaluation.records import Problem

NAME = "word_problems"
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Sam", "Zoe", "Max")
OBJECTS = ("coins", "books", "cards", "pens", "shells", "stamps")
VERBS: dict[str, tuple[str, ...]] = {
    "+": ("buys", "finds", "wins", "gets"),
    "-": ("loses", "sells", "drops", "lends"),
    "*": ("doubles", "triples"),
}
FACTORS = {"doubles": 2, "triples": 3}
LARGEST = 30
"""The largest value of any step, so that every number is one token of the demo's tokenizer."""
LENGTHS = (2, 3, 4)

TERSE_KINDS = {2: 3, 3: 3, 4: 4}
"""Of the six objects, for how many a problem of this many operations is demonstrated mostly without working."""
TERSE_SHARE = {True: 0.8, False: 0.2}
"""Share of answer-only demonstrations for the kinds that are mostly terse, and for the others."""
SLIP_SHARE = 0.05
"""Share of worked demonstrations with one arithmetic slip, carried to a wrong answer."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation: a verb, its operator and its operand."""

    verb: str
    operator: str
    operand: int

    @property
    def words(self) -> str:
        """As the problem and the working name it: `buys 7`, `doubles`."""
        return self.verb if self.operator == "*" else f"{self.verb} {self.operand}"

    def apply(self, value: int) -> int:
        """The value after this operation."""
        return {"+": value + self.operand, "-": value - self.operand, "*": value * self.operand}[self.operator]


@dataclasses.dataclass(frozen=True)
class Spec:
    """One problem, before it is put into words."""

    name: str
    object: str
    start: int
    steps: tuple[Step, ...]

    @property
    def computation(self) -> str:
        """What is computed, without the wording; decides the split."""
        return " ".join([str(self.start), *(f"{step.operator}{step.operand}" for step in self.steps)])

    @property
    def question(self) -> str:
        """The problem's text, without the instruction about the answer's form."""
        events = ", ".join(f"{step.words} them" if step.operator == "*" else step.words for step in self.steps)
        return f"{self.name} has {self.start} {self.object}, {events}. How many {self.object} now?"

    @property
    def answer(self) -> int:
        """The value after all steps."""
        value = self.start
        for step in self.steps:
            value = step.apply(value)
        return value

    @property
    def mostly_terse(self) -> bool:
        """Whether demonstrations of this kind of problem (object and length) are mostly answers without working."""
        return (OBJECTS.index(self.object) + len(self.steps)) % len(OBJECTS) < TERSE_KINDS[len(self.steps)]

    def working(self, slip: random.Random | None = None) -> tuple[list[str], int]:
        """The lines of the working and the answer they lead to; with `slip`, one line's result is off by one."""
        wrong = slip.randrange(len(self.steps)) if slip else None
        lines, value = [], self.start
        for index, step in enumerate(self.steps):
            result = step.apply(value)
            if slip and index == wrong:
                result += 1 if result == 0 else slip.choice((-1, 1))
            lines.append(f"- {step.words}: {value}{step.operator}{step.operand}={result}")
            value = result
        return lines, value


def draw_spec(rng: random.Random) -> Spec:
    """A random problem of any split; the values after each step lie in 0..`LARGEST`."""
    length = rng.choice(LENGTHS)
    while True:
        start = value = rng.randint(2, 20)
        steps: list[Step] = []
        verbs = {operator: list(verbs) for operator, verbs in VERBS.items()}
        for _ in range(length):
            operator = rng.choice("++--*")
            verb = rng.choice(verbs[operator]) if verbs[operator] else ""
            step = Step(verb, operator, FACTORS[verb] if verb in FACTORS else rng.randint(2, 9))
            value = step.apply(value)
            if not verb or not 0 <= value <= LARGEST:
                break
            verbs[operator].remove(verb)
            steps.append(step)
        if len(steps) == length:
            return Spec(rng.choice(NAMES), rng.choice(OBJECTS), start, tuple(steps))


def to_problem(spec: Spec, split: str) -> Problem:
    """The benchmark record of a spec; `meta` holds the spec itself."""
    text = spec.question
    return Problem(
        id=f"{split}-{digest(text)}",
        benchmark=NAME,
        kind="maths",
        prompt=f"{text} Put the answer in \\boxed{{}}.",
        gold=str(spec.answer),
        meta=dataclasses.asdict(spec) | {"steps": [[step.verb, step.operator, step.operand] for step in spec.steps]},
    )


def spec_of(problem: Problem) -> Spec:
    """The spec that `to_problem` stored in `meta`. Raises `ValueError` for a problem of another benchmark."""
    if problem.benchmark != NAME:
        raise ValueError(f"{problem.id} is a problem of {problem.benchmark}, not of {NAME}")
    meta: dict[str, Any] = problem.meta
    return Spec(meta["name"], meta["object"], meta["start"], tuple(Step(*step) for step in meta["steps"]))


def generate(split: str, n: int, seed: int) -> list[Problem]:
    """`n` distinct problems of `split`; their computations occur in no other split."""
    return [to_problem(spec, split) for spec in draw_distinct(draw_spec, NAME, split, n, seed)]


def worked(spec: Spec, slip: random.Random | None = None) -> str:
    """A completion with every step written down."""
    lines, value = spec.working(slip)
    steps = "\n".join(lines)
    return f"<think>\n{steps}\n</think>\n\\boxed{{{value}}}"


def demonstrate(problems: list[Problem], seed: int) -> list[str]:
    """One demonstration for each problem: worked, worked with a slip, or the bare answer."""
    demonstrations = []
    for problem in problems:
        spec, rng = spec_of(problem), stream(NAME, "demonstrate", seed, problem.id)
        if rng.random() < TERSE_SHARE[spec.mostly_terse]:
            demonstrations.append(f"\\boxed{{{spec.answer}}}")
        else:
            demonstrations.append(worked(spec, rng if rng.random() < SLIP_SHARE else None))
    return demonstrations


BENCHMARK = Benchmark(name=NAME, kind="maths", size=None, generate=generate, demonstrate=demonstrate)
