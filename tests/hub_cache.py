"""A hub's cache as `hf download` leaves it, made of a folder and without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, kind: str, name: str, folder: Path, *, commit: str = COMMIT, listed: bool = True) -> Path:
    """Put a folder's files into the cache as the snapshot of a commit, to which `main` points; returns the snapshot.

    Args:
        kind: `models` or `datasets`.
        listed: whether the cache has the repository's listing, which says what a complete snapshot holds.
    """
    storage = cache / f"{kind}--{name.replace('/', '--')}"
    snapshot = storage / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (storage / "refs").mkdir(exist_ok=True)
    (storage / "refs" / "main").write_text(commit)
    if listed:
        names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
        files = {name: {"size": (folder / name).stat().st_size, "blob_id": "0" * 40} for name in names}
        (storage / "trees").mkdir(exist_ok=True)
        (storage / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    return snapshot
