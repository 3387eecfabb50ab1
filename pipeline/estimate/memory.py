"""What a pipeline needs of a GPU, before one is rented: memory and time of SFT, RL and sampling.

A training step is computed on tensors without content (pipeline/estimate/footprint.py), and shared out over processes
as the pinned libraries do it: torch's DDP, accelerate's DeepSpeed and FSDP2 plugins, TRL's reference model. Times are
arithmetic on data sheets (pipeline/estimate/time.py). Not counted: the CUDA context and the allocator's slack, about 2
GiB for the trainer and for vLLM each, and temporary buffers of single kernels.
"""

import dataclasses
import functools
import math
from pathlib import Path

import yaml

from pipeline.config.execution import LaunchSettings
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.shipped import shipped
from pipeline.estimate.footprint import Footprint, footprint
from pipeline.estimate.measure import Measure
from pipeline.estimate.shape import Shape, adapter_parameters
from pipeline.estimate.time import BYTES, rl_times, sampling_times, sft_times
from pipeline.launch.machine import gpus
from stages.generate.settings import GenerateSettings
from stages.grpo.settings import GrpoSettings
from stages.sft.settings import SftSettings
from stages.training.settings import LoraSettings

SLACK_GIB = 2.0
"""CUDA context, allocator and kernels' buffers of a trainer, and of an engine: from experience, not counted."""
ANCHOR_TILE = 1 << 25
"""Logits of a tile of an anchor's divergence (stages/sft/anchors/divergence.py; a test compares)."""
ZERO_BUCKET = 5e8
"""Elements of DeepSpeed's buckets for gradients and for gathered weights, by its defaults; one of each."""
STEP = "a step beyond them"
"""Gradients, activations, 16-bit copies and directions, as many as are there at the step's peak."""
ONLY_WHILE_TRAINING = (STEP, "gradients")


@dataclasses.dataclass(frozen=True)
class Need:
    """Memory of one stage on one of its GPUs, in GiB.

    Attributes:
        parts: of the trainer; empty where nothing is trained.
        engine: of vLLM on the same GPU: the least it runs with, weights and the cache of one completion.
        share: of the GPU's memory that vLLM takes for itself, whatever it needs of it.
        sleeps: whether vLLM gives its memory back while the trainer computes.
    """

    stage: str
    parts: dict[str, float]
    engine: dict[str, float] = dataclasses.field(default_factory=dict)
    share: float = 0.0
    sleeps: bool = False
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> float:
        """The trainer while it computes."""
        return sum(self.parts.values()) + SLACK_GIB if self.parts else 0.0

    @property
    def waiting(self) -> float:
        """The trainer while vLLM samples: gradients, activations and 16-bit copies are not there then."""
        return self.training - sum(self.parts.get(part, 0.0) for part in ONLY_WHILE_TRAINING)

    @property
    def least_engine(self) -> float:
        """vLLM with the least it runs with."""
        return sum(self.engine.values()) + SLACK_GIB if self.engine else 0.0

    def taken_by_engine(self, gpu: float) -> float:
        """What vLLM holds of a GPU with `gpu` GiB while it is awake."""
        return max(self.least_engine, self.share * gpu)

    def peak(self, gpu: float) -> float:
        """The most that is there at once on a GPU with `gpu` GiB."""
        engine = self.taken_by_engine(gpu)
        return max(self.training, self.waiting + engine) if self.sleeps else self.training + engine

    @property
    def smallest_gpu(self) -> float:
        """GiB of the smallest GPU that holds it; infinite where vLLM's share leaves the trainer nothing."""
        beside = self.waiting if self.sleeps else self.training
        sizes = [self.training, beside + self.least_engine]
        if self.engine:
            sizes.append(self.least_engine / self.share)  # within its share, or vLLM does not start
            if beside:
                sizes.append(beside / (1 - self.share) if self.share < 1 else math.inf)
        return max(sizes)


def estimate(config: PipelineConfig, shape: Shape, measure: Measure) -> list[Need]:
    """The needs of a config's GPU stages, whose steps `measure` computes. Raises `ConfigError` where the config of a
    launch cannot be read, and `StageFailed` where a step cannot be computed."""
    sft = [_sft(config, shape, measure)] if config.sft is not None else []
    grpo = [_grpo(config, shape, measure)] if config.grpo is not None else []
    return [*sft, *grpo, _generate(config, shape)]


@dataclasses.dataclass(frozen=True)
class Split:
    """Over how many processes a training state is shared out, and how: `none` and `ddp` (whole in each process),
    `zero1` to `zero3`, or `fsdp`."""

    processes: int = 1
    kind: str = "none"

    def __str__(self) -> str:
        return "one process" if self.kind == "none" else f"{self.processes} processes, {self.kind}"


def split_of(launch: LaunchSettings) -> Split:
    """The split of a launch. Raises `ConfigError` where a file of accelerate's cannot be read or is not known here."""
    kind = _accelerate_kind(launch.config) if launch.config is not None else "ddp"
    return Split(launch.world, kind) if kind != "ddp" or launch.world > 1 else Split()


def _accelerate_kind(file: str) -> str:
    try:
        config = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        fix = f"See {shipped('configs/accelerate')}."
        raise ConfigError(f"{file} cannot be read: {error}", where="execution.launch", fix=fix) from error
    distributed = config.get("distributed_type", "NO")
    stage = config.get("deepspeed_config", {}).get("zero_stage")
    if distributed == "DEEPSPEED" and stage not in (1, 2, 3):
        message = f"{file} names no zero_stage in deepspeed_config: its memory is not known"
        raise ConfigError(message, where="execution.launch")
    kinds = {"DEEPSPEED": f"zero{stage}", "FSDP": "fsdp", "MULTI_GPU": "ddp", "NO": "ddp"}
    if distributed not in kinds:
        raise ConfigError(f"the memory of distributed_type {distributed} is not known here", where=file)
    return kinds[distributed]


def training_state(shape: Shape, lora: LoraSettings | None, dtype: str, split: Split) -> tuple[dict[str, float], int]:
    """Bytes of each part in one process, and how many parameters are trained.

    What is trained is float32 with Adam's two moments; DeepSpeed and FSDP2 have 16-bit weights of their own beside.
    What only a step has is not there, but for DeepSpeed's gradients.
    """
    trained = shape.parameters if lora is None else adapter_parameters(shape, lora)
    frozen = 0 if lora is None else shape.parameters
    width, each = BYTES[dtype], split.processes
    parts: dict[str, float]
    if split.kind in ("none", "ddp"):
        parts = {"weights": 4 * trained + width * frozen, "optimizer": 8 * trained}
        if split.kind == "ddp":
            parts["DDP's buckets"] = 4 * trained  # gradients once more: gradient_as_bucket_view is off by default
    elif split.kind == "fsdp":
        # Two layers at once are whole, in 16 bits, and the gradients of a third; embedding and output layer always.
        outside = 2 * shape.text.vocab_size * shape.text.hidden_size
        gathered = width * (outside + 3 * max(0, shape.parameters - outside) / shape.text.num_hidden_layers)
        parts = {"weights": (4 * trained + width * frozen) / each, "weights gathered at once": gathered}
        parts["optimizer"] = 8 * trained / each
    else:
        weights = width * (trained + frozen) / (each if split.kind == "zero3" else 1)
        parts = {"weights": weights, "float32 weights of the optimizer": 4 * trained / each}
        # Gradients in the model's type, and as float32 in the optimizer's step.
        parts["gradients"] = width * (trained if split.kind == "zero1" else trained / each) + 4 * trained / each
        parts |= {"optimizer": 8 * trained / each, "DeepSpeed's buckets": 2 * width * min(ZERO_BUCKET, trained)}
    return parts, trained


def reference_bytes(shape: Shape, dtype: str, split: Split) -> float:
    """The frozen starting model in one process: TRL loads it in float32; DeepSpeed casts it, and splits it in stage
    3."""
    width = BYTES[dtype] if split.kind.startswith("zero") else 4
    return width * shape.parameters / (split.processes if split.kind in ("zero3", "fsdp") else 1)


def rows_at_once(settings: SftSettings | GrpoSettings, share: int, length: float) -> int:
    """Rows of `length` tokens in a micro-batch, of the `share` of a step that a process has."""
    if settings.max_tokens_per_micro_batch:
        return max(1, min(share, int(settings.max_tokens_per_micro_batch / length)))
    return settings.micro_batch_size or max(1, share)


def _sft(config: PipelineConfig, shape: Shape, measure: Measure) -> Need:
    sft, split = config.sft, split_of(config.execution.launch_of("sft"))
    assert sft is not None
    share = sft.batch_size // split.processes
    rows = rows_at_once(sft, share, sft.max_length)
    made = footprint(measure, sft, rows, sft.max_length, batch_size=share, share=_share(split))
    parts, _ = training_state(shape, sft.lora, sft.dtype, split)
    parts |= _step(made, split)
    if sft.method.name == "asft":
        parts |= _anchor(shape, sft, rows * sft.max_length, split)
    note = f"{rows} rows of {sft.max_length} tokens at once; {split}"
    return Need("sft", _gib(parts), notes=(note, f"peaks of a step, GiB: {made}", *sft_times(shape, sft)))


def _share(split: Split) -> float:
    """Of what is as large as the model, that a process has."""
    return 1 / split.processes if split.kind == "fsdp" else 1.0


def _step(made: Footprint, split: Split) -> dict[str, float]:
    """Bytes of a step beyond the training state. DeepSpeed's gradients and buffers are there already."""
    return {STEP: made.others if split.kind.startswith("zero") else made.peak - made.rest}


def _anchor(shape: Shape, sft: SftSettings, positions: int, split: Split) -> dict[str, float]:
    """Bytes of a divergence to the model that training starts from: that model, which with an adapter is there, and
    four tiles of logits, both heads in 16 bits, and the head's gradient."""
    head, width = shape.text.vocab_size * shape.text.hidden_size, BYTES[sft.dtype]
    tiles = 16 * min(max(ANCHOR_TILE, shape.text.vocab_size), positions * shape.text.vocab_size)
    heads = 4 * head if width < 4 else 0
    parts: dict[str, float] = {"divergence": tiles + heads + (4 * head if sft.lora is None else 0)}
    if sft.lora is None:
        parts["reference model"] = reference_bytes(shape, sft.dtype, split)
        if split.kind == "fsdp":
            parts["reference model"] += 2 * head * width  # its embedding and head stay gathered
    return parts


def _grpo(config: PipelineConfig, shape: Shape, measure: Measure) -> Need:
    grpo, split = config.grpo, split_of(config.execution.launch_of("grpo"))
    assert grpo is not None
    length = grpo.max_model_len or min(2 * grpo.max_completion_length, shape.text.max_position_embeddings)
    share = grpo.completions_per_step // split.processes
    rows, scored = rows_at_once(grpo, share, length), min(1.0, grpo.max_completion_length / length)
    made = footprint(measure, grpo, rows, length, batch_size=share, scored=scored, share=_share(split))
    parts, _ = training_state(shape, grpo.lora, grpo.dtype, split)
    parts |= _step(made, split)
    if grpo.beta and grpo.lora is None:
        parts["reference model"] = reference_bytes(shape, grpo.dtype, split)
    note = f"{rows} completions of {length} tokens with their prompts at once; {split}"
    peaks = f"peaks of a step, GiB: {made}"
    if grpo.rollout != "vllm":
        where = "on GPUs of its own" if grpo.rollout == "vllm_server" else "and is not counted"
        return Need("grpo", _gib(parts), notes=(note, peaks, f"What samples ({grpo.rollout}) is {where}"))
    sleeping = ", and sleeps while it computes" if grpo.sleep else ""
    beside = f"vLLM takes {grpo.gpu_memory_utilization:.0%} of the GPU beside the trainer{sleeping}"
    need = Need("grpo", _gib(parts), _engine(shape, grpo, length), grpo.gpu_memory_utilization, grpo.sleep)
    return dataclasses.replace(
        need, notes=(note, peaks, beside, *rl_times(shape, grpo, length, split.processes, need.smallest_gpu))
    )


def _generate(config: PipelineConfig, shape: Shape) -> Need:
    settings = config.generate
    limit = settings.max_model_len or shape.text.max_position_embeddings
    kv = shape.kv_bytes * BYTES[settings.dtype] / 2 / settings.tensor_parallel / 1024
    share = f"vLLM takes {settings.gpu_memory_utilization:.0%} of the GPU"
    note = f"{kv:,.0f} KiB of cache a token, {limit:,} tokens at most; {share}"
    need = Need("generate", {}, _engine(shape, settings, limit), settings.gpu_memory_utilization)
    times = sampling_times(shape, settings, config.benchmarks, need.smallest_gpu)
    return dataclasses.replace(need, notes=(note, *times))


def _engine(shape: Shape, settings: GenerateSettings | GrpoSettings, tokens: int) -> dict[str, float]:
    """vLLM on one GPU: its weights, and the cache of one completion of full length, without which it does not start."""
    scale = BYTES[settings.dtype] / settings.tensor_parallel
    cache = shape.kv_bytes / 2 * scale * tokens
    return _gib({"vLLM's weights": shape.parameters * scale, "vLLM's cache of one completion": cache})


def _gib(parts: dict[str, float]) -> dict[str, float]:
    return {name: size / 2**30 for name, size in parts.items()}


@functools.cache
def gpu_memory_gib() -> float | None:
    """Memory of the smallest GPU here, as nvidia-smi tells it; None without one."""
    sizes = [float(gpu.rpartition(",")[2].split()[0]) / 1024 for gpu in gpus()]
    return min(sizes, default=None)
