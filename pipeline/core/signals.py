"""Stopping on Ctrl-C, SIGTERM, and when the terminal goes. The handler raises `KeyboardInterrupt`, and remembers: a
library may swallow an exception that comes out of nowhere, or turn it into one of its own."""

import signal
from types import FrameType

_received: list[int] = []


def stop_on_signals() -> None:
    """Install the handler for SIGINT, SIGTERM and, unless it is ignored (nohup), SIGHUP. Main thread only."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)


def asked_to_stop() -> bool:
    """Whether one of them has come since."""
    return bool(_received)


def _stop(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    if signum == signal.SIGHUP:  # a shell and the kernel may both send it, and a second signal would not wait
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt
