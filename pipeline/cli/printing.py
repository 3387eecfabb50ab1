"""How the commands of `vcore` print: lines, tables, JSON, and a run's results."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.run.documents import GateVerdict, RunRecordDocument
    from pipeline.run.session import Session

# A file or a pipe has no width to fit: tables keep their lines whole there.
out = Console(highlight=False, width=None if os.isatty(1) else 200)
err = Console(highlight=False, stderr=True)
"""For what is no result: a script that reads `--json` must not meet it."""


class _Stream(io.FileIO):
    """A standard stream whose reader may leave, as in `vcore score ... | head -1`, or whose terminal may be closed: the
    rest goes nowhere, and the command does what it would have done. What else ends it, such as a full disk, is raised
    once."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            if not isinstance(error, BrokenPipeError) and error.errno != errno.EIO:
                raise
            return super().write(data)


def outlive_readers() -> None:
    """Let no reader that closes a pipe, and no stream that is closed from the start, end a command of this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
        elif stream is getattr(sys, f"__{name}__"):  # and not what a caller put in its place
            buffer = io.BufferedWriter(_Stream(stream.fileno(), "wb", closefd=False))
            options = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": stream.line_buffering}
            setattr(sys, name, io.TextIOWrapper(buffer, **options))


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


def gib(amount: float) -> str:
    """`1.5 GiB`, and of little `15 MiB`; `amount` is in GiB."""
    return f"{amount:.1f} GiB" if amount >= 0.1 else f"{1024 * amount:.0f} MiB"


def warn_of_unreadable_runs(home: Path, consequence: str = "") -> None:
    """Name the run records that are passed over, and what comes of it."""
    from pipeline.run.record import unreadable_runs

    for file in unreadable_runs(home):
        err.print(f"[yellow]{escape(str(file))} cannot be read and is passed over{consequence}[/]", soft_wrap=True)


def print_run(session: Session, as_json: bool) -> None:
    """What a finished run is worth: its results and where the report is."""
    from pipeline.run.gates.moved import alert_text

    report, record, folder = session.report_folder, session.record.data, session.record.folder
    if as_json:
        results = read_results(report) if report is not None else []
        page = str(folder / "report.html") if report is not None else None
        print_json({"run": record.id, "stages": record.to_json()["stages"], "results": results, "report": page})
        return
    show(f"\n{session.summary()}; record {folder / 'run.json'}")
    if report is not None:
        print_results(report)
        print_gate(record)
        if record.moved:
            show(f"\n[yellow]{escape(alert_text(session.config.name, record))}[/]".rstrip())
        show(f"\nReport: {folder / 'report.html'}")


def print_gate(record: RunRecordDocument) -> None:
    """What the gate said of a run; nothing where the config has no checks."""
    if record.gate:
        out.print()
        print_verdicts("gate", record.gate)


def print_verdicts(title: str, verdicts: Sequence[GateVerdict]) -> None:
    """The verdict of a gate, and below it a line for each check."""
    from pipeline.run.gates.gate import COLOURS, line, whole

    show(f"[bold {COLOURS[whole(verdicts)]}]{whole(verdicts)}[/]  {escape(title)}")
    for one in verdicts:
        place = f"{one.benchmark}, {one.checkpoint}" if one.checkpoint else one.benchmark
        tier = "" if one.tier == "critical" else " (advisory)"
        show(f"  [{COLOURS[one.verdict]}]{one.verdict}[/] {escape(f'{place}{tier}: {line(one)}')}")


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder's report.json. Raises `ConfigError` where they cannot be read."""
    from pipeline.core.errors import ConfigError
    from pipeline.run.record import read_report

    results: list[dict[str, Any]] = read_report(folder / "report.json", results=list)["results"]
    shown = {"benchmark": str, "checkpoint": str, "metric": str, "n": int, "value": int | float, "low": int | float}
    for result in results:
        if not isinstance(result, dict) or not all(isinstance(result.get(name), kind) for name, kind in shown.items()):
            raise ConfigError("the report is damaged: a result is not one", where=str(folder / "report.json"))
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
    for result in results:
        if thoughts := result.get("thinking"):
            counts = ", ".join(f"{ending} {count}" for ending, count in thoughts.items())
            out.print(f"thoughts of {result['checkpoint']} on {result['benchmark']}: {counts}")
