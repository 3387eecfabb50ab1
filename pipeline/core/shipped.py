"""The files that come with the package and are no code: configs, docs and pinned lists.

In a checkout they are its own folders; a wheel carries them as data, which pip puts below `share/vcore` of the
environment.
"""

import importlib.metadata
from pathlib import Path, PurePosixPath

from pipeline.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "vcore-pipeline"
PACKAGES = ("pipeline", "stages", "evaluation")
SHARE = PurePosixPath("share/vcore")


def is_checkout() -> bool:
    """Whether this code runs from a checkout, which has a Makefile, rather than from an installed wheel."""
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "configs").is_dir()


def shipped(path: str) -> Path:
    """A shipped file or folder, such as `configs/demo.yaml` or `docs`.

    Raises:
        UserError: the installation does not have it, as where its files were moved after pip had put them there.
    """
    if is_checkout():
        found = ROOT / path
    else:
        files = importlib.metadata.files(DISTRIBUTION) or []
        share = next((file for file in files if SHARE.name in file.parts and SHARE.parent.name in file.parts), None)
        if share is None:
            raise UserError(f"this installation has no {path}", fix="Install the wheel again, with pip.")
        below = share.parts[: share.parts.index(SHARE.name) + 1]
        found = Path(str(share.locate())).resolve().parents[len(share.parts) - len(below) - 1] / path
    if not found.exists():
        raise UserError(f"this installation has no {path} ({found})", fix="Install the wheel again, with pip.")
    return found


def how_to_install(machine: str = "cpu") -> str:
    """The command that installs the pinned set: for a checkout `make setup`, for a wheel pip with the shipped list."""
    if is_checkout():
        return "make setup" if machine == "cpu" else f"make setup MACHINE={machine}"
    try:
        lists = shipped("requirements")
    except UserError:  # an advice has to be given all the same
        lists = Path("requirements")
    return f"pip install --no-deps -r {lists}/{machine}.txt"
