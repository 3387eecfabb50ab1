"""Score drift: a run's results against those of the run of the same pipeline before it."""

from pathlib import Path

from pipeline.run.documents import MovedScore, RecordedScore, RunRecordDocument, ScoredReport


def moved_scores(before: list[RecordedScore], after: list[RecordedScore]) -> list[MovedScore]:
    """The results whose value lies outside the 95 % interval that the same benchmark and checkpoint had before.

    A result that was measured by another protocol is listed, with `protocol_changed`, and not compared. What only one
    of the two lists has is left out.
    """
    old = {(score.benchmark, score.checkpoint): score for score in before}
    pairs = [(old[new.benchmark, new.checkpoint], new) for new in after if (new.benchmark, new.checkpoint) in old]
    return [
        MovedScore(
            benchmark=new.benchmark,
            checkpoint=new.checkpoint,
            before=was.value,
            low=was.low,
            high=was.high,
            after=new.value,
            protocol_changed=was.protocol != new.protocol,
        )
        for was, new in pairs
        if was.protocol != new.protocol or not was.low <= new.value <= was.high
    ]


def predecessor(runs: Path, name: str, seed: int, this: str) -> tuple[str, ScoredReport] | None:
    """The id and the report of the latest run of the pipeline `name` before `this` with the same seed and a report.

    Records and reports that cannot be read are passed over.
    """
    for file in sorted(runs.glob("*/run.json"), reverse=True):
        record = RunRecordDocument.read(file) if file.parent.name < this else None
        report = ScoredReport.read(file.parent / "report.json") if record is not None and record.name == name else None
        # Another seed is another draw: its scores differ by more than these intervals.
        if report is not None and report.seed == seed:
            return file.parent.name, report
    return None


def alert_text(name: str, run: RunRecordDocument) -> str:
    """The alert as Markdown; `run` is a run record with `moved` and `predecessor`."""
    lines = [f"# {name}: scores moved", "", f"Run {run.id} against {run.predecessor}.", ""]
    for m in run.moved or ():
        place, change = f"{m.benchmark}, {m.checkpoint}", f"{100 * m.before:.1f} → {100 * m.after:.1f} %"
        way = "above" if m.after > m.high else "below"
        bounds = f"[{100 * m.low:.1f}, {100 * m.high:.1f}]"
        if m.protocol_changed:
            lines.append(f"- {place}: measured by another protocol than before, not compared ({change})")
        else:
            lines.append(f"- **{place}: {change}**, {way} the earlier interval {bounds}")
    return "\n".join(lines) + "\n"
