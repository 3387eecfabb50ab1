"""Data parallelism: several engines with the same checkpoint behind one `Engine`.

Each is a process with its share of the GPUs or CPU threads. Every request has its own random stream, so what is sampled
does not depend on which replica samples it. Requests are dealt out in turn: callers put the longest first, so each
replica gets as many long ones as the others.
"""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, cast

from evaluation.engines.base import (
    EngineLost,
    EngineOptions,
    EngineUnavailable,
    InFlight,
    OnDone,
    Sampled,
    SamplingRequest,
    check_room,
    load_tokenizer,
)
from evaluation.harness.child_processes import wait_or_kill

CLOSES_WITHIN_S = 20.0
"""How long a replica may take to end before it is killed; one that gives back a GPU's memory takes seconds."""


class ReplicaLost(EngineLost):
    """A replica ended before its work was done."""


class ReplicatedEngine:
    """`options.data_parallel` engines behind one, loaded at the same time.

    Raises:
        EngineUnavailable: there are fewer GPUs than the options need.
        Exception: whatever a replica's engine raises while it loads.
    """

    def __init__(self, name: str, model: str, options: EngineOptions) -> None:
        self.name = name
        self.tokenizer = load_tokenizer(model, chat=False)
        share = dataclasses.replace(options, data_parallel=1, threads=max(1, options.threads // options.data_parallel))
        self._in_flight: dict[int, InFlight] = {}
        self._replicas = [_start(environment) for environment in _environments(options, share.threads)]
        try:
            for _, connection in self._replicas:
                connection.send((name, model, share))
            facts = {self._answer(index) for index in range(len(self._replicas))}
        except BaseException:
            self.close()
            raise
        self.version, self.max_model_len = facts.pop()

    def generate(self, requests: Sequence[SamplingRequest], on_done: OnDone | None = None) -> list[Sampled]:
        """See `Engine.generate`. Raises ReplicaLost when a replica dies; what `on_done` got before is valid."""
        check_room(requests, self.max_model_len)
        count = len(self._replicas)
        for index, (_, connection) in enumerate(self._replicas):
            connection.send(list(requests[index::count]))
        done: dict[int, Sampled] = {}
        self._in_flight = dict.fromkeys(range(count), InFlight(0, 0))
        working = {connection: index for index, (_, connection) in enumerate(self._replicas)}
        while working:
            for connection in cast(list[Connection], wait(list(working))):
                replica = working[connection]
                answer = self._answer(replica)
                if isinstance(answer, InFlight):
                    self._in_flight[replica] = answer
                    continue
                if answer is None:
                    del working[connection]
                    self._in_flight[replica] = InFlight(0, 0)
                    continue
                place, sampled = answer
                done[replica + place * count] = sampled
                if on_done is not None:
                    on_done(replica + place * count, sampled)
        return [done[index] for index in range(len(requests))]

    def in_flight(self) -> InFlight:
        """See `Engine.in_flight`; as of the replicas' last messages, up to two seconds ago."""
        told = list(self._in_flight.values())
        return InFlight(sum(one.running for one in told), sum(one.tokens for one in told))

    def close(self) -> None:
        """End the replicas: each ends when its connection closes, and is killed where it does not."""
        for _, connection in self._replicas:
            connection.close()
        for process, _ in self._replicas:
            wait_or_kill(process, CLOSES_WITHIN_S)

    def _answer(self, index: int) -> Any:
        """A replica's next message. Raises it where it is an exception."""
        process, connection = self._replicas[index]
        try:
            answer = connection.recv()
        except (EOFError, ConnectionResetError):
            code = process.wait()
            which = f"replica {index} of {len(self._replicas)}"
            raise ReplicaLost(f"{which} ended with exit code {code}; its messages are in the stage's log") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _environments(options: EngineOptions, threads: int) -> list[dict[str, str]]:
    """Each replica's additions to the environment: its GPUs, or its number of CPU threads."""
    if options.device == "cpu":
        return [{"OMP_NUM_THREADS": str(threads)}] * options.data_parallel
    gpus = _visible_gpus()
    each = options.tensor_parallel
    if len(gpus) < options.data_parallel * each:
        raise EngineUnavailable(
            f"{options.data_parallel} replicas of {each} GPUs need more than the {len(gpus)} that are visible"
        )
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(gpus[start : start + each])}
        for start in range(0, options.data_parallel * each, each)
    ]


def _visible_gpus() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _start(environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "evaluation.engines.replica", str(theirs.fileno()), str(os.getpid())],
        env={**os.environ, **environment},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    return process, ours
