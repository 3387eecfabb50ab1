"""Whether the disk of a home holds what a run will write, as far as the size of the model is known."""

import json
import math
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.checks.sizes import parameters
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import StoreError
from pipeline.plan.planning import Planned
from stages.base.settings import MAKE, gguf_file
from stages.harness.declaration import Disk


def check_disk(config: PipelineConfig, plan: Sequence[Planned]) -> None:
    """Raise `StoreError` where a run's checkpoints would leave less free than `execution.min_free_gib`."""
    least = config.execution.min_free_gib
    free = shutil.disk_usage(config.home_folder.resolve()).free / 2**30
    needed = checkpoint_bytes(config, plan) / 2**30
    if least > 0 and free < needed + least:
        wanted = f"{needed + least:.1f} GiB wanted: {needed:.1f} for checkpoints and {least:g} to spare"
        raise StoreError(
            f"{free:.1f} GiB free below {config.home_folder}, {wanted}",
            where="execution.min_free_gib",
            fix="Free some space, choose another `home:`, or lower execution.min_free_gib (0: whatever is free).",
        )


def checkpoint_bytes(config: PipelineConfig, plan: Sequence[Planned]) -> int:
    """Bytes of the checkpoints that are still to be made, and of the largest training state beside them.

    What an interrupted attempt has written already is there and does not count. Of a model of the hub that has not been
    fetched nothing is known: 0.
    """
    results, states = 0, [0]
    size = model_parameters(config, plan)
    for planned in plan:
        disk: Disk | None = planned.stage.kind.disk(planned.stage.settings)
        if disk is None or planned.state == "HIT":
            continue
        work = config.home_folder / "work" / planned.stage.program / str(planned.key)
        there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        results += disk.checkpoint * size
        states.append(disk.state * size - there)
    return results + max(states)


def model_parameters(config: PipelineConfig, plan: Sequence[Planned]) -> int:
    """How many values a run's model has; 0 where that cannot be known before it has been fetched."""
    base = next((planned.artifact for planned in plan if planned.stage.name == "base"), None)
    if base is not None:
        return int(base.manifest.proof.get("parameters", 0))
    if config.model == MAKE:
        return parameters(config.base)
    if (file := gguf_file(config.model)) is not None:
        return gguf_values(file)
    return sum(map(safetensors_values, Path(config.model).expanduser().glob("*.safetensors")))


def safetensors_values(path: Path) -> int:
    """How many values a safetensors file says it holds; 0 of one that is damaged."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(_number(file, "Q")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, TypeError, KeyError, OverflowError, struct.error):
        return 0  # the base stage says what is wrong with it


GGUF_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type of a value of GGUF's metadata -> its size, for those that have one."""
GGUF_TEXT, GGUF_LIST = 8, 9


def gguf_values(path: Path) -> int:
    """How many values the tensors of a GGUF file (version 2 or 3) hold; 0 of one that is damaged.

    `gguf.GGUFReader` counts them too, and takes seconds for it: it makes an array of each token's text.
    """
    try:
        with path.open("rb") as file:
            file.seek(8)
            tensors, entries = _number(file, "Q"), _number(file, "Q")
            for _ in range(entries):
                _skip(file, GGUF_TEXT)
                _skip(file, _number(file, "I"))
            values = 0
            for _ in range(tensors):
                _skip(file, GGUF_TEXT)
                values += math.prod([_number(file, "Q") for _ in range(_number(file, "I"))])
                file.seek(12, 1)
        return values
    except (OSError, ValueError, KeyError, OverflowError, struct.error):
        return 0


def _skip(file: BinaryIO, kind: int, count: int = 1) -> None:
    if kind == GGUF_LIST:
        kind, count = _number(file, "I"), _number(file, "Q")
    if kind == GGUF_TEXT:
        for _ in range(count):
            file.seek(_number(file, "Q"), 1)
    else:
        file.seek(GGUF_BYTES[kind] * count, 1)


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0])
