"""Running many cells of a sweep: each is a `vcore run` of its own, so many at once. One Prefect server records them all.

A cell that fails does not stop the others. Stopping this process stops every cell, which saves its state; so does killing it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.embedded import Server, start_embedded_server
from pipeline.errors import EXIT_INTERRUPTED, Interrupted
from pipeline.identity import ROOT
from pipeline.ray_runner import RayCells, RayProcess
from pipeline.sweep import Cell, Sweep, SweepRecord

POLL_SECONDS = 0.02


class LocalProcess(subprocess.Popen[str]):
    """A cell on this machine."""

    @property
    def printed(self) -> str:
        """What it printed; once, after its end."""
        assert self.stdout is not None
        return self.stdout.read()


@dataclasses.dataclass
class _Running:
    number: int
    cell: Cell
    process: LocalProcess | RayProcess
    log: Path
    started: float


def run_cells(
    sweep: Sweep,
    record: SweepRecord,
    home: Path,
    jobs: int,
    record_in_prefect: bool,
    say: Callable[[str], None],
    ray: RayCells | None = None,
) -> list[str]:
    """Run every cell, `jobs` at a time, or on a Ray cluster as many as it has room for; returns the names of those that failed.

    Raises:
        Interrupted: when asked to stop.
    """
    server = _server(home, say) if record_in_prefect and "PREFECT_API_URL" not in os.environ else None
    waiting = list(enumerate(sweep.cells))
    running: list[_Running] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and (ray is not None or len(running) < jobs):
                number, cell = waiting.pop(0)
                running.append(_start(sweep, cell, number, record, server, ray))
            ended = [job for job in running if job.process.poll() is not None]
            for job in ended:
                running.remove(job)
                if not _ended(job, record, len(sweep.cells), say):
                    failed.append(job.cell.name)
            if not ended:
                time.sleep(POLL_SECONDS)
    except BaseException as error:
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            job.process.wait()
            _ended(job, record, len(sweep.cells), say)
        record.end("interrupted")
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("the sweep was stopped; cells that had ended are kept, and the others continue") from error
        raise
    record.end("failed" if failed else "done")
    return failed


def _server(home: Path, say: Callable[[str], None]) -> Server | None:
    from pipeline.flow import prepare_environment

    prepare_environment(home)
    return start_embedded_server(home.resolve() / "prefect", say, own=True)


def _start(sweep: Sweep, cell: Cell, number: int, record: SweepRecord, server: Server | None, ray: RayCells | None) -> _Running:
    log = record.folder / f"{cell.name}.log"
    sets = [word for override in cell.overrides for word in ("--set", override)]
    command = [sys.executable, "-P", "-m", "pipeline", "run", str(sweep.config), *sets, "--json"]
    code = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {"PYTHONPATH": code}
    if server is not None and server.alive:  # one that was killed records nothing more: the cells then do without
        environment["PREFECT_API_URL"] = server.address
    process: LocalProcess | RayProcess
    if ray is not None:
        process = ray.start([*command[:4], "run", str(sweep.config.resolve()), *command[6:]], log.resolve(), environment)
        record.data["cells"][number]["status"] = "running"
        record.save()
        return _Running(number, cell, process, log, time.monotonic())
    with open(log, "w", encoding="utf-8") as errors:
        process = LocalProcess(
            # The kernel tells the cell when this process is killed; a session of its own keeps a terminal's Ctrl-C from coming twice.
            [sys.executable, "-P", "-m", "pipeline.launchers", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment},
            text=True,
            start_new_session=True,
        )
    record.data["cells"][number]["status"] = "running"
    record.save()
    return _Running(number, cell, process, log, time.monotonic())


def _ended(job: _Running, record: SweepRecord, cells: int, say: Callable[[str], None]) -> bool:
    """Note how a cell ended; True if it did well."""
    printed, code = job.process.printed, job.process.returncode
    entry = record.data["cells"][job.number]
    where = f"[bold]{job.number + 1:>3}/{cells}[/] {job.cell.name}"
    seconds = time.monotonic() - job.started
    if code == 0:
        result = json.loads(printed)
        states = [stage["state"] for stage in result["stages"]]
        entry.update(status="done", run=result["run"], error=None, ran=states.count("ran"), cached=states.count("cached"))
        say(f"{where}  [green]done[/] {seconds:.0f} s, {states.count('ran')} ran, {states.count('cached')} cached")
    elif code == EXIT_INTERRUPTED or code == -signal.SIGTERM:
        entry.update(status="interrupted")
        say(f"{where}  [yellow]stopped[/]")
    else:
        told = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if "error:" in line]
        entry.update(status="failed", error=told[-1].removeprefix("error: ") if told else f"ended with exit code {code}")
        say(f"{where}  [red]failed[/] {entry['error']}; log {job.log}")
    record.save()
    return code == 0
