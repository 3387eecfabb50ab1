"""Child processes that do not outlive their parent, and parents that do not wait in vain."""

import ctypes
import os
import signal
import subprocess
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> bool:
    """Have Linux send this process SIGTERM when its parent dies, even when that is killed. Elsewhere it does nothing.

    Returns:
        Whether `parent`, its process id, is still there: False where it died before this call.
    """
    if not sys.platform.startswith("linux"):
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def wait_or_kill(process: subprocess.Popen[Any], patience_s: float) -> None:
    """Wait for a child that has been asked to end, and kill it where it has not within `patience_s` seconds."""
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
