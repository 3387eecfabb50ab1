"""Ctrl-C at a terminal reaches every process of its group; the run must still end in order, and in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.shipped import ROOT


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_leaves_it_resumable(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "run", str(ROOT / "configs" / "demo.yaml"), "--only", "base"]
    settings = [f"home={tmp_path / 'home'}", "base.steps=800"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while "pretraining" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130, (tmp_path / "log").read_text()
    finally:  # a test that fails leaves nothing behind
        if process.poll() is None:
            process.terminate()
            process.wait()
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    assert "stopped:" in text
