"""Whether a failure is transient, so that another attempt may not meet it: memory that ran out, a host that does not
answer, an engine's process that died. The library that raised an error and its words say so, not its name alone."""

from types import TracebackType

NO_MEMORY = (
    "can't allocate memory",  # torch on a CPU
    "CUDA out of memory",  # raised again by a library, as an error of its own
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",  # what cuBLAS says when the allocator has left it nothing
)
NETWORK = {
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError"},
    "httpx": {"TransportError"},
    "urllib3": {"TimeoutError", "ProtocolError", "NewConnectionError", "MaxRetryError"},
    "aiohttp": {"ClientConnectionError", "ServerTimeoutError"},
    "socket": {"gaierror"},
}
"""Library -> its errors for a host that does not answer."""
CLIENTS = {*NETWORK, "huggingface_hub"}
"""Libraries whose errors may carry a host's answer."""
TO_A_HOST = {"socket", "ssl", "http"}
"""Python's modules that an error from a host passes through; one from a pipe to another process does not."""
TRANSIENT_ANSWERS = (429, 500, 502, 503, 504)
"""HTTP status codes."""


def transient_cause(error: BaseException) -> str:
    """`memory`, `network` or `engine` for a transient failure, else empty. Looks at what caused the error, too."""
    seen: BaseException | None = error
    while seen is not None:
        names = {kind.__name__ for kind in type(seen).__mro__}
        if names & {"OutOfMemoryError", "MemoryError"} or any(words in str(seen) for words in NO_MEMORY):
            return "memory"
        if "EngineLost" in names:
            return "engine"
        if _from_a_host(seen):
            return "network"
        seen = seen.__cause__ or seen.__context__
    return ""


def _from_a_host(error: BaseException) -> bool:
    kinds = [(_library(kind.__module__), kind.__name__) for kind in type(error).__mro__]
    if any(name in NETWORK.get(library, ()) for library, name in kinds):
        return True
    if any(library in CLIENTS for library, _ in kinds):
        return getattr(getattr(error, "response", None), "status_code", None) in TRANSIENT_ANSWERS
    # Python's own: a grader that took too long raises TimeoutError as well, and a worker that died is a broken pipe.
    return isinstance(error, ConnectionError | TimeoutError) and _passed_through(error.__traceback__, TO_A_HOST)


def _passed_through(traceback: TracebackType | None, modules: set[str]) -> bool:
    while traceback is not None:
        if _library(traceback.tb_frame.f_globals.get("__name__", "")) in modules:
            return True
        traceback = traceback.tb_next
    return False


def _library(module: str) -> str:
    return module.partition(".")[0]
