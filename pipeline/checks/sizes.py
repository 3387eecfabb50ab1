"""Batches, lengths and memory that cannot be, found before anything is loaded."""

from collections.abc import Iterable

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.launch.machine import hardware
from pipeline.plan.graph import Stage
from stages.base.settings import MAKE, BaseSettings

TRAINING_BYTES = 16
"""Of a parameter: the weight, its gradient and Adam's two moments, in float32."""


def check_batches(config: PipelineConfig, stages: Iterable[Stage]) -> None:
    """Raise `ConfigError` for a step that its processes and micro-batches do not divide, or that lacks prompts."""
    for stage in stages:
        batch = stage.kind.batch(stage.settings)
        if batch is None:
            continue
        processes = config.execution.launch_of(stage.name).world
        if batch.size % processes:
            raise ConfigError(
                f"{processes} processes cannot share the {batch.size} {batch.unit} of a step evenly",
                where=f"execution.launch.{stage.name}.processes",
                fix=f"Choose it, or {batch.setting}, so that it divides.",
            )
        share, micro = batch.size // processes, batch.micro_batch_size
        if micro is not None and share % micro:
            raise ConfigError(
                f"{micro} does not divide the {share} {batch.unit} that each of {processes} processes has of a step",
                where=f"{stage.program}.micro_batch_size",
                fix=f"Choose it so that {share} is a multiple, or leave it out.",
            )
    if config.grpo is not None and any(stage.name == "grpo" for stage in stages):
        rows = [source.rows for source in config.data.rl]
        available = sum(n for n in rows if n is not None)
        if None not in rows and config.grpo.prompts_per_step > available:
            raise ConfigError(
                f"a step of {config.grpo.prompts_per_step} prompts needs more than the {available} rows of data.rl",
                where="grpo.prompts_per_step",
                fix=f"At most {available}, or more rows.",
            )


def smaller_micro_batch(stage: Stage, micro_batch_size: int | None, processes: int) -> int | None:
    """The largest micro-batch of at most half the size that divides the stage's batch, or None where there is none.

    Micro-batches change what a step costs in memory and not what it computes (to rounding), so the key stays as it is.

    Args:
        micro_batch_size: the size now; None is each process' whole share.
    """
    batch = stage.kind.batch(stage.settings)
    if batch is None:
        return None
    now = micro_batch_size or batch.size // processes
    return next((size for size in range(now // 2, 0, -1) if batch.size % (size * processes) == 0), None)


def check_lengths(stages: Iterable[Stage], positions: int | None) -> None:
    """Raise `ConfigError` for a length above the model's `positions`, or a completion that leaves no room for a prompt.

    Args:
        positions: longest sequence of the model in tokens, None where it is not known.
    """
    contexts = [context for stage in stages for context in stage.kind.contexts(stage.settings)]
    for context in contexts:
        if positions is not None and context.tokens is not None and context.tokens > positions:
            message = f"{context.tokens} is more than the model's {positions} positions"
            raise ConfigError(message, where=context.setting, fix=f"At most {positions}.")
    for completion in (one for stage in stages for one in stage.kind.completions(stage.settings)):
        for length, name in ((positions, f"the model's {positions} positions"), (completion.context, "")):
            if length is not None and completion.tokens >= length:
                room = name or f"a max_model_len of {length}"
                message = f"{completion.tokens} new tokens leave no room for a prompt in {room}"
                raise ConfigError(message, where=completion.setting, fix="Lower it.")


def check_memory(config: PipelineConfig, on_cpu: Iterable[Stage]) -> None:
    """Raise `ConfigError` for caches of vLLM or a made model that this machine's memory does not hold.

    Args:
        on_cpu: the stages that compute on this machine's CPU; of GPUs `vcore plan --estimate` says more.
    """
    memory = hardware().memory_gib
    for stage in on_cpu if memory else ():
        vllm = stage.kind.vllm(stage.settings)
        engines = vllm.data_parallel * config.execution.launch_of(stage.name).processes if vllm is not None else 0
        if vllm is not None and vllm.engine and vllm.cpu_kv_cache_gib * engines > memory:
            gib = f"{vllm.cpu_kv_cache_gib} GiB"
            needs = f"{engines} engines of {gib} each" if engines > 1 else gib
            message = f"{needs} are more than this machine's {memory:g} GiB of memory"
            raise ConfigError(message, where=f"{stage.program}.cpu_kv_cache_gib")
        if isinstance(stage.settings, BaseSettings) and stage.settings.source == MAKE:
            needed = parameters(stage.settings) * TRAINING_BYTES / 2**30
            if needed > memory:
                size = f"a model of {parameters(stage.settings):,} parameters"
                raise ConfigError(
                    f"training {size} needs {needed:,.0f} GiB, and this machine has {memory:g}",
                    where="base",
                    fix="Make a smaller one (hidden_size, intermediate_size, layers, vocab_size).",
                )


def parameters(base: BaseSettings) -> int:
    """Of the model that the base stage makes, input and output embeddings being one."""
    heads = (2 * base.heads + 2 * base.kv_heads) * base.head_dim
    layer = base.hidden_size * (heads + 3 * base.intermediate_size + 2) + 2 * base.head_dim
    return base.vocab_size * base.hidden_size + base.layers * layer + base.hidden_size
