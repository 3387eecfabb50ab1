"""`vcore plan CONFIG --estimate`: does it fit on the GPU?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from pipeline.cli.common import out, print_json

if TYPE_CHECKING:
    from pipeline.estimate.memory import Need


def print_estimate(path: Path, overrides: list[str], as_json: bool) -> None:
    """The needs of each GPU stage, by part, beside the memory of the GPU that is here."""
    from pipeline.config.schema import load_config
    from pipeline.estimate.memory import SLACK_GIB, estimate, gpu_memory_gib

    needs, here = estimate(load_config(path, overrides)), gpu_memory_gib()
    if as_json:
        print_json({"gpu_gib": here, "slack_gib": SLACK_GIB, "stages": [_as_json(need, here) for need in needs]})
        return
    for need in needs:
        _print(need, here)
    if here is None:
        out.print("There is no GPU here to compare with.")


def _as_json(need: Need, here: float | None) -> dict[str, Any]:
    """`total` is the peak on the GPU here, or on the smallest that holds it; `fits` is null where there is none to compare with."""
    smallest = need.smallest_gpu if math.isfinite(need.smallest_gpu) else None
    gpu = here or smallest
    return dataclasses.asdict(need) | {
        "total": need.peak(gpu) if gpu is not None else None,
        "smallest_gpu_gib": smallest,
        "fits": here >= need.smallest_gpu if here is not None else None,
    }


def _print(need: Need, here: float | None) -> None:
    from pipeline.estimate.memory import SLACK_GIB

    gpu = here or need.smallest_gpu
    table = Table(
        title=need.stage, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False
    )
    table.add_column()
    table.add_column(justify="right")

    def row(what: str, gib: float, style: str = "") -> None:
        table.add_row(f"  {what}", f"[{style}]{gib:8.2f} GiB[/]" if style else f"{gib:8.2f} GiB")

    for part, gib in (need.parts | need.engine).items():
        row(part, gib)
    row("CUDA context and slack", SLACK_GIB * (bool(need.parts) + bool(need.engine)))
    if math.isfinite(gpu):
        if need.engine:
            row(f"what vLLM takes, of {gpu:.0f} GiB", need.taken_by_engine(gpu))
        if need.sleeps:
            row("while it trains, vLLM asleep", need.training)
            row("while it samples", need.waiting + need.taken_by_engine(gpu))
        row("the most at once", need.peak(gpu), "bold")
    out.print(table)
    for note in need.notes:
        out.print(f"  {escape(note)}", soft_wrap=True)
    if math.isinf(need.smallest_gpu):
        out.print(f"  [red]fits on no GPU[/]: vLLM's share of {need.share:.0%} leaves the trainer nothing")
    elif here is None:
        out.print(f"  needs a GPU of {math.ceil(need.smallest_gpu)} GiB or more")
    else:
        verdict = "[green]fits[/]" if here >= need.smallest_gpu else "[red]does not fit[/]"
        out.print(
            f"  {verdict} on {here:.0f} GiB; with these settings it needs a GPU of {math.ceil(need.smallest_gpu)} GiB or more"
        )
    out.print()
