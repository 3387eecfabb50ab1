"""What a stage's process says of itself."""

import subprocess
import sys

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
