"""Documents on disk: what is read and written again is what it was, and what cannot be a document is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.documents import RunRecordDocument
from pipeline.store.documents import LatestEntry, Manifest, Preimage
from pipeline.store.mirror import MirroredManifest
from stages.harness.documents import EVENT, Document, ErrorDocument, Note, Progress, Spec, StageResult

PREIMAGE = {
    "stage": "sft",
    "schema": 1,
    "settings": {"learning_rate": 0.002, "lora": None, "trainer": {}},
    "seed": 0,
    "outside": {"data.sft.0": {"hub": "a/b", "commit": "c"}, "model": {"sha256": "d"}},
    "inputs": {"data": "2a"},
    "code": {"stages/sft/run.py": "35"},
    "versions": {"python": "3.11"},
}
MANIFEST: dict[str, Any] = {
    "schema": 1,
    "stage": "sft",
    "name": "sft",
    "key": "42",
    "preimage": PREIMAGE,
    "inputs": {"data": {"stage": "data", "key": "4b", "digest": "2a"}},
    "git": {"commit": None, "dirty": None},
    "argv": ["vcore"],
    "command": "vcore run demo.yaml",
    "versions": {"python": "3.11.7"},
    "hardware": {"cpu": "EPYC", "cores": 2, "memory_gib": 23.5, "gpu": [], "system": "Linux"},
    "started": "2026-01-01T00:00:00+00:00",
    "ended": "2026-01-01T00:00:01+00:00",
    "seconds": 33.45,
    "proof": {"steps": 160, "loss": float("nan")},
    "metrics": {"rows": [1, 2.0]},
    "files": [{"path": "model/config.json", "size": 825, "sha256": "82"}],
    "digest": "ea",
}
SPEC = {
    "stage": "sft",
    "settings": {"steps": 3},
    "inputs": {"data": "/store/data/4b"},
    "seed": 0,
    "machine": {"device": "cpu", "threads": None, "data_dir": None},
    "details": {"commits": {}},
    "output": "/work/out",
    "state": "/work/state",
    "parent": None,
}
RUN = {
    "id": "20260101-000000-demo",
    "name": "demo",
    "command": "vcore run demo.yaml",
    "pid": 1,
    "host": "vm",
    "started": "2026-01-01T00:00:00+00:00",
    "ended": None,
    "status": "done",
    "error": None,
    "plan": [{"stage": "a", "state": "RUN", "reason": "", "key": None, "last_seconds": None, "folder": None}],
    "stages": [{"name": "a", "key": "4b", "state": "ran", "seconds": 0.82, "folder": "/store"}],
    "outside": PREIMAGE["outside"],
    "anchor": None,
    "anchor_blessed": False,
    "look": None,
    "moved": [],
    "gate": None,
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Manifest, MANIFEST),
        (Manifest, {name: MANIFEST[name] for name in ("stage", "key", "preimage", "seconds", "files", "digest")}),
        (Manifest, MANIFEST | {"a field of another version": {"of": "any kind"}}),
        (MirroredManifest, MANIFEST | {"upload": "0a"}),
        (LatestEntry, {"key": "42", "preimage": PREIMAGE, "seconds": 33.45}),
        (Spec, SPEC),
        (StageResult, {"proof": {"steps": 1}, "metrics": {}}),
        (ErrorDocument, {"message": "a", "fix": "b"}),
        (RunRecordDocument, RUN),
        (RunRecordDocument, {name: value for name, value in RUN.items() if name not in ("anchor", "moved", "gate")}),
    ],
)
def test_what_is_read_and_written_again_is_as_it_was(
    kind: type[Document], value: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "document.json"
    file.write_text(json.dumps(value))
    document = kind.read(file)
    assert document is not None
    assert json.dumps(document.to_json()) == json.dumps(value), "values and their order"


def test_events_are_read_as_they_are_written() -> None:
    progress = {"time": 1.5, "event": "progress", "phase": "sft", "step": 1, "total": None, "metrics": {"loss": 2.0}}
    note = {"time": 1.5, "event": "note", "message": "resumes"}
    for kind, value in ((Progress, progress), (Note, note)):
        event = EVENT.validate_json(json.dumps(value))
        assert isinstance(event, kind)
        assert json.dumps(event.model_dump()) == json.dumps(value)


def test_a_key_is_the_digest_of_the_preimage_on_disk() -> None:
    from pipeline.core.digests import digest

    assert Preimage.model_validate(PREIMAGE).key == digest(PREIMAGE)


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", '{"proof": 1}', "\xff"])
def test_what_is_no_such_document_is_none(text: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(text.encode("latin-1"))
    assert StageResult.read(file) is None
    assert StageResult.read(tmp_path / "missing.json") is None
