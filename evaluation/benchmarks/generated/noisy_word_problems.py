"""The word problems with demonstrations as noisy as scraped ones, for comparing SFT methods.

Problems, prompt and grader are those of `word_problems`; only the SFT targets differ. Every demonstration is worked, a
share of them has a wrong step that is carried to a wrong answer, and between the steps are remarks that have nothing to
do with the problem. A method that can tell useful tokens from useless ones has something to gain here; one that cannot
learns the chatter too. `configs/ablation-cpu.yaml` uses it.
"""

import dataclasses

from evaluation.benchmarks.base import Benchmark
from evaluation.benchmarks.generated import word_problems
from evaluation.benchmarks.generated.synthetic import stream
from evaluation.records import Problem

NAME = "noisy_word_problems"
SLIP_SHARE = 0.3
"""Share of demonstrations with one arithmetic slip, carried to a wrong answer."""
REMARK_SHARE = 0.4
"""Probability of a remark after each step."""
REMARK_WORDS = (2, 6)
"""Fewest and most words of a remark."""
WORDS = [
    "well", "so", "now", "then", "maybe", "again", "later", "soon", "here", "there", "this", "that", "it", "they", "we",
    "you", "nice", "good", "fine", "rain", "sun", "day", "night", "house", "tree", "road", "river", "song", "game",
    "story", "friend", "dinner", "window", "garden", "morning", "evening",
]  # fmt: skip


def generate(split: str, n: int, seed: int) -> list[Problem]:
    """The problems of `word_problems`, under this name."""
    return [dataclasses.replace(problem, benchmark=NAME) for problem in word_problems.generate(split, n, seed)]


def demonstrate(problems: list[Problem], seed: int) -> list[str]:
    """One worked demonstration for each problem, with remarks between its steps and, in some, a slip."""
    demonstrations = []
    for problem in problems:
        spec = word_problems.spec_of(dataclasses.replace(problem, benchmark=word_problems.NAME))
        rng = stream(NAME, "demonstrate", seed, problem.id)
        lines, value = spec.working(rng if rng.random() < SLIP_SHARE else None)
        shown = []
        for line in lines:
            shown.append(line)
            if rng.random() < REMARK_SHARE:
                shown.append(" ".join(rng.choices(WORDS, k=rng.randint(*REMARK_WORDS))))
        steps = "\n".join(shown)
        demonstrations.append(f"<think>\n{steps}\n</think>\n\\boxed{{{value}}}")
    return demonstrations


BENCHMARK = Benchmark(name=NAME, kind="maths", size=None, generate=generate, demonstrate=demonstrate)
