"""What the templates of a sweep's report show; every number is formatted here, once for both of them."""

from typing import Any

from pipeline.sweep import documents
from pipeline.sweep.documents import ScoreRow, ScoreTable, SweepReport, TrainingEffect
from pipeline.sweep.report import figures
from pipeline.sweep.report.cells import Group
from pipeline.sweep.report.tables import interval, points
from stages.report.cost import total
from stages.report.documents import Cost
from stages.report.kinds import TRAINING, declares, position
from stages.report.render import text
from stages.report.render.figures import Figure
from stages.report.render.tables import Column, Table
from stages.report.render.text import NONE, percent, tokens


def view(report: SweepReport, groups: list[Group]) -> dict[str, Any]:
    """The variables of report.md.j2 and report.html.j2."""
    rows = [row for table in report.tables for row in table.rows]
    single = max(len(row.values) for row in rows) == 1
    mixed_overs = {row.mean.over for row in rows} == {"seeds", "problems"}
    over = " over problems" if single else ", over seeds, dotted over problems" if mixed_overs else " over seeds"
    caption = f"Small dots: seeds. Marks and bars: mean and 95 % interval{over}."
    benchmarks = dict.fromkeys(table.benchmark for table in report.tables)
    return {
        "title": report.sweep.name,
        "report": report,
        "cells": f"{len(report.sweep.cells) - len(report.failed)} of {len(report.sweep.cells)}",
        "computed": _minutes(report.spent.seconds),
        "saved": _minutes(report.saved_s),
        "single": single,
        "some_over_problems": mixed_overs,
        "mixed": [f"{table.benchmark} {table.checkpoint}" for table in report.tables if len(table.protocols) > 1],
        "at_once": any(row.together is not None for row in rows),
        "comparisons": text.by_chance(report.comparisons),
        "scores": [Figure(caption, [figures.scores(benchmark, report)]) for benchmark in benchmarks],
        "tables": [_score_table(table, report.baseline is not None) for table in report.tables],
        "steps": _steps(report.steps),
        "published": _published(report.published),
        "legend": figures.legend(report.groups),
        "curves": figures.curves(groups),
        "costs": _costs(report.cost),
        "spent": _spent(report.spent),
        "failed": [f"{cell.name}: {cell.status} {cell.error or ''}" for cell in report.failed],
        "lineage": _lineage(report, groups),
        "outside": _outside(report),
    }


def _score_table(table: ScoreTable, compared: bool) -> dict[str, Any]:
    at_once = any(r.together is not None for r in table.rows)

    def row(r: ScoreRow) -> list[str]:
        difference = [points(r.difference), _over(r.difference), r.verdict] if compared else []
        if at_once:
            difference += [points(r.together), r.together.verdict] if r.together is not None else ["", ""]
        each = " ".join(f"{100 * value:.1f}" for value in r.values.values())
        mean = [r.group, f"{100 * r.mean.mean:.1f}", interval(r.mean), _over(r.mean)]
        return [*mean, *difference, percent(r.truncated), percent(r.no_answer), each]

    columns = [Column(""), Column("mean", "strong"), Column("95 % interval", "interval"), Column("over")]
    if compared:
        columns += [Column("to the baseline", "interval"), Column("over"), Column("verdict", "verdict")]
    if at_once:
        columns += [Column("all together", "interval"), Column("verdict, together", "verdict")]
    columns += [Column("truncated", "number"), Column("no answer", "number"), Column("each seed", "small")]
    return {
        "title": f"{table.benchmark}, {table.checkpoint}",
        "note": f"{table.metric}, n {table.n}, protocol {', '.join(table.protocols)}",
        "table": Table(columns, [row(r) for r in table.rows]),
    }


def _steps(effects: list[TrainingEffect]) -> Table:
    def row(e: TrainingEffect) -> list[str]:
        means = f"{100 * e.mean_before:.1f} → {100 * e.mean_after:.1f}"
        step = [e.benchmark, e.group, f"{e.before} → {e.after}", means]
        return [*step, points(e.difference), _over(e.difference), e.verdict]

    columns = [*map(Column, ("benchmark", "", "step", "means")), Column("difference, points", "interval")]
    return Table([*columns, Column("over"), Column("verdict", "verdict")], [row(effect) for effect in effects])


def _published(scores: list[documents.PublishedScore]) -> Table:
    def row(p: documents.PublishedScore) -> list[str]:
        over = f"{p.seeds} seeds" if p.over == "seeds" else f"{p.n} problems"
        numbers = [f"{100 * p.published:.2f}", f"{100 * p.ours:.1f}", text.interval(p.low, p.high), over]
        return [p.benchmark, p.checkpoint, p.group or "every cell", *numbers, "inside" if p.inside else "outside"]

    columns = [*map(Column, ("benchmark", "", "")), Column("published", "number"), Column("ours", "strong")]
    columns += [Column("one more run", "interval"), Column("over"), Column("")]
    return Table(columns, [row(score) for score in scores])


def _over(score: documents.GroupScore | documents.ScoreChange | None) -> str:
    """`5 seeds`, `problems`, or nothing: what the interval of a score or a change is over."""
    return "" if score is None else f"{score.n} seeds" if score.over == "seeds" else score.over


def _costs(costs: dict[str, dict[str, Cost]]) -> Table:
    """A line a group, with the seconds of each kind of stage that computes results, which the report does not."""
    kinds = sorted({kind for of_group in costs.values() for kind in of_group} - {"report"}, key=position)

    def row(group: str, of: dict[str, Cost]) -> list[str]:
        whole = total(of.values())
        seconds = [f"{of[kind].seconds:.1f}" if kind in of else NONE for kind in kinds]
        trained = [tokens(of[kind].trained) if kind in of else NONE for kind in TRAINING]
        return [group, *seconds, text.hours(whole.gpu_hours), *trained, tokens(whole.sampled)]

    titles = [*(f"{kind}, s" for kind in kinds), "GPU hours", *(f"tokens, {name}" for name in TRAINING.values())]
    columns = [Column(title, "number") for title in (*titles, "tokens sampled")]
    return Table([Column(""), *columns], [row(group, of_group) for group, of_group in costs.items()])


def _spent(spent: Cost) -> str:
    on = f"{text.hours(spent.gpu_hours)} GPU hours" if spent.gpu_hours else "no GPU hours (all of it on CPU)"
    return f"{on}, {tokens(spent.trained)} tokens trained on, {tokens(spent.sampled)} sampled for evaluation"


def _lineage(report: SweepReport, groups: list[Group]) -> Table:
    """Where the results of each cell come from; of its artifacts the data and the checkpoints."""
    rows = []
    for name, cell in zip([group.name for group in groups for _ in group.cells], report.cells, strict=True):
        shown = [stage for stage in cell.keys if stage == "data" or declares(stage, "makes_checkpoint")]
        artifacts = " ".join(f"{stage} {cell.keys[stage][:8]}" for stage in shown)
        rows.append([name, cell.seed, cell.run, " ".join(cell.commits) or "unknown", artifacts])
    columns = [*map(Column, ("", "seed", "run")), Column("commit", "code"), Column("artifacts", "small")]
    return Table(columns, rows)


def _outside(report: SweepReport) -> Table:
    """What was read from outside, once, with how many cells rest on it."""
    used: dict[tuple[str, str], set[str]] = {}
    for cell in report.cells:
        for label, entry in (item for read in cell.outside.values() for item in read.items()):
            used.setdefault((label, text.origin(entry)), set()).add(cell.run)
    count = len(report.cells)
    cells = {
        read: "every cell" if len(runs) == count else f"{len(runs)} of {count} cells" for read, runs in used.items()
    }
    rows = [[*read, by] for read, by in cells.items()]
    return Table([*map(Column, ("read from outside", "revision or content", "by"))], rows)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
