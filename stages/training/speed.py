"""`python -m stages.training.speed SPEC.json`: how fast a CPU trains a model of a given shape, and in what memory.

Started by `vcore plan CONFIG --estimate` on a CPU. The weights are random: neither time nor memory depends on them.
Times are those of one micro-batch as SFTTrainer and GRPOTrainer compute it, with TRL's output layer, and of one step of
the optimizer; memory is what the process has resident while it does so.
"""

import ctypes
import gc
from pathlib import Path
from typing import Any, Literal

import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from stages.harness.context import Context, Result
from stages.harness.process import peak_memory_gib, run_stage
from stages.harness.settings import StageSettings, execution
from stages.harness.stopwatch import Stopwatch
from stages.training.lora import lora_config
from stages.training.settings import LoraSettings
from stages.training.setup import prepare_torch

BUDGET_S, LONGEST_S = 12.0, 48.0
"""Seconds that the measured micro-batch may take on a quiet machine, and on this one, as far as a short one tells; it
is made smaller for that."""
WARM_UP = 64
"""Tokens of the short micro-batch, which also sets up torch's kernels and the optimizer's state."""
LEAST_TOKENS = 4 * WARM_UP
"""Of the measured micro-batch, where it has as many, however long they take: of the memory that a few more tokens than
the short one's add, most would be chance."""


class TrainingSpeed(StageSettings):
    """What is trained, and in which micro-batches."""

    rows: int = execution(gt=0)
    length: int = execution(gt=1)
    """Tokens of a row."""
    scored: float = execution(1.0, gt=0, le=1)
    """Share of a row's tokens that carry loss; the others need no output layer."""
    dtype: Literal["float32", "bfloat16"] = execution("float32")
    lora: LoraSettings | None = execution(None)
    gradient_checkpointing: bool = execution(False)


def random_model(folder: Path, dtype: str) -> Any:
    """A model of the config in `folder` with random weights."""
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=getattr(torch, dtype))


def run(ctx: Context[TrainingSpeed]) -> Result:
    """Measure the model of `inputs["model"]/config.json`. The metrics are:

    - `forward_s`, `step_s`: seconds of a token in a forward pass without gradient, and forward and backward;
    - `optimizer_s`: seconds of one step of the optimizer, like these as `Stopwatch.each` gives them;
    - `others`: share of the cores that other processes took meanwhile;
    - `rest_gib`, `token_gib`: resident memory with hardly a token, and what each token of a micro-batch adds to it.
    """
    settings = ctx.settings
    prepare_torch(ctx)
    model = _prepared(random_model(ctx.inputs["model"], settings.dtype if settings.lora else "float32"), settings)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)  # as both trainers have it
    short = min(settings.length, WARM_UP)
    for _ in range(2):  # the first one sets everything up
        optimizer.zero_grad()
        _forget_peak()
        with Stopwatch(ctx.machine.threads) as warm:
            _train(model, 1, short, settings)
        least = peak_memory_gib()
        with Stopwatch(ctx.machine.threads) as stepped:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    rows, length = _measurable(settings, warm, short)
    tokens = rows * length
    with Stopwatch(ctx.machine.threads) as forward, torch.no_grad():
        _losses(model, rows, length, settings)
    optimizer.zero_grad()
    _forget_peak()
    with Stopwatch(ctx.machine.threads) as step:
        _train(model, rows, length, settings)
    token_gib = max(0.0, peak_memory_gib() - least) / max(1, tokens - short)
    metrics = {
        "forward_s": forward.each(tokens),
        "step_s": step.each(tokens),
        "optimizer_s": stepped.each(),
        "others": step.others,
        "rest_gib": least,
        "token_gib": token_gib,
    }
    return Result({"tokens": tokens}, metrics)


def _measurable(settings: TrainingSpeed, warm: Stopwatch, tokens: int) -> tuple[int, int]:
    """Rows of the measured micro-batch, and their length in tokens. `warm` is what so many tokens took."""
    busy_s, quiet_s = warm.each(tokens)
    fitting = max(LEAST_TOKENS, int(min(BUDGET_S / quiet_s, LONGEST_S / busy_s)))
    length = min(settings.length, fitting)
    return max(1, min(settings.rows, fitting // length)), length


def _prepared(model: Any, settings: TrainingSpeed) -> Any:
    model.config.use_cache = False
    add_fused_lm_head(model)
    if settings.lora is not None:
        model = get_peft_model(model, lora_config(settings.lora))
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _losses(model: Any, rows: int, length: int, settings: TrainingSpeed) -> torch.Tensor:
    ids = torch.randint(model.config.get_text_config().vocab_size, (rows, length))
    labels = ids.clone()
    labels[:, : round((1 - settings.scored) * length)] = -100
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16"):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        losses: torch.Tensor = -model(**inputs, use_cache=False, fused_lm_head=True).log_probs
    return losses


def _train(model: Any, rows: int, length: int, settings: TrainingSpeed) -> None:
    _losses(model, rows, length, settings).sum().backward()


def _forget_peak() -> None:
    """Give the memory of what is gone back to the system, and let the peak begin anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    run_stage(TrainingSpeed, run)
