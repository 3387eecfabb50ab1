"""GPU leases: a stage takes its GPUs for itself, and runs that need the same ones queue.

A lease is one lock per GPU, in a folder that all users of the machine share. The stage's process inherits the locks, so
that a GPU is free exactly when the last process that may still use it has ended, however that came about; no server and
no clean-up is involved.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from pipeline.core.errors import ConfigError
from pipeline.core.locks import open_lock, read_holder, this_process, try_lock, unlock, write_holder
from pipeline.launch.machine import gpu_uuids

POLL_SECONDS = 0.5
PASSING_SECONDS = 0.02
"""How soon to look again while the head of the queue is about to get its GPUs, which takes milliseconds."""


@dataclasses.dataclass(frozen=True)
class Lease:
    """GPUs that are held, as CUDA_VISIBLE_DEVICES names them, and the locks' file descriptors, for the stage to
    inherit."""

    gpus: tuple[str, ...]
    descriptors: tuple[int, ...]


def lock_folder() -> Path:
    """Where the locks are: VCORE_GPU_LOCKS, or a folder that every user of the machine can write to."""
    return Path(os.environ.get("VCORE_GPU_LOCKS", "/tmp/vcore-gpu-locks"))


@contextlib.contextmanager
def lease(
    gpus: list[str], count: int, who: str, waiting: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Iterator[Lease]:
    """Hold `count` of `gpus`, all or none, for as long as the context lasts.

    A large request is not starved by small ones: only the head of the queue tries to get its GPUs, and it stays the
    head until it has them. Who comes next is chance, not the order of the requests. While the head waits, its name
    stands in the queue's file; others that find no name there wait a moment and do not report it.

    Args:
        who: names the holder for those who wait.
        waiting: called once while the GPUs are not free, with who holds them and who is before this request.
        check: called again and again while waiting; it may raise to give up.

    Raises:
        ConfigError: there are not so many.
    """
    if count > len(gpus):
        message = f"{who} needs {count} GPUs, and {len(gpus)} can be seen"
        raise ConfigError(message, fix="Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or ask for fewer.")
    folder = lock_folder()
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    paths = {gpu: folder / f"gpu-{name}.lock" for gpu, name in zip(gpus, identities(gpus), strict=True)}
    wait = _Wait(waiting, check)
    leased: list[str] = []
    try:
        with contextlib.ExitStack() as files:
            locks = {gpu: files.enter_context(open_lock(path, for_all_users=True)) for gpu, path in paths.items()}
            with open_lock(folder / "queue.lock", for_all_users=True) as queue:
                _become_head(queue, paths, wait)
                leased = _take(locks, count, queue, who, wait)
                for gpu in leased:
                    write_holder(locks[gpu], f"{who}, {this_process()}")
                    os.set_inheritable(locks[gpu].fileno(), True)
            yield Lease(tuple(leased), tuple(locks[gpu].fileno() for gpu in leased))
    finally:
        for gpu in leased:
            with open_lock(paths[gpu], for_all_users=True) as file:
                if try_lock(file):  # else a process of the stage still has it, or somebody else by now
                    write_holder(file, "")


@dataclasses.dataclass
class _Wait:
    """Says once what a request waits for, and gives up where `check` raises."""

    waiting: Callable[[str], None]
    check: Callable[[], None]
    reported: bool = False

    def report(self, what: str) -> None:
        self.reported = True
        self.waiting(what)

    def pause(self, seconds: float) -> None:
        self.check()
        time.sleep(seconds)


def _become_head(queue: TextIO, paths: dict[str, Path], wait: _Wait) -> None:
    """Wait until nobody else is the head of the queue."""
    while not try_lock(queue):
        head = read_holder(queue)
        if head and not wait.reported:  # without a name its holder is only passing through
            wait.report("; ".join([*_holders(paths), f"{head}, which waits for GPUs too"]))
        wait.pause(POLL_SECONDS if wait.reported else PASSING_SECONDS)
    write_holder(queue, "")  # the name of a head that was killed


def _take(locks: dict[str, TextIO], count: int, queue: TextIO, who: str, wait: _Wait) -> list[str]:
    """Lock `count` GPUs as the head of the queue; while there are fewer, none."""
    while len(held := [gpu for gpu, lock in locks.items() if try_lock(lock)]) < count:
        if not wait.reported:
            busy = (f"GPU {gpu}: {read_holder(locks[gpu]) or 'another run'}" for gpu in locks if gpu not in held)
            wait.report("; ".join(busy))
        for gpu in held:
            unlock(locks[gpu])
        write_holder(queue, who)
        wait.pause(POLL_SECONDS)
    write_holder(queue, "")
    for gpu in held[count:]:
        unlock(locks[gpu])
    return held[:count]


def identities(gpus: list[str]) -> list[str]:
    """What names each GPU for every process of the machine: its UUID where nvidia-smi answers, for an index or a
    beginning of a UUID.

    Indices are nvidia-smi's. CUDA may count otherwise on a machine with GPUs of several kinds, unless CUDA_DEVICE_ORDER
    is PCI_BUS_ID. Runs that name GPUs by index agree among themselves there; only those that mix indices and UUIDs do
    not.
    """
    uuids = gpu_uuids()
    names = []
    for gpu in gpus:
        matching = [uuid for uuid in uuids.values() if gpu.startswith("GPU-") and uuid.startswith(gpu)]
        names.append(uuids.get(gpu) or (matching[0] if len(matching) == 1 else gpu))
    return names


def _holders(paths: dict[str, Path]) -> list[str]:
    """Who holds each of the GPUs that are taken. The name that a killed holder wrote is still there, but its GPU is
    free."""
    holders = []
    for gpu, path in paths.items():
        with open_lock(path, for_all_users=True) as file:
            if not try_lock(file, shared=True):  # shared: those who look do not keep each other from it
                holders.append(f"GPU {gpu}: {read_holder(file) or 'another run'}")
    return holders
