"""What the commands of `vcore` share: the console, the options that several of them take, and how a run's results are
printed."""

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
err = Console(highlight=False, stderr=True)
"""For what is no result: a script that reads `--json` must not meet it."""


def argument(metavar: str, help: str) -> Any:
    """A positional argument of a command."""
    return typer.Argument(metavar=metavar, help=help)


def option(flag: str, help: str, **more: Any) -> Any:
    """An option of a command."""
    return typer.Option(flag, help=help, **more)


ConfigFile = Annotated[Path, argument("CONFIG", "A pipeline's YAML file, for example configs/demo.yaml.")]
Overrides = Annotated[
    list[str] | None, option("--set", "Override a setting: --set sft.learning_rate=1e-5", metavar="KEY=VALUE")
]
Force = Annotated[list[str] | None, option("--force", "Compute this stage although it is cached.", metavar="STAGE")]
From = Annotated[str | None, option("--from", "Compute this stage and everything after it.", metavar="STAGE")]
Only = Annotated[str | None, option("--only", "Run this stage alone; what it needs must be cached.", metavar="STAGE")]
Until = Annotated[str | None, option("--until", "Run this stage and what it needs, and stop there.", metavar="STAGE")]
_TRIGGERS = "What makes a stage rerun, of config,inputs,code,versions; what differs only otherwise is accepted."
Triggers = Annotated[str | None, option("--rerun-triggers", f"{_TRIGGERS} Default: all.", metavar="LIST")]
AsJson = Annotated[bool, option("--json", "Print JSON for a script.")]
Home = Annotated[Path, option("--home", "Folder of the store and the runs.", envvar="VCORE_HOME")]


def options(
    force: list[str] | None, start: str | None, only: str | None, until: str | None, triggers: str | None
) -> Options:
    """The command line's choices of what to run."""
    from pipeline.plan.decide import Options, parse_triggers

    return Options(tuple(force or ()), start, only, until, parse_triggers(triggers))


def show(text: str) -> None:
    """Print one line, however long; `text` is rich markup."""
    out.print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a result for a script."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def plain_table(*columns: str, title: str | None = None, fold: bool = False, right: str = "") -> Table:
    """A table without lines. `fold`: columns may break lines inside words; `right`: the column of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column, overflow="fold" if fold else "ellipsis", justify="right" if column == right else "left"
        )
    return table


def interval(result: dict[str, Any]) -> str:
    """`70.0 % [65.8, 73.9]`"""
    return f"{100 * result['value']:.1f} % [{100 * result['low']:.1f}, {100 * result['high']:.1f}]"


def count(number: int, noun: str) -> str:
    """`1 stage`, `8 stages`"""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def mib(size: int) -> str:
    """`1.5 MiB`"""
    return f"{size / 2**20:.1f} MiB"


def warn_of_unreadable_runs(home: Path, consequence: str = "") -> None:
    """Name the run records that are passed over, and what comes of it."""
    from pipeline.run.record import unreadable_runs

    for file in unreadable_runs(home):
        err.print(f"[yellow]{escape(str(file))} cannot be read and is passed over{consequence}[/]", soft_wrap=True)


def print_run(session: Session, as_json: bool) -> None:
    """What a finished run is worth: its results and where the report is."""
    from pipeline.run.drift import alert_text

    report, record, folder = session.report_folder, session.record.data, session.record.folder
    if as_json:
        results = read_results(report) if report is not None else []
        page = str(folder / "report.html") if report is not None else None
        print_json({"run": record.id, "stages": record.to_json()["stages"], "results": results, "report": page})
        return
    show(f"\n{session.summary()}; record {folder / 'run.json'}")
    if report is not None:
        print_results(report)
        if record.moved:
            show(f"\n[yellow]{escape(alert_text(session.config.name, record))}[/]".rstrip())
        show(f"\nReport: {folder / 'report.html'}")


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder's report.json."""
    results: list[dict[str, Any]] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["results"]
    return results


def print_results(folder: Path) -> None:
    """The results table: one row a benchmark, one column a checkpoint, accuracy with its 95 % interval."""
    results = read_results(folder)
    checkpoints = list(dict.fromkeys(result["checkpoint"] for result in results))
    title = "accuracy with 95 % interval"
    table = plain_table("benchmark", "metric", "n", *checkpoints, title=title, right="n")
    for column in table.columns:
        column.no_wrap = True
    for name in dict.fromkeys(result["benchmark"] for result in results):
        cells = {result["checkpoint"]: result for result in results if result["benchmark"] == name}
        first = next(iter(cells.values()))
        values = (interval(cells[c]) if c in cells else "" for c in checkpoints)
        table.add_row(name, first["metric"], str(first["n"]), *values)
    out.print()
    out.print(table)
