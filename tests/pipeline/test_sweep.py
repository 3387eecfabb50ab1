"""Sweeps: reading and expanding the matrix, seeing what cells share, failing cells, and the report. The store is real."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import fanout
from pipeline.errors import ConfigError, Interrupted
from pipeline.ray_runner import RayCells
from pipeline.store import Store
from pipeline.sweep import SweepRecord, load_sweep, plan_sweep
from pipeline.sweep_report import find_report, sweep_report
from stages.sweep_report.build import summary
from stages.sweep_report.collect import collect
from tests.pipeline.test_plan import CONFIG, make

SWEEP = """
config: small.yaml
name: methods
matrix:
  method:
    sft: {sft.method: {name: uniform}}
    vcore: {sft.method: {name: vcore}}
  seed: [0, 1]
baseline: {method: sft}
"""


def write(tmp_path: Path, text: str = SWEEP) -> Path:
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "sweep.yaml").write_text(text)
    return tmp_path / "sweep.yaml"


def home(tmp_path: Path) -> list[str]:
    return [f"home={tmp_path / 'home'}"]


def test_the_matrix_becomes_cells(tmp_path: Path) -> None:
    cells = load_sweep(write(tmp_path), ["sft.max_steps=5"]).cells
    assert [cell.labels for cell in cells] == [{"method": m, "seed": s} for m in ("sft", "vcore") for s in ("0", "1")]
    assert cells[2].overrides == ('sft.method={"name": "vcore"}', "seed=0", "sft.max_steps=5", "name=methods.method-vcore.seed-0")


def test_what_cells_share_is_planned_once(tmp_path: Path) -> None:
    planned = plan_sweep(load_sweep(write(tmp_path), home(tmp_path)))
    # Of 11 stages, a method changes 7: sft, grpo, what is sampled and scored of them, and the report.
    assert (planned.stages, planned.distinct, planned.cached) == (44, 2 * (4 + 2 * 7), 0)
    assert planned.untimed == planned.distinct
    make(tmp_path, 'sft.method={"name": "uniform"}', "name=methods.method-sft.seed-0")
    again = plan_sweep(load_sweep(write(tmp_path), home(tmp_path)))
    assert again.cached == 11
    assert again.seconds == pytest.approx(2.5 * (36 - 11)), "a stage of that name took 2.5 s last time"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: methods", "nmae: methods"), r"sweep.yaml:3: nmae"),
        (("seed: [0, 1]", "seed: []"), "seed: takes a list of values"),
        (("seed: [0, 1]", "seed: [0, 0]"), "a value stands in it twice"),
        (("seed: [0, 1]", "seed: 3"), "seed: takes a list of values, or named variants"),
        (("baseline: {method: sft}", "baseline: {method: sgt}"), "'sgt' is none of sft, vcore"),
        (("baseline: {method: sft}", "baseline: {seed: 0}"), "no axis that could have a baseline"),
        (("{name: vcore}", "{name: vcoer}"), r"cell method=vcore seed=0: .*sft\.method"),
        (("config: small.yaml", "config: smal.yaml"), "smal.yaml does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sweep(load_sweep(write(tmp_path, SWEEP.replace(*change)), home(tmp_path)))


def finished(tmp_path: Path, values: dict[tuple[str, str], float], text: str = SWEEP, failed: str = "") -> Path:
    """The record of a sweep whose cells ended with these scores (labels -> accuracy after SFT; RL adds 0.1), as runs would leave them."""
    sweep = load_sweep(write(tmp_path, text), home(tmp_path))
    record = SweepRecord.start(tmp_path / "home", sweep, "vcore sweep sweep.yaml")
    for entry in record.data["cells"]:
        if entry["name"] == failed:
            entry.update(status="failed", error="stage sft: it broke")
            continue
        value = values[entry["labels"]["method"], entry["labels"]["seed"]]
        run = tmp_path / "home" / "runs" / entry["name"]
        run.mkdir(parents=True)
        common = {"benchmark": "word_problems", "metric": "accuracy", "n": 100, "k": 1, "protocol": "p", "truncated": 1, "no_answer": 2}
        results = [{**common, "checkpoint": c, "value": v, "low": v, "high": v} for c, v in (("sft", value), ("grpo", value + 0.1))]
        (run / "report.json").write_text(json.dumps({"results": results, "git": {"commit": "abc"}}))
        shared = {"name": "data", "key": "d", "seconds": 4.0}
        own = {"name": "sft", "key": entry["name"], "seconds": 10.0}
        (run / "run.json").write_text(json.dumps({"stages": [shared, own]}))
        entry.update(status="done", run=entry["name"])
    record.end("done")
    return record.folder


def test_the_report_means_over_seeds_and_compares_seed_by_seed(tmp_path: Path) -> None:
    values = {("sft", "0"): 0.50, ("sft", "1"): 0.70, ("vcore", "0"): 0.60, ("vcore", "1"): 0.801}
    folder = finished(tmp_path, values)
    sweep_report(tmp_path / "home", folder)
    report = json.loads((folder / "report.json").read_text())
    table = next(t for t in report["tables"] if t["checkpoint"] == "sft")
    sft, vcore = table["rows"]
    assert sft["mean"]["mean"] == pytest.approx(0.6)
    # Two seeds: t is 12.7, and the spread between seeds is large; the paired difference has hardly any.
    assert sft["mean"]["high"] - 0.6 == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert vcore["difference"]["mean"] == pytest.approx(0.1005)
    assert vcore["verdict"] == "higher"
    assert sft["difference"] is None
    assert report["computed_s"] == pytest.approx(4 + 4 * 10)
    assert report["saved_s"] == pytest.approx(3 * 4)
    assert {step["verdict"] for step in report["steps"]} == {"higher"}
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert rows[0]["method"] == "sft"
    assert r"$60.0 \pm 127.1$" in (folder / "report.tex").read_text()
    page = (folder / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "+10.1 [+9.4, +10.7]" in page
    assert "60.0 % [0.0, 100.0]" in summary(collect(tmp_path / "home", folder))
    assert find_report(tmp_path / "home", folder.name[:-4])[0] == folder / "report.html"


PUBLISHED = (
    SWEEP
    + """
published:
  source: a paper
  axis: method
  base: {word_problems: 3.0}
  sft: {word_problems: {sft: 60.0, vcore: 99.0}, "word_problems+aime24": {sft: 10.0}}
"""
)


def test_published_scores_stand_beside_ours(tmp_path: Path) -> None:
    values = {("sft", "0"): 0.50, ("sft", "1"): 0.70, ("vcore", "0"): 0.60, ("vcore", "1"): 0.62}
    folder = finished(tmp_path, values, PUBLISHED)
    sweep_report(tmp_path / "home", folder)
    report = json.loads((folder / "report.json").read_text())
    beside = {row["label"]: row for row in report["published"]}
    assert beside["sft"]["inside"] is True
    assert beside["vcore"]["inside"] is False
    assert beside["vcore"]["ours"] == pytest.approx(0.61)
    assert report["published_not_measured"] == ["word_problems base 3 %", "word_problems+aime24 sft sft 10 %"]
    assert "Published and not measured here" in (folder / "report.md").read_text()


def test_published_scores_of_unknown_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'vcoer' is none of sft, vcore"):
        load_sweep(write(tmp_path, PUBLISHED.replace("vcore: 99.0", "vcoer: 99.0")), [])


def test_failed_cells_and_single_seeds_are_said(tmp_path: Path) -> None:
    values = {("sft", "0"): 0.5, ("sft", "1"): 0.5, ("vcore", "0"): 0.5, ("vcore", "1"): 0.5}
    folder = finished(tmp_path, values, SWEEP.replace("[0, 1]", "[0]"), failed="methods.method-vcore.seed-0")
    sweep_report(tmp_path / "home", folder)
    page = (folder / "report.md").read_text()
    assert "methods.method-vcore.seed-0: failed stage sft: it broke" in page
    assert "There is one seed" in page


def test_scores_before_a_failure_are_in_the_report(tmp_path: Path) -> None:
    """RL failed for one seed; that seed's SFT score counts, or the method's mean would be that of its better seeds."""
    values = {("sft", "0"): 0.5, ("sft", "1"): 0.5, ("vcore", "0"): 0.5}
    name = "methods.method-vcore.seed-1"
    folder = finished(tmp_path, values, failed=name)
    score = tmp_path / "home" / "store" / "score" / "s"
    metrics = {"metric": "accuracy", "n": 100, "k": 1, "protocol": "p", "truncated": 1, "no_answer": 2, "value": 0.1, "low": 0, "high": 1}
    run = tmp_path / "home" / "runs" / f"20260101-{name}"
    for place in (score, run):
        place.mkdir(parents=True)
    (score / "metrics.json").write_text(json.dumps({"word_problems": metrics}))
    (score / "manifest.json").write_text('{"git": {"commit": "abc"}}')
    (run / "run.json").write_text(json.dumps({"stages": [{"name": "score.sft", "key": "s", "seconds": 1.0, "folder": str(score)}]}))
    sweep_report(tmp_path / "home", folder)
    report = json.loads((folder / "report.json").read_text())
    seeds = {t["checkpoint"]: {row["group"]: row["values"] for row in t["rows"]} for t in report["tables"]}
    assert seeds["sft"]["vcore"] == {"0": 0.5, "1": 0.1}
    assert seeds["grpo"]["vcore"] == {"0": 0.6}
    page = (folder / "report.md").read_text()
    assert "3 of 4 cells ended well" in page
    assert "over those that came that far" in page


def test_nothing_to_report(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path), home(tmp_path))
    record = SweepRecord.start(tmp_path / "home", sweep, "vcore sweep sweep.yaml")
    with pytest.raises(ConfigError, match=r"no cell of .* has a score"):
        sweep_report(tmp_path / "home", record.folder)


CELL = """
import json, pathlib, sys, time
sets = dict(word.split("=", 1) for word in sys.argv if "=" in word)
name, folder = sets["name"], pathlib.Path(sets["home"])
(folder / f"began-{name}").touch()
if name.endswith("sft.seed-1"):
    sys.exit("error: stage sft: it broke")
if "slow" in sets.get("execution.device", ""):
    time.sleep(60)
print(json.dumps({"run": name, "stages": [{"state": "ran"}, {"state": "cached"}]}))
"""


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run_cells` with cells that only pretend to run a pipeline; processes, logs and the record are real."""
    (tmp_path / "cell.py").write_text(CELL)
    real = fanout.LocalProcess

    def local(command: list[str], **options: Any) -> Any:
        start = command.index("pipeline")
        return real([*command[: start - 1], str(tmp_path / "cell.py"), *command[start + 1 :]], **options)

    monkeypatch.setattr(fanout, "LocalProcess", local)

    def run(jobs: int, *overrides: str) -> tuple[SweepRecord, list[str], list[str]]:
        sweep = load_sweep(write(tmp_path), [*home(tmp_path), *overrides])
        store = Store(tmp_path / "home")
        record, lines = SweepRecord.start(store.home, sweep, "vcore sweep"), []
        return record, fanout.run_cells(sweep, record, store.home, jobs, False, lines.append), lines

    return run


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_failing_cell_does_not_stop_the_others(cells: Any, jobs: int) -> None:
    record, failed, lines = cells(jobs)
    assert failed == ["methods.method-sft.seed-1"]
    ended = {entry["name"]: (entry["status"], entry["error"]) for entry in record.data["cells"]}
    assert ended["methods.method-sft.seed-1"] == ("failed", "stage sft: it broke")
    assert [status for status, _ in ended.values()].count("done") == 3
    assert record.data["status"] == "failed"
    assert len(lines) == 4


def test_stopping_a_sweep_stops_its_cells(cells: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(seconds: float) -> None:
        if (tmp_path / "home" / "began-methods.method-sft.seed-0").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(fanout.time, "sleep", stop)
    with pytest.raises(Interrupted):
        cells(1, "execution.device=slow")
    (file,) = (tmp_path / "home" / "sweeps").glob("*/sweep.json")
    record = json.loads(file.read_text())
    assert record["status"] == "interrupted"
    assert [entry["status"] for entry in record["cells"]] == ["interrupted", "waiting", "waiting", "waiting"]


RAY_CELL = """
import json, os, pathlib, sys, time
time.sleep(0.5)
print(json.dumps({"run": os.environ["CUDA_VISIBLE_DEVICES"], "stages": []}))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_cells_on_ray_get_gpus_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that are only pretended: Ray hands them out as it would real ones."""
    ray = pytest.importorskip("ray", reason="ray is not installed: fan-out over a cluster was not tried")
    (tmp_path / "pipeline.py").write_text(RAY_CELL)
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        sweep = load_sweep(write(tmp_path), home(tmp_path))
        record = SweepRecord.start(Store(tmp_path / "home").home, sweep, "vcore sweep")
        cells = RayCells("local", 1)
        start = cells.start
        code = f"import runpy; runpy.run_path({str(tmp_path / 'pipeline.py')!r}, run_name='__main__')"
        monkeypatch.setattr(cells, "start", lambda command, log, environment: start([command[0], "-c", code], log, environment))
        assert fanout.run_cells(sweep, record, tmp_path / "home", 1, False, lambda text: None, cells) == []
        assert sorted(entry["run"] for entry in record.data["cells"]) == ["0", "0", "1", "1"]
        with pytest.raises(ConfigError, match="a cell asks for 3 GPUs, the cluster has 2"):
            RayCells("local", 3)
    finally:
        ray.shutdown()
