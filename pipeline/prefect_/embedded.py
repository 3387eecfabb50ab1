"""The program of a home's Prefect server: `python -m pipeline.prefect_.embedded PORT LEASE`.

Prefect can start such a server itself, but one for each run, on one database that all migrate at the same time; in the
terminal's process group, where Ctrl-C ends it before it has heard how the run ended; and it leaves it behind when the
run is killed. This one is Prefect's own application in a session of its own (pipeline/prefect_/server.py), for all runs
that hold a lease on the home, and ends after the last of them.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from pipeline.core.locks import open_lock, wait_for_lock
from pipeline.prefect_.internals import server_application

SHUTDOWN_S = 3


def _end_when_unused(lease: Path) -> None:
    with open_lock(lease) as file:
        wait_for_lock(file)  # until the last run has ended; a run that begins now waits, and starts a server of its own
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * SHUTDOWN_S)
        os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_when_unused, args=(Path(sys.argv[2]),), daemon=True).start()
    import uvicorn

    application, port = server_application(), int(sys.argv[1])
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=SHUTDOWN_S)
