"""The rows that a stage trains on."""

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
                row, problem = json.loads(line), "not a JSON object"
            except json.JSONDecodeError as error:
                row, problem = None, f"not JSON ({error.msg})"
            if not isinstance(row, dict):
                raise StageError(f"{path}:{number}: {problem}", "Run the data stage again, or correct the file.")
            rows.append(row)
    return rows
