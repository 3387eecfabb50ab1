"""What the templates of a run's report show; every number is formatted here, once for both of them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.statistics import MCNEMAR
from stages.report import documents
from stages.report.cost import total
from stages.report.documents import BenchmarkResult, Report
from stages.report.figures import figures
from stages.report.kinds import TRAINING
from stages.report.render.tables import Column, Table
from stages.report.render.text import NONE, flat, hours, interval, origin, percent, points, tokens

ENDINGS = {"length": ", cut at the limit", "prompt_too_long": ", never sampled: the prompt is too long"}
"""Reason why a completion ended -> what is said of it; nothing of the usual ones."""


def view(report: Report) -> dict[str, Any]:
    """The variables of report.md.j2 and report.html.j2."""
    spent = total(stage.cost for stage in report.stages)
    shared, different = _protocols(report)
    return {
        "title": report.title,
        "report": report,
        "results": _results(report),
        "notes": [
            *(_pass_at(result) for result in report.results if result.pass_at),
            *(_thinking(result) for result in report.results if result.thinking),
        ],
        "comparisons": _comparisons(report),
        "verdicts": _verdicts(report),
        "stages": _stages(report, spent.seconds),
        "total_seconds": f"{spent.seconds:.0f}",
        "spent": f"{hours(spent.gpu_hours)} GPU hours"
        if spent.gpu_hours
        else "No GPU hours: all of it was computed on CPU",
        "outside": [
            (f"{label} ({stage.name})", origin(entry))
            for stage in report.stages
            for label, entry in stage.outside.items()
        ],
        "throughput": _throughput(report),
        "choices": _choices(report),
        "figures": figures(report),
        "weighted_rows": [_weighted_row(row) for row in report.weighted_rows],
        "endings": defaultdict(str, ENDINGS),
        "answers": _answers(report),
        "settings": {name: flat(stage.settings) for name in TRAINING if (stage := report.stage(name)) is not None},
        "protocol_shared": shared,
        "protocols": different,
        "machines": list(dict.fromkeys(stage.hardware.line for stage in report.stages)),
        "comes_back": _comes_back(report),
        "commits": list(dict.fromkeys(stage.git.short or "not a git checkout" for stage in report.stages)),
    }


def _comes_back(report: Report) -> list[str]:
    """What a second computation of the stages gives: `bit for bit: base, data`, one line for each answer."""
    names: dict[str, list[str]] = {}
    for stage in report.stages:
        names.setdefault(stage.comes_back or "not known", []).append(stage.name)
    return [f"{how}: {', '.join(those)}" for how, those in names.items()]


def _results(report: Report) -> Table:
    answers = _answers(report)

    def row(benchmark: str) -> Iterator[str | tuple[str, ...]]:
        cells = [report.result(checkpoint, benchmark) for checkpoint in report.checkpoints]
        first = next(cell for cell in cells if cell is not None)
        yield benchmark if first.split in ("", "test") else f"{benchmark} ({first.split})"
        yield from (first.metric, str(first.n), str(first.k))
        for c in cells:
            place = answers.get((benchmark, c.checkpoint), "") if c is not None else ""
            yield (percent(c.value), interval(c.low, c.high), place) if c is not None else (NONE, "", "")

    columns = [Column("benchmark"), Column("metric"), Column("n", "number"), Column("k", "number")]
    columns += [Column(checkpoint, "score") for checkpoint in report.checkpoints]
    return Table(columns, [list(row(benchmark)) for benchmark in report.benchmarks], style="results")


def _answers(report: Report) -> dict[tuple[str, str], str]:
    """(benchmark, checkpoint) -> id of its sample answers on the page, of those that have some."""
    shown = dict.fromkeys((t.score.benchmark, t.checkpoint) for t in report.transcripts)
    return {place: f"answers-{number}" for number, place in enumerate(shown)}


def _pass_at(result: BenchmarkResult) -> str:
    estimates = {f"pass@{k}": estimate for k, estimate in result.pass_at.items()}
    if result.majority:
        estimates[f"maj@{result.k}"] = result.majority
    values = (f"{name} {percent(e['value'])} {interval(e['low'], e['high'])}" for name, e in estimates.items())
    return f"{result.benchmark}, {result.checkpoint}: {', '.join(values)}"


def _thinking(result: BenchmarkResult) -> str:
    """How thoughts ended under a budget, as shares of all samples."""
    budget = result.protocol_details.get("sampling", {}).get("thinking_budget")
    shares = ", ".join(f"{ending} {percent(count / result.samples)}" for ending, count in result.thinking.items())
    return f"{result.benchmark}, {result.checkpoint}: thoughts of at most {budget} tokens: {shares}"


def _comparisons(report: Report) -> Table:
    def row(c: documents.ReportedComparison) -> list[str]:
        pair = f"{c.before} → {c.after}"
        if not isinstance(c, documents.PairedComparison):
            return [c.benchmark, pair, NONE, NONE, NONE, NONE, c.verdict]
        p = f"{c.p_value:.2g}" if c.p_value >= 1e-4 else "< 0.0001"
        p = p if c.test == MCNEMAR else f"{p} ({c.test})"
        changed = f"{c.improved} better, {c.worsened} worse"
        return [c.benchmark, pair, points(c.difference, c.low, c.high), changed, p, str(c.n), c.verdict]

    columns = [Column("benchmark"), Column("checkpoints"), Column("points, 95 % interval", "interval")]
    columns += [Column("problems"), Column("p", "number"), Column("n", "number"), Column("verdict")]
    return Table(columns, [row(c) for c in report.comparisons], style="")


def _verdicts(report: Report) -> Table:
    names = ("correct", "wrong", "no_answer", "timeout", "grader_error")

    def row(r: BenchmarkResult) -> list[str]:
        counts = [*(r.verdicts.get(name, 0) for name in names), r.truncated, r.prompt_too_long]
        shares = [f"{count} ({percent(count / r.samples)})" if count else "0" for count in counts]
        return [r.benchmark, r.checkpoint, str(r.samples), *shares, f"{r.completion_tokens:.1f}", r.protocol]

    titles = ("samples", *(name.replace("_", " ") for name in names), "truncated", "prompt too long", "mean tokens")
    columns = [Column("benchmark"), Column("checkpoint"), *(Column(title, "number") for title in titles)]
    rows = [row(r) for benchmark in report.benchmarks for r in report.results if r.benchmark == benchmark]
    return Table([*columns, Column("protocol", "code")], rows, parted=True)


def _stages(report: Report, total_seconds: float) -> Table:
    def row(stage: documents.ReportedStage) -> list[str]:
        rate = stage.metrics.get("tokens_per_second", stage.metrics.get("output_tokens_per_s"))
        sources = [
            f"{source['stage'] if name == source['stage'] else name + ' of ' + source['stage']} {source['key'][:8]}"
            for name, source in stage.inputs.items()
        ]
        return [
            stage.name,
            stage.state,
            f"{stage.seconds:.1f}",
            percent(stage.seconds / total_seconds) if total_seconds else NONE,
            f"{stage.peak_memory_gib:.1f}" if stage.peak_memory_gib else NONE,
            hours(stage.cost.gpu_hours),
            tokens(stage.cost.trained or stage.cost.sampled),
            f"{rate:,.0f}" if rate else NONE,
            stage.key[:12],
            stage.digest[:12],
            ", ".join(sources) or NONE,
            stage.git.short or NONE,
        ]

    columns = [Column("stage"), Column("state"), Column("seconds", "number"), Column("share", "number", page_only=True)]
    columns += [Column(title, "number") for title in ("peak GiB", "GPU hours", "tokens", "tokens/s")]
    columns += [Column("key", "code"), Column("content", "code"), Column("made from", "free"), Column("commit", "code")]
    return Table(columns, [row(stage) for stage in report.stages])


def _throughput(report: Report) -> Table:
    """Where the time of each evaluation goes, of those whose generate stage sampled something (it may only resume)."""
    rows = []
    for checkpoint in report.checkpoints:
        generate, score = report.stage(f"generate.{checkpoint}"), report.stage(f"score.{checkpoint}")
        if generate is None or score is None or not generate.metrics.get("samples_per_s"):
            continue
        metrics, whole = generate.metrics, generate.seconds + score.seconds
        seconds = (float(metrics["load_s"]), float(metrics["generate_s"]), score.seconds)
        rates = f"{metrics['samples']:,}", f"{metrics['samples_per_s']:,.1f}", f"{metrics['output_tokens_per_s']:,.0f}"
        rows.append([checkpoint, *rates, *(f"{taken:.1f} s ({percent(taken / whole)})" for taken in seconds)])
    titles = ("samples", "samples/s", "tokens/s", "engine load", "sampling", "grading stage")
    return Table([Column("sampling and grading"), *(Column(title, "number") for title in titles)], rows)


def _choices(report: Report) -> list[str]:
    """What RL's prompts and its checkpoint were chosen by, where they were."""
    out = []
    difficulty, grpo = report.stage("difficulty"), report.stage("grpo")
    if difficulty is not None:
        out.append(f"RL's prompts by the pass rate of the checkpoint it starts from: {difficulty.metrics['headline']}.")
    if grpo is not None and "dev_pass_rate" in grpo.proof:
        curve = ", ".join(f"step {step} {percent(rate)}" for step, rate in grpo.proof["dev_pass_rate"])
        taken = f"that of step {grpo.proof['chosen_step']} was taken"
        out.append(f"RL's checkpoint by right answers on data.dev: {curve}; {taken}.")
    return out


def _weighted_row(row: documents.WeightedRow) -> dict[str, Any]:
    """Each token with its shade: from 0 for the uniform weight to 1 for four times that, or a quarter (see `up`)."""
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


def _protocols(report: Report) -> tuple[dict[str, str], Mapping[str, dict[str, str]]]:
    """What all protocols have in common, and by fingerprint what each has of its own."""
    protocols = {r.protocol: flat(r.protocol_details) for r in report.results}
    first, *others = protocols.values()
    shared = {name: v for name, v in first.items() if others and all(other.get(name) == v for other in others)}
    own = {
        protocol: {name: value for name, value in values.items() if name not in shared}
        for protocol, values in protocols.items()
    }
    return shared, own
