"""What the two training stages share: set-up, loading, progress, stop and resume, saving, and the proof that training happened.

Imports torch and transformers: only a stage process imports this module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.harness.context import StageError


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file of objects. Raises StageError naming the line that is not one."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise StageError(
                    f"{path}:{number}: not JSON ({error.msg})", "Run the data stage again, or correct the file."
                ) from None
            if not isinstance(row, dict):
                raise StageError(
                    f"{path}:{number}: not a JSON object", "Run the data stage again, or correct the file."
                )
            rows.append(row)
    return rows
