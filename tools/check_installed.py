"""Whether an environment holds exactly the pinned set: every version, every file, this checkout, and, on request, the
imports that matter.

Used by tools/setup.sh; needs nothing but the standard library. Exit 0 when all is well, 1 with one line per problem.
"""

import argparse
import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = {
    "torch": "import torch; torch.zeros(1) + 1",
    "transformers": "from transformers import Qwen3ForCausalLM",
    "trl": "from trl import GRPOTrainer, SFTTrainer",
    "vllm": "from vllm import LLM",
    "prefect": "import prefect.server.api.server",
    "evaluation libraries": "import datasets, evaluate, math_verify, matplotlib, peft",
    "vcore": "import pipeline.cli.app",
}
TORCH_HELP = """\
setup: the torch that was installed does not run here. On a CPU machine that happens when pip's package index has only
setup: torch's CUDA build, which needs NVIDIA's libraries. Name an index that has the CPU build (PyTorch's installation
setup: page tells which) and try again:
setup:     make setup TORCH_INDEX=URL
setup: On a machine with an NVIDIA GPU: make setup MACHINE=cuda"""


def pins(files: list[Path]) -> dict[str, str]:
    """name -> version of every `name==version` line."""
    lines = (line.split("#")[0].strip() for file in files for line in file.read_text().splitlines())
    return {name: version for name, _, version in (line.partition("==") for line in lines) if version}


def problem(name: str, version: str, sizes: bool) -> str | None:
    """What is wrong with one installed package, or None. A build tag (+cpu) and compiled caches do not count.

    Args:
        sizes: also compare file sizes with the package's record; off where the files may have been edited on purpose.
    """
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return "is not installed"
    if installed.read_text("METADATA") is None or installed.files is None:
        return "is half installed"
    if installed.version.partition("+")[0] != version.partition("+")[0]:
        return f"is {installed.version}, pinned is {version}"
    for file in installed.files:
        if file.suffix == ".pyc":
            continue
        path = Path(str(installed.locate_file(file)))
        if not path.exists():
            return f"lacks {file}"
        if sizes and file.size is not None and path.stat().st_size != file.size:
            return f"has a damaged {file}"
    return None


def project_problem() -> str | None:
    """What is wrong with the installation of the project itself: it has to be this checkout, and its command has to be
    there."""
    try:
        installed = distribution("vcore-pipeline")
    except PackageNotFoundError:
        return "is not installed"
    if ROOT.as_uri() not in (installed.read_text("direct_url.json") or ""):
        return "is installed from another folder"
    if installed.version == "0.0.0":  # what setuptools gives a package whose version nobody says
        return "was installed without setuptools-scm, and has no version"
    return None if Path(sys.executable).with_name("vcore").exists() else "lacks its command vcore"


def forget(installed: Distribution) -> None:
    """Make pip see a damaged package as not installed, so that it is installed over what is left of it."""
    if isinstance(installed, PathDistribution) and str(installed._path).endswith(".dist-info"):
        shutil.rmtree(str(installed._path))


def failed_imports() -> list[str]:
    """One line for each library that does not import, each tried in a process of its own; torch first, because most
    need it."""
    environment = dict(
        os.environ, HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="ERROR", VLLM_LOGGING_LEVEL="ERROR"
    )
    failed: list[str] = []
    for group in (["torch"], [name for name in IMPORTS if name != "torch"]):
        started = {
            name: subprocess.Popen(
                [sys.executable, "-c", IMPORTS[name]],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=ROOT,
            )
            for name in group
        }
        for name, process in started.items():
            errors = process.communicate()[1].strip().splitlines() or [f"exit code {process.returncode}"]
            if process.returncode:
                failed.append(f"{name} does not import: {errors[-1]}")
        if failed:
            return failed
    return []


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("requirements", type=Path, nargs="+")
    parser.add_argument("--quick", action="store_true", help="versions and presence of files only; say nothing")
    parser.add_argument("--forget", action="store_true", help="make pip forget damaged packages; exit 0")
    parser.add_argument("--imports", action="store_true", help="also import what matters")
    options = parser.parse_args()
    pinned = pins(options.requirements)
    problems = {
        name: fault for name, version in pinned.items() if (fault := problem(name, version, sizes=not options.quick))
    }
    if options.forget:
        for name, fault in problems.items():
            if fault.startswith(("is half", "lacks", "has")):
                print(f"setup: {name} {fault}; it is installed again")
                forget(distribution(name))
        return 0
    if fault := project_problem():
        problems["vcore-pipeline"] = fault
    if not options.quick:
        for name, fault in problems.items():
            print(f"setup: {name} {fault}", file=sys.stderr)
    if problems or not options.imports:
        return 1 if problems else 0
    failed = failed_imports()
    for line in failed:
        print(f"setup: {line}", file=sys.stderr)
    if failed:
        print(
            TORCH_HELP if failed[0].startswith("torch ") else "setup: run it again; if that stays, `make clean` first",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
