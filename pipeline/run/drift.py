"""Whether a score has moved: a run's results against those of the run of the same pipeline before it."""

from __future__ import annotations

from pathlib import Path

from pipeline.run.documents import MovedScore, RecordedScore, RunRecordDocument, ScoredReport


def moved_scores(before: list[RecordedScore], after: list[RecordedScore]) -> list[MovedScore]:
    """The results whose value lies outside the 95 % interval that the same benchmark and checkpoint had before.

    Args:
        before, after: `results` of two report.json. Results that were measured by another protocol are not compared but
            said: their entry has `protocol_changed`. What only one of the two has is left out.
    """
    old = {(score.benchmark, score.checkpoint): score for score in before}
    moved = []
    for new in after:
        was = old.get((new.benchmark, new.checkpoint))
        if was is None or (was.protocol == new.protocol and was.low <= new.value <= was.high):
            continue
        moved.append(
            MovedScore(
                benchmark=new.benchmark,
                checkpoint=new.checkpoint,
                before=was.value,
                low=was.low,
                high=was.high,
                after=new.value,
                protocol_changed=was.protocol != new.protocol,
            )
        )
    return moved


def predecessor(runs: Path, name: str, seed: int, this: str) -> tuple[str, ScoredReport] | None:
    """The id and the report of the latest earlier run of the pipeline `name` with the same seed that has a report.

    Records and reports that cannot be read are passed over.
    """
    for file in sorted(runs.glob("*/run.json"), reverse=True):
        if file.parent.name >= this:
            continue
        record = RunRecordDocument.read(file)
        if record is None or record.name != name:
            continue
        report = ScoredReport.read(file.parent / "report.json")
        # Another seed is another draw: its scores differ by more than these intervals.
        if report is not None and report.seed == seed:
            return file.parent.name, report
    return None


def alert_text(name: str, run: RunRecordDocument) -> str:
    """The alert as Markdown; `run` is a run record with `moved` and `predecessor`."""
    lines = [f"# {name}: scores moved", "", f"Run {run.id} against {run.predecessor}.", ""]
    for m in run.moved or ():
        change = f"{100 * m.before:.1f} → {100 * m.after:.1f} %"
        if m.protocol_changed:
            lines.append(
                f"- {m.benchmark}, {m.checkpoint}: measured by another protocol than before, not compared ({change})"
            )
        else:
            way = "above" if m.after > m.high else "below"
            bounds = f"[{100 * m.low:.1f}, {100 * m.high:.1f}]"
            lines.append(f"- **{m.benchmark}, {m.checkpoint}: {change}**, {way} the earlier interval {bounds}")
    return "\n".join(lines) + "\n"
