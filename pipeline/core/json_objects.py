"""Reading records back: JSON that a failing disk, an editor or another version may have left otherwise than it was written.

Nobody who reads records may trip over a bad one: a damaged manifest makes its artifact damaged, which is made again, and any other record
that cannot be read is passed over.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any


def read_object(file: Path, **fields: type | tuple[type, ...]) -> dict[str, Any] | None:
    """The JSON object in a file, which has at least these fields, of these types; None where there is none that can be read."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and has(value, **fields) else None


def has(value: dict[str, Any], **fields: type | tuple[type, ...]) -> bool:
    """Whether an object has all these fields, of these types."""
    return all(isinstance(value.get(name), kind) for name, kind in fields.items())


def check_manifest(manifest: object, program: str, key: str) -> dict[str, Any]:
    """A manifest as it was loaded, if it can be that of the artifact `program`/`key`. Raises `ValueError`, which says why it cannot."""
    if not isinstance(manifest, dict):
        raise ValueError("it is no object")
    if manifest.get("key") != key or manifest.get("stage") != program:
        raise ValueError("it belongs to another artifact")
    if not has(manifest, preimage=dict, seconds=(int, float), digest=str, files=list):
        raise ValueError("it is incomplete")
    if not manifest["files"] or not all(
        isinstance(entry, dict) and has(entry, path=str, size=int, sha256=str) for entry in manifest["files"]
    ):
        raise ValueError("its list of files is incomplete")
    for path in (PurePosixPath(entry["path"]) for entry in manifest["files"]):
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"it names a file outside, {path}")
    return manifest
