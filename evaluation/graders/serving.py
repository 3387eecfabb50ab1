"""What the processes behind a `MathsWorker` share: limits on an item, and the exchange with the parent."""

import json
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space; ends an answer such as 10^{10^{10}} before it takes the machine's


def serve(judge: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each item with `judge(item)`, as JSON, over the connection whose descriptor is the program's argument.

    First `{"ready": true}` is sent. An item's `cpu_s` are the seconds of processor time that it may take. What does not
    fit into `MEMORY` bytes is answered with `{"error": "MemoryError"}`. Ends when the connection is closed.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(int(sys.argv[1]))
    reply: dict[str, Any] = {"ready": True}
    while True:
        connection.send_bytes(json.dumps(reply).encode())
        try:
            item = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # Ends a worker that hangs after its parent was killed; while the parent lives, its deadline comes first.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + item["cpu_s"]) + 1, resource.RLIM_INFINITY))
        try:
            reply = judge(item)
        except MemoryError:
            reply = {"error": "MemoryError"}
