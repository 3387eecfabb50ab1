"""The private modules of CPython that the child uses still hold what the public ones do, and keep its start short."""

import hashlib
import json
import signal

from evaluation.sandbox import Sandbox
from evaluation.sandbox.child import cpython_internals
from tests.evaluation.sandbox.cases import value_of


def test_the_names_mean_what_the_public_ones_mean() -> None:
    assert cpython_internals.blake2b is hashlib.blake2b
    assert cpython_internals.encode_basestring_ascii is json.encoder.encode_basestring_ascii
    numbers = cpython_internals.SIGKILL, cpython_internals.SIGTERM, cpython_internals.SIG_IGN
    assert numbers == (signal.SIGKILL, signal.SIGTERM, signal.SIG_IGN)


def test_a_handler_that_is_set_by_the_private_function_is_set() -> None:
    before = cpython_internals.signal(signal.SIGUSR1, cpython_internals.SIG_IGN)
    try:
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_child_imports_none_of_the_public_ones(sandbox: Sandbox) -> None:
    """Each takes as long to import as the interpreter to start."""
    loaded = value_of(sandbox, "import sys", "sorted(sys.modules)")
    assert isinstance(loaded, list)
    assert not {"hashlib", "json", "signal", "enum", "typing"} & set(loaded)
