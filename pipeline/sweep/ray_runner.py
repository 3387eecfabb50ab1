"""Cells of a sweep on a Ray cluster: each is one task, which Ray places where a CPU, or the GPUs it asks for, are free.

Every node needs this checkout, its environment, the folder that the sweep is started in, and the home folder (a shared
file system): a cell starts in that folder, so that relative paths mean the same there, and its artifacts go into one
store. Ray sets CUDA_VISIBLE_DEVICES for each task, and the stages of the cell use exactly those.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.core.errors import ConfigError

POLL_SECONDS = 0.5
INSTALL = "pip install ray==2.60.0"
PASSED_ON = ("VCORE_HOME", "VCORE_DATA_DIR", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "PREFECT_API_URL")
"""Variables that mean the same on every node: a cell takes them from here, not from the environment of Ray there."""


class RayCells:
    """Starts commands as Ray tasks."""

    def __init__(self, address: str, gpus_per_cell: float) -> None:
        """Connect to a cluster. Raises `ConfigError` where that cannot be, or no cell would fit.

        Args:
            address: of a cluster, `auto` for the one that this machine is part of, `local` to start one here.
            gpus_per_cell: GPUs that each cell takes.
        """
        try:
            import ray
        except ImportError as error:
            raise ConfigError("Ray is not installed", where="--ray", fix=f"Install it: {INSTALL}") from error
        self._ray, self._gpus = ray, gpus_per_cell
        try:
            if not ray.is_initialized():
                quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
                ray.init(address=None if address == "local" else address, **quiet)
        except (ConnectionError, ValueError) as error:
            fix = "Name a running cluster's address, or `local`."
            raise ConfigError(f"no Ray cluster at {address}: {error}", where="--ray", fix=fix) from error
        there = ray.cluster_resources().get("GPU", 0)
        if gpus_per_cell > there:
            message = f"a cell asks for {gpus_per_cell:g} GPUs, the cluster has {there:g}"
            raise ConfigError(message, where="--gpus-per-cell")

    def start(self, command: list[str], log: Path, environment: dict[str, str]) -> RayProcess:
        """Start a command as a task, in the folder that this process is in."""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | environment
        options = {"num_gpus": self._gpus, "num_cpus": 0 if self._gpus else 1, "max_retries": 0}
        task = self._ray.remote(**options)(_run_command)
        return RayProcess(self._ray, task.remote(command, str(log), environment, str(Path.cwd()), self._gpus > 0))


class RayProcess:
    """A task, seen as a process: what `fan_out` needs of `subprocess.Popen`."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference
        self.returncode: int | None = None
        self.printed = ""

    def poll(self) -> int | None:
        """The exit code, or None while it runs or waits for its place."""
        if self.returncode is not None or not self._ray.wait([self._reference], timeout=0)[0]:
            return self.returncode
        try:
            self.returncode, self.printed = self._ray.get(self._reference)
        except self._ray.exceptions.TaskCancelledError:
            self.returncode = -signal.SIGTERM
        except self._ray.exceptions.RayError as error:  # the node is gone, or its worker was killed
            cause = getattr(error, "cause", None) or error
            self.returncode, self.printed = 1, f"error: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
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


def _run_command(
    command: list[str], log: str, environment: dict[str, str], folder: str, keep_gpus: bool
) -> tuple[int, str]:
    """On a worker of the cluster: run the command to its end. KeyboardInterrupt is how Ray cancels."""
    for needed in (Path(folder), Path(log).parent):
        if not needed.is_dir():
            there = f"there is no folder {needed} on {socket.gethostname()}"
            return 1, f"error: {there}; a sweep on Ray needs it on every node"
    own = {**os.environ, **environment}
    if is_loopback(own.get("PREFECT_API_URL", "")):  # there, that is another server, or none
        del own["PREFECT_API_URL"]
    if "PREFECT_API_URL" not in own:
        # Then each cell has a server of its own, and SQLite takes only one: least of all on a shared disk.
        own.setdefault("PREFECT_HOME", str(Path(log).with_suffix(".prefect")))
    if not keep_gpus:
        own.pop("CUDA_VISIBLE_DEVICES", None)  # older versions of Ray empty it for tasks that ask for no GPU
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.launch.commands", str(os.getpid()), *command],
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


def is_loopback(address: str) -> bool:
    """Whether a URL names a server of the machine that asks, whichever that is."""
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
