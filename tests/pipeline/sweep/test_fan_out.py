"""The cells of a sweep as processes: one that fails, one that was there before, and a sweep that is stopped."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import Interrupted
from pipeline.store.store import Store
from pipeline.sweep import fan_out as fanout
from pipeline.sweep.documents import SweepRecord
from pipeline.sweep.sweep import load_sweep
from tests.pipeline.sweep.test_sweep import home, write

CELL = """
import json, pathlib, shlex, sys, time
sets = dict(word.split("=", 1) for word in sys.argv if "=" in word)
name, folder = sets["name"], pathlib.Path(sets["home"])
run = folder / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
run.mkdir(parents=True)
command = shlex.join(["vcore", *sys.argv[1:-1]])
record = {"id": run.name, "name": name, "command": command, "started": "", "status": "done", "plan": [], "stages": []}
(run / "run.json").write_text(json.dumps(record))
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
    ended = {cell.name: (cell.status, cell.error) for cell in record.cells}
    assert ended["methods.method-sft.seed-1"] == ("failed", "stage sft: it broke")
    assert [status for status, _ in ended.values()].count("done") == 3
    assert record.status == "failed"
    assert len(lines) == 4
    for cell in record.cells:
        assert cell.run is not None
        assert cell.run.endswith(cell.name), "the run of a cell that failed is known too: its scores until then count"


@pytest.mark.slow
def test_a_run_of_an_earlier_sweep_is_not_the_cells(cells: Any, tmp_path: Path) -> None:
    first = {cell.name: cell.run for cell in cells(1)[0].cells}
    time.sleep(1.1)  # a run's id has its second
    again = {cell.name: cell.run for cell in cells(1)[0].cells}
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
