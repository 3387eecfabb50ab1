"""How long SFT, RL and sampling take on common GPUs: arithmetic on data sheets and assumed shares of them, not
measured."""

import dataclasses
from collections.abc import Iterator

from evaluation.benchmarks import get
from pipeline.estimate.shape import Shape
from stages.generate.settings import BenchmarkSettings, GenerateSettings
from stages.grpo.settings import GrpoSettings
from stages.sft.method_settings import VcoreSettings
from stages.sft.objective_settings import AsftSettings
from stages.sft.settings import SftSettings

Sampling = GenerateSettings | GrpoSettings
"""What says how a stage samples."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ASSUMED_SHARE = 0.4
"""Share of a GPU's peak that a training step of a dense model commonly reaches."""
ASSUMED_BANDWIDTH = 0.5
"""Share of a GPU's memory bandwidth that sampling commonly reaches."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """TFLOP/s in dense bfloat16 and TB/s of memory, from the vendor's data sheets; GiB of it, as nvidia-smi counts."""

    tflops: float
    bandwidth: float
    memory: float


GPUS = {
    "H200": Gpu(989, 4.8, 140),
    "H100": Gpu(989, 3.35, 80),
    "A100": Gpu(312, 2.0, 80),
    "L40S": Gpu(362, 0.864, 45),
    "4090": Gpu(165, 1.008, 24),
}


def extra_passes(sft: SftSettings) -> tuple[float, float]:
    """What a method does beside plain SFT, for each token of a step: forward passes, and whole forward and backward
    passes of a probe batch. A method of the user's own counts as plain."""
    method = sft.method
    if isinstance(method, AsftSettings):
        return 1.0, 0.0  # of the model that training starts from; the head's further products are not counted
    if not isinstance(method, VcoreSettings):
        return 0.0, 0.0
    forwards = {"finite_difference": 1, "central_difference": 2, "jvp": 2 if sft.lora else 3}[method.utility]
    probes = method.direction not in ("previous", "momentum")
    return forwards, max(method.probe_fraction, 1 / sft.batch_size) if probes else 0.0


def scoring_passes(grpo: GrpoSettings) -> int:
    """Forward passes over a rollout beside those of training: for the sampler's correction, where the training forward
    does not serve for it, and of the reference model."""
    in_training = grpo.steps_per_rollout == 1 and not (grpo.lora and grpo.lora.dropout)
    return (0 if in_training else 1) + (1 if grpo.beta else 0)


def sft_times(shape: Shape, sft: SftSettings) -> tuple[str, ...]:
    """Tokens per second of plain SFT: 6 FLOP for each parameter and token, 8 where activations are computed again."""
    flops = (8 if sft.gradient_checkpointing else 6) * shape.parameters
    speeds = ", ".join(f"{name} {ASSUMED_SHARE * gpu.tflops * 1e12 / flops:,.0f}" for name, gpu in GPUS.items())
    return (
        f"{flops / 1e9:.2f} GFLOP a token of plain SFT without attention; "
        f"at {ASSUMED_SHARE:.0%} of peak in bfloat16, tokens/s: {speeds}",
        "A method's own cost is a factor on that: docs/methods.md.",
    )


def sampling_speed(shape: Shape, gpu: Gpu, settings: Sampling, length: int, most: int) -> float | None:
    """Tokens per second of one engine while its batch is full, or None where not one completion fits.

    Each step reads the weights once and the cache of every completion at once, half full on average. Prompts and the
    arithmetic itself are left out, and so is a batch's end, when few completions are left.

    Args:
        length: tokens of a completion.
        most: completions at once; fewer where vLLM's share of the GPU's memory does not hold the cache of so many.
    """
    width, engine = BYTES[settings.dtype], settings.tensor_parallel
    weights, cache = shape.parameters * width, shape.kv_bytes * width / 2 * length / 2
    room = settings.gpu_memory_utilization * gpu.memory * 2**30 * engine - weights
    at_once = min(most, int(room / cache))
    if at_once < 1:
        return None
    return at_once * ASSUMED_BANDWIDTH * gpu.bandwidth * 1e12 * engine / (weights + at_once * cache)


def _speeds(
    shape: Shape, settings: Sampling, length: int, most: int, smallest: float
) -> Iterator[tuple[str, Gpu, float]]:
    """The GPUs of at least `smallest` GiB on which a stage can sample, each with the speed of one engine."""
    for name, gpu in GPUS.items():
        speed = sampling_speed(shape, gpu, settings, length, most)
        if speed is not None and gpu.memory >= smallest:
            yield name, gpu, speed


def sampling_times(
    shape: Shape, settings: GenerateSettings, benchmarks: list[BenchmarkSettings], smallest: float
) -> tuple[str, ...]:
    """Hours that the benchmarks of one checkpoint take where every completion has its full length: an upper bound."""
    if settings.engine != "vllm":
        return ()
    sizes = {b.name: b.problems or (get(b.name).size if b.own is None else None) for b in benchmarks}
    tokens = sum((sizes[b.name] or 0) * b.samples * b.max_new_tokens for b in benchmarks)
    longest = max(b.max_new_tokens for b in benchmarks)
    hours = [
        f"{name} {tokens / speed / settings.data_parallel / 3600:.1f}"
        for name, _, speed in _speeds(shape, settings, longest, settings.max_concurrent, smallest)
    ]
    unknown = ", ".join(name for name, size in sizes.items() if size is None)
    left_out = f" (without {unknown}, whose size is not known here)" if unknown else ""
    return (
        f"{tokens / 1e6:,.1f} million new tokens a checkpoint at most{left_out}; at {ASSUMED_BANDWIDTH:.0%} of the "
        f"memory's bandwidth and full length, hours: {', '.join(hours) or 'fits on none of these'}",
    )


def rl_times(shape: Shape, grpo: GrpoSettings, length: int, processes: int, smallest: float) -> tuple[str, ...]:
    """Seconds of one rollout with its optimizer steps where every completion has its full length, and hours of all.

    `length`: tokens of a completion with its prompt.
    """
    completions = grpo.prompts_per_step * grpo.num_generations
    passes = (8 if grpo.gradient_checkpointing else 6) * grpo.num_iterations + 2 * scoring_passes(grpo)
    flops = passes * shape.parameters * completions * length
    rollouts = grpo.steps // grpo.steps_per_rollout
    engines = max(1, processes // grpo.tensor_parallel)
    times = []
    for name, gpu, speed in _speeds(shape, grpo, length, max(1, completions // processes), smallest):
        sampling = completions * grpo.max_completion_length / (speed * engines)
        training = flops / (processes * ASSUMED_SHARE * gpu.tflops * 1e12)
        hours = rollouts * (sampling + training) / 3600
        times.append(f"{name} {sampling:,.0f} + {training:,.0f} s, {hours:,.0f} h")
    return (
        f"A rollout of {completions} completions, sampling + training at {ASSUMED_BANDWIDTH:.0%} of bandwidth and "
        f"{ASSUMED_SHARE:.0%} of peak, and all {rollouts} of them, at full length: "
        f"{'; '.join(times) or 'fits on none of these'}",
    )
