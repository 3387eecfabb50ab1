"""What a pipeline needs of a GPU, before one is rented: memory of SFT, RL and sampling, and the arithmetic of SFT.

The model is built without storage (torch's meta device) from its config alone, so counts of parameters are exact, and what a training
step keeps for its backward pass is counted on a real forward pass over shapes. What is not counted: the CUDA context and the allocator's
slack, about 2 GiB, and temporary buffers of single kernels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.config import MAKE_MODEL, PipelineConfig
from pipeline.errors import ConfigError
from pipeline.machine import gpus
from stages.base.settings import BaseSettings
from stages.sft.settings import LoraSettings

GIB = 2.0**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SLACK_GIB = 2.0
"""CUDA context, allocator and kernels' buffers: a figure from experience, not counted."""
ASSUMED_SHARE = 0.4
"""Share of a GPU's peak that a training step of a dense model commonly reaches."""
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "4090": 165}
"""Dense bfloat16, from the vendor's data sheets."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a model.

    Attributes:
        parameters: all of them, tied ones once.
        linear: (name, in, out) of each linear module but the output layer: what adapters can go on.
        kv_bytes: bytes of key and value of one token over all layers, in 16-bit types.
    """

    parameters: int
    linear: tuple[tuple[str, int, int], ...]
    kv_bytes: int
    vocabulary: int
    model: Any


@dataclasses.dataclass(frozen=True)
class Need:
    """Memory of one stage on one GPU, by part, in GiB."""

    stage: str
    parts: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def estimate(config: PipelineConfig) -> list[Need]:
    """The needs of a config's GPU stages. Raises `ConfigError` where the model's config cannot be had."""
    shape = shape_of(config)
    needs = []
    if config.sft is not None:
        rows = config.sft.micro_batch_size or config.sft.batch_size
        needs.append(_sft(config, shape, rows))
    if config.grpo is not None:
        needs.append(_grpo(config, shape))
    needs.append(_generate(config, shape))
    return needs


def shape_of(config: PipelineConfig) -> Shape:
    """Build the model of a config on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.model == MAKE_MODEL:
        found: Any = _made(config.base)
    else:
        folder = Path(config.model).expanduser()
        try:
            found = AutoConfig.from_pretrained(
                folder if folder.is_dir() else config.model, revision=None if folder.is_dir() else config.model_revision
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the config of {config.model} cannot be had: {str(error).splitlines()[0]}",
                where="model",
                fix="Only config.json is needed: put it into a folder and name that with --set model=FOLDER.",
            ) from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(found, dtype=torch.bfloat16, attn_implementation="sdpa")
    text = found.get_text_config()
    heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    head = model.get_output_embeddings()
    linear = tuple(
        (name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Shape(parameters, linear, 2 * text.num_hidden_layers * heads * width * 2, text.vocab_size, model)


def _made(base: BaseSettings) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=base.vocab_size,
        hidden_size=base.hidden_size,
        intermediate_size=base.intermediate_size,
        num_hidden_layers=base.layers,
        num_attention_heads=base.heads,
        num_key_value_heads=base.kv_heads,
        head_dim=base.head_dim,
        tie_word_embeddings=True,
    )


def adapter_parameters(shape: Shape, lora: LoraSettings) -> int:
    """Parameters of the adapters: rank * (in + out) for each module."""
    wanted = lora.targets
    return sum(
        lora.rank * (n_in + n_out) for name, n_in, n_out in shape.linear if wanted == "all-linear" or name.rpartition(".")[2] in wanted
    )


def _trained(shape: Shape, lora: LoraSettings | None, dtype: str) -> tuple[dict[str, float], int]:
    """Weights, gradients and Adam's moments; and how many parameters are trained. Trained weights are float32, and autocast keeps a
    16-bit copy of them."""
    if lora is None:
        n = shape.parameters
        copy = n * 2 if dtype == "bfloat16" else 0
        return {"weights": (4 * n + copy) / GIB, "gradients": 4 * n / GIB, "optimizer": 8 * n / GIB}, n
    n = adapter_parameters(shape, lora)
    return {"weights": (shape.parameters * BYTES[dtype] + 4 * n) / GIB, "gradients": 4 * n / GIB, "optimizer": 8 * n / GIB}, n


def saved_bytes(shape: Shape, rows: int, tokens: int, checkpointing: bool) -> int:
    """Bytes that a forward pass in 16-bit types over `rows` x `tokens` keeps for the backward pass, weights and logits left out.

    Counted on shapes. Attention is counted as its fused kernels keep it: queries, keys, values and output.
    """
    import torch

    model, seen, total = shape.model, set(), 0
    # Tied and shared weights are views of parameters; they are there anyway.
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Any) -> Any:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in seen:
            seen.add(storage._cdata)
            total += storage.nbytes()
        alive.append(tensor)  # so that no other storage gets the same address
        return tensor

    alive: list[Any] = []
    ids = torch.zeros((rows, tokens), dtype=torch.long, device="meta")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    try:
        with _on_shapes(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(input_ids=ids, use_cache=False)
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    return total


@contextmanager
def _on_shapes() -> Iterator[None]:
    """Lets a model run on the meta device. Attention there takes the path that writes out all scores; this one keeps what flash attention
    keeps. And the search for packed rows, which looks at values, finds none."""
    import torch
    from transformers import masking_utils

    class Fused(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            output = query.new_empty((*query.shape[:-1], value.shape[-1]))
            ctx.save_for_backward(query, key, value, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError

    def attend(query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        return Fused.apply(query, key, value)

    with (
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attend),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", return_value=None),
    ):
        yield


def _step(shape: Shape, rows: int, tokens: int, scored: int, checkpointing: bool, dtype: str) -> dict[str, float]:
    """Activations and logits of one micro-batch. Checkpointing keeps each layer's input, and one layer's own while it is done again."""
    factor = BYTES[dtype] / 2
    kept = saved_bytes(shape, rows, tokens, checkpointing)
    if checkpointing:
        layers = max(1, len({name.split(".layers.")[1].split(".")[0] for name, _, _ in shape.linear if ".layers." in name}))
        kept += saved_bytes(shape, rows, tokens, False) // layers
    # Logits in the model's type, their float32 copy, and its gradient.
    logits = rows * scored * shape.vocabulary * (BYTES[dtype] + 4 + 4)
    return {"activations": kept * factor / GIB, "logits": logits / GIB}


def _sft(config: PipelineConfig, shape: Shape, rows: int) -> Need:
    sft = config.sft
    assert sft is not None
    parts, trained = _trained(shape, sft.lora, sft.dtype)
    parts |= _step(shape, rows, sft.max_length, sft.max_length, sft.gradient_checkpointing, sft.dtype)
    if sft.method.name == "vcore":
        # A copy of what is trained and a direction of its size, while utilities are measured: activations are not there then.
        probing = 8 * trained / GIB - parts["activations"] - parts["logits"]
        parts["VCORE's probe beyond activations"] = max(0.0, probing)
    flops = (8 if sft.gradient_checkpointing else 6) * shape.parameters
    speeds = ", ".join(f"{name} {ASSUMED_SHARE * peak * 1e12 / flops:,.0f}" for name, peak in PEAK_TFLOPS.items())
    times = (
        f"{flops / 1e9:.2f} GFLOP a token of plain SFT without attention; at {ASSUMED_SHARE:.0%} of peak in bfloat16, tokens/s: {speeds}",
        "A method's own cost is a factor on that: docs/methods.md.",
    )
    return Need("sft", parts, (f"{rows} rows of {sft.max_length} tokens at once", *times))


def _grpo(config: PipelineConfig, shape: Shape) -> Need:
    grpo = config.grpo
    assert grpo is not None
    rows = grpo.micro_batch_size or grpo.completions_per_step
    length = grpo.max_model_len or min(2 * grpo.max_completion_length, shape.model.config.get_text_config().max_position_embeddings)
    parts, _ = _trained(shape, grpo.lora, grpo.dtype)
    parts |= _step(shape, rows, length, grpo.max_completion_length, grpo.gradient_checkpointing, grpo.dtype)
    if grpo.beta and grpo.lora is None:
        parts["reference model"] = 4 * shape.parameters / GIB
    notes = [f"{rows} completions of {length} tokens with their prompts at once"]
    if grpo.rollout == "vllm":
        engine = shape.parameters * BYTES[grpo.dtype] / grpo.tensor_parallel / GIB
        parts["vLLM's weights"] = engine
        notes.append(f"and vLLM's cache: grpo.gpu_memory_utilization {grpo.gpu_memory_utilization:g} of the GPU less its weights")
    return Need("grpo", parts, tuple(notes))


def _generate(config: PipelineConfig, shape: Shape) -> Need:
    settings = config.generate
    weights = shape.parameters * BYTES[settings.dtype] / settings.tensor_parallel
    kv = shape.kv_bytes * BYTES[settings.dtype] / 2 / settings.tensor_parallel
    longest = max(benchmark.max_new_tokens for benchmark in config.benchmarks)
    limit = settings.max_model_len or longest
    return Need(
        "generate",
        {"weights": weights / GIB, "cache of one completion": kv * limit / GIB},
        (f"{kv / 1024:,.0f} KiB of cache a token, {limit:,} tokens at most; vLLM takes {settings.gpu_memory_utilization:.0%} of the GPU",),
    )


@functools.cache
def gpu_memory_gib() -> float | None:
    """Memory of the smallest GPU here, as nvidia-smi tells it; None without one."""
    sizes = [float(gpu.rpartition(",")[2].split()[0]) / 1024 for gpu in gpus()]
    return min(sizes, default=None)
