"""Anything may be killed at any moment: the next run continues, no half artifact is ever in the store, and the final
bytes are those of a run that nothing disturbed.

Each seed is one history: up to three runs that are killed somewhere, then one that may finish. VCORE_KILL_POINTS sets
how many kills are tried with and without Prefect ("60,20"); the default is what a test run has time for.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from pipeline.run.record import list_runs
from pipeline.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
POINTS = tuple(int(number) for number in os.environ.get("VCORE_KILL_POINTS", "4,1").split(","))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
UNDISTURBED_S = {False: 5.0, True: 15.0}
"""Seconds within which a kill falls; a run that ends before its kill counts as such."""


def start(home: Path, flow: bool, two: bool = False) -> subprocess.Popen[bytes]:
    """A run of the chain, one or two stages at once, in a process group of its own, as a shell makes one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    command = [
        sys.executable,
        "-m",
        "tests.kill.run_chain",
        str(home),
        *(["--flow"] if flow else []),
        *(["--two"] if two else []),
    ]
    log = open(home.with_suffix(".log"), "ab")  # noqa: SIM115 - the process writes to it
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def processes(home: Path) -> dict[int, str]:
    """Every live process of a run: orchestrator, stage, recorder and Prefect server, by the home that their command or
    environment names."""
    living = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        known = {"prefect_.embedded": "server", "prefect_.recorder": "recorder", "tests.kill.chain": "stage"}
        kind = next((kind for program, kind in known.items() if program in words), "orchestrator")
        if str(home) in words or (kind == "server" and f"PREFECT_HOME={home}" in environment):
            living[int(entry.name)] = kind
    return living


def whole_artifacts(home: Path) -> dict[str, str]:
    """Content digest of every artifact; fails if one is not whole."""
    if not (home / "store").is_dir():
        return {}
    store = Store(home)
    digests = {}
    for program, key, _ in store.artifacts():
        look = store.find(program, key, reread=True)
        assert look.artifact is not None, f"half an artifact in the store: {look.damage}"
        digests[key] = look.artifact.content_digest()
    return digests


def wait_until_all_ended(home: Path, seconds: float) -> dict[int, str]:
    """Processes of the home that still live after so long."""
    deadline = time.monotonic() + seconds
    while (left := processes(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def one_history(
    home: Path, seed: int, flow: bool, expected: dict[str, str], outcomes: collections.Counter[str]
) -> None:
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 3)):
        target = draw.choice(("orchestrator", "stage", "group", *(["server", "recorder"] if flow else [])))
        number = draw.choice(SIGNALS)
        moment = draw.uniform(0.2, UNDISTURBED_S[flow])
        run = start(home, flow, draw.random() < 0.5)
        deadline = time.monotonic() + moment
        while time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.01)
        if run.poll() is not None:
            outcomes["ended before the kill"] += 1
            continue
        if target == "group":
            os.killpg(run.pid, number)
        else:
            victims = [pid for pid, kind in processes(home).items() if kind == target] or [run.pid]
            os.kill(victims[0], number)
        run.wait(120)
        left = wait_until_all_ended(home, 25)
        assert not left, f"seed {seed}: {number.name} to the {target} left {left}"
        outcomes[f"{number.name} to the {target}: exit {run.returncode}"] += 1
        now = whole_artifacts(home)
        assert now.items() <= expected.items(), f"seed {seed}: other bytes after {number.name} to the {target}"
    run = start(home, flow, draw.random() < 0.5)
    assert run.wait(120) == 0, f"seed {seed}: {home.with_suffix('.log').read_text()[-3000:]}"
    assert whole_artifacts(home) == expected, f"seed {seed}: the final bytes differ"
    assert not any((home / "work" / "chain").iterdir()), "work of a finished run is left"
    assert not any((home / "trash").iterdir()), "an artifact was found damaged"
    assert not wait_until_all_ended(home, 25)
    outcomes["histories that ended in the right bytes"] += 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("flow", [False, True], ids=["stages", "prefect"])
def test_killed_anywhere(tmp_path: Path, flow: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path / "undisturbed", False).wait(120) == 0
    expected = whole_artifacts(tmp_path / "undisturbed")
    assert len(expected) == 4
    outcomes: collections.Counter[str] = collections.Counter()
    kills = 0
    for seed in range(1000):
        if kills >= POINTS[flow]:
            break
        one_history(tmp_path / f"seed{seed}", seed, flow, expected, outcomes)
        kills = sum(count for what, count in outcomes.items() if " to the " in what)
    with capsys.disabled():
        print(f"\n{kills} kills {'with' if flow else 'without'} Prefect:")
        for what, count in sorted(outcomes.items()):
            print(f"  {count:4d}  {what}")


@pytest.mark.slow
def test_a_terminal_that_is_closed_stops_a_run_like_ctrl_c(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ours, terminal = os.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.kill.run_chain", str(home), "--slow"],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    try:
        os.set_blocking(ours, False)
        while not any("stage" in kind for kind in processes(home).values()):
            with contextlib.suppress(BlockingIOError):
                os.read(ours, 65536)  # or what the run prints would fill the terminal
            assert run.poll() is None
            time.sleep(0.05)
        os.close(ours)
        assert run.wait(60) == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert not wait_until_all_ended(home, 25)
    [record] = list_runs(home)
    assert record.status == "interrupted"
