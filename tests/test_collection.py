"""Collecting tests is quick because no test file imports a library that most of its tests do without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
HEAVY = ("torch", "transformers", "trl", "vllm", "datasets", "peft", "ray")
COLLECT = f"""
import sys
import pytest
code = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-W", "ignore", *sys.argv[1:]])
print("code", int(code), [name for name in {HEAVY!r} if name in sys.modules])
"""


FOLDERS = ("pipeline", "evaluation/graders", "evaluation/sandbox", "stages/report", "stages/score", "test_pipeline.py")


def test_collecting_imports_no_library_that_trains_or_samples() -> None:
    estimate = TESTS / "pipeline" / "estimate"  # builds models' shapes with torch
    command = [sys.executable, "-c", COLLECT, f"--ignore={estimate}", *(str(TESTS / folder) for folder in FOLDERS)]
    collected = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
    assert collected.stdout.splitlines()[-1] == "code 0 []", collected.stdout + collected.stderr
