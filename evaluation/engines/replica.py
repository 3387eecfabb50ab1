"""One engine in a process of its own, which samples for another process (evaluation/harness/replicas.py starts it)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection

from evaluation.engines import Engine, EngineUnavailable, open_engine

_PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """One replica: load the engine that is asked for, then sample each list of requests that comes, until the connection closes."""
    from safetensors import SafetensorError

    name, model, options = connection.recv()
    try:
        engine: Engine = open_engine(name, model, options)
    except EngineUnavailable as error:
        connection.send(error)
        return
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        connection.send(RuntimeError(str(error)))  # not every one of their kinds can be sent
        return
    connection.send((engine.version, engine.max_model_len))
    while True:
        try:
            requests = connection.recv()
            engine.generate(requests, lambda index, sampled: connection.send((index, sampled)))
            connection.send(None)
        except (EOFError, BrokenPipeError):  # whoever asked has gone
            return


def main() -> None:
    """`python -m evaluation.engines.replica FD PARENT`: ends with the process that started it, however that ends."""
    parent = int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the request was made
        return
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
