"""The launcher against real processes: success, every kind of failure, stopping, resuming, and leaving nothing
behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import Interrupted, StageFailed
from pipeline.launch import grace
from pipeline.launch.environment import stage_environment
from pipeline.launch.grace import Grace
from pipeline.launch.process import Launch, run_process
from pipeline.store.store import Store
from stages.harness.documents import Machine, Note, Progress, Spec, StageResult
from tests.pipeline.environments import make_environment

ROOT = Path(__file__).resolve().parents[3]


def launch(
    tmp_path: Path, behaviour: str, events: list[Note | Progress] | None = None, on_event: Any = None, **options: Any
) -> StageResult:
    """Run the fake stage. `options` are of `Launch`, but for `steps`, `device` and `threads`."""
    steps, device, threads = options.pop("steps", 3), options.pop("device", "cpu"), options.pop("threads", 1)
    spec = Spec(
        stage="fake",
        settings={"steps": steps},
        inputs={},
        seed=0,
        machine=Machine(device=device, threads=threads, data_dir=None),
        details={"behaviour": behaviour},
    )
    environment = stage_environment(device, threads, hub=False)  # leads to this checkout's code, whatever is installed
    handler = on_event or (events if events is not None else []).append
    with Store(tmp_path).lock("fake", "k", lambda who: None) as lock:
        how = {"work": tmp_path / "w", "environment": environment, "locks": (lock,), "grace_s": 10, **options}
        return run_process(Launch("fake", "tests.fake_stage", **how), spec, handler)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_success_returns_the_proof_and_shows_progress(tmp_path: Path) -> None:
    events: list[Note | Progress] = []
    result = launch(tmp_path, "succeed", events)
    assert result.proof == {"steps": 3}
    last = events[-1]
    assert isinstance(last, Progress)
    assert last.step == last.total == 3
    assert (tmp_path / "w" / "out" / "payload").read_text() == "made"
    assert "behaviour succeed" in (tmp_path / "w" / "out" / "record" / "stage.log").read_text()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("stage_error", "the data are empty\nAdd some rows."),
        ("bug", "RuntimeError: unforeseen\nSee the log: .*stage.log"),
        ("die", "was killed by SIGKILL"),
        ("exit0", "ended with exit code 0 and no result"),
        ("no_proof", "without a completion proof"),
        ("half_result", "left a .*result.json that cannot be read\nSee the end of its log: .*stage.log"),
    ],
)
def test_every_failure_is_one_message(tmp_path: Path, behaviour: str, message: str) -> None:
    with pytest.raises(StageFailed, match=message):
        launch(tmp_path, behaviour)


def test_an_error_of_an_earlier_attempt_is_not_reported_again(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="the data are empty"):
        launch(tmp_path, "stage_error")
    with pytest.raises(StageFailed, match="SIGKILL"):
        launch(tmp_path, "die")


def test_a_process_the_stage_left_behind_is_ended(tmp_path: Path) -> None:
    launch(tmp_path, "orphan")
    pid = int((tmp_path / "w" / "out" / "pid").read_text())
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_interruption_stops_the_stage_and_the_next_run_resumes(tmp_path: Path) -> None:
    def interrupt(event: Note | Progress) -> None:
        if isinstance(event, Progress) and event.step >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, "resume", on_event=interrupt)
    saved = int((tmp_path / "w" / "state" / "count").read_text())
    assert 2 <= saved < 5
    events: list[Note | Progress] = []
    assert launch(tmp_path, "resume", events).proof == {"count": 5}
    assert [event.message for event in events if isinstance(event, Note)] == [f"starts at {saved}"]


def test_a_stage_told_to_stop_from_outside_is_reported_as_interrupted(tmp_path: Path) -> None:
    def stop() -> None:
        while not (tmp_path / "w" / "state" / "count").exists():
            time.sleep(0.05)
        found = subprocess.run(
            ["pgrep", "-f", f"fake_stage {tmp_path}"], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(int(found[0]), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted, match="saved is kept"):
        launch(tmp_path, "resume")
    thread.join()


def test_a_killed_orchestrator_takes_its_stage_along(tmp_path: Path) -> None:
    """SIGKILL gives the orchestrator no chance to act: the stage hears of it from the kernel, saves its state and
    leaves."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom tests.pipeline.launch.test_process import launch\n"
        "launch(Path(sys.argv[1]), 'resume')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(ROOT)])
    counter = tmp_path / "w" / "state" / "count"
    deadline = time.monotonic() + 60
    while not counter.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    found = subprocess.run(
        ["pgrep", "-f", f"fake_stage {tmp_path}"], capture_output=True, text=True, check=True
    ).stdout.split()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(int(found[0])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(found[0]))
    assert int(counter.read_text()) < 5


@pytest.mark.parametrize(
    ("behaviour", "cause"), [("no_memory", "memory"), ("no_network", "network"), ("bug", ""), ("die", "")]
)
def test_a_failure_that_may_pass_is_told_from_one_that_will_not(tmp_path: Path, behaviour: str, cause: str) -> None:
    with pytest.raises(StageFailed) as failed:
        launch(tmp_path, behaviour)
    assert failed.value.cause == cause


@pytest.mark.slow
def test_a_stage_that_hangs_is_ended_at_its_time_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StageFailed, match=r"ended after its time limit of 4 s.*\n.*execution\.time_limit_s\.fake"):
        launch(tmp_path, "hang", time_limit_s=4.0)
    assert time.monotonic() - started < 14


def test_a_stage_ended_at_its_limit_continues_with_a_higher_one(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="time limit"):
        launch(tmp_path, "resume", time_limit_s=0.01)  # before its first step or after it: both continue
    assert launch(tmp_path, "resume", time_limit_s=60.0).proof == {"count": 5}


TORCHRUN = LaunchSettings(kind="torchrun", processes=2)


@pytest.mark.slow
def test_torchrun_starts_the_processes_and_the_first_one_reports(tmp_path: Path) -> None:
    assert launch(tmp_path, "ranks", settings=TORCHRUN).proof == {"ranks": 2}
    assert {(tmp_path / f"w/out/rank{rank}").read_text() for rank in (0, 1)} == {"2"}


@pytest.mark.slow
def test_the_processes_of_torchrun_run_under_the_interpreter_of_their_stage(tmp_path: Path) -> None:
    python = str(make_environment(tmp_path / "venv") / "bin" / "python")
    result = launch(tmp_path, "ranks", settings=TORCHRUN, python=python)
    assert result.proof == {"ranks": 2}
    assert result.python == python
    assert launch(tmp_path, "succeed", python=python).python == python
    assert launch(tmp_path, "succeed").python == sys.executable


@pytest.mark.slow
def test_an_error_and_a_stop_come_through_torchrun(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="the data are empty\nAdd some rows"):
        launch(tmp_path, "stage_error", settings=TORCHRUN)

    def interrupt(event: Note | Progress) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, "resume", on_event=interrupt, settings=TORCHRUN)
    assert (tmp_path / "w" / "state" / "count").is_file()
    assert not subprocess.run(["pgrep", "-f", f"fake_stage {tmp_path}"], capture_output=True, text=True).stdout, (
        "a process is left"
    )


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 4], ids=["the other is stopped", "the other fails for want of it"])
def test_the_error_of_one_process_is_the_stages(tmp_path: Path, steps: int) -> None:
    """A retry with a smaller micro-batch hangs on it: whichever process had no memory, and whatever the others said
    after that."""
    with pytest.raises(StageFailed, match="rank 1 has no memory") as failed:
        launch(tmp_path, "second_rank", settings=TORCHRUN, steps=steps)
    assert failed.value.cause == "memory"


@pytest.mark.slow
def test_one_process_that_is_killed_is_no_stop_although_the_others_are_stopped_for_it(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="ended with exit code 1 and no result"):
        launch(tmp_path, "second_rank", settings=TORCHRUN, steps=5)
    assert {file.name for file in (tmp_path / "w").glob("stopped.*")} == {"stopped.0"}


@pytest.mark.slow
def test_a_torchrun_told_to_stop_from_outside_is_reported_as_interrupted(tmp_path: Path) -> None:
    def stop() -> None:
        while not all((tmp_path / "w" / f"listens.{rank}").exists() for rank in (0, 1)):
            time.sleep(0.05)
        found = subprocess.run(
            ["pgrep", "-f", f"torch.distributed.run .*{tmp_path}"], capture_output=True, text=True, check=True
        ).stdout
        os.kill(int(found.split()[0]), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted, match="saved is kept"):
        launch(tmp_path, "resume", settings=TORCHRUN, steps=200)
    thread.join()


@pytest.mark.slow
def test_torchruns_processes_that_do_not_listen_are_ended(tmp_path: Path) -> None:
    """They have sessions of their own, and outlive a torchrun that is killed."""
    with pytest.raises(StageFailed, match="time limit"):
        launch(tmp_path, "deaf", settings=TORCHRUN, time_limit_s=30.0, grace_s=2.0)
    pids = [int(file.read_text()) for file in (tmp_path / "w" / "out").glob("pid*")]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


@pytest.mark.slow
def test_a_killed_orchestrator_takes_torchrun_along(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom tests.pipeline.launch.test_process import TORCHRUN, launch\n"
        "launch(Path(sys.argv[1]), 'hang', settings=TORCHRUN)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(ROOT)])

    def left() -> list[str]:
        return subprocess.run(["pgrep", "-f", f"fake_stage {tmp_path}"], capture_output=True, text=True).stdout.split()

    deadline = time.monotonic() + 60
    while len(left()) < 3 and time.monotonic() < deadline:  # torchrun and its two
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 40
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left()


@pytest.mark.parametrize(("device", "set_to"), [("cuda", "ieee"), ("cpu", None)])
def test_float32_on_a_gpu_is_float32_in_tritons_products_too(device: str, set_to: str | None) -> None:
    assert stage_environment(device, 1, hub=False).get("TRITON_F32_DEFAULT") == set_to


def test_determinism_on_a_gpu_is_cublas_and_vllms() -> None:
    names = {"CUBLAS_WORKSPACE_CONFIG", "VLLM_BATCH_INVARIANT"}
    assert not names & stage_environment("cuda", 1, hub=False).keys()
    assert not names & stage_environment("cpu", 1, hub=False, deterministic=True).keys()
    assert names <= stage_environment("cuda", 1, hub=False, deterministic=True).keys()


def progress(step: int, time: float, phase: str = "grpo") -> Progress:
    return Progress(phase=phase, step=step, total=800, time=time)


def test_the_time_to_save_follows_the_last_rollout_and_the_size_of_a_state() -> None:
    stops = Grace(None, steps=4, saved_bytes=48_000_000_000)
    assert stops.seconds == 240.0, "nothing but the state is known"
    for step, time_s in enumerate((0, 2700, 2760, 2820, 2880, 6000, 6060, 6120, 6180)):
        stops.see(progress(step, time_s))
    assert stops.seconds == 240.0 + 2 * (3120 + 3 * 60)
    stops.see(progress(8, 9000))
    assert stops.seconds == 240.0 + 2 * (3120 + 3 * 60), "the step it is at is not over"
    stops.see(progress(0, 9000, phase="saving"))
    assert Grace(None, saved_bytes=5).seconds == 60.0
    assert Grace(5.0, saved_bytes=48_000_000_000).seconds == 5.0, "what the config says"


def test_a_stage_that_takes_longer_than_a_minute_to_stop_is_given_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "LEAST_S", 0.1)
    monkeypatch.setattr(grace, "MARGIN", 10.0)

    def interrupt(event: Note | Progress) -> None:
        if isinstance(event, Progress) and event.step >= 3:
            raise KeyboardInterrupt

    notes: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        launch(
            tmp_path,
            "resume",
            on_event=lambda event: notes.append(event.message) if isinstance(event, Note) else interrupt(event),
            grace_s=None,
            steps=50,
        )
    assert any("asked to stop" in note for note in notes)
    assert (tmp_path / "w" / "stopped.0").is_file(), "it was not killed"
