"""What the commands of `vcore` share: the console, the options that several of them take, and how a run's results are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.plan.decide import Options
    from pipeline.run.session import Session

# A file or a pipe has no width to fit: tables keep their lines whole there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
told = Console(highlight=False, stderr=True)
"""For what is no result: a script that reads `--json` must not meet it."""

ConfigFile = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="A pipeline's YAML file, for example configs/demo.yaml.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set sft.learning_rate=1e-5"),
]
Force = Annotated[
    list[str] | None, typer.Option("--force", metavar="STAGE", help="Compute this stage although it is cached.")
]
From = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", help="Compute this stage and everything after it.")
]
Only = Annotated[
    str | None, typer.Option("--only", metavar="STAGE", help="Run this stage alone; what it needs must be cached.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="STAGE", help="Run this stage and what it needs, and stop there.")
]
Triggers = Annotated[
    str | None,
    typer.Option(
        "--rerun-triggers",
        metavar="LIST",
        help="What makes a stage rerun, of config,inputs,code,versions; what differs only otherwise is accepted. Default: all.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Home = Annotated[Path, typer.Option("--home", envvar="VCORE_HOME", help="Folder of the store and the runs.")]


def options(
    force: list[str] | None, start: str | None, only: str | None, until: str | None, triggers: str | None
) -> Options:
    """The command line's choices of what to run."""
    from pipeline.plan.decide import Options, parse_triggers

    return Options(tuple(force or ()), start, only, until, parse_triggers(triggers))


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def interval(result: dict[str, Any]) -> str:
    """`70.0 % [65.8, 73.9]`"""
    return f"{100 * result['value']:.1f} % [{100 * result['low']:.1f}, {100 * result['high']:.1f}]"


def count(number: int, noun: str) -> str:
    """`1 stage`, `8 stages`"""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def warn_of_unreadable_runs(home: Path, consequence: str = "") -> None:
    """Name the run records that are passed over, and what comes of it."""
    from pipeline.run.record import unreadable_runs

    for file in unreadable_runs(home):
        told.print(f"[yellow]{escape(str(file))} cannot be read and is passed over{consequence}[/]", soft_wrap=True)


def print_run(session: Session, as_json: bool) -> None:
    """What a finished run is worth: its results and where the report is."""
    report = session.report_folder
    if as_json:
        results = json.loads((report / "report.json").read_text(encoding="utf-8"))["results"] if report else []
        page = str(session.record.folder / "report.html") if report else None
        print_json(
            {
                "run": session.record.data.id,
                "stages": session.record.data.to_json()["stages"],
                "results": results,
                "report": page,
            }
        )
        return
    out.print(f"\n{session.summary()}; record {session.record.folder / 'run.json'}", soft_wrap=True)
    if report is not None:
        print_results(report)
        if session.record.data.moved:
            from pipeline.run.drift import alert_text

            out.print(
                f"\n[yellow]{escape(alert_text(session.config.name, session.record.data))}[/]".rstrip(), soft_wrap=True
            )
        out.print(f"\nReport: {session.record.folder / 'report.html'}", soft_wrap=True)


def print_results(folder: Path) -> None:
    """The results table: one row a benchmark, one column a checkpoint, accuracy with its 95 % interval."""
    results = json.loads((folder / "report.json").read_text(encoding="utf-8"))["results"]
    checkpoints = list(dict.fromkeys(result["checkpoint"] for result in results))
    table = Table(
        title="accuracy with 95 % interval", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for column in ("benchmark", "metric", "n", *checkpoints):
        table.add_column(column, justify="right" if column == "n" else "left", no_wrap=True)
    for name in dict.fromkeys(result["benchmark"] for result in results):
        cells = {result["checkpoint"]: result for result in results if result["benchmark"] == name}
        first = next(iter(cells.values()))
        values = (interval(cells[c]) if c in cells else "" for c in checkpoints)
        table.add_row(name, first["metric"], str(first["n"]), *values)
    out.print()
    out.print(table)
