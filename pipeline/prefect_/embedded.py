"""The embedded Prefect server's program: `python -m pipeline.prefect_.embedded PORT PARENT`.

Prefect can start such a server itself, but in the terminal's process group, where Ctrl-C ends it before it has heard
how the run ended; it then waits two minutes for one that died, and leaves it behind when the run is killed. This one is
Prefect's own application in a session of its own (pipeline/prefect_/server.py), which the kernel ends with the run.
"""

import sys

from pipeline.prefect_.internals import server_application
from stages.harness.process import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    import uvicorn

    application = server_application()
    uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", timeout_graceful_shutdown=3)
