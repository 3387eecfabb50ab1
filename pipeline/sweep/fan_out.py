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

from pipeline.core.errors import EXIT_INTERRUPTED, Interrupted
from pipeline.launch.environment import python_path
from pipeline.plan.decide import Options
from pipeline.prefect_.embedded import start_embedded_server
from pipeline.prefect_.server_process import Server
from pipeline.run.session import command_line
from pipeline.sweep.ray_runner import RayCells, RayProcess
from pipeline.sweep.report.cells import run_of_cell, runs_named
from pipeline.sweep.sweep import Cell, Sweep, SweepRecord

POLL_SECONDS = 0.02


class LocalProcess(subprocess.Popen[str]):
    """A cell on this machine. What it prints goes to a file: a pipe that is read at the end is full after 64 KiB, and the cell waits."""

    def __init__(self, command: list[str], output: Path, log: Path, environment: dict[str, str]) -> None:
        self._output = output
        with open(output, "w", encoding="utf-8") as printed, open(log, "w", encoding="utf-8") as errors:
            super().__init__(
                # The kernel tells the cell when this process is killed; a session of its own keeps a terminal's Ctrl-C from coming twice.
                [sys.executable, "-P", "-m", "pipeline.launch.commands", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """What it printed, after its end."""
        return self._output.read_text(encoding="utf-8")


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
    # Cells of a cluster run on other nodes, where a server of this one cannot be reached (pipeline/sweep/ray_runner.py).
    server = _server(home, say) if record_in_prefect and ray is None and "PREFECT_API_URL" not in os.environ else None
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
            raise Interrupted(
                "the sweep was stopped; cells that had ended are kept, and the others continue"
            ) from error
        raise
    record.end("failed" if failed else "done")
    return failed


def _server(home: Path, say: Callable[[str], None]) -> Server | None:
    from pipeline.prefect_.run import prepare_environment

    prepare_environment(home)
    return start_embedded_server(home.resolve() / "prefect", say, own=True)


def _start(
    sweep: Sweep, cell: Cell, number: int, record: SweepRecord, server: Server | None, ray: RayCells | None
) -> _Running:
    log = record.folder / f"{cell.name}.log"
    sets = [word for override in cell.overrides for word in ("--set", override)]
    command = [sys.executable, "-P", "-m", "pipeline", "run", str(sweep.config), *sets, "--json"]
    environment = {"PYTHONPATH": python_path()}
    if server is not None and server.alive:  # one that was killed records nothing more: the cells then do without
        environment["PREFECT_API_URL"] = server.address
    # By its command, and by not being there yet, the run of this cell is known from those of earlier sweeps under the same name.
    record.data["cells"][number].update(
        status="running",
        command=command_line(sweep.config, list(cell.overrides), Options()),
        earlier_runs=[run["id"] for run in runs_named(record.home, cell.name)],
    )
    record.save()
    process: LocalProcess | RayProcess
    if ray is not None:
        process = ray.start(command, log.resolve(), environment)
    else:
        process = LocalProcess(command, log.with_suffix(".json"), log, environment)
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
        entry.update(
            status="done", run=result["run"], error=None, ran=states.count("ran"), cached=states.count("cached")
        )
        say(f"{where}  [green]done[/] {seconds:.0f} s, {states.count('ran')} ran, {states.count('cached')} cached")
    elif code == EXIT_INTERRUPTED or code == -signal.SIGTERM:
        entry.update(status="interrupted")
        say(f"{where}  [yellow]stopped[/]")
    else:
        # A worker of a cluster may be gone before it has opened the log; then Ray says why.
        log = job.log.read_text(encoding="utf-8", errors="replace") if job.log.is_file() else ""
        told = [line for line in (*printed.splitlines(), *log.splitlines()) if "error:" in line]
        entry.update(
            status="failed", error=told[-1].removeprefix("error: ") if told else f"ended with exit code {code}"
        )
        say(f"{where}  [red]failed[/] {entry['error']}; log {job.log}")
    entry["run"] = run_of_cell(record.home, entry)
    record.save()
    return code == 0
