"""Locks between processes: `flock` on a file, which the kernel frees when the last process that has it open ends.

The holder writes into the file who it is, for those who wait. A process that inherits the file's descriptor holds the
lock as well.
"""

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import TextIO


def open_lock(path: Path, *, for_all_users: bool = False) -> TextIO:
    """Open the lock's file, and make it where it is missing.

    Args:
        for_all_users: lets other users of the machine take the lock too.
    """
    if not path.exists():
        with contextlib.suppress(FileExistsError), open(path, "x"):
            if for_all_users:
                path.chmod(0o666)
    return open(path, "r+", encoding="utf-8")


def try_lock(file: TextIO, *, shared: bool = False) -> bool:
    """Take the lock if it is free; whether it was. A shared lock only keeps others from taking it alone."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(file: TextIO, *, shared: bool = False) -> None:
    """Take the lock as soon as it is free."""
    fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def unlock(file: TextIO) -> None:
    """Give the lock back and keep the file open."""
    fcntl.flock(file, fcntl.LOCK_UN)


def read_holder(file: TextIO) -> str:
    """Who the last holder said it is; empty where none did."""
    file.seek(0)
    return file.read().strip()


def write_holder(file: TextIO, who: str) -> None:
    """Say who holds the lock; nobody, where `who` is empty."""
    file.seek(0)
    file.truncate()
    file.write(who)
    file.flush()


def this_process() -> str:
    """`process 4711 on HOST since 2026-01-31 12:00:00`"""
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
