"""A disk on which nothing more can be written, as an error that says where and what to do."""

import contextlib
import shutil
from pathlib import Path

from stages.harness.context import StageError

NO_ROOM = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",  # beyond the limit that `ulimit -f` shows
    "PytorchStreamWriter failed writing",  # torch.save says no more than one of these two
    ". unexpected pos ",
)
"""What libraries say of a write that found no room; most raise an error of their own, which names no file."""
FREE_SOME = "Free some disk space, or choose another `home:`"
RESERVE = "error.reserve"
RESERVED_BYTES = 16384
"""Enough for the error itself, which has to be written to the same disk."""


def full_disk(error: BaseException, work: Path) -> StageError | None:
    """The error to show where `error`, or what caused it, is a write that found no room; else None."""
    seen: BaseException | None = error
    while seen is not None:
        if any(words in str(seen) for words in NO_ROOM):
            file = getattr(seen, "filename", None)
            where = f"{file} cannot be written" if file else f"a file, most likely below {work}, cannot be written"
            return StageError(
                f"{where}: {seen} (free there: {_free(Path(file) if file else work)})",
                f"{FREE_SOME}, and run the same command again: what was saved before is kept.",
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _free(place: Path) -> str:
    existing = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    return f"{shutil.disk_usage(existing).free / 1024**2:,.1f} MiB"


def reserve(work: Path) -> None:
    """Keep some room on the disk of `work`, which `release` gives back to the error that may have to be written."""
    (work / RESERVE).write_bytes(bytes(RESERVED_BYTES))


def release(work: Path) -> None:
    """Give back what `reserve` took, where it did."""
    with contextlib.suppress(FileNotFoundError):
        (work / RESERVE).unlink()
