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

    While they are not free, `waiting` is called once with who has them now, and `check` again and again: it may raise to give up.

    Whoever asked first is served first: only the head of the queue tries to get its GPUs, so a large request is not starved. While it
    waits its name stands in the queue's file; others that find none there wait a moment and tell nobody.
    """
    folder = lock_folder()
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    with contextlib.ExitStack() as ours:
        files = {gpu: ours.enter_context(_open(folder / f"gpu-{gpu}.lock")) for gpu in gpus}
        with _open(folder / "queue.lock") as queue:
            told = False
            while not _try(queue):
                if not told and _read(queue):  # empty: its holder is only passing through
                    told = _tell(waiting, files)
                check()
                time.sleep(POLL_SECONDS if told else PASSING_SECONDS)
            _write(queue, "")  # of a head that was killed
            while True:
                held = [gpu for gpu in gpus if _try(files[gpu])]
                if len(held) >= count:
                    break
                for gpu in held:
                    fcntl.flock(files[gpu], fcntl.LOCK_UN)
                _write(queue, who)
                told = told or _tell(waiting, {gpu: files[gpu] for gpu in gpus if gpu not in held})
                check()
                time.sleep(POLL_SECONDS)
            _write(queue, "")
            for gpu in held[count:]:
                fcntl.flock(files[gpu], fcntl.LOCK_UN)
            mine = held[:count]
            for gpu in mine:
                _write(files[gpu], f"{who}, process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
                os.set_inheritable(files[gpu].fileno(), True)
        yield Lease(tuple(mine), tuple(files[gpu].fileno() for gpu in mine))


def _open(path: Path) -> TextIO:
    if not path.exists():
        with contextlib.suppress(FileExistsError), open(path, "x"):
            path.chmod(0o666)  # another user's run must be able to lock it too
    return open(path, "r+", encoding="utf-8")


def _try(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell(waiting: Callable[[str], None], files: dict[str, TextIO]) -> bool:
    holders = []
    for gpu, file in files.items():
        holders.append(f"GPU {gpu}: {_read(file) or 'another run'}")
    waiting("; ".join(holders))
    return True


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip()


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
