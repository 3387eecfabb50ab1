"""The report of a run or a sweep is found by name, and that of `latest`."""

import csv
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.sweep.find_report import find_report
from tests.pipeline.sweep.report.fakes import FakeCell, make_run, make_sweep, right, scores


def test_the_report_of_a_sweep_and_of_the_latest(tmp_path: Path) -> None:
    """A sweep ends with its last cell's run; `latest` is the sweep, until another run has been made."""
    cells = [FakeCell(method, "0", scores(right(50))) for method in ("sft", "vcore")]
    failed = FakeCell("dft", "0", scores(right(1)), status="failed")
    folder = make_sweep(tmp_path, [*cells, failed])
    assert find_report(tmp_path, folder.name[:-2])[0] == folder / "report.html"
    names = ["report.html", "report.md", "report.json", "report.csv", "report.tex"]
    assert [
        file.relative_to(tmp_path / "sweeps" / folder.name).name for file in find_report(tmp_path, "latest")
    ] == names
    run = make_run(tmp_path, "20260102-010000-other", "other", cells[0], "vcore run other.yaml")
    for name in ("report.html", "report.md"):
        (tmp_path / "runs" / run / name).write_text("")
    files = find_report(tmp_path, "latest")
    assert [file.parent.name for file in files] == [run] * 5
    assert "toy & 100 & $3.0" in files[-1].read_text()
    rows = list(csv.DictReader(files[-2].read_text().splitlines()))
    assert [(row["checkpoint"], row["value"], row["seed"]) for row in rows] == [
        ("base", "0.03", "0"),
        ("sft", "0.5", "0"),
    ]


def test_a_sweep_that_is_later_than_every_run_is_the_latest(tmp_path: Path) -> None:
    make_run(
        tmp_path, "20260101-000000-other", "other", FakeCell("sft", "0", scores(right(50))), "vcore run other.yaml"
    )
    folder = make_sweep(tmp_path, [])
    with pytest.raises(ConfigError, match=rf"no cell of {folder.name} has a score"):
        find_report(tmp_path, "latest")
