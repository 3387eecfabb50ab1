"""A home with one run."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.share.records import OUTSIDE, REPORT


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one finished run of one checkpoint."""
    artifact, run = tmp_path / "store" / "sft" / "key", tmp_path / "runs" / "20260101-000000-nightly"
    (artifact / "model").mkdir(parents=True)
    run.mkdir(parents=True)
    manifest: dict[str, Any] = {
        "stage": "sft",
        "key": "key",
        "digest": "a",
        "files": [],
        "seconds": 1.0,
        "preimage": {"outside": {"model": OUTSIDE["model"]}},
    }
    for file, text in (("model/config.json", "{}"), ("model/model.safetensors", "weights")):
        (artifact / file).write_text(text)
        manifest["files"].append({"path": file, "size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()})
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    record = {"id": run.name, "name": "nightly", "status": "done", "command": "vcore run nightly.yaml", "plan": []}
    stage = {"name": "sft", "key": "key", "state": "ran", "folder": str(artifact)}
    (run / "run.json").write_text(json.dumps(record | {"started": "2026-01-01T00:00:00+00:00", "stages": [stage]}))
    (run / "report.json").write_text(json.dumps(REPORT))
    (run / "report.md").write_text("# nightly")
    return tmp_path
