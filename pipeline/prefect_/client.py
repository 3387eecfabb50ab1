"""Talking to the Prefect server."""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, runtime
from prefect.exceptions import PrefectException

CANCEL_POLL_S = 3.0
SERVER_ERRORS = (httpx.HTTPError, PrefectException, OSError)
"""What a call to a server that is gone, or is not itself, ends in."""


def start_thread(name: str, run: Callable[[], object]) -> threading.Thread:
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


class CancelWatch:
    """Notices that a flow run is cancelled in the UI, and calls `stop`.

    A worker ends its flow runs itself; a run at a terminal has no worker.
    """

    def __init__(self, flow_run: UUID | str, stop: Callable[[], None]) -> None:
        self._flow_run, self._stop = UUID(str(flow_run)), stop
        self._over = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the run meanwhile."""
        start_thread("cancel-watch", self._watch)
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
                    self._stop()
                    return
