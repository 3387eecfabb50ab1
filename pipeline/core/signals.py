"""Stopping on Ctrl-C and SIGTERM. The handler raises `KeyboardInterrupt`, and remembers: a library may swallow an
exception that comes out of nowhere, or turn it into one of its own."""

import signal
from types import FrameType

_received: list[int] = []


def stop_on_signals() -> None:
    """Install the handler for SIGINT and SIGTERM (main thread only)."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)


def asked_to_stop() -> bool:
    """Whether one of the two has come since."""
    return bool(_received)


def _stop(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    raise KeyboardInterrupt
