"""Settings of the SFT stage. Each default of TRL that changes the result has a field here, and so enters the key."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from stages.harness.settings import TemplateDate, execution, identity
from stages.sft.method_settings import MethodSettings, VcoreSettings, instead, require_one, with_bfloat16_defaults
from stages.sft.objective_settings import WitSettings
from stages.training.settings import LoraSettings, OptimizerSettings

RESOLUTION = {"float32": 2.0**-23, "bfloat16": 2.0**-7}
"""Relative distance between neighbouring numbers."""


def weighs_prompts(method: Any) -> bool:
    """Whether a method, as settings or as it is written, is `wit` and gives the prompt's tokens a weight above 0."""
    if isinstance(method, dict) and method.get("name") == "wit":
        return bool(method.get("prompt_weight", WitSettings.model_fields["prompt_weight"].default))
    return isinstance(method, WitSettings) and method.prompt_weight > 0


class SftSettings(OptimizerSettings):
    """Settings of the SFT stage."""

    method: MethodSettings = identity(VcoreSettings())
    """How tokens are weighted. What is left out of a `vcore` method depends on the rest of it and on `dtype`:
    `VcoreSettings` says how."""
    learning_rate: float = identity(2e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = identity("cosine")
    """Learning rate after the warm-up."""
    max_length: int = identity(1024, gt=1)
    """Tokens of prompt and completion; longer rows are cut at the end, and left out where no completion remains."""
    batch_size: int = identity(32, gt=0)
    """Rows per optimizer step."""
    micro_batch_size: int | None = execution(None, gt=0)
    """Rows per forward and backward pass; must divide `batch_size`. None: the whole batch at once."""
    max_tokens_per_micro_batch: int | None = execution(None, gt=0)
    """Instead of it: positions per forward and backward pass, padding included. A longer row goes alone."""
    epochs: float | None = identity(1.0, gt=0, le=1000)
    max_steps: int | None = identity(None, gt=0)
    """Optimizer steps, instead of `epochs`."""
    dtype: Literal["float32", "bfloat16"] = identity("float32")
    """bfloat16: mixed precision (trained weights stay float32, a frozen base under LoRA is bfloat16), and a bfloat16
    checkpoint."""
    system_prompt: str | None = identity(None)
    """Before rows that have no system message. Use the same as `generate.system_prompt`, or the evaluation sees prompts
    that training never had."""
    enable_thinking: bool | None = identity(None)
    """Passed to the chat template where set, as `generate.enable_thinking` is; None leaves the template's default."""
    completion_only_loss: bool = identity(True)
    """Whether the prompt's tokens carry no loss. Left out, it is as the method `wit` needs it."""
    packing: bool = identity(False)
    """Whether the rows of a micro-batch go through the model end to end, each seeing itself alone, without padding.
    The step stays the same up to rounding (and its dropout). For models with full attention in all layers."""
    template_date: TemplateDate = identity(None)
    """Filled from the pipeline's top-level `template_date`; write it there."""
    lora: LoraSettings | None = identity(None)
    gradient_checkpointing: bool = execution(False)
    """Recompute activations in the backward pass: less memory, more time."""
    logging_steps: int = execution(1, gt=0)
    checkpoint_steps: int = execution(100, gt=0)
    """Optimizer steps between two checkpoints that a stopped run can resume from."""
    trackers: list[Literal["wandb", "trackio"]] = execution([])
    """Where the curve goes besides `record/`; each reads its project from environment variables of its own."""
    trainer: dict[str, Any] = identity({})
    """Further options of `trl.SFTConfig`, by their names there. Options that have a field above are refused."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """`max_steps` replaces `epochs`, bfloat16 changes defaults of `vcore` (see `VcoreSettings`), and weights of
        prompts give them a loss."""
        values = instead(values, "max_steps", "epochs")
        if isinstance(values, dict) and weighs_prompts(values.get("method")):
            values = {"completion_only_loss": False, **values}
        if isinstance(values, dict) and values.get("dtype") == "bfloat16":
            return {**values, "method": with_bfloat16_defaults(values.get("method", {"name": "vcore"}))}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> SftSettings:
        require_one(self, "epochs", "max_steps")
        if isinstance(self.method, WitSettings) and self.completion_only_loss == weighs_prompts(self.method):
            raise ValueError(
                f"method wit with prompt_weight {self.method.prompt_weight:g} needs completion_only_loss "
                f"{str(not self.completion_only_loss).lower()}; leave that out"
            )
        method, resolution = self.method, RESOLUTION[self.dtype]
        if isinstance(method, VcoreSettings) and method.unmeasurable == "stop" and (method.epsilon or 1.0) < resolution:
            raise ValueError(
                f"epsilon {method.epsilon} is below what {self.dtype} resolves ({resolution:.1e}): the loss changes "
                "would be rounding; set it to null or leave it out (utilities are then exact, or their step is "
                "steered by target_rms), or set unmeasurable: warn"
            )
        if self.micro_batch_size and self.max_tokens_per_micro_batch:
            raise ValueError(
                "max_tokens_per_micro_batch: it takes the place of micro_batch_size; leave one of the two out"
            )
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}")
        return self
