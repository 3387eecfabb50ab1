"""Talking to the Prefect server beside the stages, without ever waiting for it: a server that hangs or restarts delays
no stage."""

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, runtime
from prefect.exceptions import PrefectException

QUIET_AFTER_FAILURE_S = 60.0
WAITING_CALLS = 16
CANCEL_POLL_S = 3.0
SERVER_ERRORS = (httpx.HTTPError, PrefectException, OSError)
"""What a call to a server that is gone, or is not itself, ends in."""


def _start_thread(name: str, run: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread in this context, in which Prefect keeps its server and the run that artifacts belong to."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    thread.start()
    return thread


def tag_flow_run(tags: Sequence[str]) -> None:
    """Give the flow run that is going on these tags, KIND:VALUE, in place of those of the same kinds that it has.

    A run of a deployment has the deployment's tags, whatever its own parameters say.
    """
    kinds = tuple(f"{tag.partition(':')[0]}:" for tag in tags)
    have = set(runtime.flow_run.tags)
    wanted = {tag for tag in have if not tag.startswith(kinds)} | set(tags)
    if wanted == have:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(runtime.flow_run.id)), tags=wanted)
    except SERVER_ERRORS as error:
        get_run_logger().warning("the server took no tags (%s)", type(error).__name__)


class BackgroundCalls:
    """Calls to the server, one after the other in a thread of its own.

    What the server cannot take in time is left out: none of it is a result. After a failure it is left alone for a
    while.
    """

    def __init__(self) -> None:
        self._logger = get_run_logger()
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(WAITING_CALLS)
        self._quiet_until = 0.0
        self._thread = _start_thread("server-calls", self._work)

    def submit(self, call: Callable[[], object]) -> None:
        """Have `call` made soon, or never where the server does not keep up."""
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(call)

    def close(self, seconds: float) -> None:
        """Wait for the calls that are left, for at most so long."""
        with contextlib.suppress(queue.Full):
            self._calls.put(None, timeout=seconds)
            self._thread.join(seconds)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if time.monotonic() < self._quiet_until:
                continue
            try:
                call()
            except SERVER_ERRORS as error:
                self._quiet_until = time.monotonic() + QUIET_AFTER_FAILURE_S
                name = type(error).__name__
                self._logger.warning("the server takes no artifacts (%s); tried again in a minute", name)


class CancelWatch:
    """Notices that a flow run is cancelled in the UI and stops its stages.

    A worker ends its flow runs itself; a run at a terminal has no worker.
    """

    def __init__(self, flow_run: UUID | str, stopping: threading.Event) -> None:
        self._flow_run, self._stopping = UUID(str(flow_run)), stopping
        self._over = threading.Event()
        self.cancelled = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Set `stopping` as soon as somebody cancels the run."""
        _start_thread("cancel-watch", self._watch)
        try:
            yield
        finally:
            self._over.set()

    def _watch(self) -> None:
        with get_client(sync_client=True) as client:
            while not self._over.wait(CANCEL_POLL_S):
                try:
                    state = client.read_flow_run(self._flow_run).state
                except SERVER_ERRORS:
                    continue  # a server that is away for a while cancels nothing
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    self.cancelled = True
                    self._stopping.set()
                    return
