"""The pinned lists requirements/cpu.txt and requirements/cuda.txt: what pip's resolver gives for the dependencies in
pyproject.toml.

    python tools/lock.py [--check | --keep] [cpu] [cuda]

The lists are resolved anew and rewritten, each with a head that says how: by which command and which pip, on which day,
for which Python and platform. With --keep every version that is pinned stays, and only what is missing or superfluous
changes, and the head. With --check each list is resolved against itself and nothing is written: exit 1 and one line per
difference when a pin contradicts another, a needed package is missing, or nothing needs one. Reads package metadata;
nothing is installed. The CPU list needs an index or a file with torch's CPU build (requirements/README.md).

An upper bound of vLLM's on a package in SET_ASIDE does not count: pip has no option for that, so it is asked for what
vLLM requires, without the bound, in place of vLLM itself.
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
# What a CPU machine does without, and why: requirements/README.md.
LEFT_OUT = {"cpu": {"torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless"}, "cuda": set()}
# Packages of which vLLM's metadata allow no version as new as the lists have, and why: requirements/README.md.
SET_ASIDE = {"fastapi"}
NOTES = {
    "cpu": f"Left out on purpose: {', '.join(sorted(LEFT_OUT['cpu']))} (requirements/README.md).",
    "cuda": "Not verified: it was never installed or run on a GPU.",
}
RESOLVE = ["install", "--dry-run", "--ignore-installed", "--report", "-"]


def resolve(machine: str, constraints: Path | None) -> dict[str, str]:
    """name -> version of every package that a machine needs, as pip resolves it, less what is left out."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, engines = declared["project"], declared["project"]["optional-dependencies"] | declared["dependency-groups"]
    found = packages(machine, engines[machine], constraints, "--no-deps")
    needs = [needed for engine in found for text in engine.get("requires_dist", []) if (needed := of_engine(text))]
    found += packages(machine, [*project["dependencies"], *needs], constraints)
    versions = {package["name"]: package["version"] for package in found}
    if machine == "cuda" and "cpu" in versions["torch"]:
        without = "run again without the index or folder it comes from (`pip config list`)"
        sys.exit(f"lock: pip finds torch's CPU build first; {without}")
    return {
        name: versions[name].partition("+")[0]
        for name in sorted(versions, key=str.lower)
        if normal(name) not in LEFT_OUT[machine]
    }


def packages(machine: str, requirements: list[str], constraints: Path | None, *options: str) -> list[dict[str, Any]]:
    """The metadata of what pip would install for these requirements."""
    command = [sys.executable, "-m", "pip", *RESOLVE, "-qq", *(["-c", str(constraints)] if constraints else [])]
    resolution = subprocess.run([*command, *options, *requirements], capture_output=True, text=True)
    if resolution.returncode:
        sys.exit(f"lock: pip cannot resolve the {machine} set:\n{resolution.stderr}")
    return [item["metadata"] for item in json.loads(resolution.stdout)["install"]]


def of_engine(text: str) -> str | None:
    """What an engine requires, as pip is asked for it: without a bound that is set aside. None for an extra's."""
    needed = Requirement(text)
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        return None
    if normal(needed.name) in SET_ASIDE:
        kept = [str(bound) for bound in needed.specifier if not bound.operator.startswith("<")]
        needed.specifier = SpecifierSet(",".join(kept))
    needed.marker = None
    return str(needed)


def head(machine: str, keep: bool) -> list[str]:
    """The comment that a list begins with: what it is, and how it was made, here and now."""
    today = datetime.datetime.now(datetime.UTC).date()
    libc = " ".join(filter(None, platform.libc_ver()))
    source = "dependencies and the extra cuda" if machine == "cuda" else "dependencies and the group cpu"
    aside = f", without vLLM's upper bound of {', '.join(sorted(SET_ASIDE))}" if SET_ASIDE else ""
    facts = {
        "command": f"python tools/lock.py {'--keep ' if keep else ''}{machine}",
        "resolver": f"pip {importlib.metadata.version('pip')}: pip {' '.join(RESOLVE)}",
        "resolved": f"{source} of pyproject.toml{aside}{', held to the pins before' if keep else ''}",
        "index as of": f"{today} (UTC); what came out later was not there to choose",
        "made for": f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {libc or 'another libc'}",
    }
    what = f"The complete pinned set for a {machine.upper()} machine. Install with --no-deps; made by: make lock"
    return [f"# {line}" for line in (what, NOTES[machine], *(f"{name}: {fact}" for name, fact in facts.items()))]


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("machines", nargs="*", default=list(LEFT_OUT), help="cpu, cuda; default: both")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="write nothing; say what is inconsistent")
    choice.add_argument("--keep", action="store_true", help="change no version that is pinned")
    options = parser.parse_args()
    if unknown := set(options.machines) - LEFT_OUT.keys():
        parser.error(f"there is no list for {', '.join(sorted(unknown))}: name cpu, cuda or none")
    differences = 0
    for machine in options.machines:
        path = ROOT / "requirements" / f"{machine}.txt"
        lines = path.read_text().splitlines()
        pinned = {
            f"{normal(name)}=={version}" for name, _, version in (line.partition("==") for line in lines) if version
        }
        versions = resolve(machine, path if options.check or options.keep else None)
        resolved = {f"{normal(name)}=={version}" for name, version in versions.items()}
        if options.check:
            for pin in sorted(pinned ^ resolved):
                what = "is needed but not pinned" if pin in resolved else "is pinned but not needed"
                print(f"lock: {path.name}: {pin} {what}")
            differences += len(pinned ^ resolved)
            print(f"lock: {path.name}: {len(pinned)} packages, {'consistent' if pinned == resolved else 'see above'}")
        else:
            pins = (f"{name}=={version}" for name, version in versions.items())
            path.write_text("\n".join([*head(machine, options.keep), *pins]) + "\n")
            print(f"lock: {path.name}: {len(resolved)} packages, {len(resolved - pinned)} new or changed")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
