"""The checks for a GPU machine run as they are, with tiny sizes on a CPU: the script works when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import stage_environment

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "gpu_check.py"
CHECKS = "fused_head attention_kernels determinism memory merge jvp synchronisations optimizer tf32 stages"


@pytest.mark.slow
def test_all_ten_checks_run_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path), "--tiny"]
    done = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=500, check=False)
    rows = [json.loads(line) for line in (tmp_path / "checks.jsonl").read_text().splitlines()]
    assert [row["check"] for row in rows] == CHECKS.split()
    assert done.returncode == 0, (rows, done.stderr)
    assert [row["check"] for row in rows if row["ok"] is not True] == ["tf32"], "which has no CPU"


@pytest.mark.slow
def test_a_check_that_fails_ends_no_other(tmp_path: Path) -> None:
    program = f"""
import sys
sys.argv = ["gpu_check", {str(tmp_path)!r}, "--tiny"]
sys.path.insert(0, {str(PROGRAM.parent)!r})
import gpu_check
def passes(checks): return {{"ok": True}}
def fails(checks): raise RuntimeError("no kernel image is available")
for name in {CHECKS!r}.split():
    setattr(gpu_check.Checks, name, fails if name == "memory" else passes)
sys.exit(gpu_check.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["check"] for row in rows if row["ok"]] == [name for name in CHECKS.split() if name != "memory"]
    assert rows[3]["error"] == "RuntimeError: no kernel image is available"
