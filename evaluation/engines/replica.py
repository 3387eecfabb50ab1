"""One engine in a process of its own that samples for its parent (see evaluation/harness/replicas.py)."""

import contextlib
import sys
import threading
from multiprocessing.connection import Connection

from evaluation.engines import Engine, EngineUnavailable, open_engine
from evaluation.harness.child_processes import die_with_parent

IN_FLIGHT_EVERY_S = 2.0
"""Seconds between two messages about what is being sampled."""


def serve(connection: Connection) -> None:
    """Load the engine that is asked for, then sample every list of requests, until the connection closes."""
    from safetensors import SafetensorError

    name, model, options = connection.recv()
    try:
        engine: Engine = open_engine(name, model, options)
    except EngineUnavailable as error:
        connection.send(error)
        return
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        connection.send(RuntimeError(str(error)))  # some of these cannot be pickled
        return
    connection.send((engine.version, engine.max_model_len))
    one_at_a_time = threading.Lock()

    def send(answer: object) -> None:
        with one_at_a_time:
            connection.send(answer)

    def tell(over: threading.Event) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent has gone
            while not over.wait(IN_FLIGHT_EVERY_S):
                send(engine.in_flight())

    while True:
        over = threading.Event()
        telling = threading.Thread(target=tell, args=(over,), daemon=True)
        try:
            requests = connection.recv()
            telling.start()
            engine.generate(requests, lambda index, sampled: send((index, sampled)))
            over.set()
            telling.join()
            send(None)
        except (EOFError, BrokenPipeError):  # the parent has gone
            return


def main() -> None:
    """`python -m evaluation.engines.replica FD PARENT`: ends with the process that started it, however that ends."""
    if die_with_parent(int(sys.argv[2])):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
