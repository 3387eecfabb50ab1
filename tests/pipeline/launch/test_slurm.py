"""Stages as Slurm jobs, with stand-ins for Slurm's commands: jobs that wait, run, save, hang, and outlive who started
them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks.preflight import preflight
from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.launch import machine, slurm
from pipeline.launch.process import Launch
from pipeline.plan.decide import Decider
from pipeline.plan.graph import build_graph
from pipeline.plan.planning import make_plan
from pipeline.run import execute
from pipeline.run.execute import Executor
from pipeline.run.view import View
from pipeline.store.store import Store
from stages.harness.documents import Note, Progress, Spec
from tests.pipeline.helpers import config
from tests.pipeline.launch.test_process import ROOT, alive, launch

SLURM = """#!{python}
# What sbatch, squeue and scancel do for one job at a time, in processes of this machine. `queue`: seconds that a job
# waits.
import os, pathlib, signal, subprocess, sys
folder, name = pathlib.Path({folder!r}), pathlib.Path(sys.argv[0]).name
pid, began = folder / "pid", folder / "began"
def alive():
    try:
        os.kill(int(pid.read_text()), 0)
        return open(f"/proc/{{int(pid.read_text())}}/stat").read().split()[2] != "Z"
    except (OSError, ValueError):
        return False
if name == "sbatch":
    assert not alive(), "two jobs at once"
    (folder / "options").write_text(" ".join(sys.argv[1:]))
    if "--refuse" in sys.argv:
        sys.exit("sbatch: error: invalid partition")
    began.unlink(missing_ok=True)
    log = next(word for word in sys.argv if word.startswith("--output=")).partition("=")[2]
    wait = (folder / "queue").read_text() if (folder / "queue").exists() else "0"
    words = ["bash", "-c", 'sleep "$0"; touch "$1"; exec bash "$2"', wait, str(began), sys.argv[-1]]
    job = subprocess.Popen(words, stdout=open(log, "ab"), stderr=subprocess.STDOUT, start_new_session=True)
    pid.write_text(str(job.pid))
    print("17;cluster")
elif name == "squeue":
    if (folder / "silent").exists():
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    if not alive():
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print("RUNNING" if began.exists() else "PENDING")
elif alive():
    if "--signal=TERM" in sys.argv:
        if began.exists():  # a signal does not reach a job that waits
            os.kill(int(pid.read_text()), signal.SIGTERM)
    elif "--state=PENDING" not in sys.argv or not began.exists():
        os.killpg(int(pid.read_text()), signal.SIGKILL)
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).write_text(SLURM.format(python=sys.executable, folder=str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


JOB = LaunchSettings(kind="slurm")


@pytest.mark.slow
def test_a_job_ends_as_its_stage_does(tmp_path: Path, commands: Path) -> None:
    settings = LaunchSettings(kind="slurm", sbatch=["--gres=gpu:1"])
    assert launch(tmp_path, "succeed", settings=settings).proof == {"steps": 3}
    assert "--gres=gpu:1" in (commands / "options").read_text()
    assert "Slurm job 17" in (tmp_path / "w" / "out" / "record" / "stage.log").read_text()
    with pytest.raises(StageFailed, match="the data are empty"):
        launch(tmp_path, "stage_error", settings=settings)
    with pytest.raises(StageFailed, match="sbatch refused the job: sbatch: error: invalid partition"):
        launch(tmp_path, "succeed", settings=LaunchSettings(kind="slurm", sbatch=["--refuse"]))
    assert not (tmp_path / "w" / slurm.JOB).exists()


@pytest.mark.slow
def test_a_stopped_job_saves_and_resumes(tmp_path: Path, commands: Path) -> None:
    def interrupt(event: Note | Progress) -> None:
        if isinstance(event, Progress) and event.step >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, "resume", on_event=interrupt, settings=JOB, grace_s=30)
    assert 2 <= int((tmp_path / "w" / "state" / "count").read_text()) < 5
    assert launch(tmp_path, "resume", settings=JOB).proof == {"count": 5}


@pytest.mark.slow
def test_a_job_that_does_not_listen_is_cancelled(tmp_path: Path, commands: Path) -> None:
    with pytest.raises(StageFailed, match="time limit"):
        launch(tmp_path, "deaf", settings=JOB, time_limit_s=10.0, grace_s=2)
    assert not alive(int((commands / "pid").read_text()))
    assert not (tmp_path / "w" / slurm.JOB).exists()


@pytest.mark.slow
def test_waiting_in_the_queue_is_no_running_time(tmp_path: Path, commands: Path) -> None:
    (commands / "queue").write_text("21")
    assert launch(tmp_path, "succeed", settings=JOB, time_limit_s=20.0).proof == {"steps": 3}


@pytest.mark.slow
def test_a_job_that_waits_is_taken_from_the_queue(tmp_path: Path, commands: Path) -> None:
    (commands / "queue").write_text("600")

    class Patience:
        def is_set(self) -> bool:
            return (commands / "pid").is_file()

    with pytest.raises(execute.Interrupted):
        launch(tmp_path, "succeed", settings=JOB, stopping=Patience(), grace_s=30)
    assert not alive(int((commands / "pid").read_text()))


@pytest.mark.slow
def test_a_job_that_outlived_its_run_is_ended_before_the_next(tmp_path: Path, commands: Path) -> None:
    """As after a login node went down: neither orchestrator nor watcher could tell the job."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom tests.pipeline.launch.test_slurm import JOB, launch\n"
        "launch(Path(sys.argv[1]), 'resume', settings=JOB, steps=1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(ROOT)])
    counter = tmp_path / "w" / "state" / "count"
    deadline = time.monotonic() + 60
    while not counter.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    watcher = int(
        subprocess.run(
            ["pgrep", "-f", f"pipeline.launch.slurm {tmp_path}"], capture_output=True, text=True, check=True
        ).stdout.split()[0]
    )
    os.kill(watcher, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    os.kill(watcher, signal.SIGKILL)
    assert alive(int((commands / "pid").read_text())), "the job goes on"
    events: list[Note | Progress] = []
    launch(tmp_path, "succeed", events, settings=JOB, grace_s=30)  # the stand-in refuses two jobs at once
    assert isinstance(events[0], Note)
    assert events[0].message.startswith("ends the Slurm job of an earlier run")
    assert int(counter.read_text()) < 1000


def test_a_job_is_not_gone_because_slurm_is_silent(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not slurm.is_listed("17")
    (commands / "silent").touch()
    assert slurm.is_listed("17")
    monkeypatch.setattr(slurm, "CANCEL_SECONDS", 0)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / slurm.JOB).write_text("17")
    with pytest.raises(StageFailed, match="Slurm job 17 of an earlier run may still be at work"):
        launch(tmp_path, "succeed", grace_s=0.1)


@pytest.mark.slow
def test_the_node_counts_its_cores_and_has_its_gpus(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    launch(tmp_path, "succeed", settings=JOB, device="cuda", threads=None)
    assert "6 threads, GPUs None" in (tmp_path / "w" / "stage.log").read_text()


@pytest.mark.parametrize(
    ("options", "device"),
    [
        (["--gres=gpu:8"], "cuda"),
        (["--gres", "gpu:h100:2"], "cuda"),
        (["-G", "2"], "cuda"),
        (["--gpus-per-node=4"], "cuda"),
        (["--tres-per-task=cpu:4,gres/gpu:1"], "cuda"),
        (["--partition=gpu"], "cpu"),
        ([], "cpu"),
    ],
)
def test_a_job_computes_on_what_it_asks_for(options: list[str], device: str) -> None:
    assert machine.asks_for_gpus(options) == (device == "cuda")


@pytest.mark.parametrize("here", [[], ["NVIDIA H100, 81559 MiB"] * 2], ids=["login node", "GPU box"])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_job_takes_nothing_of_this_machine(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch, here: list[str], device: str
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: here)
    monkeypatch.setenv("VCORE_GPU_LOCKS", str(tmp_path / "locks"))
    given: list[dict[str, Any]] = []

    def run_process(how: Launch, spec: Spec, on_event: Any) -> Any:
        given.append({**spec.machine.to_json(), "locks": len(how.locks)})
        raise StageFailed(how.stage, "it is enough to have begun")

    monkeypatch.setattr(execute, "run_process", run_process)
    job = "{kind: slurm, sbatch: ['--gres=gpu:2']}"
    jobs = ", ".join(
        f"{name}: {job}" for name in ("base", "sft", "grpo", "generate.base", "generate.sft", "generate.grpo")
    )
    settings = config(
        tmp_path, f"execution.launch={{{jobs}}}", f"execution.device={device}", "sft.dtype=bfloat16", "execution.gpus=2"
    )
    store = Store(settings.home_folder)
    preflight(settings, make_plan(settings, store))
    executor = Executor(Decider(settings, store), View(), command="")
    base = next(stage for stage in build_graph(settings) if stage.program == "base")
    with pytest.raises(StageFailed):
        executor.ensure(base)
    assert given == [{"device": "cuda", "threads": None, "data_dir": None, "locks": 1}]


def test_what_is_no_job_still_needs_its_gpu_here(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [])
    settings = config(tmp_path, "execution.launch={sft: {kind: slurm}}", "execution.device=cuda")
    with pytest.raises(ConfigError, match="no NVIDIA GPU answers on this machine"):
        preflight(settings, make_plan(settings, Store(settings.home_folder)))
