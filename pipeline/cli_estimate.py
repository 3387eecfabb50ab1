"""`vcore plan CONFIG --estimate`: does it fit on the GPU?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from pipeline.cli_common import out, print_json


def print_estimate(path: Path, overrides: list[str], as_json: bool) -> None:
    """The needs of each GPU stage, by part, beside the memory of the GPU that is here."""
    from pipeline.config import load_config
    from pipeline.estimate import SLACK_GIB, estimate, gpu_memory_gib

    needs, here = estimate(load_config(path, overrides)), gpu_memory_gib()
    if as_json:
        print_json({"gpu_gib": here, "slack_gib": SLACK_GIB, "stages": [dataclasses.asdict(n) | {"total": n.total} for n in needs]})
        return
    for need in needs:
        table = Table(title=need.stage, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for part, gib in need.parts.items():
            table.add_row(f"  {part}", f"{gib:8.2f} GiB")
        table.add_row("  together", f"[bold]{need.total:8.2f} GiB[/]")
        out.print(table)
        for note in need.notes:
            out.print(f"  {escape(note)}", soft_wrap=True)
        if here is not None:
            fits = need.total + SLACK_GIB <= here
            out.print(
                f"  [{'green' if fits else 'red'}]{'fits' if fits else 'does not fit'}[/] on {here:.0f} GiB with {SLACK_GIB:g} to spare"
            )
        out.print()
    if here is None:
        out.print(f"There is no GPU here to compare with. Add {SLACK_GIB:g} GiB for what is not counted.")
