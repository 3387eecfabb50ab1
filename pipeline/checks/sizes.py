"""Batches, lengths and memory that cannot be, found before anything is loaded."""

from __future__ import annotations

from pipeline.config.execution import LaunchSettings
from pipeline.config.schema import MAKE_MODEL, PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.launch.machine import hardware
from stages.base.settings import BaseSettings

TRAINING_BYTES = 16
"""Of a parameter: the weight, its gradient and Adam's two moments, in float32."""


def check_batches(config: PipelineConfig, programs: set[str]) -> None:
    """Raise `ConfigError` for a step that its processes and micro-batches do not divide, or that has more prompts than there are."""
    batches = {}
    if config.sft is not None and "sft" in programs:
        batches["sft"] = (config.sft.batch_size, config.sft.micro_batch_size, "rows", "sft.batch_size")
    if config.grpo is not None and "grpo" in programs:
        batches["grpo"] = (
            config.grpo.completions_per_step,
            config.grpo.micro_batch_size,
            "completions",
            "grpo.prompts_per_step",
        )
    for name, (batch, micro, what, setting) in batches.items():
        processes = config.execution.launch.get(name, LaunchSettings()).processes
        if batch % processes:
            raise ConfigError(
                f"{processes} processes cannot share the {batch} {what} of a step evenly",
                where=f"execution.launch.{name}.processes",
                fix=f"Choose it, or {setting}, so that it divides.",
            )
        if micro is not None and batch // processes % micro:
            raise ConfigError(
                f"{micro} does not divide the {batch // processes} {what} that each of {processes} processes has of a step",
                where=f"{name}.micro_batch_size",
                fix=f"Choose it so that {batch // processes} is a multiple, or leave it out.",
            )
    if config.grpo is not None and "grpo" in programs:
        rows = [source.rows for source in config.data.rl]
        known = sum(n for n in rows if n is not None)
        if None not in rows and config.grpo.prompts_per_step > known:
            raise ConfigError(
                f"a step of {config.grpo.prompts_per_step} prompts needs more than the {known} rows of data.rl",
                where="grpo.prompts_per_step",
                fix=f"At most {known}, or more rows.",
            )


def check_lengths(config: PipelineConfig, programs: set[str], positions: int | None) -> None:
    """Raise `ConfigError` for a length above the model's `positions` (where they are known), or a completion that fills its context."""
    sampling, rl = (
        config.generate.max_model_len,
        config.grpo.max_model_len if config.grpo is not None and "grpo" in programs else None,
    )
    sft = config.sft.max_length if config.sft is not None and "sft" in programs else None
    for where, length in {"sft.max_length": sft, "generate.max_model_len": sampling, "grpo.max_model_len": rl}.items():
        if positions is not None and length is not None and length > positions:
            raise ConfigError(
                f"{length} is more than the model's {positions} positions", where=where, fix=f"At most {positions}."
            )
    completions = [
        (f"benchmarks.{i}.max_new_tokens", b.max_new_tokens, sampling) for i, b in enumerate(config.benchmarks)
    ]
    if "generate" not in programs:
        completions = []
    if config.grpo is not None and "grpo" in programs:
        completions.append(("grpo.max_completion_length", config.grpo.max_completion_length, rl))
    if config.grpo is not None and config.difficulty is not None and "generate" in programs:
        completions.append(("grpo.max_completion_length", config.grpo.max_completion_length, sampling))
    for where, new_tokens, context in completions:
        if positions is not None and new_tokens >= positions:
            raise ConfigError(
                f"{new_tokens} new tokens leave no room for a prompt in the model's {positions} positions",
                where=where,
                fix="Lower it.",
            )
        if context is not None and new_tokens >= context:
            raise ConfigError(
                f"{new_tokens} new tokens leave no room for a prompt in a max_model_len of {context}",
                where=where,
                fix="Lower it.",
            )


def check_memory(config: PipelineConfig, programs: set[str], where: str) -> None:
    """Raise `ConfigError` for caches of vLLM or a made model that this machine's memory does not hold; on a GPU `--estimate` says more."""
    memory = hardware()["memory_gib"]
    if where != "cpu" or not memory:
        return
    wanted = {}
    if "generate" in programs and config.generate.engine == "vllm":
        wanted["generate"] = (config.generate.cpu_kv_cache_gib, config.generate.data_parallel)
    if config.grpo is not None and "grpo" in programs and config.grpo.rollout == "vllm":
        wanted["grpo"] = (config.grpo.cpu_kv_cache_gib, config.execution.launch.get("grpo", LaunchSettings()).processes)
    for name, (gib, engines) in wanted.items():
        if gib * engines > memory:
            each = f"{engines} engines of {gib} GiB each" if engines > 1 else f"{gib} GiB"
            raise ConfigError(
                f"{each} are more than this machine's {memory:g} GiB of memory", where=f"{name}.cpu_kv_cache_gib"
            )
    if config.model == MAKE_MODEL and "base" in programs:
        needed = parameters(config.base) * TRAINING_BYTES / 2**30
        if needed > memory:
            raise ConfigError(
                f"training a model of {parameters(config.base):,} parameters needs {needed:,.0f} GiB, and this machine has {memory:g}",
                where="base",
                fix="Make a smaller one (hidden_size, intermediate_size, layers, vocab_size).",
            )


def parameters(base: BaseSettings) -> int:
    """Of the model that the base stage makes, input and output embeddings being one."""
    heads = (2 * base.heads + 2 * base.kv_heads) * base.head_dim
    layer = base.hidden_size * (heads + 3 * base.intermediate_size + 2) + 2 * base.head_dim
    return base.vocab_size * base.hidden_size + base.layers * layer + base.hidden_size
