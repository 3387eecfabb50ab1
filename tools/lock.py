"""The pinned lists requirements/cpu.txt and requirements/cuda.txt: what pip's resolver gives for the dependencies in
pyproject.toml.

    python tools/lock.py [--check] [cpu] [cuda]

Without --check the lists are resolved anew and rewritten; with it, each list is resolved against itself: exit 1 and one
line per difference when a pin contradicts another, a needed package is missing, or nothing needs one. Reads package
metadata; nothing is installed. The CPU list needs an index or a file with torch's CPU build (requirements/README.md).
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a CPU machine does without, and why: requirements/README.md.
LEFT_OUT = {"cpu": {"torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless"}, "cuda": set()}


def resolve(machine: str, constraints: Path | None) -> dict[str, str]:
    """name -> version of every package that a machine needs, as pip resolves it, less what is left out."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, engines = declared["project"], declared["project"]["optional-dependencies"] | declared["dependency-groups"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-qq", "--report", "-"]
    command += ["-c", str(constraints)] if constraints else []
    command += [*project["dependencies"], *engines[machine]]
    resolution = subprocess.run(command, capture_output=True, text=True)
    if resolution.returncode:
        sys.exit(f"lock: pip cannot resolve the {machine} set:\n{resolution.stderr}")
    packages = [item["metadata"] for item in json.loads(resolution.stdout)["install"]]
    versions = {package["name"]: package["version"] for package in packages}
    if machine == "cuda" and "cpu" in versions["torch"]:
        without = "run again without the index or folder it comes from (`pip config list`)"
        sys.exit(f"lock: pip finds torch's CPU build first; {without}")
    return {
        name: versions[name].partition("+")[0]
        for name in sorted(versions, key=str.lower)
        if normal(name) not in LEFT_OUT[machine]
    }


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("machines", nargs="*", default=["cpu", "cuda"])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    differences = 0
    for machine in options.machines:
        path = ROOT / "requirements" / f"{machine}.txt"
        lines = path.read_text().splitlines()
        pinned = {
            f"{normal(name)}=={version}" for name, _, version in (line.partition("==") for line in lines) if version
        }
        versions = resolve(machine, path if options.check else None)
        resolved = {f"{normal(name)}=={version}" for name, version in versions.items()}
        if options.check:
            for pin in sorted(pinned ^ resolved):
                what = "is needed but not pinned" if pin in resolved else "is pinned but not needed"
                print(f"lock: {path.name}: {pin} {what}")
            differences += len(pinned ^ resolved)
            print(f"lock: {path.name}: {len(pinned)} packages, {'consistent' if pinned == resolved else 'see above'}")
        else:
            header = [line for line in lines if line.startswith("#")]
            path.write_text("\n".join([*header, *(f"{name}=={version}" for name, version in versions.items())]) + "\n")
            print(f"lock: {path.name}: {len(resolved)} packages, {len(resolved - pinned)} new or changed")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
