"""One engine in a process of its own that samples for its parent (see evaluation/harness/replicas.py)."""

import sys
from multiprocessing.connection import Connection

from evaluation.engines import Engine, EngineUnavailable, open_engine
from evaluation.harness.child_processes import die_with_parent


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
    while True:
        try:
            requests = connection.recv()
            engine.generate(requests, lambda index, sampled: connection.send((index, sampled)))
            connection.send(None)
        except (EOFError, BrokenPipeError):  # the parent has gone
            return


def main() -> None:
    """`python -m evaluation.engines.replica FD PARENT`: ends with the process that started it, however that ends."""
    if die_with_parent(int(sys.argv[2])):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
