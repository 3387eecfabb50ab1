"""Virtual environments for tests of stages that run under another Python: with this one's libraries, nothing
downloaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def make_environment(folder: Path, *, libraries: bool = True) -> Path:
    """A virtual environment of this Python, without pip.

    Args:
        libraries: whether it sees what is installed beside this Python, this project left out.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    if libraries:  # a line that is a path runs no .pth file there, and so none that leads to this checkout
        (site_packages(folder) / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def install_other_version(environment: Path, module: str, version: str) -> None:
    """Install a library of this Python in an environment as another version: its own code, which calls itself so."""
    name = module.replace("_", "-")
    shutil.copytree(Path(sysconfig.get_path("purelib")) / module, site_packages(environment) / module)
    install(environment, name, version, {})


def install(environment: Path, name: str, version: str, modules: dict[str, str]) -> None:
    """Install a distribution of a few files, as pip leaves one from an index.

    Args:
        modules: name of a file -> its text.
    """
    site = site_packages(environment)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    for file, text in modules.items():
        (site / file).write_text(text, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    listed = [*modules, f"{info.name}/METADATA", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in listed), encoding="utf-8")


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found
