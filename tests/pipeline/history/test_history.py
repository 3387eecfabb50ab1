"""The history of a pipeline's scores: every run, changes of protocol, and a slide that no single night shows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.history.collect import collect
from pipeline.history.page import write_page
from pipeline.history.view import rows
from pipeline.run.gates.baseline import bless
from tests.pipeline.helpers import CONFIG
from tests.pipeline.history.nights import GSM, Night, make_nights, right

OTHER = {"sampling": {"temperature": 0.6}}


def history(home: Path, *nights: Night) -> Any:
    make_nights(home, nights)
    return collect(home, "nightly")


def test_a_slide_that_no_night_shows_is_seen_against_the_first_run(tmp_path: Path) -> None:
    """A problem lost a night, each night inside the interval of the night before."""
    found = history(tmp_path, *(Night({"sft": right(50 - lost)}) for lost in range(7)))
    (series,) = found.series
    changes = [point.change for point in series.points]
    assert changes[0] is None
    assert [change.clear for change in changes[1:]] == [False] * 4 + [True] * 2
    assert changes[-1].model_dump() | {"low": 0, "high": 0} == {
        "reference": "20260101-020000-nightly",
        "difference": pytest.approx(-0.06),
        "low": 0,
        "high": 0,
        "improved": 0,
        "worsened": 6,
    }


def test_a_blessed_run_is_the_reference_of_its_seed_and_protocol(tmp_path: Path) -> None:
    nights = [Night({"sft": right(50)}), Night({"sft": right(40)}), Night({"sft": right(41)})]
    _, second, _, _ = make_nights(tmp_path, [*nights, Night({"sft": right(9)}, protocol=OTHER)])
    bless(tmp_path, second, by="me")
    points = collect(tmp_path, "nightly").series[0].points
    assert [point.change and (point.change.reference, round(point.change.difference, 2)) for point in points] == [
        (second, 0.1),
        None,
        (second, 0.01),
        None,
    ]
    assert [row.note.partition(";")[0] for row in rows(collect(tmp_path, "nightly").series[0])][:3] == [
        "",
        "blessed",
        "",
    ]


def test_a_blessed_run_that_is_gone_is_named(tmp_path: Path) -> None:
    first, second, _ = make_nights(
        tmp_path, [Night({"sft": right(50)}), Night({"sft": right(40)}), Night({"sft": right(41)})]
    )
    bless(tmp_path, second, by="me")
    assert collect(tmp_path, "nightly").trouble == []
    file = tmp_path / "runs" / second / "run.json"
    file.write_text(file.read_text()[:50])
    assert collect(tmp_path, "nightly").trouble == [
        f"{file}: cannot be read and is passed over",
        f"run {second} was blessed and its record cannot be read; the first run of its seed stands in for it",
    ]
    shutil.rmtree(tmp_path / "runs" / second)
    found = collect(tmp_path, "nightly")
    assert found.trouble == [f"run {second} was blessed and is gone; the first run of its seed stands in for it"]
    assert [point.change and point.change.reference for point in found.series[0].points] == [None, first]


def test_a_run_that_gave_an_alert_is_marked(tmp_path: Path) -> None:
    first, second = make_nights(tmp_path, [Night({"base": right(5), "sft": right(50)}), Night({"sft": right(20)})])
    file = tmp_path / "runs" / second / "run.json"
    moved = {"benchmark": GSM, "checkpoint": "sft", "against": "anchor", "reference": first}
    other = {**moved, "against": "window", "reason": "too few problems in common"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"moved": [moved, other]}))
    found = collect(tmp_path, "nightly")
    assert [point.alerts for series in found.series for point in series.points] == [[], [], ["anchor"]]
    assert "1 alerts" in write_page(found, tmp_path).read_text()


def test_a_change_of_protocol_is_marked_and_begins_a_new_comparison(tmp_path: Path) -> None:
    found = history(
        tmp_path,
        Night({"sft": right(50)}),
        Night({"sft": right(20)}, protocol=OTHER),
        Night({"sft": right(21)}, protocol=OTHER),
        Night({"sft": right(49)}),
    )
    points = found.series[0].points
    assert [p.protocol_change for p in points] == [
        None,
        ["sampling.temperature: 0.0 / 0.6"],
        None,
        ["sampling.temperature: 0.6 / 0.0"],
    ]
    references = [p.change.reference[:8] if p.change else None for p in points]
    assert references == [None, None, "20260102", "20260101"]


def test_seeds_are_not_compared_with_each_other(tmp_path: Path) -> None:
    found = history(tmp_path, Night({"sft": right(50)}), Night({"sft": right(20)}, protocol=OTHER, seed=1))
    points = found.series[0].points
    assert [(p.seed, p.change, p.protocol_change) for p in points] == [(0, None, None), (1, None, None)]


def test_runs_that_share_an_artifact_are_one_row(tmp_path: Path) -> None:
    found = history(tmp_path, *[Night({"sft": right(50)})] * 3, Night({"sft": right(49)}), Night({"sft": right(50)}))
    shown = [(row.runs, row.change) for row in rows(found.series[0])]
    assert shown[0] == ("20260101-020000-nightly and 2 more, until 2026-01-03", "reference")
    assert [text.partition(" ")[0] for _, text in shown[1:]] == ["-1.0", "0.0"]


def test_where_an_artifact_is_gone_the_report_of_its_run_is_read(tmp_path: Path) -> None:
    first, _ = make_nights(tmp_path, [Night({"sft": right(50)}), Night({"sft": right(40)})])
    key = json.loads((tmp_path / "runs" / first / "run.json").read_text())["stages"][0]["key"]
    metrics = json.loads((tmp_path / "store/score" / key / "metrics.json").read_text())[GSM]
    shutil.rmtree(tmp_path / "store/score" / key)
    report = {"results": [{**metrics, "benchmark": GSM, "checkpoint": "sft"}]}
    (tmp_path / "runs" / first / "report.json").write_text(json.dumps(report))
    found = collect(tmp_path, "nightly")
    assert [point.value for point in found.series[0].points] == [0.5, 0.4]
    assert "nothing is known" in found.series[0].points[1].why_no_change
    assert found.trouble == [
        f"run {first}, score.sft: its artifact is gone from the store; its numbers are those of the run's report"
    ]


def test_a_damaged_score_is_not_shown(tmp_path: Path) -> None:
    first, _ = make_nights(tmp_path, [Night({"sft": right(50)}), Night({"sft": right(40)})])
    key = json.loads((tmp_path / "runs" / first / "run.json").read_text())["stages"][0]["key"]
    (tmp_path / "store/score" / key / "metrics.json").write_text("{}")
    found = collect(tmp_path, "nightly")
    assert [point.value for point in found.series[0].points] == [0.4]
    assert found.trouble == [f"run {first}, score.sft: file metrics.json damaged; its numbers are lost"]


def test_other_problems_are_not_compared(tmp_path: Path) -> None:
    found = history(tmp_path, Night({"sft": right(50)}), Night({"sft": right(50, n=90)}))
    assert found.series[0].points[1].why_no_change == "not of the same problems: 10 are in one only"


@pytest.mark.parametrize(
    ("name", "benchmark", "said"),
    [
        ("weekly", None, "no run of 'weekly'"),
        ("nightly", "aime24", "no run of 'nightly' measured 'aime24'"),
        ("empty", None, "no run of 'empty' has a score"),
    ],
)
def test_what_is_not_there_is_one_clear_line(tmp_path: Path, name: str, benchmark: str | None, said: str) -> None:
    make_nights(tmp_path, [Night({"sft": right(50)}), Night({}, name="empty")])
    with pytest.raises(ConfigError, match=said):
        collect(tmp_path, name, benchmark)


def test_the_page_draws_every_series_and_escapes_what_it_shows(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"base": right(5), "sft": right(50)}), Night({"sft": right(30)}, protocol=OTHER)])
    (tmp_path / "runs/20260101-020000-nightly/report.html").write_text("the report")
    found = collect(tmp_path, "nightly")
    hostile = found.model_copy(update={"trouble": ["<script>alert(1)</script>"]})
    text = write_page(hostile, tmp_path / "deep" / "page").read_text()
    assert text.count("<svg") == 2
    assert "<script" not in text
    assert 'href="../../runs/20260101-020000-nightly/report.html"' in text
    assert (
        "sft: scores of 2 runs with 95 % intervals, from 50.0 to 30.0 per cent; protocol changed 1 times, 0 alerts"
        in text
    )


def test_the_command_takes_a_config_and_imports_neither_torch_nor_prefect(tmp_path: Path) -> None:
    make_nights(tmp_path / "home", [Night({"sft": right(50 - i)}) for i in range(2)])
    (tmp_path / "nightly.yaml").write_text(CONFIG.replace("name: small", f"name: nightly\nhome: {tmp_path / 'home'}"))
    code = (
        "import sys; from typer.main import get_command; from pipeline.cli.app import app\n"
        "get_command(app)(sys.argv[1:], standalone_mode=False)\n"
        "print([name for name in ('torch', 'prefect', 'vllm', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    line = [sys.executable, "-c", code, "history", str(tmp_path / "nightly.yaml"), "--out", str(tmp_path), "--json"]
    answer = subprocess.run(line, capture_output=True, text=True, check=True)
    shown = json.loads(answer.stdout)
    assert (shown["runs"], shown["page"]) == (2, str(tmp_path / "history.html"))
    assert shown["series"][0]["points"][1]["change"]["worsened"] == 1
    assert answer.stderr.strip().endswith("[]")
