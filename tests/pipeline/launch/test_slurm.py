"""Stages as jobs of a real Slurm of two nodes (tests/pipeline/launch/slurm_cluster.py): jobs that wait, run, save,
hang, and outlive who started them."""

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
from tests.pipeline.environments import make_environment
from tests.pipeline.helpers import config
from tests.pipeline.launch.slurm_cluster import jobs
from tests.pipeline.launch.test_process import ROOT, launch

JOB = LaunchSettings(kind="slurm")


def left(tmp_path: Path) -> list[str]:
    """Processes of the fake stage that are still there."""
    return subprocess.run(["pgrep", "-f", f"fake_stage {tmp_path}"], capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_a_job_ends_as_its_stage_does(tmp_path: Path, cluster: Path) -> None:
    settings = LaunchSettings(kind="slurm", sbatch=["--comment=ours"])
    assert launch(tmp_path, "succeed", settings=settings).proof == {"steps": 3}
    said = (tmp_path / "w" / "out" / "record" / "stage.log").read_text().partition("Slurm job ")[2]
    about = ["scontrol", "show", "job", said.split()[0]]
    assert "Comment=ours" in subprocess.run(about, capture_output=True, text=True, check=True).stdout
    with pytest.raises(StageFailed, match="the data are empty"):
        launch(tmp_path, "stage_error", settings=settings)
    with pytest.raises(StageFailed, match="sbatch refused the job: sbatch: error: invalid partition specified: none"):
        launch(tmp_path, "succeed", settings=LaunchSettings(kind="slurm", sbatch=["--partition=none"]))
    assert not (tmp_path / "w" / slurm.JOB).exists()


@pytest.mark.slow
def test_a_job_on_one_node_or_two_runs_under_the_interpreter_of_its_stage(tmp_path: Path, cluster: Path) -> None:
    python = str(make_environment(tmp_path / "venv") / "bin" / "python")
    assert launch(tmp_path, "succeed", settings=JOB, python=python).python == python
    two = LaunchSettings(kind="slurm", nodes=2, sbatch=["--cpus-per-task=1"])
    result = launch(tmp_path, "ranks", settings=two, python=python)
    assert result.proof == {"ranks": 2}
    assert result.python == python


@pytest.mark.slow
def test_a_stopped_job_saves_and_resumes(tmp_path: Path, cluster: Path) -> None:
    def interrupt(event: Note | Progress) -> None:
        if isinstance(event, Progress) and event.step >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, "resume", on_event=interrupt, settings=JOB, grace_s=30)
    assert 2 <= int((tmp_path / "w" / "state" / "count").read_text()) < 5
    assert launch(tmp_path, "resume", settings=JOB).proof == {"count": 5}


@pytest.mark.slow
def test_a_job_that_does_not_listen_is_cancelled(tmp_path: Path, cluster: Path) -> None:
    with pytest.raises(StageFailed, match="time limit"):
        launch(tmp_path, "deaf", settings=JOB, time_limit_s=10.0, grace_s=2)
    assert not left(tmp_path)
    assert not jobs()
    assert not (tmp_path / "w" / slurm.JOB).exists()


@pytest.mark.slow
def test_waiting_in_the_queue_is_no_running_time(tmp_path: Path, cluster: Path) -> None:
    later = LaunchSettings(kind="slurm", sbatch=["--begin=now+21"])
    began = time.monotonic()
    assert launch(tmp_path, "succeed", settings=later, time_limit_s=20.0).proof == {"steps": 3}
    assert time.monotonic() - began > 20


@pytest.mark.slow
def test_a_job_that_waits_is_taken_from_the_queue(tmp_path: Path, cluster: Path) -> None:
    class Patience:
        def is_set(self) -> bool:
            return bool(jobs())

    held = LaunchSettings(kind="slurm", sbatch=["--hold"])
    with pytest.raises(execute.Interrupted):
        launch(tmp_path, "succeed", settings=held, stopping=Patience(), grace_s=30)
    assert not jobs()


@pytest.mark.slow
def test_a_job_that_outlived_its_run_is_ended_before_the_next(tmp_path: Path, cluster: Path) -> None:
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
    (job,) = jobs()  # it goes on
    events: list[Note | Progress] = []
    launch(tmp_path, "succeed", events, settings=JOB, grace_s=30)
    assert isinstance(events[0], Note)
    assert events[0].message.startswith("ends the Slurm job of an earlier run")
    assert int(counter.read_text()) < 1000
    assert job not in jobs()


@pytest.mark.slow
def test_a_job_is_not_gone_because_slurm_is_silent(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not slurm.is_listed("4711")
    elsewhere = tmp_path / "slurm.conf"  # where no controller listens
    text = (cluster / "slurm.conf").read_text()
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort="))
    elsewhere.write_text(text.replace(port, "SlurmctldPort=9") + "MessageTimeout=1\n")
    with monkeypatch.context() as silent:
        silent.setenv("SLURM_CONF", str(elsewhere))
        silent.setattr(slurm, "CANCEL_SECONDS", 0)
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / slurm.JOB).write_text("4711")
        with pytest.raises(StageFailed, match="Slurm job 4711 of an earlier run may still be at work"):
            launch(tmp_path, "succeed", grace_s=0.1)


@pytest.mark.parametrize(
    ("code", "output", "errors", "listed"),
    [
        (0, "PENDING\n", "", True),
        (0, "COMPLETING\n", "", True),
        (0, "", "", False),  # ended a moment ago
        (1, "", "slurm_load_jobs error: Invalid job id specified\n", False),  # ended long ago
        (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", True),
    ],
)
def test_what_squeue_says_of_a_job(code: int, output: str, errors: str, listed: bool) -> None:
    """As Slurm 22.05.8 says it."""
    assert slurm.says_listed(code, output, errors) == listed


@pytest.mark.slow
def test_the_node_counts_its_cores_and_has_its_gpus(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    six = LaunchSettings(kind="slurm", sbatch=["--cpus-per-task=6"])
    launch(tmp_path, "succeed", settings=six, device="cuda", threads=None)
    assert "6 threads, GPUs None" in (tmp_path / "w" / "stage.log").read_text()


@pytest.fixture
def on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has sbatch, for what is known before a job is submitted."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


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
    tmp_path: Path, on_a_cluster: None, monkeypatch: pytest.MonkeyPatch, here: list[str], device: str
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
    asked = {"device": "cuda", "threads": None, "data_dir": None, "deterministic": False}
    assert given == [{**asked, "locks": 1}]


def test_what_is_no_job_still_needs_its_gpu_here(
    tmp_path: Path, on_a_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [])
    settings = config(tmp_path, "execution.launch={sft: {kind: slurm}}", "execution.device=cuda")
    with pytest.raises(ConfigError, match="no NVIDIA GPU answers on this machine"):
        preflight(settings, make_plan(settings, Store(settings.home_folder)))
