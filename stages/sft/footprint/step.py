"""An optimizer step of SFT, or the training of one of GRPO, on tensors without content.

Model, adapter, output layer, token weighting and optimizer are the stage's own code; the Trainer around them is not
there. So nothing is counted of data loading, logging and checkpoints, nor of GRPO's sampling and rewards.

A CPU build of torch has no autograd for tensors of a GPU. A step on one is therefore computed on the CPU, with what
differs there put in its place: attention keeps and makes what fused kernels do, and the output layer's tiles are worked
on in place.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import trl.kernels.chunked_logprob as output_layer
from peft import get_peft_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

from stages.sft.footprint.live import LiveBytes, lists_of_ones
from stages.sft.method_settings import MethodSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import Batch, Direction, Method, Prepared, Window
from stages.sft.reweighting.diagnostics import Concentration
from stages.sft.reweighting.direction import LARGE_SLICE, moved
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.trl_internals import (
    add_output_layer,
    attention_set_to,
    language_model,
    log_probs_times,
    no_masks,
    sdpa_attention_forward,
    token_log_probs,
)
from stages.training.library_internals import score_labelled_positions_only
from stages.training.lora import lora_config
from stages.training.settings import LoraSettings

DEPTH = 2
"""Layers of a forward pass that keeps nothing for a backward pass: more of them take time and no memory."""


@dataclasses.dataclass(frozen=True)
class Step:
    """What is trained, and in which micro-batches.

    Attributes:
        rows, length: of a micro-batch.
        batch_size: rows of the step in this process; of its micro-batches two are computed.
        scored: share of the positions that carry loss.
        padded: whether shorter rows are among them, so that attention needs a mask.
        share: of what is as large as the model, that this process has.
        on_gpu: whether it is computed on a GPU.
    """

    method: MethodSettings
    rows: int
    length: int
    batch_size: int
    dtype: str
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    scored: float = 1.0
    padded: bool = False
    share: float = 1.0
    on_gpu: bool = True


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Bytes of tensors: at rest (weights and Adam's moments), the most at once in each part of a step, and the most at
    once beside tensors of a parameter's shape."""

    rest: float
    phases: dict[str, float]
    others: float


def peaks_of(step: Step, described: Any) -> Peaks:
    """The peaks of a step of the model that transformers' config `described` describes. Nothing is allocated."""
    live = LiveBytes(step.share, step.scored, empty=True)
    score_labelled_positions_only()
    with ExitStack() as stack:
        stack.enter_context(lists_of_ones())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(live)
        model = _model(step, described)
        if step.on_gpu:
            stack.enter_context(_as_on_a_gpu(step, model))
        live.begin(model.parameters())
        rest = _compute(step, model, live)
    return Peaks(rest, live.peaks, live.others)


def _model(step: Step, described: Any) -> Any:
    trained_dtype = torch.float32 if step.lora is None else getattr(torch, step.dtype)
    model = AutoModelForCausalLM.from_config(described, dtype=trained_dtype)
    model.config.use_cache = False
    model.set_experts_implementation("eager")  # torch's grouped product asks tensors for values
    if step.lora is not None:
        with _modules_stay_where_they_are():
            model = get_peft_model(model, lora_config(step.lora))
    add_output_layer(model)
    if step.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if step.lora is not None:
            model.enable_input_require_grads()
    if step.dtype == "bfloat16":
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    return model.train()


class _ShallowEvaluator(ModelEvaluator):
    """A `ModelEvaluator` whose passes without gradient go through `DEPTH` layers."""

    def losses(self, batch: Batch, dropout_seed: int | None = None) -> Tensor:
        with self._shallow():
            return super().losses(batch, dropout_seed)

    def utilities(self, batch: Batch, direction: Direction) -> Tensor:
        with self._shallow():
            return super().utilities(batch, direction)

    @contextmanager
    def perturbed(self, direction: Direction, amount: float) -> Iterator[None]:
        """In slices as on a GPU: those of a CPU are for its cache, and without content they would only be many."""
        with moved(self.parameters, direction, amount, LARGE_SLICE):
            yield

    @contextmanager
    def _shallow(self) -> Iterator[None]:
        """Within: the model has fewer layers, where it asks its config how many, as transformers' models do."""
        config = self.model.config.get_text_config()
        usual = config.num_hidden_layers
        config.num_hidden_layers = min(DEPTH, usual)
        try:
            yield
        finally:
            config.num_hidden_layers = usual


@contextmanager
def _modules_stay_where_they_are() -> Iterator[None]:
    """Within: `Module.to` does nothing. It swaps a tensor without content for another, which torch refuses where the
    tensor is known elsewhere. Adapters are made in float32, the type that peft gives them in the end."""
    usual, torch.nn.Module.to = torch.nn.Module.to, lambda module, *arguments, **options: module
    try:
        yield
    finally:
        torch.nn.Module.to = usual


def _compute(step: Step, model: Any, live: LiveBytes) -> float:
    """An optimizer step as most are. The checks that VCORE makes in some have one direction at a time, too, and take no
    more (tests/stages/sft/test_footprint.py has them in each step). Returns what is alive between steps."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    rows = [{"input_ids": range(step.length)}] * (2 * step.rows)
    evaluator = _ShallowEvaluator(
        model,
        rows,
        lambda some: _batch(len(some), step),
        lambda: optimizer,
        batch_size=step.batch_size,
        micro_batch_size=step.rows,
        bfloat16=step.dtype == "bfloat16",
        seed=0,
    )
    method = make_method(step.method, None, 0)
    if method.state():
        method.restore({"measurement": {"radius": 1.0, "rounding": None, "curvature": 0.0}, "probes": 0})
    batches = [_batch(step.rows, step) for _ in range(min(2, max(1, step.batch_size // step.rows)))]
    tokens = step.batch_size * step.length
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its state
    optimizer.zero_grad()
    rest = live.now
    live.peaks.clear()
    live.phase = "method"
    window = Window(batches, 1, tokens, step.batch_size)
    made = method.prepare(window, evaluator)
    method.examine(window, evaluator)
    for batch, prepared in zip(batches, made, strict=True):
        _micro_batch(model, batch, method, prepared, live)
    method.finish(evaluator)
    live.phase = "optimizer"
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return rest


def _batch(rows: int, step: Step) -> Batch:
    ids = torch.zeros((rows, step.length), dtype=torch.long)
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def _micro_batch(model: Any, batch: Batch, method: Method, prepared: Prepared, live: LiveBytes) -> None:
    concentration = Concentration()

    def factors_of(losses: Tensor, mask: Tensor, output: Any) -> Tensor | None:
        factors = method.weigh(losses, mask, prepared)
        if factors is not None:
            concentration.add(factors, mask)
        return factors

    live.phase = "forward"
    with log_probs_times(model, factors_of):
        loss = -token_log_probs(model, batch).sum()
    live.phase = "backward"
    loss.backward()


@contextmanager
def _as_on_a_gpu(step: Step, model: Any) -> Iterator[None]:
    """Within: attention and output layer take what they take on a GPU.

    Relies on the functions that TRL's output layer calls for a tile, in place of which Triton's kernels write into it.
    Torch's fused attention takes float32 only where keys have as many heads as queries, which with a mask transformers
    sees to; elsewhere it keeps all scores.
    """
    tiles = {name: getattr(output_layer, name) for name in ("_forward_tile", "_backward_tile", "_addmm_fp32")}
    own = language_model(model)
    config = own.config.get_text_config()
    grouped = getattr(config, "num_key_value_heads", None) not in (None, config.num_attention_heads)
    whole = step.dtype == "float32" and grouped and not step.padded
    for name in tiles:
        setattr(output_layer, name, lambda *arguments, **options: None)
    try:
        # Transformers leaves a mask out where it is all ones, but not of tensors whose values it cannot see.
        masks = None if step.padded else no_masks
        attention = sdpa_attention_forward if whole else fused_attention
        kernels = sdpa_kernel(SDPBackend.MATH) if whole else nullcontext()
        with kernels, attention_set_to(own, "on_a_gpu", attention, masks):
            yield
    finally:
        for name, function in tiles.items():
            setattr(output_layer, name, function)


def fused_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention that computes nothing, and keeps and makes what torch's fused kernels on a GPU do: queries, keys,
    values, output and a number for each query; with a mask, which one of them takes, keys and values of every head and
    the mask in the type of the queries.

    query, key, value: [rows, heads, positions, width]; gives [rows, positions, heads, width].
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (states.to(torch.get_autocast_dtype("cpu")) for states in (query, key, value))
    if attention_mask is not None:
        groups = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(groups, 1) if groups > 1 else states for states in (key, value))
        attention_mask = attention_mask.to(query.dtype)
    return _Fused.apply(query, key, value, attention_mask).transpose(1, 2).contiguous(), None


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, mask, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, _, out, _ = ctx.saved_tensors
        buffers = [query.new_empty(query.shape, dtype=torch.float32)]  # where flash attention adds up
        buffers += [torch.empty_like(query), torch.empty_like(out)]  # gradients of keys and values for every head
        gradients = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None)
        del buffers
        return gradients
