"""Which failures may pass when a stage is tried again. Those of Python's sockets and pipes are real ones."""

import multiprocessing
import socket
import urllib.request
from collections.abc import Callable

import httpx
import huggingface_hub.errors
import pytest
import requests
import urllib3

from evaluation.engines import EngineLost
from evaluation.harness.replicas import ReplicaLost
from stages.harness.transient import transient_cause


def answer(status: int) -> Exception:
    request = httpx.Request("GET", "https://hub")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (EngineLost("vLLM's process died"), "engine"),
        (ReplicaLost("replica 1 of 2 ended"), "engine"),
        (httpx.ReadTimeout("slow"), "network"),
        (requests.exceptions.ConnectionError("no route"), "network"),
        (urllib3.exceptions.ProtocolError("cut off"), "network"),
        (socket.gaierror("Temporary failure in name resolution"), "network"),
        (answer(503), "network"),
        (answer(404), ""),
        (huggingface_hub.errors.OfflineModeIsEnabled("offline"), ""),
        (TimeoutError("a grader took too long"), ""),
        (BrokenPipeError("worker"), ""),
        (ConnectionResetError("multiprocessing"), ""),
        (RuntimeError("unforeseen"), ""),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:40] if isinstance(value, Exception) else None,
)
def test_the_cause_is_told_by_who_raised_it(error: Exception, cause: str) -> None:
    assert transient_cause(error) == cause
    outer = RuntimeError("the stage's own words")
    outer.__cause__ = error
    assert transient_cause(outer) == cause


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def a_host_that_refuses() -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{closed_port()}/", timeout=5)


def a_host_that_is_silent() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        urllib.request.urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.2)


def a_worker_that_is_gone() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    ours.send("work")


@pytest.mark.parametrize(
    ("happens", "cause"),
    [(a_host_that_refuses, "network"), (a_host_that_is_silent, "network"), (a_worker_that_is_gone, "")],
)
def test_a_host_is_told_from_a_pipe(happens: Callable[[], None], cause: str) -> None:
    with pytest.raises(OSError) as raised:
        happens()
    assert transient_cause(raised.value) == cause
