"""Regenerate requirements/cpu.txt and requirements/cuda.txt: what pip's resolver gives for the dependencies in pyproject.toml.

Reads package metadata only; nothing is installed. Usage: python tools/lock.py [cpu] [cuda]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Their builds on package indexes are CUDA builds, which break `import transformers` beside a CPU torch; vLLM runs without them.
LEFT_OUT = {"cpu": {"torchvision", "torchaudio", "torchcodec"}, "cuda": set()}
HEADER = {
    "cpu": "# Complete pinned set for a CPU machine: Python 3.11, Linux x86_64. Install with --no-deps; torchvision, torchaudio and\n"
    "# torchcodec are left out on purpose (requirements/README.md). Regenerate with: make lock\n",
    "cuda": "# Complete pinned set for a CUDA machine: Python 3.11, Linux x86_64. Install with --no-deps. Regenerate with: make lock\n"
    "# What pip's resolver gives for the same direct versions as cpu.txt; resolved, but not yet installed and run on a GPU.\n",
}


def resolve(machine: str) -> list[str]:
    """`name==version` of every package that a machine needs, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][machine]]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", *wanted]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        sys.exit(f"lock: pip cannot resolve the {machine} set:\n{answer.stderr}")
    found = [item["metadata"] for item in json.loads(answer.stdout)["install"]]
    pins = [f"{m['name']}=={m['version'].partition('+')[0]}" for m in found if m["name"].lower() not in LEFT_OUT[machine]]
    return sorted(pins, key=str.lower)


def main() -> None:
    for machine in sys.argv[1:] or ["cpu", "cuda"]:
        pins = resolve(machine)
        path = ROOT / "requirements" / f"{machine}.txt"
        before = {line for line in path.read_text().splitlines() if "==" in line}
        path.write_text(HEADER[machine] + "\n".join(pins) + "\n")
        print(f"lock: {path.name}: {len(pins)} packages, {len(set(pins) - before)} new or changed")


if __name__ == "__main__":
    main()
