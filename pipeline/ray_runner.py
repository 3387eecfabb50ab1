"""Cells of a sweep on a Ray cluster: each is one task, which Ray places where a CPU, or the GPUs it asks for, are free.

Every node needs this checkout, its environment and the same home folder (a shared file system), since artifacts go into one store. Ray sets
CUDA_VISIBLE_DEVICES for each task, and the stages of the cell use exactly those.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.identity import ROOT

POLL_SECONDS = 0.5


class RayCells:
    """Starts commands as Ray tasks. `address`: of a cluster, `auto` for the one this machine is part of, `local` to start one here."""

    def __init__(self, address: str, gpus_per_cell: float) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("Ray is not installed", where="--ray", fix="Install it: pip install 'vcore-pipeline[ray]'.") from error
        self._ray = ray
        self._gpus = gpus_per_cell
        try:
            if not ray.is_initialized():
                ray.init(
                    address=None if address == "local" else address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
                )
        except (ConnectionError, ValueError) as error:
            fix = "Name a running cluster's address, or `local`."
            raise ConfigError(f"no Ray cluster at {address}: {error}", where="--ray", fix=fix) from error
        if gpus_per_cell > ray.cluster_resources().get("GPU", 0):
            there = ray.cluster_resources().get("GPU", 0)
            raise ConfigError(f"a cell asks for {gpus_per_cell:g} GPUs, the cluster has {there:g}", where="--gpus-per-cell")

    def start(self, command: list[str], log: Path, environment: dict[str, str]) -> RayProcess:
        """Start a command as a task."""
        options = {"num_gpus": self._gpus, "num_cpus": 0 if self._gpus else 1, "max_retries": 0}
        task = self._ray.remote(**options)(_run_command)
        return RayProcess(self._ray, task.remote(command, str(log), environment, str(ROOT), self._gpus > 0))


class RayProcess:
    """A task, seen as a process: what `fanout` needs of `subprocess.Popen`."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference
        self.returncode: int | None = None
        self.printed = ""

    def poll(self) -> int | None:
        """The exit code, or None while it runs or waits for its place."""
        if self.returncode is None:
            ready, _ = self._ray.wait([self._reference], timeout=0)
            if ready:
                self._take()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Ask the task to stop; its command gets SIGTERM."""
        self._ray.cancel(self._reference)

    def wait(self) -> int:
        """Wait for the end."""
        while self.poll() is None:
            time.sleep(POLL_SECONDS)
        assert self.returncode is not None
        return self.returncode

    def _take(self) -> None:
        try:
            self.returncode, self.printed = self._ray.get(self._reference)
        except self._ray.exceptions.TaskCancelledError:
            self.returncode = -15
        except self._ray.exceptions.RayError as error:  # the node is gone, or its worker was killed
            self.returncode, self.printed = 1, f"{type(error).__name__}: {error}"


def _run_command(command: list[str], log: str, environment: dict[str, str], folder: str, keep_gpus: bool) -> tuple[int, str]:
    """On a worker of the cluster: run the command to its end. KeyboardInterrupt is how Ray cancels."""
    own = {**os.environ, **environment}
    if not keep_gpus:
        own.pop("CUDA_VISIBLE_DEVICES", None)  # Ray empties it for tasks that ask for no GPU
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.launchers", str(os.getpid()), *command],
            cwd=folder,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return process.returncode, printed
