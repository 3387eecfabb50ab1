"""The checks of a gate, judged: PASS, FAIL or UNDECIDED for each, and for all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Literal

from evaluation.gates.levels import sample_looks
from evaluation.gates.margin import Differences
from evaluation.gates.paired import Sampled, pair
from evaluation.gates.verdict import Rule, Verdict, judge, overall
from pipeline.config.gate import BASELINE, CheckSettings
from pipeline.core.errors import GateFailed
from pipeline.run.documents import GateVerdict
from pipeline.run.gates.baseline import Anchor, Scores

CRITICAL = "critical"
COLOURS = {"PASS": "green", "FAIL": "red", "UNDECIDED": "yellow"}
Further = dict[tuple[str, str, int], Sampled]
"""(checkpoint, benchmark, samples of each problem) -> scores of more samples than the run's own. A baseline's
checkpoint is `RUN:sft`."""
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
    looks: int = 1
    """How often it may be judged, with more samples each time."""
    series: tuple[tuple[Sampled, Sampled], ...] = ()
    """(new, old) at each look there has been; the first is that of `new` and `old`. Empty: there is that alone."""

    def at(self, look: int) -> tuple[Sampled | None, Sampled | None]:
        """What it is judged by at look number `look`, from 0; after its last one, at that."""
        return self.series[min(look, len(self.series) - 1)] if self.series else (self.new, self.old)


def asked_of_run(
    checks: Iterable[CheckSettings],
    scores: Scores,
    anchor: Anchor | None,
    measured: Sequence[str],
    trouble: Sequence[str] = (),
    further: Further | None = None,
    growing: Container[str] = (),
    more_samples: int | None = None,
    lost: str = "",
) -> list[Asked]:
    """The checks of a config with a run's scores.

    Args:
        measured: the checkpoints that the run was to measure, in the order of training. A check of another one is left
            out; one of these whose scores are not there asks for what is missing, and cannot pass.
        trouble: what became of scores that are not there, a line each.
        further: scores of more samples than the run's own, at which checks look that have several looks.
        growing: checkpoints of the baseline, `RUN:sft`, that can be sampled more; others keep the scores they have.
        more_samples: `gate.more_samples`.
        lost: why there is no anchor although one was chosen.
    """
    made = []
    further = further or {}
    there = {checkpoint for checkpoint, _ in scores}
    for check in checks:
        checkpoint = checkpoint_of(check, measured)
        if checkpoint is None:
            continue
        own, why = scores.get((checkpoint, check.benchmark)), ""
        if checkpoint not in there:
            why = "; ".join([f"the run has no scores of {checkpoint}", *trouble])
        elif own is None:
            why = f"the run has no {check.benchmark} of {checkpoint}"
        old, against, side = None, check.against, check.against
        if check.rule is not None and check.against != BASELINE:
            old = scores.get((check.against, check.benchmark))
            why = why or ("" if old else f"the run has no {check.benchmark} of {check.against}")
        elif check.rule is not None and anchor is None:
            first = "there is nothing to compare with: this run is the baseline, or the first of its kind"
            why = why or lost or first
        elif check.rule is not None and anchor is not None:
            old, against = anchor.find(checkpoint, check.benchmark), anchor.name
            side = f"{anchor.name}:{checkpoint}"
            lacks = f"the baseline {anchor.name} has no {check.benchmark} of {checkpoint}"
            why = why or ("" if old else "; ".join([lacks, *anchor.trouble]))
        looks = looks_at(own, check, more_samples) if own is not None and check.rule is not None else []
        series = [(own, old)] if own is not None and old is not None else []
        for samples in looks[1:] if series else ():
            new = further.get((checkpoint, check.benchmark, samples))
            grown = further.get((side, check.benchmark, samples))
            if grown is None and old is not None and (old.samples >= samples or _is_fixed(check, side, growing)):
                grown = old
            if new is None or grown is None:
                break
            series.append((new, grown))
        limits = {name: getattr(check, name) for name in ("max_truncated", "max_no_answer")}
        made.append(
            Asked(
                check.benchmark,
                checkpoint,
                against,
                own,
                old,
                check.rule,
                tier=check.tier,
                why=why,
                looks=max(1, len(looks)),
                series=tuple(series),
                **limits,
            )
        )
    return made


def checkpoint_of(check: CheckSettings, measured: Sequence[str]) -> str | None:
    """The checkpoint that a check is of, among those that a run was to measure; None where it was not to."""
    checkpoint = check.checkpoint or next(reversed(measured), "")
    return checkpoint if checkpoint in measured else None


def _is_fixed(check: CheckSettings, side: str, growing: Container[str]) -> bool:
    """Whether what a check is held against keeps the samples it has: a baseline whose model is not there."""
    return check.against == BASELINE and side not in growing


def looks_at(own: Sampled, check: CheckSettings, more_samples: int | None) -> list[int]:
    """After how many samples of each problem a check may be judged: of a critical one whose benchmark is sampled at a
    temperature there may be more than the run's `own`."""
    sampling = own.details.get("sampling")
    drawn = isinstance(sampling, Mapping) and sampling.get("temperature", 0) > 0
    if more_samples is None or check.tier != CRITICAL or not drawn:
        return [own.samples]
    return sample_looks(own.samples, more_samples)


def judge_all(asked: Sequence[Asked], level: float, level_fail: float) -> list[GateVerdict]:
    """The verdict on each, look after look in the order in which they were made: what was claimed at one stands.

    Margins are judged together (`evaluation.gates.verdict.judge`); a bound on a rate is held against the rate that was
    measured, without a test, and one that is broken is a FAIL whatever the margin says.

    Args:
        level: of each PASS.
        level_fail: of all FAILs together.
    """
    claimed: dict[int, GateVerdict] = {}
    verdicts: list[GateVerdict] = []
    for look in range(max((len(one.series) for one in asked), default=0) or 1):
        verdicts = _judge_at(look, asked, level, level_fail)
        verdicts = [claimed.get(index, verdict) for index, verdict in enumerate(verdicts)]
        claimed |= {index: one for index, one in enumerate(verdicts) if one.verdict != "UNDECIDED"}
    return verdicts


def _judge_at(look: int, asked: Sequence[Asked], level: float, level_fail: float) -> list[GateVerdict]:
    pairs: dict[int, Differences] = {}
    reasons: dict[int, str] = {}
    for index, one in enumerate(asked):
        new, old = one.at(look)
        if one.why:
            reasons[index] = one.why
        elif one.rule is not None and old is not None and new is not None:
            try:
                pairs[index] = pair(old, new, any_samples=True)
            except ValueError as error:
                reasons[index] = str(error)
    rules = [rule for index in pairs if (rule := asked[index].rule) is not None]
    looks = [asked[index].looks for index in pairs]
    judged = dict(zip(pairs, judge(list(pairs.values()), rules, level, level_fail, looks), strict=True))
    verdicts = []
    for index, one in enumerate(asked):
        numbers, verdict = {}, "PASS" if one.rule is None and not one.why else "UNDECIDED"
        if (found := judged.get(index)) is not None:
            verdict = found.verdict
            numbers = {**dataclasses.asdict(found), "p_fail": found.p_fail_adjusted}
            numbers = {name: value for name, value in numbers.items() if name not in ("verdict", "p_fail_adjusted")}
            samples, samples_before = (side.samples if side is not None else None for side in one.at(look))
            numbers |= {"samples": samples, "samples_before": samples_before, "looks": one.looks}
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
        of = f"{one.n:,}" + (f" x {one.samples}" if (one.samples or 1) > 1 else "")
        of += f" (before: x {one.samples_before})" if one.samples_before != one.samples else ""
        said.append(f"{100 * one.difference:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}] of {of}")
        times = f", each times {one.looks} looks" if (one.looks or 1) > 1 else ""
        said.append(
            f"p(pass) = {one.p_pass:.2g}, p(fail) = {one.p_fail:.2g}{times}, "
            f"detectable {100 * one.detectable:.1f} points"
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
