"""Finding the report of a run or a sweep, and making a sweep's from its runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.runs import find_run

RUN_FILES = ("report.html", "report.md", "report.json")


def sweep_report(home: Path, folder: Path) -> list[Path]:
    """Write the report of the sweep in `folder` anew; returns its files. Raises `ConfigError` where no cell has ended well."""
    from stages.sweep_report.build import write_report

    try:
        return write_report(home, folder)
    except (ValueError, OSError) as error:
        raise ConfigError(f"there is nothing to report: {error}", where=folder.name) from error


def find_report(home: Path, name: str) -> list[Path]:
    """The files of a run's report, or of a sweep's, made anew. `latest` is the later of the latest run and the latest sweep."""
    sweeps = sorted(file.parent for file in (home / "sweeps").glob("*/sweep.json"))
    matching = sweeps[-1:] if name == "latest" else [f for f in sweeps if f.name == name] or [f for f in sweeps if f.name.startswith(name)]
    if len(matching) > 1:
        raise ConfigError(f"{name!r} stands for {len(matching)} sweeps", fix="One of: " + ", ".join(f.name for f in matching[-5:]))
    if matching and (name != "latest" or not any((home / "runs").glob("*/run.json"))):
        return sweep_report(home, matching[0])
    run = find_run(home, name)
    if matching and run.name < matching[0].name:
        return sweep_report(home, matching[0])
    files = [run / file for file in RUN_FILES if (run / file).is_file()]
    if not files:
        raise ConfigError(f"run {run.name} has no report: it did not come that far", fix=f"See: vcore show {run.name}")
    return files


def copy_report(files: list[Path], target: Path) -> list[Path]:
    """Copy a report's files to a folder, made if it is missing. Raises `ConfigError` where it cannot be."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy2(file, target / file.name)) for file in files]
    except OSError as error:
        raise ConfigError(f"cannot write to {target}: {error.strerror or error}", where="--out") from error
