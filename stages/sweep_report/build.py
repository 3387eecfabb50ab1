"""Writes a sweep's report: JSON for scripts, CSV and LaTeX for papers, Markdown and one self-contained HTML page for people."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import jinja2

from evaluation.seeds import SeedEstimate
from stages.report.build import inline
from stages.report.figures import COLOURS, svg
from stages.runtime import write_json
from stages.sweep_report.collect import SweepReport, Table, collect

TEMPLATES = Path(__file__).parent
FILES = ("report.html", "report.md", "report.json", "report.csv", "report.tex")


def write_report(home: Path, folder: Path) -> list[Path]:
    """Write the report of the sweep recorded in `folder` beside its record; returns the files.

    Raises:
        ValueError: there is nothing to report.
    """
    report = collect(home, folder)
    write_json(folder / "report.json", as_json(report))
    (folder / "report.csv").write_text(as_csv(report), encoding="utf-8")
    (folder / "report.tex").write_text(as_latex(report), encoding="utf-8")
    shown = _view(report)
    for name, autoescape in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=autoescape,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters.update(inline=inline)
        (folder / name).write_text(environment.get_template(f"{name}.j2").render(shown), encoding="utf-8")
    return [folder / name for name in FILES]


def as_json(report: SweepReport) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "sweep": {name: report.record[name] for name in ("id", "name", "command", "axes", "baseline", "started", "ended", "status")},
        "tables": [dataclasses.asdict(table) for table in report.tables],
        "steps": [dataclasses.asdict(step) for step in report.steps],
        "seconds": {stage: {name: dataclasses.asdict(e) for name, e in groups.items()} for stage, groups in report.seconds.items()},
        "computed_s": report.computed_s,
        "saved_s": report.saved_s,
        "cells": [
            {
                "labels": group.labels,
                "seed": cell.seed,
                "run": cell.run,
                "commit": cell.commit,
                "keys": {stage["name"]: stage["key"] for stage in cell.stages},
            }
            for group in report.groups
            for cell in group.cells
        ],
        "published": [{**dataclasses.asdict(p), "inside": p.inside} for p in report.published],
        "published_not_measured": report.not_measured,
        "failed": [{name: entry[name] for name in ("labels", "name", "status", "error")} for entry in report.failed],
    }


def as_csv(report: SweepReport) -> str:
    """One line a group, benchmark, checkpoint and seed, with the run's own interval."""
    out = io.StringIO()
    axes = [axis for axis in report.record["axes"] if axis != "seed"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [*axes, "seed", "benchmark", "checkpoint", "metric", "value", "low", "high", "n", "k", "truncated", "no_answer", "protocol", "run"]
    )
    for group in report.groups:
        for cell in group.cells:
            for (benchmark, checkpoint), r in cell.results.items():
                numbers = [r[name] for name in ("metric", "value", "low", "high", "n", "k", "truncated", "no_answer", "protocol")]
                writer.writerow([*(group.labels[axis] for axis in axes), cell.seed, benchmark, checkpoint, *numbers, cell.run])
    return out.getvalue()


def as_latex(report: SweepReport) -> str:
    """One booktabs table: groups down, benchmark and checkpoint across; mean over seeds and half the interval, in per cent."""
    columns = [(table.benchmark, table.checkpoint) for table in report.tables]
    cells = {(table.benchmark, table.checkpoint, row.group): row for table in report.tables for row in table.rows}
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule"]
    lines.append(" & ".join(["", *(_tex(f"{benchmark} {checkpoint}") for benchmark, checkpoint in columns)]) + r" \\")
    lines.append(r"\midrule")
    for group in report.groups:
        row = []
        for column in columns:
            found = cells.get((*column, group.name))
            row.append("--" if found is None else f"${100 * found.mean.mean:.1f}{_half(found.mean)}$")
        lines.append(" & ".join([_tex(group.name), *row]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def summary(report: SweepReport) -> str:
    """The tables as plain text, for a terminal."""
    lines = []
    for table in report.tables:
        seeds = max(len(row.values) for row in table.rows)
        lines.append(
            f"{table.benchmark}, {table.checkpoint}: {table.metric}, n {table.n}, {seeds} seeds, mean and 95 % interval over seeds"
        )
        width = max(len(row.group) for row in table.rows)
        for row in table.rows:
            compared = f"   {_points(row.difference)} {row.verdict}" if row.difference is not None else ""
            lines.append(f"  {row.group:<{width}}  {_percent(row.mean):<24}{compared}".rstrip())
        lines.append("")
    return "\n".join(lines)


def _view(report: SweepReport) -> dict[str, Any]:
    record = report.record
    done = len(record["cells"]) - len(report.failed)
    return {
        "title": record["name"],
        "command": record["command"],
        "axes": {axis: ", ".join(labels) for axis, labels in record["axes"].items()},
        "baseline": report.baseline,
        "started": record["started"],
        "ended": record["ended"] or "not yet",
        "cells": f"{done} of {len(record['cells'])}",
        "computed": _minutes(report.computed_s),
        "saved": _minutes(report.saved_s),
        "tables": [_table_view(table) for table in report.tables],
        "figures": [_figure(benchmark, report) for benchmark in dict.fromkeys(table.benchmark for table in report.tables)],
        "steps": [
            {
                "benchmark": step.benchmark,
                "group": step.group,
                "pair": f"{step.before} → {step.after}",
                "means": f"{100 * step.mean_before:.1f} → {100 * step.mean_after:.1f}",
                "difference": _points(step.difference),
                "verdict": step.verdict,
            }
            for step in report.steps
        ],
        "seconds": [
            {"stage": stage, "groups": ", ".join(f"{name} {estimate.mean:.1f}" for name, estimate in groups.items())}
            for stage, groups in report.seconds.items()
        ],
        "failed": [{"name": entry["name"], "status": entry["status"], "error": entry["error"] or ""} for entry in report.failed],
        "source": (report.record.get("published") or {}).get("source", ""),
        "published": [
            {
                "benchmark": p.benchmark,
                "checkpoint": p.checkpoint,
                "label": p.label,
                "published": f"{100 * p.published:.2f}",
                "ours": f"{100 * p.ours:.1f}",
                "interval": f"[{100 * max(0.0, p.low):.1f}, {100 * min(1.0, p.high):.1f}]",
                "over": f"{p.seeds} seeds" if p.seeds > 1 else f"{p.n} problems",
                "inside": "inside" if p.inside else "outside",
            }
            for p in report.published
        ],
        "not_measured": report.not_measured,
        "lineage": [
            {
                "group": group.name,
                "seed": cell.seed,
                "run": cell.run,
                "commit": (cell.commit or "unknown")[:12],
                "keys": " ".join(f"{s['name']} {s['key'][:8]}" for s in cell.stages if s["name"] in ("sft", "grpo", "base")),
            }
            for group in report.groups
            for cell in group.cells
        ],
        "mixed": [f"{table.benchmark} {table.checkpoint}" for table in report.tables if len(table.protocols) > 1],
        "single": max(len(row.values) for table in report.tables for row in table.rows) == 1,
    }


def _table_view(table: Table) -> dict[str, Any]:
    return {
        "title": f"{table.benchmark}, {table.checkpoint}",
        "metric": table.metric,
        "n": table.n,
        "protocol": ", ".join(table.protocols),
        "rows": [
            {
                "group": row.group,
                "mean": f"{100 * row.mean.mean:.1f}",
                "interval": _interval(row.mean),
                "seeds": row.mean.n,
                "values": " ".join(f"{100 * value:.1f}" for value in row.values.values()),
                "difference": _points(row.difference) if row.difference is not None else "",
                "verdict": row.verdict,
                "truncated": f"{100 * row.truncated:.1f} %",
                "no_answer": f"{100 * row.no_answer:.1f} %",
            }
            for row in table.rows
        ],
    }


def _figure(benchmark: str, report: SweepReport) -> str:
    """Groups down, one mark a checkpoint: every seed as a small point, mean and interval over seeds as a bar beside them."""
    tables = [table for table in report.tables if table.benchmark == benchmark]
    groups = [row.group for row in tables[-1].rows]
    apart = 0.22

    def draw(axes: Any) -> None:
        for index, table in enumerate(tables):
            colour, marker = COLOURS[index % len(COLOURS)], "osD"[index % 3]
            shift = (index - (len(tables) - 1) / 2) * apart
            for row in table.rows:
                y = groups.index(row.group) + shift
                axes.plot([100 * v for v in row.values.values()], [y] * len(row.values), ".", color=colour, markersize=4, alpha=0.6)
                if row.mean.low is not None and row.mean.high is not None:
                    axes.plot([100 * row.mean.low, 100 * row.mean.high], [y, y], "-", color=colour, linewidth=1.5)
                label = table.checkpoint if row is table.rows[0] else None
                axes.plot(100 * row.mean.mean, y, marker, color=colour, markersize=6, label=label)
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.set_xlim(-2, 102)
        axes.grid(axis="x", alpha=0.25)
        axes.set_xlabel(f"{tables[0].metric} on {benchmark}, %")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(tables))

    return svg(draw, 7.2, 1.1 + 0.48 * len(groups), f"sweep-{benchmark}", f"{benchmark}: every seed, mean and interval of each group")


def _percent(estimate: SeedEstimate) -> str:
    return f"{100 * estimate.mean:.1f} % {_interval(estimate)}".rstrip()


def _interval(estimate: SeedEstimate) -> str:
    """Of a mean of shares: cut at 0 and 100, which a t interval of few seeds does not know of."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{100 * max(0.0, estimate.low):.1f}, {100 * min(1.0, estimate.high):.1f}]"


def _points(estimate: SeedEstimate | None) -> str:
    if estimate is None:
        return ""
    bounds = "" if estimate.low is None or estimate.high is None else f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return f"{100 * estimate.mean:+.1f}{bounds}"


def _half(estimate: SeedEstimate) -> str:
    return "" if estimate.high is None else rf" \pm {100 * (estimate.high - estimate.mean):.1f}"


def _tex(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
