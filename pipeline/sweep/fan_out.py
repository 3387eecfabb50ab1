"""Running the cells of a sweep: each is a `vcore run` of its own, several at once. One Prefect server records them all.

A cell that fails does not stop the others. Stopping or killing this process stops every cell, which saves its state.
"""

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
from pipeline.prefect_.server import take_lease
from pipeline.run.session import command_line
from pipeline.sweep.documents import SweepRecord
from pipeline.sweep.ray_runner import RayCells, RayProcess
from pipeline.sweep.report.cells import run_of_cell, runs_named
from pipeline.sweep.sweep import Cell, Sweep

POLL_SECONDS = 0.02


class LocalProcess(subprocess.Popen[str]):
    """A cell on this machine.

    What it prints goes to a file: a pipe that is read at the end is full after 64 KiB, and the cell would wait.
    """

    def __init__(self, command: list[str], output: Path, log: Path, environment: dict[str, str]) -> None:
        self._output = output
        with open(output, "w", encoding="utf-8") as printed, open(log, "w", encoding="utf-8") as errors:
            super().__init__(
                # The kernel tells the cell when this process is killed. In a session of its own, the cell does not get
                # a terminal's Ctrl-C twice.
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
    """Run every cell, `jobs` at a time, or on a Ray cluster as many as it has room for.

    Returns:
        The names of the cells that failed.

    Raises:
        Interrupted: when asked to stop.
    """
    # Cells of a cluster run on other nodes, from which a server of this one cannot be reached (ray_runner.py).
    if record_in_prefect and ray is None and "PREFECT_API_URL" not in os.environ:
        take_lease(home.resolve() / "prefect")  # between two cells, too, the server of the home stays
    cells = _Cells(sweep, record, home, say, ray)
    waiting = list(enumerate(sweep.cells))
    running: list[_Running] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and (ray is not None or len(running) < jobs):
                running.append(cells.start(*waiting.pop(0)))
            ended = [job for job in running if job.process.poll() is not None]
            for job in ended:
                running.remove(job)
                if not cells.ended(job):
                    failed.append(job.cell.name)
            if not ended:
                time.sleep(POLL_SECONDS)
    except BaseException as error:
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            job.process.wait()
            cells.ended(job)
        record.end(home, "interrupted")
        if isinstance(error, KeyboardInterrupt):
            stopped = "the sweep was stopped; cells that had ended are kept, and the others continue"
            raise Interrupted(stopped) from error
        raise
    record.end(home, "failed" if failed else "done")
    return failed


@dataclasses.dataclass(frozen=True)
class _Cells:
    """Starts the cells of a sweep, and notes how they end."""

    sweep: Sweep
    record: SweepRecord
    home: Path
    say: Callable[[str], None]
    ray: RayCells | None

    def start(self, number: int, cell: Cell) -> _Running:
        log = self.record.folder(self.home) / f"{cell.name}.log"
        sets = [word for override in cell.overrides for word in ("--set", override)]
        command = [sys.executable, "-P", "-m", "pipeline", "run", str(self.sweep.config), *sets, "--json"]
        environment = {"PYTHONPATH": python_path()}
        # By its command, and by not being there yet, the run of this cell is told from those of earlier sweeps.
        entry = self.record.cells[number]
        entry.status, entry.command = "running", command_line(self.sweep.config, list(cell.overrides), Options())
        entry.earlier_runs = [run.id for run in runs_named(self.home, cell.name)]
        self.record.save(self.home)
        process: LocalProcess | RayProcess
        if self.ray is not None:
            process = self.ray.start(command, log.resolve(), environment)
        else:
            process = LocalProcess(command, log.with_suffix(".json"), log, environment)
        return _Running(number, cell, process, log, time.monotonic())

    def ended(self, job: _Running) -> bool:
        """Note how a cell ended; True if it did well."""
        printed, code = job.process.printed, job.process.returncode
        entry = self.record.cells[job.number]
        where = f"[bold]{job.number + 1:>3}/{len(self.record.cells)}[/] {job.cell.name}"
        if code == 0:
            result = json.loads(printed)
            states = [stage["state"] for stage in result["stages"]]
            entry.status, entry.run = "done", result["run"]
            entry.ran, entry.cached = states.count("ran"), states.count("cached")
            seconds = time.monotonic() - job.started
            self.say(f"{where}  [green]done[/] {seconds:.0f} s, {entry.ran} ran, {entry.cached} cached")
        elif code in (EXIT_INTERRUPTED, -signal.SIGTERM):
            entry.status = "interrupted"
            self.say(f"{where}  [yellow]stopped[/]")
        else:
            # A worker of a cluster may be gone before it has opened the log; then Ray says why.
            log = job.log.read_text(encoding="utf-8", errors="replace") if job.log.is_file() else ""
            errors = [line for line in (*printed.splitlines(), *log.splitlines()) if "error:" in line]
            entry.status = "failed"
            entry.error = errors[-1].removeprefix("error: ") if errors else f"ended with exit code {code}"
            self.say(f"{where}  [red]failed[/] {entry.error}; log {job.log}")
        entry.run = run_of_cell(self.home, entry)
        self.record.save(self.home)
        return code == 0
