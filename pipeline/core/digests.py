"""Stable hashes of values, files and folders.

A stage's key is the sha256 of the canonical JSON of everything its result depends on. What has no stable form raises.
"""

import contextlib
import hashlib
import json
import math
import threading
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from stages.harness.json_files import write_json


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces. Raises `TypeError` for sets, NaN and objects."""
    _check_stable(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _check_stable(value: Any, path: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{path}: {value} has no stable hash")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_stable(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path}: key {key!r} is not a string")
            _check_stable(item, f"{path}.{key}")
    else:
        raise TypeError(f"{path}: {type(value).__name__} has no stable hash")


Mark = tuple[int, int, int, str]
"""Size, time of the last change in nanoseconds, inode, and sha256 of a file."""
_MEMO = TypeAdapter(dict[str, Mark])


class DigestMemo:
    """sha256 of files, remembered by path, size, time and inode, so that an unchanged file is read once.

    A file that was rewritten, truncated or replaced is read again. Only silent corruption that leaves all three
    untouched escapes; `vcore store verify` reads everything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._known = _MEMO.validate_json(path.read_bytes())
        except (OSError, ValueError):  # no memo yet, or a damaged one: it only saves time
            self._known = {}
        self._dirty = False
        self._lock = threading.Lock()
        """Stages that run at once publish from threads of their own."""

    def sha256(self, file: Path, *, reread: bool = False) -> str:
        """Digest of one file; `reread` ignores what is remembered."""
        stat = file.stat()
        mark = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        name = str(file.resolve())
        known = self._known.get(name)
        if known is not None and known[:3] == mark and not reread:
            return known[3]
        with open(file, "rb") as handle:
            value = hashlib.file_digest(handle, "sha256").hexdigest()
        self._known[name] = (*mark, value)
        self._dirty = True
        return value

    def moved(self, file: Path, value: str) -> None:
        """Remember a file whose digest is known because it was just read under another name."""
        stat = file.stat()
        self._known[str(file.resolve())] = (stat.st_size, stat.st_mtime_ns, stat.st_ino, value)
        self._dirty = True

    def save(self) -> None:
        """Write the memo. That fails silently, on a full disk or a store that is only read: it only saves time."""
        if not self._dirty:
            return
        with self._lock, contextlib.suppress(OSError):
            write_json(self.path, dict(self._known))
            self._dirty = False


def folder_digest(folder: Path, memo: DigestMemo) -> str:
    """One digest for a folder's files: relative paths and contents, hidden files left out."""
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )
    return digest([[str(p.relative_to(folder)), memo.sha256(p)] for p in files])
