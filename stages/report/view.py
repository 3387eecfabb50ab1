"""What the templates show; every number is formatted here, once for both of them."""

from __future__ import annotations

import math
from typing import Any

from evaluation.comparison import Comparison
from evaluation.statistics import MCNEMAR
from stages.report.cost import Cost, cost_of, hours, tokens
from stages.report.cost import total as total_cost
from stages.report.figures import figures
from stages.report.model import Report, Result, Stage, WeightedRow, interval, machine, origin, percent, points

NONE = "–"


def view(report: Report) -> dict[str, Any]:
    """The variables of report.md.j2 and report.html.j2."""
    total = sum(stage.seconds for stage in report.stages)
    shared, different = _protocols(report)
    costs = {stage.name: cost_of(stage, report.config) for stage in report.stages}
    spent = total_cost(costs.values())
    return {
        "report": report,
        "table": [_row(report, benchmark) for benchmark in report.benchmarks],
        "pass_at": [_pass_at(r) for r in report.results if r.pass_at],
        "comparisons": [_comparison(c) for c in report.comparisons],
        "rates": [_rates(r) for benchmark in report.benchmarks for r in report.results if r.benchmark == benchmark],
        "stages": [_stage(stage, total, costs[stage.name]) for stage in report.stages],
        "spent": f"{hours(spent.gpu_hours)} GPU hours"
        if spent.gpu_hours
        else "No GPU hours: all of it was computed on CPU",
        "outside": [
            (stage.name, label, origin(entry)) for stage in report.stages for label, entry in stage.outside.items()
        ],
        "throughput": [
            row for checkpoint in report.checkpoints if (row := _throughput(report, checkpoint)) is not None
        ],
        "choices": _choices(report),
        "total_seconds": f"{total:.0f}",
        "figures": figures(report),
        "weighted_rows": [_weighted_row(row) for row in report.weighted_rows],
        "settings": {
            name: _flat(stage.settings) for name in ("sft", "grpo") if (stage := report.stage(name)) is not None
        },
        "protocol_shared": shared,
        "protocols": different,
        "machines": list(dict.fromkeys(machine(stage.hardware) for stage in report.stages)),
        "commits": list(dict.fromkeys(stage.commit or "not a git checkout" for stage in report.stages)),
        "versions": {library: ", ".join(found) for library, found in report.versions.items()},
    }


def _row(report: Report, benchmark: str) -> dict[str, Any]:
    cells = [report.result(checkpoint, benchmark) for checkpoint in report.checkpoints]
    first = next(cell for cell in cells if cell is not None)
    shown = [(percent(c.value), interval(c.low, c.high)) if c is not None else (NONE, "") for c in cells]
    name = benchmark if first.split in ("", "test") else f"{benchmark} ({first.split})"
    return {"benchmark": name, "metric": first.metric, "n": first.n, "k": first.k, "cells": shown}


def _pass_at(r: Result) -> dict[str, str]:
    values = ", ".join(f"pass@{k} {percent(v['value'])} {interval(v['low'], v['high'])}" for k, v in r.pass_at.items())
    if r.majority:
        values += f", maj@{r.k} {percent(r.majority['value'])} {interval(r.majority['low'], r.majority['high'])}"
    return {"benchmark": r.benchmark, "checkpoint": r.checkpoint, "values": values}


def _comparison(c: Comparison) -> dict[str, str]:
    d = c.difference
    row = {"benchmark": c.benchmark, "pair": f"{c.before} → {c.after}", "verdict": c.verdict}
    if d is None:
        return {**row, "difference": NONE, "changed": NONE, "p": NONE, "n": NONE}
    p = f"{d.p_value:.2g}" if d.p_value >= 1e-4 else "< 0.0001"
    changed = f"{d.improved} better, {d.worsened} worse"
    return {
        **row,
        "difference": points(d),
        "changed": changed,
        "p": p if d.test == MCNEMAR else f"{p} ({d.test})",
        "n": str(d.n),
    }


def _rates(r: Result) -> dict[str, str]:
    def share(count: int) -> str:
        return f"{count} ({percent(count / r.samples)})" if count else "0"

    return {
        "benchmark": r.benchmark,
        "checkpoint": r.checkpoint,
        "samples": f"{r.samples}",
        **{
            name: share(r.verdicts.get(name, 0))
            for name in ("correct", "wrong", "no_answer", "timeout", "grader_error")
        },
        "truncated": share(r.truncated),
        "prompt_too_long": share(r.prompt_too_long),
        "tokens": f"{r.completion_tokens:.1f}",
        "protocol": r.protocol,
    }


def _stage(stage: Stage, total: float, cost: Cost) -> dict[str, str]:
    rate = stage.metrics.get("tokens_per_second", stage.metrics.get("output_tokens_per_s"))
    sources = [
        f"{source['stage'] if name == source['stage'] else name + ' of ' + source['stage']} {source['key'][:8]}"
        for name, source in stage.inputs.items()
    ]
    return {
        "name": stage.name,
        "state": stage.state,
        "seconds": f"{stage.seconds:.1f}",
        "share": percent(stage.seconds / total) if total else NONE,
        "rate": f"{rate:,.0f}" if rate else NONE,
        "tokens": tokens(cost.trained or cost.sampled),
        "gpu_hours": hours(cost.gpu_hours),
        "key": stage.key[:12],
        "digest": stage.digest[:12],
        "inputs": ", ".join(sources) or NONE,
        "commit": stage.commit or NONE,
    }


def _throughput(report: Report, checkpoint: str) -> dict[str, str] | None:
    """Where the time of one evaluation goes; None where nothing was sampled by the stage that is shown (all of it resumed)."""
    generate, score = report.stage(f"generate.{checkpoint}"), report.stage(f"score.{checkpoint}")
    if generate is None or score is None or not generate.metrics.get("samples_per_s"):
        return None
    load, sample = float(generate.metrics["load_s"]), float(generate.metrics["generate_s"])
    whole = generate.seconds + score.seconds
    return {
        "checkpoint": checkpoint,
        "samples": f"{generate.metrics['samples']:,}",
        "samples_per_s": f"{generate.metrics['samples_per_s']:,.1f}",
        "tokens_per_s": f"{generate.metrics['output_tokens_per_s']:,.0f}",
        "load": f"{load:.1f} s ({percent(load / whole)})",
        "sample": f"{sample:.1f} s ({percent(sample / whole)})",
        "grade": f"{score.seconds:.1f} s ({percent(score.seconds / whole)})",
    }


def _choices(report: Report) -> list[str]:
    """What RL's prompts and its checkpoint were chosen by, where they were."""
    out = []
    difficulty, grpo = report.stage("difficulty"), report.stage("grpo")
    if difficulty is not None:
        out.append(f"RL's prompts by the pass rate of the checkpoint it starts from: {difficulty.metrics['headline']}.")
    if grpo is not None and "dev_pass_rate" in grpo.proof:
        curve = ", ".join(f"step {step} {percent(rate)}" for step, rate in grpo.proof["dev_pass_rate"])
        out.append(
            f"RL's checkpoint by right answers on data.dev: {curve}; that of step {grpo.proof['chosen_step']} was taken."
        )
    return out


def _weighted_row(row: WeightedRow) -> dict[str, Any]:
    """Each token with `shade`, from -1 (a quarter of the uniform weight or less) over 0 to 1 (four times and more), and its numbers."""
    return {
        "prompt": row.prompt.strip(),
        "when": f"before step {row.step + 1}",
        "tokens": [
            {
                "text": text,
                "up": weight > 1,
                "shade": f"{min(1.0, abs(math.log(max(weight, 1e-6), 4))):.2f}",
                "numbers": f"x {weight:.2f}, loss {loss:.2f}",
            }
            for text, weight, loss in zip(row.tokens, row.weights, row.losses, strict=True)
        ],
    }


def _protocols(report: Report) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What all protocols have in common, and by fingerprint what each has of its own."""
    flat = {r.protocol: _flat(r.protocol_details) for r in report.results}
    names = list(dict.fromkeys(name for values in flat.values() for name in values))
    shared = {name for name in names if len(flat) > 1 and len({values.get(name) for values in flat.values()}) == 1}
    first = next(iter(flat.values()))
    own = {
        protocol: {name: value for name, value in values.items() if name not in shared}
        for protocol, values in flat.items()
    }
    return {name: first[name] for name in names if name in shared}, own


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as `lora.rank: 8`, empty ones left out and digests shortened."""
    if isinstance(value, dict):
        return {
            k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}" if prefix else name).items()
        }
    if value in (None, [], ""):
        return {}
    return {prefix: str(value)[:12] if prefix.endswith("sha256") else str(value)}
