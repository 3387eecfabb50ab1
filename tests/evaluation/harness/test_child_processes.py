"""A child that does not end when asked is killed; one that ends is left to."""

import subprocess
import sys

from evaluation.harness.child_processes import wait_or_kill


def test_a_child_that_ends_keeps_its_exit_code_and_one_that_does_not_is_killed() -> None:
    ending = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    wait_or_kill(ending, 30)
    staying = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    wait_or_kill(staying, 0.05)
    assert (ending.returncode, staying.returncode) == (3, -9)
