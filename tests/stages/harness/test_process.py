"""What a stage's process says of itself."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from stages.harness import process
from stages.harness.context import StageStopped

REFUSED = """
import torch
from stages.harness.process import _not_deterministic

torch.use_deterministic_algorithms(True)
try:
    torch.zeros(3).put_(torch.tensor([1, 1]), torch.ones(2))
except RuntimeError as error:
    print(_not_deterministic(error).message)
print(_not_deterministic(RuntimeError("another")))
"""


def test_an_operation_without_a_deterministic_kernel_is_told_by_its_setting() -> None:
    said = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True).stdout
    assert said == "execution.deterministic: put_ does not have a deterministic implementation\nNone\n"


SAYS = """
import subprocess, sys
from stages.harness.process import peak_memory_gib

says = [peak_memory_gib()]
held = b"x" * (300 << 20)
del held
says.append(peak_memory_gib())
subprocess.run([sys.executable, "-c", "b'x' * (600 << 20)"], check=True)
print(*says, peak_memory_gib())
"""


def test_the_peak_memory_is_the_largest_process_of_the_stage_and_not_of_who_started_it() -> None:
    starter = b"x" * (400 << 20)
    said = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True).stdout.split()
    assert len(starter) == 400 << 20
    first, own, started = map(float, said)
    assert first < 0.2
    assert abs(own - first - 300 / 1024) < 0.02
    assert abs(started - 600 / 1024) < 0.03


def test_a_request_that_another_process_has_passed_on_before_ends_nothing() -> None:
    """Nodes hear of a stop one after the other: the later one is in the middle of saving its state by then."""
    context: Any = SimpleNamespace(stop_requested=True, stops_gracefully=True)
    process._install_stop_handler(context)
    os.kill(os.getpid(), signal.SIGTERM)
    assert context.stop_requested
    with pytest.raises(StageStopped):
        os.kill(os.getpid(), signal.SIGTERM)
