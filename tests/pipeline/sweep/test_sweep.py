"""Sweeps: reading and expanding the matrix, seeing what cells share, failing cells, and the report. The store is real."""

import csv
import json
import re
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli.sweep import command_line
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError, Interrupted
from pipeline.launch import machine
from pipeline.plan import external
from pipeline.store.store import Store
from pipeline.sweep import fan_out as fanout
from pipeline.sweep import ray_runner
from pipeline.sweep.find_report import find_report
from pipeline.sweep.ray_runner import RayCells
from pipeline.sweep.sweep import SweepRecord, load_sweep, plan_sweep
from stages.report.tables import tex
from tests.pipeline.helpers import CONFIG, make
from tests.pipeline.sweep.report.fakes import FakeCell, make_run, make_sweep, right, scores

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "orchestration.md"
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
    assert cells[2].overrides == (
        'sft.method={"name": "vcore"}',
        "seed=0",
        "sft.max_steps=5",
        "name=methods.method-vcore.seed-0",
    )


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


def test_published_scores_of_unknown_labels_are_refused(tmp_path: Path) -> None:
    published = "published: {source: a paper, axis: method, sft: {word_problems: {vcoer: 99.0}}}"
    with pytest.raises(ConfigError, match="'vcoer' is none of sft, vcore"):
        load_sweep(write(tmp_path, SWEEP + published), [])


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


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a_b", r"a\_b"), ("5 %", r"5 \%"), ("x^2~\\y", r"x\textasciicircum{}2\textasciitilde{}\textbackslash{}y")],
)
def test_nothing_in_a_table_is_latex(text: str, escaped: str) -> None:
    assert tex(text) == escaped


def test_the_recorded_command_is_the_whole_command(tmp_path: Path) -> None:
    assert command_line(Path("s.yaml"), ["seed=1"], 1, None, 0) == "vcore sweep s.yaml --set seed=1"
    whole = "vcore sweep s.yaml --jobs 3 --ray auto --gpus-per-cell 0.5"
    assert command_line(Path("s.yaml"), [], 3, "auto", 0.5) == whole


CELL = """
import json, pathlib, shlex, sys, time
sets = dict(word.split("=", 1) for word in sys.argv if "=" in word)
name, folder = sets["name"], pathlib.Path(sets["home"])
run = folder / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
run.mkdir(parents=True)
command = shlex.join(["vcore", *sys.argv[1:-1]])
(run / "run.json").write_text(json.dumps({"id": run.name, "name": name, "command": command}))
(folder / f"began-{name}").touch()
if name.endswith("sft.seed-1"):
    sys.exit("error: stage sft: it broke")
if "slow" in sets.get("execution.device", ""):
    time.sleep(60)
long = " " * 200_000  # more than a pipe holds
print(json.dumps({"run": run.name, "stages": [{"state": "ran"}, {"state": "cached"}], "report": long}))
"""


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run_cells` with cells that only pretend to run a pipeline; processes, logs and the record are real."""
    (tmp_path / "cell.py").write_text(CELL)
    real = fanout.LocalProcess

    def local(command: list[str], *files: Any) -> Any:
        start = command.index("pipeline")
        return real([*command[: start - 1], str(tmp_path / "cell.py"), *command[start + 1 :]], *files)

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
    for entry in record.data["cells"]:
        assert entry["run"].endswith(entry["name"]), (
            "the run of a cell that failed is known too: its scores until then count"
        )


@pytest.mark.slow
def test_a_run_of_an_earlier_sweep_is_not_the_cells(cells: Any, tmp_path: Path) -> None:
    first = {entry["name"]: entry["run"] for entry in cells(1)[0].data["cells"]}
    time.sleep(1.1)  # a run's id has its second
    again = {entry["name"]: entry["run"] for entry in cells(1)[0].data["cells"]}
    assert all(first[name] != again[name] for name in first)


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
    assert record["cells"][0]["run"].endswith("methods.method-sft.seed-0")
    assert record["cells"][1]["run"] is None


class GoneWorker:
    """A task whose worker died: `code` is what `RayProcess` makes of it."""

    printed = "error: WorkerCrashedError: The worker died unexpectedly"

    def __init__(self, code: int) -> None:
        self.returncode = code

    def poll(self) -> int:
        return self.returncode


def test_a_worker_that_dies_before_its_log_is_there_fails_one_cell(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path), home(tmp_path))
    record = SweepRecord.start(Store(tmp_path / "home").home, sweep, "vcore sweep")
    cluster: Any = SimpleNamespace(start=lambda command, log, environment: GoneWorker(1))
    assert len(fanout.run_cells(sweep, record, tmp_path / "home", 1, False, lambda text: None, cluster)) == 4
    assert record.data["status"] == "failed"
    assert {entry["error"] for entry in record.data["cells"]} == {"WorkerCrashedError: The worker died unexpectedly"}


def on_a_node(folder: Path, tmp_path: Path, **environment: str) -> dict[str, Any]:
    """What a command sees that a worker of Ray runs."""
    code = "import json, os; print(json.dumps({'cwd': os.getcwd(), **os.environ}))"
    log = str(tmp_path / "cell.log")
    status, printed = ray_runner._run_command([sys.executable, "-c", code], log, environment, str(folder), False)
    seen: dict[str, Any] = json.loads(printed) if status == 0 else {"error": printed}
    return seen


def test_a_cell_on_a_node_means_the_same_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's folder and variables; Ray itself is only pretended."""
    given: list[Any] = []
    remote = SimpleNamespace(remote=lambda *arguments: given.append(arguments))
    cluster = RayCells.__new__(RayCells)
    cluster._ray, cluster._gpus = SimpleNamespace(remote=lambda **options: lambda function: remote), 0
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "VCORE_HOME": "store",
        "HF_HUB_OFFLINE": "1",
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VCORE_DATA_DIR", raising=False)
    cluster.start(["vcore"], tmp_path / "cell.log", {"PYTHONPATH": "code"})
    ((_, _, environment, folder, _),) = given
    for name in ("VCORE_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name)
    seen = on_a_node(Path(folder), tmp_path, **environment)
    assert (seen["cwd"], seen["VCORE_HOME"], seen["HF_HUB_OFFLINE"]) == (str(tmp_path), "store", "1")
    assert "PREFECT_API_URL" not in seen, "a loopback address is another server there"
    assert seen["PREFECT_HOME"] == str(tmp_path / "cell.prefect"), "cells do not share a database"
    server = on_a_node(tmp_path, tmp_path, PREFECT_API_URL="http://prefect.example:4200/api")
    assert server["PREFECT_API_URL"] == "http://prefect.example:4200/api"
    assert "there is no folder /nowhere on" in on_a_node(Path("/nowhere"), tmp_path)["error"]


def test_ray_that_is_not_installed_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError) as refused:
        RayCells("auto", 0)
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["ray"]
    assert refused.value.fix == f"Install it: pip install {pinned[0]}"
    assert f"`pip install {pinned[0]}`" in GUIDE.read_text()


def test_the_guides_sweep_of_evaluations_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shards,) = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.S)
        if "benchmarks:" in block and "model:" in block
    ]
    monkeypatch.setattr(external, "_hub_commit", lambda origin: "0" * 40)
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H100, 81559 MiB"])
    (tmp_path / "shards.yaml").write_text(shards.replace("configs/", f"{ROOT}/configs/"))
    planned = plan_sweep(load_sweep(tmp_path / "shards.yaml", home(tmp_path)))
    assert len(planned.cells) == 4
    programs = {stage.stage.program for cell in planned.cells for stage in cell.stages}
    assert programs == {"data", "base", "generate", "score", "report"}, "it trains nothing"
    assert planned.stages - planned.distinct == 2 + 2, "a checkpoint and a benchmark are each fetched once"


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
        monkeypatch.setattr(
            cells, "start", lambda command, log, environment: start([command[0], "-c", code], log, environment)
        )
        assert fanout.run_cells(sweep, record, tmp_path / "home", 1, False, lambda text: None, cells) == []
        assert sorted(entry["run"] for entry in record.data["cells"]) == ["0", "0", "1", "1"]
        code = "import os, time; os.kill(os.getppid(), 9); time.sleep(60)"  # its parent is the worker
        gone = start([sys.executable, "-c", code], tmp_path / "gone.log", {})
        assert gone.wait() == 1
        assert gone.printed.startswith("error: WorkerCrashedError: ")
        with pytest.raises(ConfigError, match="a cell asks for 3 GPUs, the cluster has 2"):
            RayCells("local", 3)
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    "override", ["seed=3", "sft.method={name: dft}", "sft.method.name=dft", "sft={method: {name: dft}}"]
)
def test_an_override_of_an_axis_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is what the axis (seed|method) changes from cell to cell"):
        load_sweep(write(tmp_path), [override])


def test_a_sweep_and_a_pipeline_are_told_apart(tmp_path: Path) -> None:
    file = write(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)this is a sweep.*vcore sweep"):
        load_config(file)
    with pytest.raises(ConfigError, match=r"(?s)this is no sweep.*vcore run"):
        load_sweep(tmp_path / "small.yaml", [])
