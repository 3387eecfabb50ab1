"""Scores that somebody published, beside ours."""

from __future__ import annotations

import dataclasses
from typing import Any

from evaluation.seeds import next_seed
from evaluation.statistics import wilson_interval
from pipeline.sweep.report.cells import Cell, Group


@dataclasses.dataclass(frozen=True)
class Published:
    """A published score beside that of one group of ours.

    Attributes:
        group: the group's name; empty for the base checkpoint, where that is the same in all of them.
        low, high: where one more run would lie with 95 %: what was published is one run, so this is wider than the interval of our mean.
        over: what that is judged by: `seeds`, or `problems` where seeds show no spread.
    """

    benchmark: str
    checkpoint: str
    label: str
    group: str
    published: float
    ours: float
    low: float
    high: float
    over: str
    n: int
    seeds: int

    @property
    def inside(self) -> bool:
        return self.low <= self.published <= self.high


def beside(given: dict[str, Any] | None, groups: list[Group]) -> tuple[list[Published], list[str]]:
    """Every published score with ours of each group that it speaks of, and in words those that nothing of ours stands beside.

    Groups are never pooled: what else differs between them (a model, a learning rate) is no spread between seeds.
    """
    if given is None:
        return [], []
    wanted = [("base", benchmark, None, score) for benchmark, score in given["base"].items()]
    for checkpoint in ("sft", "grpo"):
        wanted += [
            (checkpoint, b, label, score) for b, scores in given[checkpoint].items() for label, score in scores.items()
        ]
    found: list[Published] = []
    missing: list[str] = []
    for checkpoint, benchmarks, label, score in wanted:
        meant = [group for group in groups if label is None or group.labels[given["axis"]] == label]
        rows = [row for group in meant if (row := _row(group, checkpoint, benchmarks, label, score / 100)) is not None]
        if label is None and len({(row.ours, row.low, row.high) for row in rows}) == 1:
            rows = [dataclasses.replace(rows[0], group="")]
        found += rows
        if not rows:
            missing.append(f"{benchmarks} {checkpoint} {label or ''} {score:g} %".replace("  ", " "))
    return found, missing


def _row(group: Group, checkpoint: str, benchmarks: str, label: str | None, published: float) -> Published | None:
    pooled = [own for cell in group.cells if (own := _pooled(cell, benchmarks.split("+"), checkpoint)) is not None]
    if not pooled:
        return None
    right, n = pooled[0]
    values = [right / n for right, n in pooled]
    ours = sum(values) / len(values)
    bounds = next_seed(values)
    if bounds is not None:
        low, high, over = max(0.0, bounds[0]), min(1.0, bounds[1]), "seeds"
    else:
        # Theirs was measured on as many problems as ours, so the difference of the two has twice the variance: Wilson's at half of n.
        (low, high), over = wilson_interval(min(right, n) / 2, n / 2), "problems"
    return Published(benchmarks, checkpoint, label or "", group.name, published, ours, low, high, over, n, len(values))


def _pooled(cell: Cell, benchmarks: list[str], checkpoint: str) -> tuple[float, int] | None:
    """(expected right answers, problems) of several benchmarks together; None where one of them was not measured."""
    results = [cell.results.get((benchmark, checkpoint)) for benchmark in benchmarks]
    measured = [result for result in results if result is not None]
    if len(measured) < len(results):
        return None
    return sum(result["value"] * result["n"] for result in measured), sum(result["n"] for result in measured)
