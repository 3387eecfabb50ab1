"""GPU leases: a stage takes its GPUs for itself, and runs that need the same ones queue.

A lease is one flock per GPU, in a folder that all users of the machine share. The stage's process inherits the locks, so that a GPU is
free exactly when the last process that may still use it has ended, however that came about; no server and no clean-up is involved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from pipeline.launch.machine import gpu_uuids

POLL_SECONDS = 0.5
PASSING_SECONDS = 0.02
"""How soon to look again while the head of the queue is about to get its GPUs, which takes milliseconds."""


@dataclasses.dataclass(frozen=True)
class Lease:
    """GPUs that are ours, as CUDA_VISIBLE_DEVICES names them, and the locks' file descriptors, for the stage to inherit."""

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

    While they are not free, `waiting` is called once with who has them now, and who is before us, and `check` again and again: it may raise
    to give up.

    A large request is not starved by small ones: only the head of the queue tries to get its GPUs, and it stays the head until it has them.
    Who comes next is chance, not the order of asking. While the head waits its name stands in the queue's file; others that find none there
    wait a moment and tell nobody.
    """
    folder = lock_folder()
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    paths = {gpu: folder / f"gpu-{name}.lock" for gpu, name in zip(gpus, identities(gpus), strict=True)}
    mine: list[str] = []
    try:
        with contextlib.ExitStack() as ours:
            files = {gpu: ours.enter_context(_open(path)) for gpu, path in paths.items()}
            with _open(folder / "queue.lock") as queue:
                told = False
                while not _try(queue):
                    head = _read(queue)
                    if not told and head:  # empty: its holder is only passing through
                        waiting("; ".join([*_holders(paths), f"{head}, which waits for GPUs too"]))
                        told = True
                    check()
                    time.sleep(POLL_SECONDS if told else PASSING_SECONDS)
                _write(queue, "")  # of a head that was killed
                while True:
                    held = [gpu for gpu in gpus if _try(files[gpu])]
                    if len(held) >= count:
                        break
                    if not told:
                        waiting(
                            "; ".join(
                                f"GPU {gpu}: {_read(files[gpu]) or 'another run'}" for gpu in gpus if gpu not in held
                            )
                        )
                        told = True
                    for gpu in held:
                        fcntl.flock(files[gpu], fcntl.LOCK_UN)
                    _write(queue, who)
                    check()
                    time.sleep(POLL_SECONDS)
                _write(queue, "")
                for gpu in held[count:]:
                    fcntl.flock(files[gpu], fcntl.LOCK_UN)
                mine = held[:count]
                for gpu in mine:
                    _write(
                        files[gpu],
                        f"{who}, process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}",
                    )
                    os.set_inheritable(files[gpu].fileno(), True)
            yield Lease(tuple(mine), tuple(files[gpu].fileno() for gpu in mine))
    finally:
        for gpu in mine:
            with _open(paths[gpu]) as file:
                if _try(file):  # else a process of the stage still has it, or somebody else by now
                    _write(file, "")


def identities(gpus: list[str]) -> list[str]:
    """What names each GPU for every process of the machine: its UUID, where nvidia-smi answers, for an index or a beginning of a UUID.

    Indices are nvidia-smi's. Where CUDA counts otherwise, which it may on a machine with GPUs of several kinds unless CUDA_DEVICE_ORDER is
    PCI_BUS_ID, runs that name GPUs by index agree among themselves, and only those that mix indices and UUIDs do not.
    """
    known = gpu_uuids()
    found = []
    for gpu in gpus:
        begins = [uuid for uuid in known.values() if gpu.startswith("GPU-") and uuid.startswith(gpu)]
        found.append(known.get(gpu) or (begins[0] if len(begins) == 1 else gpu))
    return found


def _holders(paths: dict[str, Path]) -> list[str]:
    """Who has each of the GPUs that cannot be had now. What a holder that was killed wrote is still there, and its GPU is free."""
    told = []
    for gpu, path in paths.items():
        with _open(path) as file:
            if not _try(file, fcntl.LOCK_SH):  # shared: those who look do not keep each other from it
                told.append(f"GPU {gpu}: {_read(file) or 'another run'}")
    return told


def _open(path: Path) -> TextIO:
    if not path.exists():
        with contextlib.suppress(FileExistsError), open(path, "x"):
            path.chmod(0o666)  # another user's run must be able to lock it too
    return open(path, "r+", encoding="utf-8")


def _try(file: TextIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip()


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
