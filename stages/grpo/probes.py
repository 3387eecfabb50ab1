"""Completions that try to be rewarded without solving the problem, and what a config's rewards give them.

Loads no model: a byte is a token here.
"""

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path

from evaluation.records import Problem
from stages.grpo.rewards import Rewards, make_grader
from stages.grpo.settings import GrpoSettings

PENS = "A box holds 4 rows of 17 pens. How many pens? Put the answer in \\boxed{}."
DOUBLE = "Write a function f(x) that doubles x.\nassert f(3) == 6"
TESTS = {"entry_point": "f", "setup": "", "asserts": ["assert f(3) == 6", "assert f(-10) == -20"]}
SUM = "Read two numbers from standard input and print their sum.\nInput:\n3 4\nOutput:\n7"
CASES = {
    "cases": [{"input": "3 4\n", "output": "7\n"}, {"input": "-30 10\n", "output": "-20\n"}],
    "time_limit_s": 1.0,
}
PROBLEMS = {
    "maths": Problem("probe", "probes", "maths", PENS, "68"),
    "code": Problem("probe", "probes", "code", DOUBLE, "def f(x):\n    return 2 * x", TESTS),
    "stdin": Problem("probe", "probes", "code", SUM, "", CASES),
}
HONEST = "honest solution"
COMPLETIONS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
"""Completions of each kind of problem by name: `HONEST` first, then the tricks."""
END = 256


@dataclasses.dataclass(frozen=True)
class Probe:
    """What one completion was given."""

    kind: str
    name: str
    verdict: str
    reward: float
    fooled: bool
    """A trick that the grader calls correct, or rewarded like the honest solution; or that called anything else."""


def probe(settings: GrpoSettings, kinds: Sequence[str] = ("maths", "code", "stdin")) -> list[Probe]:
    """Give every completion to the rewards of these settings, the honest solution of each kind first.

    Raises:
        StageError: a reward function of the user's own cannot be loaded, or returns what is no reward.
    """
    probes: list[Probe] = []
    with make_grader(settings) as grader:
        for kind in kinds:
            problem, texts = PROBLEMS[kind], list(COMPLETIONS[kind].values())
            rewards = Rewards([problem], grader, lambda ids: (bytes(ids[:-1]).decode(), "stop"))
            functions, weights = rewards.parts(settings)
            call = {
                "completion_ids": [[*text.encode(), END] for text in texts],
                "problem": [0] * len(texts),
                "log_metric": lambda name, value: None,
            }
            parts = zip(*(function(**call) for function in functions), strict=True)
            totals = [sum(weight * part for weight, part in zip(weights, values, strict=True)) for values in parts]
            verdicts = [graded.verdict for graded in grader.grade([(problem, text, "stop") for text in texts])]
            for name, verdict, total in zip(COMPLETIONS[kind], verdicts, totals, strict=True):
                right = verdict == "correct"
                fooled = not right if name == HONEST else right or total >= totals[0]
                probes.append(Probe(kind, name, verdict, total, fooled))
    return probes
