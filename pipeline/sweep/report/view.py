"""What a sweep's templates show; every number is formatted here, once for both of them."""

from __future__ import annotations

from typing import Any

from evaluation.statistics import CONFIDENCE
from pipeline.sweep.report import figures, lineage
from pipeline.sweep.report.collect import SweepReport, Table
from pipeline.sweep.report.tables import interval_of, points
from stages.report.cost import hours, tokens, total

PROGRAMS = ("data", "base", "sft", "difficulty", "grpo", "generate", "score")
"""What has a column of its own among the costs: all that computes. The order in which stages ended says nothing where some ran at once."""
FEW = 3  # comparisons of which nobody needs to be told that one may be chance


def view(report: SweepReport) -> dict[str, Any]:
    """The variables of report.md.j2 and report.html.j2."""
    record = report.record
    done = len(record["cells"]) - len(report.failed)
    overs = {row.mean.over for table in report.tables for row in table.rows}
    return {
        "title": record["name"],
        "command": record["command"],
        "axes": {axis: ", ".join(labels) for axis, labels in record["axes"].items()},
        "baseline": report.baseline,
        "started": record["started"],
        "ended": record["ended"] or "not yet",
        "cells": f"{done} of {len(record['cells'])}",
        "computed": _minutes(report.spent.seconds),
        "saved": _minutes(report.saved_s),
        "single": max(len(row.values) for table in report.tables for row in table.rows) == 1,
        "some_over_problems": overs == {"seeds", "problems"},
        "mixed": [f"{table.benchmark} {table.checkpoint}" for table in report.tables if len(table.protocols) > 1],
        "comparisons": _comparisons(report.comparisons),
        "tables": [_table(table) for table in report.tables],
        "scores": [
            figures.scores(benchmark, report) for benchmark in dict.fromkeys(table.benchmark for table in report.tables)
        ],
        "legend": figures.legend(report),
        "curves": figures.curves(report),
        "steps": [
            {
                "benchmark": step.benchmark,
                "group": step.group,
                "pair": f"{step.before} → {step.after}",
                "means": f"{100 * step.mean_before:.1f} → {100 * step.mean_after:.1f}",
                "difference": points(step.difference),
                "over": _over(step.difference.over, step.difference.n),
                "verdict": step.verdict,
            }
            for step in report.steps
        ],
        **_costs(report),
        "failed": [
            {"name": entry["name"], "status": entry["status"], "error": entry["error"] or ""} for entry in report.failed
        ],
        "source": (record.get("published") or {}).get("source", ""),
        "published": [
            {
                "benchmark": p.benchmark,
                "checkpoint": p.checkpoint,
                "group": p.group or "every cell",
                "published": f"{100 * p.published:.2f}",
                "ours": f"{100 * p.ours:.1f}",
                "interval": f"[{100 * p.low:.1f}, {100 * p.high:.1f}]",
                "over": f"{p.seeds} seeds" if p.over == "seeds" else f"{p.n} problems",
                "inside": "inside" if p.inside else "outside",
            }
            for p in report.published
        ],
        "not_measured": report.not_measured,
        **lineage.view(report),
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": f"{table.benchmark}, {table.checkpoint}",
        "metric": table.metric,
        "n": table.n,
        "protocol": ", ".join(table.protocols),
        "rows": [
            {
                "group": row.group,
                "mean": f"{100 * row.mean.mean:.1f}",
                "interval": interval_of(row.mean),
                "over": _over(row.mean.over, row.mean.n),
                "values": " ".join(f"{100 * value:.1f}" for value in row.values.values()),
                "difference": points(row.difference) if row.difference is not None else "",
                "difference_over": _over(row.difference.over, row.difference.n) if row.difference is not None else "",
                "verdict": row.verdict,
                "truncated": f"{100 * row.truncated:.1f} %",
                "no_answer": f"{100 * row.no_answer:.1f} %",
            }
            for row in table.rows
        ],
    }


def _over(over: str, seeds: int) -> str:
    """`5 seeds`, `problems`"""
    return f"{seeds} seeds" if over == "seeds" else over


def _comparisons(count: int) -> str:
    if count < FEW:
        return ""
    chance = count * (1 - CONFIDENCE)
    return f"{count} comparisons were made at the 5 % level, uncorrected: even if nothing differed, about {chance:.1f} of them would seem to."


def _costs(report: SweepReport) -> dict[str, Any]:
    """A line a group, with the seconds of each stage program; and what all of it took."""
    programs = [program for program in PROGRAMS if any(program in costs for costs in report.costs.values())]
    rows = []
    for group, costs in report.costs.items():
        whole = total(costs.values())
        trained = [tokens(costs[name].trained) if name in costs else "–" for name in ("sft", "grpo")]
        seconds = [f"{costs[name].seconds:.1f}" if name in costs else "–" for name in programs]
        rows.append(
            {
                "group": group,
                "seconds": seconds,
                "gpu_hours": hours(whole.gpu_hours),
                "trained": trained,
                "sampled": tokens(whole.sampled),
            }
        )
    spent = report.spent
    on = f"{hours(spent.gpu_hours)} GPU hours" if spent.gpu_hours else "no GPU hours (all of it on CPU)"
    return {
        "cost_programs": programs,
        "cost_rows": rows,
        "spent": f"{on}, {tokens(spent.trained)} tokens trained on, {tokens(spent.sampled)} sampled for evaluation",
    }


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
