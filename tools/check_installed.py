"""Whether an environment holds exactly the pinned set: every version, every file, and, on request, every import that matters.

Used by tools/setup.sh; needs nothing but the standard library. Exit 0 when all is well, 1 with one line per problem.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

IMPORTS = {
    "torch": "import torch; torch.zeros(1) + 1",
    "transformers": "from transformers import Qwen3ForCausalLM",
    "trl": "from trl import SFTTrainer",
    "vllm": "import vllm",
    "prefect": "import prefect",
    "vcore": "import pipeline.cli",
}
TORCH_HELP = """
The torch that was installed does not run here. On a CPU machine this happens when the package index only has torch's CUDA build.
Name an index that has the CPU build (PyTorch's own installation page tells which) and start again:
    make setup TORCH_INDEX=URL"""


def pins(files: list[Path]) -> dict[str, str]:
    """name -> version of every `name==version` line."""
    lines = (line.split("#")[0].strip() for file in files for line in file.read_text().splitlines())
    return dict(line.split("==", 1) for line in lines if "==" in line)  # type: ignore[misc]


def missing(name: str, version: str) -> str | None:
    """What is wrong with one installed package, or None. Compiled caches do not count as its files."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return "not installed"
    if found.version.partition("+")[0] != version.partition("+")[0]:
        return f"is {found.version}"
    for file in found.files or []:
        if file.suffix != ".pyc" and not Path(str(found.locate_file(file))).exists():
            return f"lacks {file}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("requirements", type=Path, nargs="+")
    parser.add_argument("--quiet", action="store_true", help="versions only, say nothing")
    parser.add_argument("--imports", action="store_true", help="also import what matters, each in a process of its own")
    parser.add_argument("--repair-list", type=Path, help="write the pins of broken packages to this file")
    options = parser.parse_args()
    wanted = pins(options.requirements)
    problems = {name: problem for name, version in wanted.items() if (problem := missing(name, version))}
    try:
        distribution("vcore-pipeline")
    except PackageNotFoundError:
        problems["vcore-pipeline"] = "not installed"
    if options.repair_list:
        options.repair_list.write_text("".join(f"{name}=={wanted[name]}\n" for name in problems if name in wanted))
    if not options.quiet:
        for name, problem in problems.items():
            print(f"setup: {name} {problem}", file=sys.stderr)
    if problems or not options.imports:
        return 1 if problems else 0
    for name, code in IMPORTS.items():
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if answer.returncode:
            print(f"setup: {name} does not import: {(answer.stderr.strip().splitlines() or ['no message'])[-1]}", file=sys.stderr)
            print(TORCH_HELP if name == "torch" else "Run `make setup` again; if it stays, `make clean setup`.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
