"""The recorder's program, `python -m pipeline.prefect_.recorder RUN_FOLDER PARENT`: shows a run to Prefect as a flow.

It reads the events that the run appends to a file, and ends after the last one, or soon after a run that was killed. On
stdout it answers with lines of JSON: `ready` when there is a server, or why it cannot go on. All else that Prefect says
is on stderr.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.prefect_.recording import EVENTS, Event
from pipeline.prefect_.server import ServerUnavailable, home_server, prepare_environment

POLL_SECONDS = 0.1
LEAVE_S = 8.0
"""How long it may outlive a run that was killed."""


def main(folder: Path, parent: int) -> None:
    """Show the run of that folder, which the process `parent` runs."""
    threading.Thread(target=_leave_after, args=(parent,), daemon=True).start()
    events = read_events(folder / EVENTS, parent)
    begin = next(events, None)
    if begin is None:
        return
    prepare_environment(Path(begin["home"]))
    try:
        state = _show(events, begin, parent)
        from prefect.exceptions import FailedRun

        with contextlib.suppress(FailedRun):  # of a run that failed; what failed to show it is raised as it was
            if state.is_failed():
                state.result(raise_on_failure=True)
    except ServerUnavailable as error:
        _answer(error=str(error))
        raise SystemExit(1) from error
    except ConfigError as error:
        _answer(config_error=error.message, fix=error.fix)
        raise SystemExit(1) from error
    except Exception as error:
        _answer(error=f"the server: {type(error).__name__}; see {folder / 'prefect.log'}")
        raise


def _show(events: Iterator[Event], begin: Event, parent: int) -> Any:
    from prefect import tags
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    settings = get_current_settings()
    own = settings.home == Path(begin["home"]) / "prefect"
    address = settings.api.url or home_server(settings.home, own=own)

    from pipeline.prefect_.flow import flow_of
    from pipeline.prefect_.internals import without_heartbeat
    from pipeline.prefect_.telling import notifier

    with temporary_settings({PREFECT_API_URL: address, **without_heartbeat()}), tags(*begin["tags"]):
        notifier(begin["notify"])
        _answer(ready="")
        stop = lambda: os.kill(parent, signal.SIGTERM)  # noqa: E731
        return flow_of(events, begin, stop)(**begin["parameters"], return_state=True)


def read_events(path: Path, parent: int) -> Iterator[Event]:
    """The events that are appended to a file, as they come, until the last one, or until `parent` is gone."""
    with open(path, "rb") as file:
        text = b""
        while True:
            living = os.getppid() == parent
            text += file.read()
            *lines, text = text.split(b"\n")
            for line in lines:
                event: Event = json.loads(line)
                yield event
                if event.get("kind") == "end":
                    return
            if not living:
                return
            time.sleep(POLL_SECONDS)


def _leave_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    time.sleep(LEAVE_S)
    os._exit(1)


def _answer(**said: str) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
