"""Finding the report of a run or a sweep, and making a sweep's from its runs."""

import shutil
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.run.record import find_run, report_of
from pipeline.sweep.documents import SweepRecord
from pipeline.sweep.report.cells import run_of_cell
from stages.report.documents import REPORT_FILES, DocumentError, Report
from stages.report.tables import as_csv, as_latex


def sweep_report(home: Path, folder: Path) -> list[Path]:
    """Write the report of the sweep in `folder` anew; returns its files. Raises `ConfigError` without any score."""
    from pipeline.sweep.report.build import write_report

    try:
        return write_report(home, folder)
    except (ValueError, OSError) as error:
        raise ConfigError(f"its report cannot be made: {error}", where=folder.name) from error


def find_report(home: Path, name: str) -> list[Path]:
    """The files of a run's report, its tables made from it, or of a sweep's, made anew.

    Args:
        name: of a run or a sweep, or its beginning. `latest` is the latest run; or the latest sweep, where that is
            later or the run is one of its cells.

    Raises:
        ConfigError: there is no such report, or the name stands for several sweeps.
    """
    sweeps = sorted(file.parent for file in (home / "sweeps").glob("*/sweep.json"))
    if name == "latest":
        sweep = _latest_sweep(home, sweeps)
        matching = [sweep] if sweep is not None else []
    else:
        matching = [f for f in sweeps if f.name == name] or [f for f in sweeps if f.name.startswith(name)]
    if len(matching) > 1:
        some = ", ".join(folder.name for folder in matching[-5:])
        raise ConfigError(f"{name!r} stands for {len(matching)} sweeps", fix=f"One of: {some}")
    if matching:
        return sweep_report(home, matching[0])
    run = find_run(home, name)
    try:
        report = Report.load(report_of(run))
    except DocumentError as error:
        raise ConfigError(f"the report of run {run.name} cannot be read: {error}") from error
    for file, text in (("report.csv", as_csv(report)), ("report.tex", as_latex(report))):
        (run / file).write_text(text, encoding="utf-8")
    return [run / file for file in REPORT_FILES]


def _latest_sweep(home: Path, sweeps: list[Path]) -> Path | None:
    """The sweep that is later than every run, or that the latest run is a cell of; None if that run is no cell."""
    runs = sorted(file.parent.name for file in (home / "runs").glob("*/run.json"))
    if not sweeps or not runs or runs[-1] < sweeps[-1].name:
        return sweeps[-1] if sweeps else None

    def made(sweep: Path) -> bool:
        return any(run_of_cell(home, cell) == runs[-1] for cell in SweepRecord.load(sweep / "sweep.json").cells)

    return next((sweep for sweep in reversed(sweeps) if made(sweep)), None)


def copy_report(files: list[Path], target: Path) -> list[Path]:
    """Copy a report's files to a folder, made if it is missing. Raises `ConfigError` where it cannot be."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy2(file, target / file.name)) for file in files]
    except OSError as error:
        raise ConfigError(f"cannot write to {target}: {error.strerror or error}", where="--out") from error
