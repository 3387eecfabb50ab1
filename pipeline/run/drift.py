"""Whether a score has moved: a run's results against those of the run of the same pipeline before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.json_objects import read_object


def moved_scores(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results whose value lies outside the 95 % interval that the same benchmark and checkpoint had before.

    Args:
        before, after: `results` of two report.json. Results that were measured by another protocol are not compared but said: their
            entry has `protocol_changed`. What only one of the two has is left out.
    """
    old = {(r["benchmark"], r["checkpoint"]): r for r in before}
    found = []
    for new in after:
        was = old.get((new["benchmark"], new["checkpoint"]))
        if was is None:
            continue
        entry = {
            "benchmark": new["benchmark"],
            "checkpoint": new["checkpoint"],
            "before": was["value"],
            "low": was["low"],
            "high": was["high"],
            "after": new["value"],
        }
        if was["protocol"] != new["protocol"]:
            found.append({**entry, "protocol_changed": True})
        elif not was["low"] <= new["value"] <= was["high"]:
            found.append({**entry, "protocol_changed": False})
    return found


def predecessor(runs: Path, name: str, seed: int, this: str) -> dict[str, Any] | None:
    """The report of the latest earlier run of the pipeline `name` with the same seed that has one, with the run's id as `run`.

    Records and reports that cannot be read are passed over.
    """
    for file in sorted(runs.glob("*/run.json"), reverse=True):
        if file.parent.name >= this:
            continue
        record = read_object(file)
        if record is None or record.get("name") != name:
            continue
        report = read_object(file.parent / "report.json", seed=int, results=list)
        if (
            report is not None and report["seed"] == seed
        ):  # another seed is another draw: its scores differ by more than these intervals
            return {**report, "run": file.parent.name}
    return None


def alert_text(name: str, run: dict[str, Any]) -> str:
    """The alert as Markdown; `run` is a run record with `moved` and `predecessor`."""
    lines = [f"# {name}: scores moved", "", f"Run {run['id']} against {run['predecessor']}.", ""]
    for m in run["moved"]:
        change = f"{100 * m['before']:.1f} → {100 * m['after']:.1f} %"
        if m["protocol_changed"]:
            lines.append(
                f"- {m['benchmark']}, {m['checkpoint']}: measured by another protocol than before, not compared ({change})"
            )
        else:
            way = "above" if m["after"] > m["high"] else "below"
            bounds = f"[{100 * m['low']:.1f}, {100 * m['high']:.1f}]"
            lines.append(f"- **{m['benchmark']}, {m['checkpoint']}: {change}**, {way} the earlier interval {bounds}")
    return "\n".join(lines) + "\n"
