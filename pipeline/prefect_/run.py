"""Running a session and having Prefect show it.

The run computes here and waits for no server. A recorder, a process of its own (recorder.py), reads what the run tells
from a file beside the run's record, and shows it as a Prefect flow. Whatever becomes of server or recorder, the run
goes on, and says once that Prefect does not have it.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from rich.markup import escape

from pipeline.core.errors import ConfigError
from pipeline.export.after_run import exported
from pipeline.launch.environment import python_path
from pipeline.prefect_.recording import EVENTS, Event, beginning, run_and_tell
from pipeline.prefect_.server import health
from pipeline.run.session import Session

READY_S = 60.0
"""How long a run waits for recorder and server where it has to: for `execution.notify`, and when it has ended before
they were there. A new database takes ten seconds, and more on a busy machine."""
END_S = 10.0
"""How long the recorder may take for what is left when the run has ended."""


def run(session: Session) -> None:
    """Make or find every stage; shown by Prefect, unless all is cached and no server is set up to record it.

    Raises the session's own `UserError` when a stage fails or the run is stopped, and `ConfigError` where the server
    that PREFECT_API_URL names does not answer from the start.
    """
    address = os.environ.get("PREFECT_API_URL")
    with exported(session), session.recorded():
        if address is None and session.nothing_to_do and session.config.gate.more_samples is None:
            session.run_remaining()
            session.finish()
            return
        if address is not None and health(address) is None:
            fix = "Start it (prefect server start), or unset PREFECT_API_URL for a server of the run's own."
            raise ConfigError(f"the Prefect server at {address} does not answer", where="PREFECT_API_URL", fix=fix)
        with _recorder(session) as recorder:
            run_and_tell(session, recorder.write)


@contextlib.contextmanager
def _recorder(session: Session) -> Iterator["_Recorder"]:
    recorder = _Recorder(session)
    try:
        if session.config.execution.notify is not None:
            recorder.wait_until_ready(READY_S)
        yield recorder
    except BaseException:
        recorder.close(ready_s=0)
        raise
    else:
        recorder.close(READY_S)


class _Recorder:
    """The recorder's process, and the file through which it is told."""

    def __init__(self, session: Session) -> None:
        self._say, folder = session.executor.view.line, session.record.folder
        self._path = folder / EVENTS
        self._lock = threading.Lock()
        self._failed = False
        self._answers: dict[str, str] = {}
        self._answered = threading.Event()
        self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115 - closed in close()
        with open(folder / "prefect.log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.prefect_.recorder", str(folder), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": python_path()},
                start_new_session=True,  # a terminal's Ctrl-C is for the run, which tells how it ended
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.write({**beginning(session), "home": str(session.store.home.resolve())})

    def write(self, event: Event) -> None:
        """Tell the recorder, which may be behind, or gone. Called by several threads."""
        with self._lock:
            try:
                if not self._failed:
                    self._file.write(json.dumps(event) + "\n")
                    self._file.flush()
            except OSError as error:  # never half a line, and then another
                self._fail(error.strerror or str(error))
            if self._process.poll() is not None:
                self._check_end()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for the server. Raises `ConfigError` where it has no notification block of the name that is set."""
        self._answered.wait(seconds)
        if "config_error" in self._answers:
            self._failed = True  # and the error says it
            raise ConfigError(self._answers["config_error"], where="execution.notify", fix=self._answers["fix"])

    def close(self, ready_s: float) -> None:
        """Wait for the recorder's end, not for long, and say so where Prefect has not got all.

        Args:
            ready_s: how long to wait for a server that is not there yet; 0: a run that failed before is not shown.
        """
        with contextlib.suppress(OSError):  # of what `write` could not write, and said so
            self._file.close()
        starting = not self._answered.is_set()
        if starting and ready_s:
            self._say("waiting for Prefect to take the record of this run")
        self._failed |= starting and not ready_s
        try:
            self._process.wait(ready_s if starting else END_S)
        except subprocess.TimeoutExpired:
            self._fail("the server does not answer in time")
        finally:
            self._process.kill()
            self._process.wait()
        self._check_end()
        if not self._failed:
            self._path.unlink(missing_ok=True)

    def _check_end(self) -> None:
        if self._process.returncode != 0:
            self._listener.join(END_S)
            self._fail(self._answers.get("error", "its recorder ended"))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers |= json.loads(line)
            self._answered.set()
        self._answered.set()

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._say(f"[yellow]Prefect does not have all of this run ({escape(reason)}); the run itself goes on[/]")
