"""What this stage uses of TRL, transformers and torch although they do not promise it: private or undocumented names.

Each is used here alone, by what relies on it. tests/stages/sft/test_trl_internals.py tries each one, and says what to
read where a new version has changed it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward as sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl import SFTTrainer

SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Options by which TRL's fused head scales logits; `forward_mode` differentiates a plain head and refuses them."""


def token_log_probs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Log-probability of each next token by the head that SFTTrainer adds, [rows, positions - 1]; 0 where unsupervised.

    Relies on the argument `fused_lm_head` and the output's `log_probs` (trl.trainer.utils.add_fused_lm_head).
    """
    log_probs: Tensor = model(**inputs, use_cache=False, fused_lm_head=True).log_probs
    return log_probs


@contextmanager
def log_probs_times(model: Any, factors_of: Callable[[Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Within: SFTTrainer.compute_loss sums log-probabilities that are multiplied by factors.

    Relies on that loss being made of the fused head's `log_probs` alone, and on the output's `label_mask`. The model is
    the one that compute_loss calls, in DDP's wrapper where it has one. `factors_of` takes (losses in float32, mask) and
    gives factors, or None for all ones; each is [rows, positions - 1].
    """

    def multiply(module: Any, arguments: Any, output: Any) -> Any:
        factors = factors_of(-output.log_probs.detach().float(), output.label_mask)
        if factors is not None:
            output.log_probs = output.log_probs * factors.to(output.log_probs.dtype)
        return output

    hook = model.register_forward_hook(multiply)
    try:
        yield
    finally:
        hook.remove()


class TrainerWithOwnState(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with rows that are tokenised here, and with further files in each checkpoint.

    Relies on two private methods of transformers.Trainer: `_save_optimizer_and_scheduler`, called for each checkpoint
    before the trainer_state.json that marks it as complete, and `_load_from_checkpoint`, called first on a resume. And
    on SFTTrainer's `_prepare_dataset`, called in its constructor with the tokenizer as TRL's options have made it,
    which takes rows with `input_ids` and `completion_mask` as tokenised.
    """

    encode: Callable[[Any], Any] | None = None
    """Makes the tokenised rows with the tokenizer; set before the constructor runs. None leaves it to TRL."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, *args: Any, **kwargs: Any) -> Any:
        if self.encode is not None:
            dataset = self.encode(processing_class)
        return super()._prepare_dataset(dataset, processing_class, *args, **kwargs)

    def write_own_state(self, folder: Path) -> None:
        """Add files to the checkpoint `folder`; called in the main process only."""

    def read_own_state(self, folder: Path) -> None:
        """Take back what `write_own_state` wrote; called in every process."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.write_own_state(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.read_own_state(Path(resume_from_checkpoint))


@contextmanager
def attention_set_to(model: Any, name: str, forward: Callable[..., Any]) -> Iterator[None]:
    """Within: the model's attention is `forward` with the masks of `sdpa`, registered with transformers as `name`.

    Relies on `config._attn_implementation`, as no public name says which attention is in use, and on where `sdpa_mask`
    and, for a `forward` that calls it, `sdpa_attention_forward` are defined.
    """
    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, sdpa_mask)
    usual = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def attention_can_be_set(model: Any) -> bool:
    """Whether `attention_set_to` works for the model. Relies on `_supports_sdpa`, for which there is no public name."""
    return bool(model.is_backend_compatible() and model._supports_sdpa)


@contextmanager
def eager_experts(model: Any) -> Iterator[None]:
    """Within: a mixture of experts loops over them, because torch's grouped product has no forward mode. Others stay
    as they are."""
    usual = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(usual)
