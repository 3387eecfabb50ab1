"""What every stage program shares: its spec, its progress, its errors, and the result it has to write.

A stage is started as `python -m stages.NAME SPEC.json` and knows nothing of the orchestrator. It reads its inputs from folders,
writes its payload into `spec.output`, keeps what it needs to resume in `spec.state`, and ends in one of three ways:

- exit 0 with `record/result.json` in the output folder, holding a completion proof;
- exit 75: stopped on request (SIGTERM or SIGINT) with its state saved; the next start with the same spec resumes;
- exit 1 with `error.json` beside the spec: one `StageError`, or the last line of an unforeseen traceback (the whole is in the log).

Started by torchrun, each of its processes runs the same program. Only the first of them reports and writes the result; the error is that of
whichever failed first, and torchrun then stops the others.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def read_json(path: str | Path) -> Any:
    """Read one JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON through a temporary name and a rename, so that a reader sees the old file or the new one, never half of it.

    The temporary name is drawn, because process ids are not enough: machines share a folder, and threads write at once. A write that
    fails leaves none behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
