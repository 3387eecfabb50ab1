"""What a stage cost: seconds, GPU hours, tokens, by its manifest and its training curve."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.report.documents import Cost
from stages.report.kinds import declares


def stage_cost(
    name: str,
    seconds: float,
    metrics: Mapping[str, Any],
    gpus: int,
    leased: int | None,
    curve: Sequence[Mapping[str, Any]],
    execution: Mapping[str, Any],
) -> Cost:
    """The cost of a stage.

    Args:
        name: of the stage, `generate.sft`.
        metrics: of its manifest.
        gpus: that the machine had.
        leased: how many of them the stage held, by its manifest; where that does not say, `execution.gpus`, else all.
        curve: the rows of its training curve.
        execution: that section of the pipeline's config.
    """
    kind = name.partition(".")[0]
    there = gpus if execution.get("device") != "cpu" and declares(kind, "uses_gpu") else 0
    held = min(there, execution.get("gpus") or there) if leased is None else leased
    counted = [row["num_tokens"] for row in curve if "num_tokens" in row]  # TRL's own count, from the start of training
    trained = counted[-1] if counted else metrics.get("tokens", 0) if kind == "base" else 0
    sampled = metrics.get("output_tokens", 0) if kind == "generate" else 0
    return Cost(seconds=seconds, gpu_hours=held * seconds / 3600, trained=round(trained), sampled=round(sampled))


def total(costs: Iterable[Cost]) -> Cost:
    """The sum; nothing for no stages."""
    rows = list(costs)
    return Cost(**{field: sum(getattr(row, field) for row in rows) for field in Cost.model_fields})
