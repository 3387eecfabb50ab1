"""Simulated benchmarks: how often a gate errs, and how soon a slide over nights is found.

`python -m tests.evaluation.gates.simulation` prints the tables of docs/gates.md, in half an hour.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from evaluation.gates.levels import LEVEL, sample_looks, spend
from evaluation.gates.margin import Differences, differences, margin_test
from evaluation.gates.verdict import Rule, evidence
from evaluation.statistics import mcnemar_exact, paired_difference

NIGHTS, PROBLEMS, WINDOW = 40, 1319, 7
EASY, HARD = (1.6, 0.4), (0.8, 0.5)
"""Beta distributions of how often a model solves a problem: on average 0.8 and 0.62."""


def binary(n: int, gained: int, lost: int) -> Differences:
    """The differences of n single answers of which so many were gained and lost."""
    counts = ((-1.0, lost), (0.0, n - gained - lost), (1.0, gained))
    return Differences(tuple((value, count) for value, count in counts if count), n, 1.0)


def exact_errors(n: int, margin: float, gained: float) -> tuple[float, float]:
    """Chance that `margin_test` claims "above" and "below" at 5 % where the mean is `margin` exactly, and a problem is
    gained with probability `gained`: summed over all outcomes of n single answers, nothing drawn."""
    lost = gained - margin
    same, above, below = 1 - gained - lost, 0.0, 0.0

    def logs(p: float, count: int) -> float:
        return count * math.log(p) if count else 0.0

    def likely(p: float) -> range:
        spread = 6 * math.sqrt(n * p * (1 - p)) + 10 if p else 0.5
        return range(max(0, int(n * p - spread)), min(n, int(n * p + spread)) + 1)

    for b in likely(gained):
        for c in likely(lost):
            if b + c > n:
                continue
            ways = math.lgamma(n + 1) - math.lgamma(b + 1) - math.lgamma(c + 1) - math.lgamma(n - b - c + 1)
            chance = math.exp(ways + logs(gained, b) + logs(lost, c) + logs(same, n - b - c))
            if chance > 1e-9:
                p_above, p_below = margin_test(binary(n, b, c), margin)
                above += chance * (p_above <= LEVEL)
                below += chance * (p_below <= LEVEL)
    return above, below


def two_checkpoints(random: Generator, n: int, k: int, drop: float, how: str) -> tuple[list[float], list[float]]:
    """Shares of right samples of n problems before and after a drop: every problem a little harder (`all`), or a few
    of them lost altogether (`few`)."""
    a, b = HARD
    ability = random.beta(a, b, n)
    lost = drop / (a / (a + b))
    after = ability * (1 - lost) if how == "all" else np.where(random.random(n) < lost, 0.0, ability)
    return (random.binomial(k, ability) / k).tolist(), (random.binomial(k, after) / k).tolist()


def errors(n: int, k: int, margin: float, how: str, rounds: int, seed: int = 0) -> tuple[float, float]:
    """Share of rounds in which `margin_test` claims "above" and "below" at 5 % where the drop is `margin` exactly."""
    random = default_rng(seed)
    tests = [margin_test(differences(*two_checkpoints(random, n, k, margin, how)), -margin) for _ in range(rounds)]
    return sum(above <= LEVEL for above, _ in tests) / rounds, sum(below <= LEVEL for _, below in tests) / rounds


@dataclasses.dataclass(frozen=True)
class Bought:
    """Shares of simulated gates that passed and failed, and the samples of a problem that a gate took on average."""

    passed: float
    failed: float
    samples: float


def bought(
    n: int, looks: Sequence[int], margin: float, drop: float, how: str, rounds: int, *, baseline: int | None = None
) -> Bought:
    """Gates that tolerate a drop of `margin` where one of `drop` is there, and which are judged after so many samples
    of a problem until they are decided, as `pipeline/run/gates/further.py` does.

    Args:
        looks: samples of each problem at each look.
        baseline: samples of each problem that the yardstick has at every look; None: as many as the checkpoint.
    """
    random, (a, b) = default_rng(0), HARD
    passed = failed = samples = 0
    rule = Rule("drop", margin)
    for _ in range(rounds):
        ability = random.beta(a, b, n)
        lost = drop / (a / (a + b))
        after = ability * (1 - lost) if how == "all" else np.where(random.random(n) < lost, 0.0, ability)
        old = random.binomial(baseline or 0, ability)
        new, had = np.zeros(n, np.int64), 0
        for k in looks:
            new = new + random.binomial(k - had, after)
            old = old if baseline else old + random.binomial(k - had, ability)
            had = k
            seen = differences((old / (baseline or k)).tolist(), (new / k).tolist())
            p_pass, p_fail = (p <= LEVEL / len(looks) for p in evidence(seen, rule))
            if p_pass or p_fail:
                break
        passed, failed, samples = passed + p_pass, failed + p_fail, samples + had
    return Bought(passed / rounds, failed / rounds, samples / rounds)


def greedy(random: Generator, lost: int, jitter: int) -> Iterator[np.ndarray[Any, Any]]:
    """Night after night, from the anchor on, right (1) and wrong (0) answers: each night `lost` more problems of those
    that were right are wrong, and `jitter` random answers turn for that night."""
    base = (np.arange(PROBLEMS) < 0.8 * PROBLEMS).astype(np.int64)
    order = random.permutation(np.flatnonzero(base))
    for night in range(NIGHTS + 1):
        tonight = base.copy()
        tonight[order[: lost * night]] = 0
        turned = random.choice(PROBLEMS, jitter, replace=False)
        tonight[turned] = 1 - tonight[turned]
        yield tonight


def sampled(random: Generator, k: int, slide: float) -> Iterator[np.ndarray[Any, Any]]:
    """Night after night, from the anchor on, right samples of k; the chance of each falls so that the score loses
    `slide` a night."""
    ability = random.beta(*EASY, PROBLEMS).astype(np.float32)
    for night in range(NIGHTS + 1):
        chance = ability * np.float32(1 - slide * night / 0.8)
        if k == 1:
            yield (random.random(PROBLEMS, dtype=np.float32) < chance).astype(np.int64)
        else:
            yield random.binomial(k, chance)


@functools.lru_cache(None)
def _mcnemar(gained: int, lost: int) -> float:
    return mcnemar_exact(gained, lost)


def _normal(total: int, squares: int) -> float:
    """Two-sided p-value of a sum by the normal approximation, to leave out what is far from an alarm."""
    return math.erfc(abs(total) / math.sqrt(2 * squares)) if squares else 1.0


def first_alarm(nights: Iterator[np.ndarray[Any, Any]], k: int, *, window: int = WINDOW) -> int | None:
    """The first night on which the anchor or the window says that the score moved, as `pipeline/run/gates/moved.py`
    asks: two tests a night by Holm's method, at the level that the night may spend. `window` 0: the anchor alone."""
    anchor = next(nights)
    past: list[np.ndarray[Any, Any]] = []
    for night, tonight in enumerate(nights, start=1):
        tests = 2 if window and len(past) > 1 else 1
        level = spend(LEVEL, night) / tests  # of the smallest p-value: it decides whether there is any alarm
        d = tonight - anchor
        if k == 1:
            if _mcnemar(int((d > 0).sum()), int((d < 0).sum())) <= level:
                return night
        elif (
            _normal(int(d.sum()), int((d * d).sum())) <= 3 * level
            and paired_difference((anchor / k).tolist(), (tonight / k).tolist()).p_value <= level
        ):
            return night
        if tests == 2:
            recent = np.sum(past[-window:], axis=0)
            d = tonight * len(past[-window:]) - recent
            if _normal(int(d.sum()), int((d * d).sum())) <= 3 * level:
                mean = (recent / len(past[-window:]) / k).tolist()
                if 2 * min(margin_test(differences(mean, (tonight / k).tolist()), 0.0)) <= level:
                    return night
        past.append(tonight)
    return None


def histories(
    make: Callable[[Generator], Iterator[np.ndarray[Any, Any]]], k: int, count: int, window: int = WINDOW, seed: int = 0
) -> list[int | None]:
    """The first alarm of each of so many histories."""
    return [first_alarm(make(default_rng([seed, number])), k, window=window) for number in range(count)]


def _tables() -> None:
    print("| n | k | margin | drop | PASS at the margin | FAIL at the margin |\n|---|---|---|---|---|---|")
    for n, k in ((n, k) for k in (1, 8) for n in (30, 164, 1319)):
        for margin, how in ((0.01, "all"), (0.01, "few"), (0.03, "all"), (0.03, "few"), (0.08, "all"), (0.08, "few")):
            passed, failed = errors(n, k, margin, how, 4000)
            print(
                f"| {n:,} | {k} | {100 * margin:g} | {how} | {100 * passed:.1f} % | {100 * failed:.1f} % |", flush=True
            )
    print("\n| n | samples | yardstick | true drop | PASS | FAIL | samples taken | with all at once: PASS | FAIL |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n, k, most, margin in ((164, 4, 32, 0.03), (1319, 1, 16, 0.01)):
        for drop, how in ((0.0, "all"), (margin, "all"), (margin, "few"), (2 * margin, "all"), (2 * margin, "few")):
            for baseline in (None, k):
                looks = sample_looks(k, most)
                one = bought(n, looks, margin, drop, how, 2000, baseline=baseline)
                fixed = bought(n, [most], margin, drop, how, 2000, baseline=baseline)
                print(
                    f"| {n:,} | {k} to {most} | {baseline or 'as many'} | {100 * drop:g}{f' ({how})' if drop else ''} "
                    f"| {100 * one.passed:.1f} % | {100 * one.failed:.1f} % | {one.samples:.1f} "
                    f"| {100 * fixed.passed:.1f} % | {100 * fixed.failed:.1f} % |",
                    flush=True,
                )
    cases: dict[str, tuple[Callable[[Generator], Iterator[np.ndarray[Any, Any]]], int]] = {
        "greedy, 10 random answers turn, nothing moves": (lambda r: greedy(r, 0, 10), 1),
        "greedy, 7 problems lost a night": (lambda r: greedy(r, 7, 10), 1),
        "greedy, 1 problem lost a night": (lambda r: greedy(r, 1, 10), 1),
        "one sample, nothing moves": (lambda r: sampled(r, 1, 0.0), 1),
        "one sample, 0.5 points lost a night": (lambda r: sampled(r, 1, 0.005), 1),
        "four samples, nothing moves": (lambda r: sampled(r, 4, 0.0), 4),
        "four samples, 0.5 points lost a night": (lambda r: sampled(r, 4, 0.005), 4),
    }
    print("\n| 40 nights of 1,319 problems | histories with an alarm | median night | latest |\n|---|---|---|---|")
    for name, (make, k) in cases.items():
        nights = histories(make, k, 1000)
        found = sorted(night for night in nights if night is not None)
        middle, last = (found[len(found) // 2], found[-1]) if found else ("", "")
        print(f"| {name} | {len(found):,} of {len(nights):,} | {middle} | {last} |", flush=True)


if __name__ == "__main__":
    _tables()
