"""How a stage declares itself: one frozen `StageDeclaration` in each `stages/NAME/stage.py`.

The orchestrator knows of a stage what stands in its declaration and nothing else. A declaration is read when a pipeline
is planned, so it imports settings and no library that computes. It is no part of a stage's key: what it declares about
a result (libraries, sources, outside inputs) enters the key by its value.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from stages.harness.settings import StageSettings

S = TypeVar("S", bound=StageSettings)


@dataclasses.dataclass(frozen=True)
class Origin:
    """One thing a stage reads from outside the store: a local path, or a repository on the hub at a revision."""

    label: str
    """The setting that names it; the entry of the key that stands for it has this name."""
    path: Path | None = None
    hub: str = ""
    hub_kind: Literal["dataset", "model"] = "dataset"
    revision: str = "main"
    holds: str = ""
    """A file that `path`, then a folder, has to hold; empty: `path` is a file."""
    what: str = ""
    """What `path` is called where it is missing; empty stands for `file PATH`."""
    fix: str = ""
    """What a user can do where it cannot be read."""


@dataclasses.dataclass(frozen=True)
class DataPlaces:
    """Where the pipeline says that datasets are. None of it is a setting of a stage, since it changes no result by
    itself."""

    folder: Path | None = None
    """Folder with local copies; None: datasets come from the hub."""
    revisions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Benchmark -> hub revision, instead of the benchmark's own."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one optimizer step trains on, and how it may be cut. Cutting it changes memory, and results only by
    rounding."""

    size: int
    micro_batch_size: int | None
    """None: the whole batch at once."""
    unit: str
    """What is counted, in the plural: `rows`."""
    setting: str
    """The setting that decides the size: `sft.batch_size`."""


@dataclasses.dataclass(frozen=True)
class Context:
    """A length in tokens that has to fit into the model's positions."""

    setting: str
    tokens: int | None
    """None: not set, so the model's own length holds."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """How many new tokens a stage samples, and the context they have to fit into together with a prompt."""

    setting: str
    tokens: int
    context: int | None


@dataclasses.dataclass(frozen=True)
class Vllm:
    """How a stage uses vLLM."""

    setting: str
    """The setting that chose it: `generate.engine`."""
    engine: bool = True
    """Whether the stage loads an engine of its own; False where it only talks to a server."""
    tensor_parallel: int = 1
    """GPUs of one engine."""
    data_parallel: int = 1
    """Engines of one stage process."""
    cpu_kv_cache_gib: int = 0
    """Memory for the key-value cache of one engine on a CPU, in GiB."""
    cpu_compile: bool = False
    """Whether it compiles the model on a CPU."""


@dataclasses.dataclass(frozen=True)
class NeedsGpu:
    """A setting whose value only a GPU can serve."""

    setting: str
    message: str
    instead: str
    """A value of it that a CPU can serve."""


@dataclasses.dataclass(frozen=True)
class Disk:
    """Bytes that a stage writes for each parameter of its model."""

    checkpoint: int
    state: int = 0
    """What lies beside it meanwhile, at most, to resume from."""
    saved: int = 0
    """One saved state of these."""


@dataclasses.dataclass(frozen=True)
class CustomCode:
    """A function or class of the user's own that a setting names."""

    setting: str
    """The section that names it: `grpo.rewards.custom.0`."""
    file: str
    name: str
    name_field: str
    """The field of the section that holds `name`."""
    kind: Literal["function", "class"]
    options: dict[str, Any]
    """Keyword arguments it will be called with."""
    positional: int
    """Positional arguments it will be called with, `self` included."""
    page: str
    """The page of docs/ that describes it."""
    base: str = ""
    """For a class: what it has to derive from. That takes no options itself."""
    defines: tuple[str, ...] = ()
    """For a class: what makes it do anything; one of these at least."""


def _nothing(*_: Any) -> tuple[()]:
    return ()


def _none(*_: Any) -> None:
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageDeclaration(Generic[S]):
    """Everything the orchestrator has to know of a kind of stage.

    Functions take the settings of one stage of a pipeline and say what holds for these.
    """

    name: str
    """The store's folder for its artifacts, and its word on the command line."""
    settings: type[S]
    libraries: tuple[str, ...]
    """Distributions whose version can change what it computes. Python's own version counts without being named."""
    package: str = ""
    """`python -m PACKAGE SPEC.json` runs it; empty stands for `stages.NAME`."""
    sources: tuple[str, ...] = ()
    """Files and folders of ours that it runs without importing them: templates, programs started by path, modules
    loaded by path."""
    loads: Callable[[S], Iterable[str]] = _nothing
    """Modules of ours that it loads by name, as its settings say."""
    origins: Callable[[S, DataPlaces], Iterable[Origin]] = _nothing
    """What it reads from outside the store."""
    uses_gpu: bool = False
    """Whether it computes on a GPU where there is one, and leases it."""
    deterministic_on_gpu: Callable[[S], bool] = lambda settings: False
    """Whether its result comes back bit for bit on a GPU where `execution.deterministic` is set. Not that of a process
    in which vLLM samples and torch trains: vLLM's batch-invariant mode puts functions of its own, without a backward
    pass, in the place of some of torch's."""
    several_processes: bool = False
    """Whether torchrun or accelerate may share its work out over processes."""
    splits_model: tuple[str, ...] = ()
    """What may share its model out over these: FSDP2, FSDP (its first version), DEEPSPEED, MEGATRON_LM."""
    whole_weights: Callable[[S], Iterable[tuple[str, str]]] = _nothing
    """(setting, what to write instead) for what a model that is shared out cannot serve."""
    makes_checkpoint: bool = False
    """Whether its artifact holds a checkpoint, in `model/`."""
    needs_run: bool = False
    """Whether it is told about the run: command, config and what became of each stage before it."""
    trainer_config: str = ""
    """The class of TRL's whose options its setting `trainer` takes: `SFTConfig`."""
    batch: Callable[[S], Batch | None] = _none
    contexts: Callable[[S], Iterable[Context]] = _nothing
    completions: Callable[[S], Iterable[Completion]] = _nothing
    vllm: Callable[[S], Vllm | None] = _none
    needs_gpu: Callable[[S], Iterable[NeedsGpu]] = _nothing
    """Settings that cannot be served on a CPU."""
    modules: Callable[[S], Iterable[tuple[str, str]]] = _nothing
    """(setting, module) for what has to be installed because a setting asks for it."""
    environment: Callable[[S], Iterable[tuple[str, str]]] = _nothing
    """(setting, variable) for what has to be set in the environment because a setting names it."""
    packages: Callable[[S], Iterable[str]] = _nothing
    """Distributions that the programs of models may import there; with what these need, their versions count."""
    disk: Callable[[S], Disk | None] = _none
    """For a stage that makes a checkpoint."""
    custom_code: Callable[[S], Iterable[CustomCode]] = _nothing
    steps_to_a_stop: Callable[[S], int] = lambda settings: 1
    """How many steps may pass before it can save its state and stop."""
    loads_reference: Callable[[S], bool] = lambda settings: False
    """Whether it holds a second, frozen model beside the one it trains."""

    def gpus(self, settings: S, processes: int) -> int:
        """How many GPUs it computes on at once, started as `processes` processes: one for each, else its engines'."""
        vllm = self.vllm(settings)
        engines = vllm.tensor_parallel * vllm.data_parallel if vllm is not None and vllm.engine else 1
        return processes if self.several_processes else engines

    @property
    def program(self) -> str:
        """The package that runs it."""
        return self.package or f"stages.{self.name}"


BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""What /proc/cpuinfo says of a CPU that multiplies in bfloat16; without, it is emulated and slower than float32."""


def wrong_precision(stage: str, dtype: str) -> Iterable[NeedsGpu]:
    """The complaint about a 16-bit type on a CPU; none about float32, or bfloat16 on a CPU that computes in it."""
    if dtype == "bfloat16" and BFLOAT16_FLAGS & cpu_flags():
        return
    if dtype != "float32":
        which = f"{dtype} is for GPUs"
        if dtype == "bfloat16":
            which += f", and CPUs that compute in it ({' or '.join(sorted(BFLOAT16_FLAGS))}), which this one does not"
        yield NeedsGpu(f"{stage}.dtype", which, "float32")


def training_disk(settings: Any, steps: int | None) -> Disk:
    """What training writes: two states, and a third while it is saved, each of weights and Adam's moments in float32.

    Args:
        settings: with dtype, lora and checkpoint_steps. Adapters and their moments are small, and left out.
        steps: optimizer steps, None where they depend on the data.
    """
    states = 3 if steps is None else min(3, math.ceil(steps / settings.checkpoint_steps))
    checkpoint = 4 if settings.dtype == "float32" else 2
    return Disk(checkpoint) if settings.lora is not None else Disk(checkpoint, 12 * states, 12)


@functools.cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What this machine's CPU can do, in the kernel's words; nothing where the kernel does not say."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    lines = (line.partition(":")[2] for line in text.splitlines() if line.startswith(("flags", "Features")))
    return frozenset(next(lines, "").split())
