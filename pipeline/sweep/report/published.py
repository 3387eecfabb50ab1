"""Scores that somebody published, beside ours."""

from evaluation.metrics.estimates import wilson_interval
from evaluation.seeds import next_seed
from pipeline.sweep.documents import PublishedScore
from pipeline.sweep.report.cells import Group, MeasuredCell
from pipeline.sweep.settings import PublishedSettings


def beside(given: PublishedSettings | None, groups: list[Group]) -> tuple[list[PublishedScore], list[str]]:
    """Every published score with ours of each group that it speaks of, and in words those without one of ours.

    Groups are never pooled: what else differs between them (a model, a learning rate) is no spread between seeds.
    """
    if given is None:
        return [], []
    scores: list[tuple[str, str, str | None, float]] = [("base", b, None, value) for b, value in given.base.items()]
    scores += given.trained
    out: list[PublishedScore] = []
    missing: list[str] = []
    for checkpoint, benchmarks, label, value in scores:
        meant = [group for group in groups if label is None or group.labels[given.axis] == label]
        rows = [row for group in meant if (row := _row(group, checkpoint, benchmarks, label, value / 100)) is not None]
        if label is None and len({(row.ours, row.low, row.high) for row in rows}) == 1:
            rows = [rows[0].model_copy(update={"group": ""})]
        out += rows
        if not rows:
            missing.append(f"{benchmarks} {checkpoint} {label or ''} {value:g} %".replace("  ", " "))
    return out, missing


def _row(group: Group, checkpoint: str, benchmarks: str, label: str | None, published: float) -> PublishedScore | None:
    pooled = [own for cell in group.cells if (own := _pooled(cell, benchmarks.split("+"), checkpoint)) is not None]
    if not pooled:
        return None
    right, n = pooled[0]
    values = [right / n for right, n in pooled]
    bounds = next_seed(values)
    if bounds is not None:
        low, high = max(0.0, bounds[0]), min(1.0, bounds[1])
    else:
        # Theirs was measured on as many problems as ours: the difference has twice the variance, Wilson's at half of n.
        low, high = wilson_interval(min(right, n) / 2, n / 2)
    return PublishedScore(
        benchmark=benchmarks,
        checkpoint=checkpoint,
        label=label or "",
        group=group.name,
        published=published,
        ours=sum(values) / len(values),
        low=low,
        high=high,
        over="seeds" if bounds is not None else "problems",
        n=n,
        seeds=len(values),
        inside=low <= published <= high,
    )


def _pooled(cell: MeasuredCell, benchmarks: list[str], checkpoint: str) -> tuple[float, int] | None:
    """(expected right answers, problems) of several benchmarks together; None where one of them was not measured."""
    measured = [
        cell.results[benchmark, checkpoint] for benchmark in benchmarks if (benchmark, checkpoint) in cell.results
    ]
    if len(measured) < len(benchmarks):
        return None
    return sum(result.value * result.n for result in measured), sum(result.n for result in measured)
