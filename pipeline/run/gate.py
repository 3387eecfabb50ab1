"""The checks of a gate, judged: PASS, FAIL or UNDECIDED for each, and for all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from evaluation.gates.margin import Differences
from evaluation.gates.paired import Sampled, pair
from evaluation.gates.verdict import Rule, Verdict, judge, overall
from pipeline.config.gate import BASELINE, CheckSettings
from pipeline.core.errors import GateFailed
from pipeline.run.baseline import Anchor, Scores
from pipeline.run.documents import GateVerdict

CRITICAL = "critical"
COLOURS = {"PASS": "green", "FAIL": "red", "UNDECIDED": "yellow"}
TRAINED = ("base", "sft", "grpo")
"""Checkpoints in the order of training."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """One check with what it is about. Of the yardstick `old` None is missing, and `why` says why."""

    benchmark: str
    checkpoint: str
    against: str
    new: Sampled | None
    old: Sampled | None = None
    rule: Rule | None = None
    max_truncated: float | None = None
    max_no_answer: float | None = None
    tier: Literal["critical", "advisory"] = "critical"
    why: str = ""


def asked_of_run(
    checks: Iterable[CheckSettings],
    scores: Scores,
    anchor: Anchor | None,
    measured: Sequence[str],
    trouble: Sequence[str] = (),
) -> list[Asked]:
    """The checks of a config with a run's scores.

    Args:
        measured: the checkpoints that the run was to measure, in the order of training. A check of another one is left
            out; one of these whose scores are not there asks for what is missing, and cannot pass.
        trouble: what became of scores that are not there, a line each.
    """
    made = []
    there = {checkpoint for checkpoint, _ in scores}
    for check in checks:
        checkpoint = check.checkpoint or (measured[-1] if measured else "")
        if checkpoint not in measured:
            continue
        new, why = scores.get((checkpoint, check.benchmark)), ""
        if checkpoint not in there:
            why = "; ".join([f"the run has no scores of {checkpoint}", *trouble])
        elif new is None:
            why = f"the run has no {check.benchmark} of {checkpoint}"
        old, against = None, check.against
        if check.rule is not None and check.against != BASELINE:
            old = scores.get((check.against, check.benchmark))
            why = why or ("" if old else f"the run has no {check.benchmark} of {check.against}")
        elif check.rule is not None and anchor is None:
            why = why or "there is nothing to compare with: this run is the baseline, or the first of its kind"
        elif check.rule is not None and anchor is not None:
            old, against = anchor.find(checkpoint, check.benchmark), anchor.name
            lacks = f"the baseline {anchor.name} has no {check.benchmark} of {checkpoint}"
            why = why or ("" if old else "; ".join([lacks, *anchor.trouble]))
        limits = {name: getattr(check, name) for name in ("max_truncated", "max_no_answer")}
        made.append(
            Asked(check.benchmark, checkpoint, against, new, old, check.rule, tier=check.tier, why=why, **limits)
        )
    return made


def judge_all(asked: Sequence[Asked], level: float, level_fail: float) -> list[GateVerdict]:
    """The verdict on each. Margins are judged together (`evaluation.gates.verdict.judge`); a bound on a rate is held
    against the rate that was measured, without a test, and one that is broken is a FAIL whatever the margin says.

    Args:
        level: of each PASS.
        level_fail: of all FAILs together.
    """
    pairs: dict[int, Differences] = {}
    reasons: dict[int, str] = {}
    for index, one in enumerate(asked):
        if one.why:
            reasons[index] = one.why
        elif one.rule is not None and one.old is not None and one.new is not None:
            try:
                pairs[index] = pair(one.old, one.new)
            except ValueError as error:
                reasons[index] = str(error)
    rules = [rule for index in pairs if (rule := asked[index].rule) is not None]
    judged = dict(zip(pairs, judge(list(pairs.values()), rules, level, level_fail), strict=True))
    verdicts = []
    for index, one in enumerate(asked):
        numbers, verdict = {}, "PASS" if one.rule is None and not one.why else "UNDECIDED"
        if (found := judged.get(index)) is not None:
            verdict = found.verdict
            numbers = {**dataclasses.asdict(found), "p_fail": found.p_fail_adjusted}
            numbers = {name: value for name, value in numbers.items() if name not in ("verdict", "p_fail_adjusted")}
        broken, unknown = _rates(one)
        if broken:
            verdict = "FAIL"
        elif unknown and verdict == "PASS":
            verdict = "UNDECIDED"
        reason = "; ".join(filter(None, [reasons.get(index, ""), *broken, *unknown]))
        asked_for = {"benchmark": one.benchmark, "checkpoint": one.checkpoint, "tier": one.tier, "asked": _words(one)}
        against = one.against if one.rule is not None else ""
        verdicts.append(
            GateVerdict.model_validate(
                {**asked_for, "against": against, "verdict": verdict, "reason": reason, **numbers}
            )
        )
    return verdicts


def _rates(one: Asked) -> tuple[list[str], list[str]]:
    """In words, the bounds that are broken, and those of which the rate is not known."""
    broken, unknown = [], []
    rates = (("truncated", one.max_truncated), ("no_answer", one.max_no_answer))
    for name, limit in rates:
        if limit is None or one.new is None:
            continue
        rate, what = getattr(one.new, name), {"truncated": "are cut at the token limit", "no_answer": "have no answer"}
        if rate is None:
            unknown.append(f"how many samples {what[name]} is not known of a scores file")
        elif 100 * rate > limit:
            broken.append(f"{100 * rate:.1f} % of the samples {what[name]}, and {limit:g} % may")
    return broken, unknown


def _words(one: Asked) -> str:
    parts = [str(one.rule)] if one.rule is not None else []
    parts += [f"at most {one.max_truncated:g} % cut"] if one.max_truncated is not None else []
    parts += [f"at most {one.max_no_answer:g} % without an answer"] if one.max_no_answer is not None else []
    return ", ".join(parts)


def whole(verdicts: Iterable[GateVerdict]) -> Verdict:
    """The verdict of the gate: of its critical checks, or of all where none is critical."""
    every = list(verdicts)
    counted = [one for one in every if one.tier == CRITICAL] or every
    return overall([one.verdict for one in counted])


def line(one: GateVerdict) -> str:
    """One verdict in words, without its benchmark: what was asked, what was seen, what could be seen."""
    said = [one.asked + (f" against {one.against}" if one.against else "")]
    if one.difference is not None:
        assert one.low is not None
        assert one.high is not None
        assert one.detectable is not None
        said.append(f"{100 * one.difference:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}] of {one.n:,}")
        said.append(
            f"p(pass) = {one.p_pass:.2g}, p(fail) = {one.p_fail:.2g}, detectable {100 * one.detectable:.1f} points"
        )
    if one.reason:
        said.append(one.reason)
    if one.problems_needed is not None:
        said.append(f"{one.problems_needed:,} problems would decide")
    return "; ".join(said)


def check_failed(verdicts: Iterable[GateVerdict], before: str) -> None:
    """Raise `GateFailed` where a critical check failed before the stage `before`."""
    failed = [one for one in verdicts if one.tier == CRITICAL and one.verdict == "FAIL"]
    if failed:
        lines = [f"{one.benchmark}, {one.checkpoint}: {line(one)}" for one in failed]
        raise GateFailed("\n".join(["FAIL, and the run stops here", *lines]), where=f"gate before {before}")
