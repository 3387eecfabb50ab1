"""The process that exports one run: reads an order from its standard input, and answers in one line of JSON.

A tracker's library may print, hang, start processes and change signal handlers; here it does so alone, and a run that
has ended is out of its reach. Whatever it prints goes to standard error.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.locks import open_lock, wait_for_lock
from pipeline.export.content import read_content
from pipeline.export.documents import Failed, Order, Sent
from pipeline.export.flatten import without_secrets

LOCK = "locks/export.lock"


def main() -> None:
    """Export what standard input asks for."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        result: Sent | Failed = export(Order.model_validate_json(sys.stdin.read()))
    except UserError as error:
        result = Failed(error=f"{error.where}: {error.message}" if error.where else error.message, fix=error.fix)
    except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises is an answer
        traceback.print_exc()
        first = next((text for text in str(error).splitlines() if text.strip()), "")
        result = Failed(error=without_secrets(f"{type(error).__name__}: {first}" if first else type(error).__name__))
    answer.write(result.model_dump_json() + "\n")
    answer.close()


def export(order: Order) -> Sent:
    """Send one run to its tracker. Raises what the tracker's library raises, and `UserError` of the run."""
    home = Path(order.home)
    content = read_content(home, order.run, report=order.settings.report)
    tracker = importlib.import_module(f"pipeline.export.to_{order.settings.to}")
    with _alone(home):
        sent: Sent = tracker.send(content, order.settings, home)
    metrics, points = (len(content.metrics), content.points) if sent.state == "exported" else (0, 0)
    return sent.model_copy(update={"metrics": metrics, "points": points, "trouble": content.trouble})


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One export of a home at a time: runs of a sweep end together, and two would make one database, experiment or run
    twice. A home that cannot be written to has no runs that end."""
    try:
        lock = open_lock(home / LOCK)
    except OSError:
        yield
        return
    with lock:
        wait_for_lock(lock)
        yield


if __name__ == "__main__":
    main()
