"""What a pipeline needs of a GPU, before one is rented: memory and time of SFT, RL and sampling.

Counts of parameters and of what a training step keeps are exact (pipeline/estimate/shape.py); how they are shared out follows the
launch (pipeline/estimate/split.py); times are arithmetic on data sheets (pipeline/estimate/time.py). Not counted: the CUDA context and
the allocator's slack, about 2 GiB for the trainer and for vLLM each, and temporary buffers of single kernels.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from pipeline.config.execution import LaunchSettings
from pipeline.config.schema import PipelineConfig
from pipeline.estimate.shape import Shape, saved_bytes, shape_of
from pipeline.estimate.split import AUTOCAST_COPY, BYTES, GIB, Split, reference_gib, split_of, training_state
from pipeline.estimate.time import rl_times, sampling_times, sft_times
from pipeline.launch.machine import gpus

SLACK_GIB = 2.0
"""CUDA context, allocator and kernels' buffers of a trainer, and of an engine: a figure from experience, not counted."""
TILE = (4096, 32768)
"""Tokens and vocabulary entries whose logits exist at once in TRL's output layer (trl.kernels.chunked_logprob, a test compares)."""
ONLY_WHILE_TRAINING = (AUTOCAST_COPY, "gradients", "activations", "output layer", "VCORE's probe beyond activations")


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
        return self._trainer(tuple(self.parts.values()))

    @property
    def waiting(self) -> float:
        """The trainer while vLLM samples: gradients, activations and 16-bit copies are not there then."""
        return self._trainer(tuple(size for part, size in self.parts.items() if part not in ONLY_WHILE_TRAINING))

    def _trainer(self, sizes: tuple[float, ...]) -> float:
        return sum(sizes) + SLACK_GIB if self.parts else 0.0

    @property
    def least_engine(self) -> float:
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


def estimate(config: PipelineConfig) -> list[Need]:
    """The needs of a config's GPU stages. Raises `ConfigError` where the model's config, or that of a launch, cannot be had."""
    shape = shape_of(config)
    needs = []
    if config.sft is not None:
        needs.append(_sft(config, shape, split_of(config.execution.launch.get("sft", LaunchSettings()))))
    if config.grpo is not None:
        needs.append(_grpo(config, shape, split_of(config.execution.launch.get("grpo", LaunchSettings()))))
    needs.append(_generate(config, shape))
    return needs


def _step(
    shape: Shape, rows: int, tokens: int, scored: int, checkpointing: bool, dtype: str, head_trained: bool
) -> dict[str, float]:
    """Activations and output layer of one micro-batch. Checkpointing keeps each layer's input, and one layer's own while it is done again.

    TRL never makes the logits of all tokens: it keeps hidden states, and takes the output layer in tiles, forward and backward.
    """
    kept = saved_bytes(shape, rows, tokens, checkpointing)
    if checkpointing:
        kept += saved_bytes(shape, rows, tokens, False) // shape.layers
    width, positions = BYTES[dtype], rows * scored
    tile = (
        width * TILE[1] * (min(positions, TILE[0]) + shape.hidden)
    )  # logits, and the part of the weights they are made with
    states = positions * shape.hidden * (width + 4)  # the scored hidden states, and their gradient in float32
    head = 4 * shape.vocabulary * shape.hidden if head_trained else 0  # its gradient, before it joins the others
    return {"activations": kept * width / 2 / GIB, "output layer": (tile + states + head) / GIB}


def _sft(config: PipelineConfig, shape: Shape, split: Split) -> Need:
    sft = config.sft
    assert sft is not None
    rows = sft.micro_batch_size or max(1, sft.batch_size // split.processes)
    parts, trained = training_state(shape, sft.lora, sft.dtype, split)
    parts |= _step(shape, rows, sft.max_length, sft.max_length, sft.gradient_checkpointing, sft.dtype, sft.lora is None)
    if sft.method.name == "vcore":
        # A copy of what is trained and a direction of its size, while utilities are measured: activations are not there then.
        probing = 8 * trained / GIB - parts["activations"] - parts["output layer"]
        parts["VCORE's probe beyond activations"] = max(0.0, probing)
    notes = (f"{rows} rows of {sft.max_length} tokens at once; {split}", *sft_times(shape, sft))
    return Need("sft", parts, notes=notes)


def _grpo(config: PipelineConfig, shape: Shape, split: Split) -> Need:
    grpo = config.grpo
    assert grpo is not None
    rows = grpo.micro_batch_size or max(1, grpo.completions_per_step // split.processes)
    length = grpo.max_model_len or min(
        2 * grpo.max_completion_length, shape.model.config.get_text_config().max_position_embeddings
    )
    parts, _ = training_state(shape, grpo.lora, grpo.dtype, split)
    parts |= _step(
        shape, rows, length, grpo.max_completion_length, grpo.gradient_checkpointing, grpo.dtype, grpo.lora is None
    )
    if grpo.beta and grpo.lora is None:
        parts["reference model"] = reference_gib(shape, grpo.dtype, split)
    notes = [f"{rows} completions of {length} tokens with their prompts at once; {split}"]
    if grpo.rollout != "vllm":
        where = "on GPUs of its own" if grpo.rollout == "vllm_server" else "and is not counted"
        return Need("grpo", parts, notes=(*notes, f"What samples ({grpo.rollout}) is {where}"))
    engine = _engine(shape, grpo.dtype, grpo.tensor_parallel, length)
    notes.append(
        f"vLLM takes {grpo.gpu_memory_utilization:.0%} of the GPU beside the trainer{', and sleeps while it computes' * grpo.sleep}"
    )
    need = Need("grpo", parts, engine, grpo.gpu_memory_utilization, grpo.sleep)
    times = rl_times(shape, grpo, length, split.processes, need.smallest_gpu)
    return dataclasses.replace(need, notes=(*notes, *times))


def _generate(config: PipelineConfig, shape: Shape) -> Need:
    settings = config.generate
    limit = settings.max_model_len or shape.model.config.get_text_config().max_position_embeddings
    engine = _engine(shape, settings.dtype, settings.tensor_parallel, limit)
    kv = shape.kv_bytes * BYTES[settings.dtype] / 2 / settings.tensor_parallel
    note = f"{kv / 1024:,.0f} KiB of cache a token, {limit:,} tokens at most; vLLM takes {settings.gpu_memory_utilization:.0%} of the GPU"
    need = Need("generate", {}, engine, settings.gpu_memory_utilization)
    times = sampling_times(shape, settings, config.benchmarks, need.smallest_gpu)
    return dataclasses.replace(need, notes=(note, *times))


def _engine(shape: Shape, dtype: str, tensor_parallel: int, tokens: int) -> dict[str, float]:
    """vLLM on one GPU: its weights, and the cache of one completion of full length, without which it does not start."""
    scale = BYTES[dtype] / tensor_parallel
    return {
        "vLLM's weights": shape.parameters * scale / GIB,
        "vLLM's cache of one completion": shape.kv_bytes / 2 * scale * tokens / GIB,
    }


@functools.cache
def gpu_memory_gib() -> float | None:
    """Memory of the smallest GPU here, as nvidia-smi tells it; None without one."""
    sizes = [float(gpu.rpartition(",")[2].split()[0]) / 1024 for gpu in gpus()]
    return min(sizes, default=None)
