"""report.json as a model: what was written comes back, older reports can be read, damage is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.report.documents import DocumentError, PairedComparison, Report, ReportedComparison
from tests.stages.report.artifacts import complete, report_of


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.json of a run whose SFT checkpoint was measured by another protocol."""
    folder = tmp_path_factory.mktemp("run")
    report_of(folder, complete(folder, sft_protocol="def456"))
    return folder / "out" / "report.json"


def changed(file: Path, folder: Path, change: dict[str, Any]) -> Path:
    (folder / "report.json").write_text(json.dumps(json.loads(file.read_text()) | change))
    return folder / "report.json"


def test_what_was_written_comes_back(file: Path) -> None:
    report = Report.load(file)
    assert report.model_dump() == json.loads(file.read_text())
    assert report.checkpoints == ["base", "sft", "grpo"]
    assert [type(c) for c in report.comparisons] == [ReportedComparison, ReportedComparison]
    assert report.outside is None
    assert report.transcripts == [], "the pages alone show them"


def test_a_comparison_has_its_difference_or_is_none(tmp_path: Path) -> None:
    report_of(tmp_path, complete(tmp_path))
    first, _ = Report.load(tmp_path / "out" / "report.json").comparisons
    assert isinstance(first, PairedComparison)
    assert (first.improved, first.worsened, first.test) == (9, 0, "exact McNemar")


def test_an_older_report_can_be_read(file: Path, tmp_path: Path) -> None:
    """Without what came later: costs, what was read from outside, votes and splits. And with a field that is gone."""
    values = json.loads(file.read_text())
    for stage in values["stages"]:
        del stage["cost"], stage["outside"]
    for result in values["results"]:
        del result["majority"], result["split"]
    report = Report.load(changed(file, tmp_path, {**values, "retired": 1}))
    assert report.results[0].split == ""
    assert report.stages[0].cost.gpu_hours == 0
    assert not hasattr(report, "retired")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"results": [{"checkpoint": "sft"}]}, "'results.0.benchmark' is missing"),
        ({"seed": "seven"}, "seed: Input should be a valid integer"),
        ({"git": None}, "git: Input should be"),
    ],
)
def test_damage_is_said_with_its_place(file: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=rf"report\.json: {message}"):
        Report.load(changed(file, tmp_path, change))


def test_half_a_file_is_damage_too(file: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(file.read_text()[:100])
    with pytest.raises(DocumentError, match=r"report\.json: Invalid JSON"):
        Report.load(tmp_path / "report.json")
