"""Tests of the real trackers: they are optional, and where one is not installed its tests say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks.export import HOW, installed
from pipeline.launch.environment import python_path


def needs(tracker: str) -> pytest.MarkDecorator:
    """Skips a test where a tracker's package is not installed, with the command that installs it."""
    command = HOW[tracker].partition(" (")[0]
    return pytest.mark.skipif(not installed(tracker), reason=f"NOT TESTED WITH THE REAL {tracker}: {command}")


def read_back(program: str, *arguments: object, **env: str) -> Any:
    """What a program prints as JSON, in a process of its own: these libraries read their settings once."""
    command = [sys.executable, "-P", "-c", program, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": python_path(), "DO_NOT_TRACK": "1", **env}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def clean(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No setting of the user's, whose trackers tests must not write to."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
