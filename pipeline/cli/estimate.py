"""`vcore plan CONFIG --estimate`: does it fit on the GPU?"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipeline.cli.printing import out, plain_table, print_json, show
from pipeline.config.schema import load_config
from pipeline.estimate import memory
from pipeline.estimate.memory import SLACK_GIB, Need


def print_estimate(path: Path, overrides: list[str], as_json: bool) -> None:
    """The needs of each GPU stage, by part, beside the memory of the GPU that is here."""
    needs, here = memory.estimate(load_config(path, overrides)), memory.gpu_memory_gib()
    if as_json:
        print_json({"gpu_gib": here, "slack_gib": SLACK_GIB, "stages": [_as_json(need, here) for need in needs]})
        return
    for need in needs:
        _print(need, here)
    if here is None:
        out.print("There is no GPU here to compare with.")


def _as_json(need: Need, here: float | None) -> dict[str, Any]:
    """`total` is the peak on the GPU here, or on the smallest that holds it; `fits` is null where there is no GPU."""
    smallest = need.smallest_gpu if math.isfinite(need.smallest_gpu) else None
    gpu = here or smallest
    return dataclasses.asdict(need) | {
        "total": need.peak(gpu) if gpu is not None else None,
        "smallest_gpu_gib": smallest,
        "fits": here >= need.smallest_gpu if here is not None else None,
    }


def _print(need: Need, here: float | None) -> None:
    gpu = here or need.smallest_gpu
    rows = need.parts | need.engine | {"CUDA context and slack": SLACK_GIB * (bool(need.parts) + bool(need.engine))}
    if math.isfinite(gpu):
        if need.engine:
            rows[f"what vLLM takes, of {gpu:.0f} GiB"] = need.taken_by_engine(gpu)
        if need.sleeps:
            rows["while it trains, vLLM asleep"] = need.training
            rows["while it samples"] = need.waiting + need.taken_by_engine(gpu)
        rows["the most at once"] = need.peak(gpu)
    table = plain_table("what", "GiB", title=need.stage, right="GiB")
    table.show_header = False
    for what, gib in rows.items():
        table.add_row(f"  {what}", f"{gib:8.2f} GiB", style="bold" if what == "the most at once" else None)
    out.print(table)
    for note in need.notes:
        show(f"  {escape(note)}")
    at_least = f"a GPU of {math.ceil(need.smallest_gpu)} GiB or more" if math.isfinite(need.smallest_gpu) else ""
    if not at_least:
        out.print(f"  [red]fits on no GPU[/]: vLLM's share of {need.share:.0%} leaves the trainer nothing")
    elif here is None:
        out.print(f"  needs {at_least}")
    else:
        verdict = "[green]fits[/]" if here >= need.smallest_gpu else "[red]does not fit[/]"
        out.print(f"  {verdict} on {here:.0f} GiB; with these settings it needs {at_least}")
    out.print()
