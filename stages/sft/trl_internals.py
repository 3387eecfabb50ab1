"""What this stage uses of TRL, transformers and their like although they do not promise it: private or undocumented
names.

Each is used here alone, by what relies on it. tests/stages/sft/test_trl_internals.py tries each one, and says what to
read where a new version has changed it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn.functional import linear
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward as sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Options by which TRL's fused head scales logits; `forward_mode` differentiates a plain head and refuses them."""

WHOLE_HEAD = frozenset({"top_entropy", "logit_gap", "mass"})
"""Signals for which the head is multiplied once more, outside the forward pass."""
TOP = 20
"""Most likely tokens whose entropy `top_entropy` is: K of EAFT."""
TILE = 1 << 25
"""Logits that are held at once, 128 MiB in float32."""


def language_model(model: Any) -> Any:
    """The causal language model itself, which peft wraps where it trains an adapter."""
    return model.get_base_model() if is_peft_model(model) else model


def add_output_layer(model: Any) -> None:
    """Give a model the fused head that SFTTrainer gives it, with the fields that it asks for."""
    add_fused_lm_head(language_model(model), outputs=("log_probs", "entropy", "is_top1"))


def token_log_probs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Log-probability of each next token by the head that SFTTrainer adds, [rows, positions - 1]; 0 where unsupervised.

    Relies on the argument `fused_lm_head` and the output's `log_probs` (trl.trainer.utils.add_fused_lm_head).
    """
    log_probs: Tensor = model(**inputs, use_cache=False, fused_lm_head=True).log_probs
    return log_probs


@contextmanager
def log_probs_times(
    model: Any,
    factors_of: Callable[[Tensor, Tensor, Any], Tensor | None],
    added: Callable[[], Tensor] | None = None,
) -> Iterator[None]:
    """Within: SFTTrainer.compute_loss sums log-probabilities that are multiplied by factors.

    Relies on that loss being made of the fused head's `log_probs` alone, and on the output's `label_mask`. The model is
    the one that compute_loss calls, in DDP's wrapper where it has one. `factors_of` takes (losses in float32, mask, the
    model's output) and gives factors, or None for all ones; each is [rows, positions - 1]. `added` gives a number that
    is added to the sum of the losses, before it is divided by their number.
    """

    def multiply(module: Any, arguments: Any, output: Any) -> Any:
        factors = factors_of(-output.log_probs.detach().float(), output.label_mask, output)
        if factors is not None:
            output.log_probs = output.log_probs * factors.to(output.log_probs.dtype)
        if added is not None:  # in equal parts: only the sum counts
            output.log_probs = output.log_probs - added() / output.log_probs.numel()
        return output

    hook = model.register_forward_hook(multiply)
    try:
        yield
    finally:
        hook.remove()


def watch_hidden_states(model: Any, watch: Callable[[Tensor], None]) -> None:
    """Have `watch` called with the last hidden states, [rows, positions, width], of each forward pass of the backbone.

    Relies on the fused head's calling it as `base_model` and taking its `last_hidden_state`. `model` is not wrapped by
    peft. The call is made within the model's forward, while FSDP2 has the head's weights whole.
    """
    model.base_model.register_forward_hook(lambda module, arguments, output: watch(output.last_hidden_state))


def forward_without_head(model: Any, inputs: dict[str, Tensor], *, whole: bool) -> None:
    """A forward pass for those who watch the hidden states; no head is computed.

    Relies on the fused head's computing only labelled positions. `whole`: through the model's own forward, with which
    FSDP2 begins to gather weights, and not through the backbone's.
    """
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if whole:
        unlabelled = torch.full_like(inputs["labels"], -100)
        model(**arguments, labels=unlabelled, use_cache=False, fused_lm_head=True)
    else:
        model.base_model(**arguments, use_cache=False)


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Within: a model of peft computes as if it had no adapter.

    Unlike peft's own `disable_adapter` it leaves `requires_grad` alone, which FSDP2 reads when it gathers a weight for
    the first time. Relies on the layers' `_disable_adapters`.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def share_out(model: Any, accelerator: Any) -> None:
    """Share a model's weights out over the processes, as accelerate does with the one that is trained under FSDP2.

    Relies on accelerate.utils.fsdp_utils.fsdp2_prepare_model, which works in place.
    """
    fsdp2_prepare_model(accelerator, model)


def refuse_scaled_logits(model: Any, who: str) -> None:
    """Raise ValueError where the model's head scales logits, for those that take its weights as a plain product."""
    config = model.config.get_text_config()
    if scaled := [name for name in SCALED_LOGITS if getattr(config, name, None) not in (None, 1.0)]:
        raise ValueError(f"the model scales its logits ({', '.join(scaled)}), which {who} does not know of")


class HeadSignals:
    """What a model's head says of each next token, in the forward pass that has just been made.

    Relies on the fields that `trl.trainer.utils.add_fused_lm_head` computes on request, on its being called once more
    on the same model, and on its calling the backbone as `base_model`, whose hidden states are kept for the signals
    that it does not have, `WHOLE_HEAD`.

    Attributes:
        in_training: the signals that the training forward is asked for; all, unless it is set.
    """

    def __init__(self, model: Any, names: frozenset[str], *, bfloat16: bool) -> None:
        """
        Args:
            model: with TRL's fused head, not wrapped for data parallelism.
            names: of `stages.sft.reweighting.base.SIGNALS`.
            bfloat16: whether its forward runs under bfloat16 autocast.

        Raises:
            ValueError: the head scales logits, and a signal is asked for that would need to know how.
        """
        self._names, self._bfloat16 = names, bfloat16
        self.in_training = names
        self._model = language_model(model)
        self._hidden: Tensor | None = None
        self._measuring = False
        if "concentration" in names:  # SFTTrainer asks for the other fields
            add_fused_lm_head(self._model, outputs=("log_probs", "entropy", "is_top1", "log_sum_sq_probs"))
        if wanted := sorted(names & WHOLE_HEAD):
            refuse_scaled_logits(self._model, ", ".join(wanted))
            watch_hidden_states(self._model, self._keep)

    def _keep(self, states: Tensor) -> None:
        if self._measuring or self.in_training & WHOLE_HEAD:
            self._hidden = states.detach()

    def of(self, output: Any, labels: Tensor) -> dict[str, Tensor]:
        """The signals, each [rows, positions - 1], float32, detached, 0 where unsupervised.

        Args:
            output: of the model's forward pass with its fused head.
            labels: that it was given, [rows, positions].
        """
        signals: dict[str, Tensor] = {}
        names = self._names if self._measuring else self.in_training
        if "entropy" in names:
            signals["entropy"] = output.entropy.detach().float()
        if "is_top1" in names:
            signals["is_top1"] = output.is_top1.float()
        if "concentration" in names:
            signals["concentration"] = output.log_sum_sq_probs.detach().float().exp() * output.label_mask
        if self._hidden is not None:
            signals |= self._of_logits(self._hidden[:, :-1], labels[:, 1:].to(self._hidden.device), names & WHOLE_HEAD)
            self._hidden = None
        return signals

    def measured(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The signals of a forward pass that is made for them."""
        self._measuring = True
        try:
            return self.of(model(**inputs, use_cache=False, fused_lm_head=True), inputs["labels"])
        finally:
            self._measuring = False

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _of_logits(self, hidden: Tensor, labels: Tensor, names: frozenset[str]) -> dict[str, Tensor]:
        head = self._model.get_output_embeddings()
        mask = labels != -100
        states, gold = hidden[mask], labels[mask]
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        rows = max(1, TILE // head.weight.shape[0])
        for start in range(0, len(gold), rows):
            with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self._bfloat16):
                logits = linear(states[start : start + rows], head.weight, head.bias).float()
            token = gold[start : start + rows, None]
            own = logits.gather(-1, token)
            best, ids = logits.topk(min(TOP, logits.shape[-1]), dim=-1)
            if "top_entropy" in made:
                log_probs = best.log_softmax(-1)
                made["top_entropy"].append(-(log_probs.exp() * log_probs).sum(-1))
            if "logit_gap" in made:
                other = torch.where(ids[:, :1] == token, best[:, 1:2], best[:, :1])
                made["logit_gap"].append((own - other).squeeze(-1))
            if "mass" in made:
                probabilities = logits.softmax(-1)
                of_less_likely = probabilities.masked_fill(logits >= own, 0.0).sum(-1)
                made["mass"].append(probabilities.gather(-1, token).squeeze(-1) + of_less_likely)
        empty = torch.zeros(mask.shape, device=hidden.device)
        return {name: empty.masked_scatter(mask, torch.cat([*parts, empty[:0, 0]])) for name, parts in made.items()}


class TrainerWithOwnState(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with rows that are tokenised here and may have further values, and with further files in each
    checkpoint.

    Relies on four private methods of transformers.Trainer: `_save_optimizer_and_scheduler` and `_save_rng_state`,
    called by every process for each checkpoint before the first one writes the trainer_state.json that marks it as
    complete, `_load_from_checkpoint`, called first on a resume, and `_set_signature_columns_if_needed`, after which
    `_signature_columns` are the columns that reach the collator. And on SFTTrainer's `_prepare_dataset`, called in its
    constructor with the tokenizer as TRL's options have made it, which takes rows with `input_ids` and
    `completion_mask` as tokenised.
    """

    data_collator: Any
    _signature_columns: list[str]
    row_values: tuple[str, ...] = ()
    """Columns of the rows, beside the tokens', that the collator is given."""
    encode: Callable[[Any], Any] | None = None
    """Makes the tokenised rows with the tokenizer; set before the constructor runs. None leaves it to TRL."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, *args: Any, **kwargs: Any) -> Any:
        if self.encode is not None:
            dataset = self.encode(processing_class)
        return super()._prepare_dataset(dataset, processing_class, *args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *self.row_values]))

    def drop_curves(self, names: Iterable[str]) -> None:
        """Forget what TRL has noted of these curves since the last log: its means over micro-batches, which change with
        the cut, and of several processes leave some out at an epoch's end. Relies on `_metrics`."""
        for name in names:
            self._metrics["train"].pop(name, None)

    def write_own_state(self, folder: Path) -> None:
        """Add files to the checkpoint `folder`; called in the main process only."""

    def write_own_shard(self, folder: Path) -> None:
        """Add this process' own files to the checkpoint `folder`; called in every process."""

    def read_own_state(self, folder: Path) -> None:
        """Take back what `write_own_state` wrote; called in every process."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.write_own_state(Path(output_dir))
        self.write_own_shard(Path(output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # a checkpoint counts as complete by a file that is written after this

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.read_own_state(Path(resume_from_checkpoint))


def no_masks(*args: Any, **kwargs: Any) -> None:
    """In place of transformers' masks, for an attention that knows by itself who sees whom."""


@contextmanager
def attention_set_to(
    model: Any, name: str, forward: Callable[..., Any], masks: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Within: the model's attention is `forward`, registered with transformers as `name`.

    `masks` makes its masks. None: those of `sdpa`, or none where the attention whose place it takes has none.

    Relies on `config._attn_implementation`, as no public name says which attention is in use, on AttentionMaskInterface
    being a mapping, and on where `sdpa_mask` and, for a `forward` that calls it, `sdpa_attention_forward` are defined.
    """
    usual = model.config._attn_implementation
    if masks is None:
        masks = no_masks if AttentionMaskInterface().get(usual) is no_masks else sdpa_mask
    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, masks)
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
