"""The verdicts of a gate: PASS, FAIL or UNDECIDED, with all that one needs to judge them."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from evaluation.gates.levels import LEVEL, holm
from evaluation.gates.margin import Differences, detectable, margin_interval, margin_test, problems_needed

Verdict = Literal["PASS", "FAIL", "UNDECIDED"]
Kind = Literal["drop", "change", "exceed"]
"""`drop`: it may fall by so much. `change`: it may move by so much, either way. `exceed`: it has to gain so much."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is asked of one difference; `margin` is a share, at least 0 and above 0 for `change`."""

    kind: Kind
    margin: float

    def __str__(self) -> str:
        points = f"{100 * self.margin:g} points"
        said = {"drop": "may drop by", "change": "may change by", "exceed": "must gain more than"}
        return f"{said[self.kind]} {points}"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a gate says of one difference.

    Attributes:
        verdict: PASS where it is shown that the rule is kept (`p_pass` at most `level`), FAIL where it is shown that
            it is broken (`p_fail_adjusted` at most `level_fail`), else UNDECIDED.
        difference, low, high: after minus before, a share, with its 95 % interval.
        n: number of problems.
        p_pass: of the hypothesis that the rule is broken or just kept; small where it is kept. This and the next two
            are times the number of looks, where there may be several.
        p_fail: of the hypothesis that the rule is kept.
        p_fail_adjusted: the same by Holm's method, over all that is judged at once.
        level, level_fail: what the two are held against.
        detectable: minimum detectable effect, a share: so far from the margin a true difference passes 4 times of 5.
        problems_needed: of an UNDECIDED one, the problems that would decide 4 times of 5 if the difference is as seen;
            None where it lies on the margin.
    """

    verdict: Verdict
    difference: float
    low: float
    high: float
    n: int
    p_pass: float
    p_fail: float
    p_fail_adjusted: float
    level: float
    level_fail: float
    detectable: float
    problems_needed: int | None = None


def evidence(seen: Differences, rule: Rule) -> tuple[float, float]:
    """(`p_pass`, `p_fail`) of a `Judgement`.

    `drop` and `exceed` are one-sided tests of one margin. For `change`, PASS takes two of them, both of which have to
    be small (Schuirmann, 1987), and FAIL is two-sided.
    """
    if rule.kind == "change":
        (above_low, below_low), (above_high, below_high) = (margin_test(seen, m) for m in (-rule.margin, rule.margin))
        return max(above_low, below_high), min(1.0, 2 * min(below_low, above_high))
    return margin_test(seen, rule.margin if rule.kind == "exceed" else -rule.margin)


def judge(
    seen: Sequence[Differences],
    rules: Sequence[Rule],
    level: float = LEVEL,
    level_fail: float = LEVEL,
    looks: Sequence[int] | None = None,
) -> list[Judgement]:
    """Judge several differences at once.

    A gate passes only where all pass, so each PASS may be claimed at `level` (an intersection-union test: Berger,
    1982), while any one FAIL is an alarm: those are claimed at `level_fail` for all of them together (Holm).

    Args:
        seen: of each benchmark, from `differences`.
        rules: one for each.
        looks: of each, how often it may be judged at most, with more samples each time; None: once. A claim at any look
            stands, so each p-value counts times as much.
    """
    looks = looks or [1] * len(seen)
    p_values = [
        tuple(min(1.0, times * p) for p in evidence(d, rule)) for d, rule, times in zip(seen, rules, looks, strict=True)
    ]
    adjusted = holm([p_fail for _, p_fail in p_values])
    made = []
    for d, rule, times, (p_pass, p_fail), p_holm in zip(seen, rules, looks, p_values, adjusted, strict=True):
        verdict: Verdict = "FAIL" if p_holm <= level_fail else "PASS" if p_pass <= level else "UNDECIDED"
        low, high = margin_interval(d)
        effect = detectable(d, level / times, side=0)
        margins = {"drop": (-rule.margin,), "exceed": (rule.margin,), "change": (-rule.margin, rule.margin)}[rule.kind]
        distance = min(abs(d.mean - margin) for margin in margins)
        needed = problems_needed(d.n, effect, distance) if verdict == "UNDECIDED" else None
        made.append(
            Judgement(verdict, d.mean, low, high, d.n, p_pass, p_fail, p_holm, level, level_fail, effect, needed)
        )
    return made


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """FAIL where one fails, else UNDECIDED where one is or there are none, else PASS."""
    return "FAIL" if "FAIL" in verdicts else "PASS" if verdicts and set(verdicts) == {"PASS"} else "UNDECIDED"
