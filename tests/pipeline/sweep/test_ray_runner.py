"""Cells on a Ray cluster: paths, variables and GPUs of a node, and workers that die. Ray itself is mostly pretended."""

import json
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.store.store import Store
from pipeline.sweep import fan_out as fanout
from pipeline.sweep import ray_runner
from pipeline.sweep.documents import SweepRecord
from pipeline.sweep.ray_runner import RayCells
from pipeline.sweep.sweep import load_sweep
from tests.pipeline.sweep.test_sweep import GUIDE, ROOT, home, write


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
    assert record.status == "failed"
    assert {cell.error for cell in record.cells} == {"WorkerCrashedError: The worker died unexpectedly"}


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
        assert sorted(str(cell.run) for cell in record.cells) == ["0", "0", "1", "1"]
        code = "import os, time; os.kill(os.getppid(), 9); time.sleep(60)"  # its parent is the worker
        gone = start([sys.executable, "-c", code], tmp_path / "gone.log", {})
        assert gone.wait() == 1
        assert gone.printed.startswith("error: WorkerCrashedError: ")
        with pytest.raises(ConfigError, match="a cell asks for 3 GPUs, the cluster has 2"):
            RayCells("local", 3)
    finally:
        ray.shutdown()
