"""Scores that moved: this run against its anchor and against the mean of the runs before it, at a level that holds over
all nights together."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from evaluation.gates.levels import holm, spend
from evaluation.gates.margin import FEWEST, Differences, margin_test
from evaluation.gates.paired import Sampled, pair
from evaluation.statistics import paired_difference
from pipeline.config.gate import GateSettings
from pipeline.run.documents import MovedScore, RunRecordDocument
from pipeline.run.gates.baseline import ANY, Anchor, Scores, window_of
from pipeline.store.store import Store

NORMAL_95 = 1.96
FEWEST_NIGHTS = 2
"""Runs that make a window: one alone is the run before, of which the anchor knows more."""


def moved_scores(
    store: Store,
    scores: Scores,
    anchor: Anchor | None,
    earlier: list[tuple[Path, RunRecordDocument]],
    record: RunRecordDocument,
    seed: int,
    settings: GateSettings,
) -> list[MovedScore]:
    """The scores that differ from a yardstick, and those of the anchor that could not be compared. Benchmarks of fewer
    than `FEWEST` problems are left out.

    Two-sided tests: against the anchor the project's paired test (McNemar's, or sign flips), against the window, whose
    mean is no single answer, `margin_test` of 0. Holm's method over all of them, at what look number `record.look` may
    spend of `settings.level`.
    """
    if anchor is None or record.look is None:
        return []
    level = spend(settings.level, record.look)
    tested: list[tuple[MovedScore, float]] = []
    apart: list[MovedScore] = []
    # What lies before a blessed run was another state of things, which was accepted as such.
    is_run = any(folder.name == anchor.name for folder, _ in earlier)
    since = [one for one in earlier if not is_run or one[0].name >= anchor.name]
    window = window_of(store, seed, since, record, settings.window) if settings.window else []
    last = next((checkpoint for checkpoint, _ in reversed(scores)), "")
    for (checkpoint, benchmark), new in scores.items():
        if len(new.shares) < FEWEST:  # too few to say anything, ever
            continue
        old = anchor.find(checkpoint, benchmark)
        if (ANY, benchmark) in anchor.scores and checkpoint != last:
            old = None  # a file of scores is of one checkpoint: the last, as for a check
        one = MovedScore(
            benchmark=benchmark, checkpoint=checkpoint, against="anchor", reference=anchor.name, level=level
        )
        try:
            if old is not None:
                pair(old, new)  # whether they compare at all
                before = [old.shares[problem] for problem in new.shares]
                d = paired_difference(before, list(new.shares.values()))
                tested.append((_with(one, fmean(before), d.difference, d.low, d.high), d.p_value))
        except ValueError as why:
            apart.append(one.model_copy(update={"reason": str(why)}))
        recent = _mean([s[checkpoint, benchmark] for _, s in window if (checkpoint, benchmark) in s], new)
        if recent is not None:
            seen, mean, count = recent
            where = {"against": "window", "reference": f"the mean of the last {count} runs"}
            half = NORMAL_95 * seen.error
            one = _with(one.model_copy(update=where), mean, seen.mean, seen.mean - half, seen.mean + half)
            tested.append((one, min(1.0, 2 * min(margin_test(seen, 0.0)))))
    adjusted = holm([p_value for _, p_value in tested])
    claimed = [
        one.model_copy(update={"p_value": p_value})
        for (one, _), p_value in zip(tested, adjusted, strict=True)
        if p_value <= level
    ]
    return claimed + apart


def _with(one: MovedScore, before: float, difference: float, low: float, high: float) -> MovedScore:
    return one.model_copy(update={"before": before, "after": before + difference, "low": low, "high": high})


def _mean(recent: list[Sampled], new: Sampled) -> tuple[Differences, float, int] | None:
    """This run against the mean of those that compare with it, that mean, and how many they are."""
    same = [one for one in recent if one.protocol == new.protocol and one.shares.keys() == new.shares.keys()]
    if len(same) < FEWEST_NIGHTS:
        return None
    mean = {problem: fmean(one.shares[problem] for one in same) for problem in new.shares}
    return pair(Sampled(mean, new.samples), new), fmean(mean.values()), len(same)


def alert_text(name: str, run: RunRecordDocument) -> str:
    """The alert as Markdown; `run` is a run record with `moved` and `anchor`."""
    chosen = "blessed" if run.anchor_blessed else "the first run of its kind; no blessed run is there"
    lines = [f"# {name}: scores moved", "", f"Run {run.id} against {run.anchor} ({chosen}), look {run.look}.", ""]
    for m in run.moved or ():
        place = f"{m.benchmark}, {m.checkpoint}"
        if m.reason:
            lines.append(f"- {place}: not compared, {m.reason}")
            continue
        change, way = f"{100 * m.before:.1f} → {100 * m.after:.1f} %", "above" if m.after > m.before else "below"
        against = "the anchor" if m.against == "anchor" else m.reference
        bounds = f"difference within [{100 * m.low:+.1f}, {100 * m.high:+.1f}] points"
        lines.append(
            f"- **{place}: {change}**, {way} {against}; {bounds}, p = {m.p_value:.2g} (alarm at {m.level:.2g})"
        )
    return "\n".join(lines) + "\n"
