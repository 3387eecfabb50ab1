"""Renders the collected report three times: report.json for scripts, report.md for text, report.html for people."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jinja2

from stages.report.collect import Comparison, Report, collect, interval, percent
from stages.report.figures import figures
from stages.report.settings import ReportSettings
from stages.runtime import Context, Result, write_json

TEMPLATES = Path(__file__).parent


def build(context: Context[ReportSettings]) -> Result:
    """Write report.json, report.md and report.html from the input artifacts."""
    context.progress(1, 3, "collect")
    report = collect(context)
    context.progress(2, 3, "draw")
    view = _view(report)
    write_json(context.output / "report.json", as_json(report))
    for name, autoescape in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=autoescape,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters.update(percent=percent, fence=_fence)
        text = environment.get_template(f"{name}.j2").render(view)
        (context.output / name).write_text(text, encoding="utf-8")
    context.progress(3, 3, "write")
    return Result({"results": len(report.results), "stages": len(report.stages)}, {"headline": report.verdict})


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; `results` and `stages` are a contract with scripts."""
    return {
        "title": report.title,
        "verdict": report.verdict,
        "seed": report.seed,
        "command": report.command,
        "results": [dataclasses.asdict(result) for result in report.results],
        "comparisons": [
            {
                "benchmark": c.benchmark,
                "before": c.before,
                "after": c.after,
                "verdict": c.verdict,
                **(dataclasses.asdict(c.difference) if c.difference is not None else {}),
            }
            for c in report.comparisons
        ],
        "stages": [
            {
                "name": stage.name,
                "key": stage.manifest["key"],
                "digest": stage.manifest["digest"],
                "state": stage.state,
                "seconds": stage.manifest["seconds"],
                "started": stage.manifest["started"],
                "inputs": stage.manifest["inputs"],
                "metrics": stage.metrics,
                "proof": stage.manifest["proof"],
            }
            for stage in report.stages
        ],
        "caveats": report.caveats,
        "versions": _versions(report),
        "git": report.stages[-1].manifest["git"],
        "hardware": report.stages[-1].manifest["hardware"],
        "config": report.config,
    }


def _view(report: Report) -> dict[str, Any]:
    """What the templates show; every number is formatted here, once."""
    table = []
    for benchmark in report.benchmarks:
        cells = [report.result(checkpoint, benchmark) for checkpoint in report.checkpoints]
        first = next(cell for cell in cells if cell is not None)
        shown = [(percent(c.value), interval(c.low, c.high)) if c is not None else ("", "") for c in cells]
        table.append({"benchmark": benchmark, "metric": first.metric, "n": first.n, "k": first.k, "cells": shown})
    rates = [
        {
            "benchmark": r.benchmark,
            "checkpoint": r.checkpoint,
            "samples": r.samples,
            **{name: f"{r.verdicts.get(name, 0)}" for name in ("correct", "wrong", "timeout", "grader_error")},
            "no_answer": f"{r.no_answer} ({percent(r.no_answer / r.samples)})",
            "truncated": f"{r.truncated} ({percent(r.truncated / r.samples)})",
            "prompt_too_long": r.prompt_too_long,
            "protocol": r.protocol,
        }
        for r in report.results
    ]
    total = sum(stage.manifest["seconds"] for stage in report.stages)
    stages = [
        {
            "name": stage.name,
            "state": stage.state,
            "seconds": f"{stage.manifest['seconds']:.1f}",
            "share": percent(stage.manifest["seconds"] / total) if total else "",
            "tokens": _rate(stage.metrics.get("tokens_per_second", stage.metrics.get("output_tokens_per_s"))),
            "key": stage.manifest["key"][:12],
            "digest": stage.manifest["digest"][:12],
            "inputs": ", ".join(f"{name} {source['digest'][:8]}" for name, source in stage.manifest["inputs"].items()),
            "headline": stage.metrics.get("headline", ""),
        }
        for stage in report.stages
    ]
    last = report.stages[-1].manifest
    git = last["git"]
    return {
        "report": report,
        "table": table,
        "comparisons": [_comparison_view(c) for c in report.comparisons],
        "rates": rates,
        "stages": stages,
        "total_seconds": f"{total:.0f}",
        "figures": figures(report),
        "settings": {name: _flat(stage.settings) for name in ("sft", "grpo") if (stage := report.stage(name)) is not None},
        "protocols": {r.protocol: _flat(r.protocol_details) for r in report.results},
        "versions": _versions(report),
        "hardware": last["hardware"],
        "commit": f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git["commit"] else "not a git checkout",
    }


def _comparison_view(c: Comparison) -> dict[str, str]:
    d = c.difference
    return {
        "benchmark": c.benchmark,
        "pair": f"{c.before} → {c.after}",
        "difference": f"{100 * d.difference:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]" if d is not None else "",
        "p": ("" if d.p_value is None else f"{d.p_value:.2g}" if d.p_value >= 1e-4 else "< 0.0001") if d is not None else "",
        "n": str(d.n) if d is not None else "",
        "verdict": c.verdict,
    }


def _versions(report: Report) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in report.stages:
        found.update(stage.manifest["versions"])
    return dict(sorted(found.items()))


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as `lora.rank: 8`, empty ones left out."""
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}" if prefix else name).items()}
    return {} if value in (None, [], "") else {prefix: str(value)}


def _rate(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None else ""


def _fence(text: str) -> str:
    """A Markdown code block that no backticks inside the text can end."""
    longest = max((len(run) for run in text.replace("\n", " ").split() if set(run) == {"`"}), default=0)
    ticks = "`" * max(4, longest + 1)
    while ticks in text:
        ticks += "`"
    return f"{ticks}text\n{text}\n{ticks}"
