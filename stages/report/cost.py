"""What a stage cost: seconds, GPU hours, tokens, as its manifest and its training curve tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.report.model import Stage

ON_GPU = ("base", "sft", "grpo", "generate")
"""Stage programs that compute on a GPU where there is one; the others take none."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one stage, or of several together.

    Attributes:
        seconds: wall time.
        gpu_hours: GPUs that the stage held x hours; 0 on a CPU.
        trained: tokens trained on, padding left out; in RL those of prompts and completions.
        sampled: completion tokens sampled for evaluation, or for choosing prompts.
    """

    seconds: float = 0.0
    gpu_hours: float = 0.0
    trained: int = 0
    sampled: int = 0


def stage_cost(
    name: str,
    seconds: float,
    metrics: Mapping[str, Any],
    hardware: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    execution: Mapping[str, Any],
) -> Cost:
    """The cost of the stage `name` from its manifest's fields and its curve.

    The manifest says which GPUs the machine had, not which of them the stage held: `execution.gpus` of the config does, else it is all.
    """
    program = name.partition(".")[0]
    there = len(hardware["gpu"]) if program in ON_GPU and execution.get("device") != "cpu" else 0
    held = min(there, execution.get("gpus") or there)
    counted = [row["num_tokens"] for row in curve if "num_tokens" in row]  # TRL's own count, from the start of training
    trained = counted[-1] if counted else metrics.get("tokens", 0) if program == "base" else 0
    sampled = metrics.get("output_tokens", 0) if program == "generate" else 0
    return Cost(seconds, held * seconds / 3600, round(trained), round(sampled))


def cost_of(stage: Stage, config: Mapping[str, Any]) -> Cost:
    """The cost of a stage of a report, run under a pipeline's config."""
    return stage_cost(
        stage.name, stage.seconds, stage.metrics, stage.hardware, stage.curve, config.get("execution", {})
    )


def total(costs: Iterable[Cost]) -> Cost:
    """The sum; nothing for no stages."""
    rows = list(costs)
    return Cost(*(sum(getattr(row, field.name) for row in rows) for field in dataclasses.fields(Cost)))


def tokens(count: float) -> str:
    """`1.3 M`, `12 k`; a dash for none."""
    if not count:
        return "–"
    return (
        f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"
    )


def hours(gpu_hours: float) -> str:
    """`0`, `0.012`, `3.4`"""
    return "0" if not gpu_hours else f"{gpu_hours:.2g}" if gpu_hours < 1 else f"{gpu_hours:.1f}"
