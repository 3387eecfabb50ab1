"""TRL's GRPOTrainer as this stage uses it, and every name of TRL and transformers in it that they do not promise.

Such names, private or undocumented, are used here alone. tests/stages/grpo/test_trl_internals.py tries each one, and
says what to read where a new version has changed it.

TRL's public way into a rollout, `GRPOTrainer(rollout_func=...)`, is experimental and not taken. It samples in place of
TRL: chat template, vLLM's request, and the log-probabilities that prove its weights would be code of ours. Resampling
would grade again what it keeps, and `completions/*` and `num_tokens` would count the final groups alone. No override
below would go: seconds and rewards are taken around the same methods.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import trl.generation.vllm_generation as vllm_generation
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch.nn.functional import pad
from trl import GRPOTrainer

from evaluation.engines import EngineUnavailable, vllm_internals
from evaluation.engines.vllm_engine import require_vllm
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, StageError
from stages.training import distributed
from stages.training.dealing import deal
from stages.training.library_internals import merged_parameters

LOGPROB_DIFFERENCES = {name: f"sampling/sampling_logp_difference/{name}" for name in ("max", "mean")}
"""TRL's curves of how the sampler's and the trainer's log-probability of a step's tokens differ, in nats: the proof
that vLLM holds the weights that are trained."""
ZERO_VARIANCE = "frac_reward_zero_std"
"""TRL's curve of the share of completions without an advantage, which StageTrainer corrects."""
SAME_REWARD = 1e-6
"""Rewards that differ by less count as equal: float32's rounding of a sum of parts."""
PARTS = ("generate", "sync", "grade", "train")
"""Of a step's seconds: sampling, weights to the sampler, rewards, and the rest (log-probabilities, loss, backward)."""


def configure_engine(ctx: Context[GrpoSettings]) -> None:
    """Give TRL's vLLM engine the run's dtype, and on a CPU keep its weights loadable. Call before the trainer is built.

    vLLM's own choice for a float32 checkpoint is a 16-bit type, and TRL has no option for it: this relies on TRL
    building the engine by the name `LLM` of its module. Raises StageError where vLLM or TRL cannot be configured so.
    """
    arguments: dict[str, Any] = {"dtype": ctx.settings.dtype, "disable_log_stats": True}
    try:
        require_vllm(ctx.machine.device)
        if ctx.machine.device == "cpu":
            vllm_internals.keep_weights_loadable()
            arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": ctx.settings.cpu_kv_cache_gib << 30}
    except EngineUnavailable as error:
        raise StageError(str(error), "Install the pinned set, or choose `grpo.rollout: transformers`.") from error
    if not hasattr(vllm_generation, "LLM"):
        fix = "Install the pinned versions, or choose `grpo.rollout: transformers`."
        raise StageError("this TRL does not build vLLM's engine where it did", fix)
    import vllm

    vllm_generation.LLM = functools.partial(vllm.LLM, **arguments)


def zero_variance_groups(rewards: torch.Tensor, num_generations: int) -> list[int]:
    """Numbers of the groups of equal rewards; `rewards` is [groups * num_generations], a group's side by side."""
    groups = rewards.view(-1, num_generations)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    return [group for group, width in enumerate(spread.tolist()) if width <= SAME_REWARD]


def whole_groups(needed: int, num_generations: int, processes: int) -> int:
    """The least number of groups, `needed` or more, whose completions the processes share evenly."""
    while needed * num_generations % processes:
        needed += 1
    return needed


class Sampled(NamedTuple):
    """One process' completions as `GRPOTrainer._generate` returns them, in its order; lists have an entry for each."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    tool_mask: Any
    completions: list[Any]
    logprobs: list[list[float]] | None
    """The sampler's; None where it gives none."""
    extra_fields: dict[str, Any]
    images: Any
    tool_images: Any


class WholeStepTrainer(GRPOTrainer):  # type: ignore[misc]
    """A GRPOTrainer whose optimizer step is the same however its completions are cut into micro-batches.

    TRL takes three means over the micro-batch of one process; here they are over all tokens of the optimizer step: the
    loss `bnpo`, the quantile of entropy above which tokens are trained on, and the entropy bonus. The load-balancing
    loss of a mixture of experts stays TRL's, since a forward pass defines it.

    So the completions of a step are dealt to its micro-batches by length. TRL pads all of a rollout to the longest.
    """

    loss_type: str
    _buffered_inputs: list[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.loss_type == "bnpo":  # the sum over tokens is dapo's, and so is what divides it, which each step sets
            self.loss_type = "dapo"
        self._in_use: list[dict[str, Any]] | None = None
        """Micro-batches of the rollout in use; TRL's `_buffered_inputs` as long as it has not sampled anew."""
        self._masks: list[torch.Tensor] = []
        """Of each micro-batch of the step: the tokens that the entropy bonus acts on, [completions, positions]."""
        self._chosen = False
        """Whether `_masks` were chosen by entropy over the whole step."""
        self._tokens = self._bonus_tokens = torch.tensor(0.0)
        """Over all micro-batches and processes: the step's tokens, and those of the entropy bonus."""
        self._entropies: torch.Tensor | None = None

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return inputs
        parts, rollout = self.current_gradient_accumulation_steps, self.args.steps_per_generation
        if self._buffered_inputs is not self._in_use:
            steps = [self._buffered_inputs[first : first + parts] for first in range(0, rollout, parts)]
            self._buffered_inputs = self._in_use = [batch for step in steps for batch in self._dealt(step)]
        first = self._step % rollout
        if self._step % parts == 0:
            self._measure_step(self._buffered_inputs[first : first + parts])
        inputs = self._buffered_inputs[first]
        if self.args.loss_type == "bnpo":  # TRL divides by `parts` of `rollout` shares of it
            inputs = {**inputs, "num_items_in_batch": self._tokens * rollout / parts}
        return inputs

    def _deal(self, prompts: torch.Tensor, completions: torch.Tensor, size: int) -> Any:
        """What `deal` makes of these masks, each [completions, positions]; a completion masked as a whole is empty."""
        lengths = zip(prompts.sum(1).tolist(), completions.sum(1).tolist(), strict=True)
        return deal(list(lengths), size, self.pad_to_multiple_of)

    def _dealt(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The micro-batches of an optimizer step, with its completions sorted by length and little padding."""
        values = {name: [batch[name] for batch in batches] for name in batches[0]}
        rows = {name: torch.cat(parts) if parts[0].ndim else parts[0] for name, parts in values.items()}
        width = rows["completion_ids"].shape[1:]

        def cut(name: str, value: torch.Tensor, part: list[int], prompt: int, completion: int) -> torch.Tensor:
            if name.startswith("prompt_"):
                return value[part, -prompt:]
            return value[part, :completion] if value.shape[1:] == width else value[part] if value.ndim else value

        dealt = self._deal(rows["prompt_mask"], rows["completion_mask"], len(batches[0]["prompt_ids"]))
        return [{name: cut(name, value, part, *widths) for name, value in rows.items()} for part, widths in dealt]

    def _measure_step(self, batches: list[dict[str, Any]]) -> None:
        """Count the tokens of an optimizer step, and choose those of high entropy where a part of it could not."""
        masks = [batch["completion_mask"] for batch in batches]
        several = distributed.world_size() > 1 and self._entropy_bonus_enabled
        self._chosen = self.top_entropy_quantile < 1 and (len(batches) > 1 or several)
        self._masks = masks
        if self._chosen:
            with torch.no_grad():
                entropies = [self._entropies_of(batch).flatten() for batch in batches]
            of_all = torch.cat([mask.flatten() for mask in masks])
            chosen = super().get_high_entropy_mask(torch.cat(entropies), of_all, 1 - self.top_entropy_quantile)
            parts = chosen.split([mask.numel() for mask in masks])
            self._masks = [part.view_as(mask) for part, mask in zip(parts, masks, strict=True)]
        self._tokens, self._bonus_tokens = (
            torch.stack([mask.sum() for mask in counted]).sum().float() for counted in (masks, self._masks)
        )
        distributed.sum_tensors([self._tokens, self._bonus_tokens])

    def _entropies_of(self, batch: dict[str, Any]) -> torch.Tensor:
        ids, mask = (torch.cat([batch[f"prompt_{part}"], batch[f"completion_{part}"]], 1) for part in ("ids", "mask"))
        length = batch["completion_ids"].size(1)
        scored = super()._get_per_token_logps_and_entropies(self.model, ids, mask, length, compute_entropy=True)
        entropies: torch.Tensor = scored[1]
        return entropies

    def get_high_entropy_mask(self, entropies: torch.Tensor, mask: torch.Tensor, threshold: float) -> torch.Tensor:
        """The tokens of one micro-batch that are trained on, [completions, positions], chosen over the whole step."""
        if self._chosen:
            return self._masks[self._step % self.current_gradient_accumulation_steps]
        here: torch.Tensor = super().get_high_entropy_mask(entropies, mask, threshold)
        return here

    def _get_per_token_logps_and_entropies(
        self, model: Any, ids: Any, mask: Any, logits_to_keep: int, batch_size: Any = None, **options: Any
    ) -> Any:
        score = functools.partial(super()._get_per_token_logps_and_entropies, model)
        if batch_size is None:  # a micro-batch of the loss
            result = score(ids, mask, logits_to_keep, **options)
            self._entropies = result[1]
            return result
        start = ids.size(1) - logits_to_keep  # all completions of a rollout, of which TRL keeps this alone
        dealt = self._deal(mask[:, :start], mask[:, start:], batch_size)
        parts = []
        for rows, (prompt, completion) in dealt:
            here = slice(start - prompt, start + completion)
            logps = score(ids[rows, here], mask[rows, here], completion, **options)[0]
            parts.append(pad(logps, (0, logits_to_keep - completion)))
        order = torch.tensor([row for rows, _ in dealt for row in rows], device=ids.device)
        return torch.cat(parts)[order.argsort()], None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        coefficient = self.entropy_coef if self._entropy_bonus_enabled else 0.0
        if self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target:
            coefficient = 0.0
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        entropies, self._entropies = self._entropies, None
        parts, processes = self.current_gradient_accumulation_steps, distributed.world_size()
        if coefficient and parts * processes > 1 and entropies is not None:
            mask = self._masks[self._step % parts]
            total = (entropies * mask).sum()
            of_micro_batch = total / mask.sum().clamp(min=1) / parts
            loss = loss + coefficient * (of_micro_batch - total * processes / self._bonus_tokens.clamp(min=1))
        return loss


class StageTrainer(WholeStepTrainer):
    """A GRPOTrainer with the parts of a step as public methods, whose seconds it logs as `time/PART` for each step."""

    control: Any
    _metrics: dict[str, dict[str, list[float]]]
    _pending_metrics: dict[str, list[float]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        super().__init__(*args, **kwargs)
        if self.use_vllm:
            self._sync_weights = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self.sync_weights
            if isinstance(self.model, PeftModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
                # TRL merges the adapter in place: see merged_parameters.
                self.vllm_generation._iter_named_params = functools.partial(merged_parameters, self.model)

    @contextlib.contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        """Count the seconds of a part of a training step; what is clocked within counts for the inner part alone."""
        training, started, others = self.model.training, time.perf_counter(), sum(self._seconds.values())
        yield
        if training:
            self._seconds[part] += time.perf_counter() - started - (sum(self._seconds.values()) - others)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self._step % self.current_gradient_accumulation_steps == 0:  # an optimizer step, for which TRL logs its time
            self._seconds["train"] = self.step_values["step_time"][-1] - sum(self._seconds.values())
            for part in PARTS:
                self.step_values[f"time/{part}"].append(self._seconds[part])
            self._seconds = dict.fromkeys(PARTS, 0.0)
        return loss

    def rollout(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch to train on, from this process' rows of the data; TRL calls `sample`, then `grade`, once each."""
        batch: dict[str, Any] = super()._generate_and_score_completions(rows)
        # TRL's share is of the deviation that divides advantages: with `scale_rewards: batch` that of the whole batch.
        self.step_values[ZERO_VARIANCE][-1] = self.zero_variance_share(self.total_reward(self._graded))
        return batch

    def sample(self, prompts: list[Any]) -> Sampled:
        """A completion of each of this process' prompts."""
        with self._clock("generate"):
            return Sampled(*super()._generate(prompts))

    def sync_weights(self) -> None:
        """Hand the trained weights to vLLM."""
        with self._clock("sync"):
            self._sync_weights()

    def grade(self, rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        """Rewards of all processes' completions, shape [completions, reward functions]."""
        with self._clock("grade"):
            self._graded: torch.Tensor = super()._calculate_rewards(rows, prompts, completions, completion_ids)
        return self._graded

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return self.rollout(inputs)

    def _generate(self, prompts: list[Any]) -> Sampled:
        return self.sample(prompts)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        return self.grade(inputs, prompts, completions, completion_ids_list)

    @property
    def step_values(self) -> dict[str, list[float]]:
        """What is logged in training since the last line of the log, by curve; TRL logs the mean of each."""
        return self._metrics["train"]

    @property
    def pending_values(self) -> dict[str, list[float]]:
        """What reward functions logged since the last rollout was scored; TRL logs the mean of each."""
        return self._pending_metrics

    def total_reward(self, rewards: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the rewards by reward function."""
        return (rewards * self.reward_weights.to(rewards.device)).sum(dim=1)

    def zero_variance_share(self, rewards: torch.Tensor) -> float:
        """The share of completions that are in a group of equal rewards."""
        size: int = self.num_generations
        return len(zero_variance_groups(rewards, size)) * size / len(rewards)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample and grade the dev problems, in batches of as many completions as a rollout has.

        TRL would compute a loss on each batch, which nobody looks at, and whose memory bounds the batch.
        """
        metrics: dict[str, float] = {}
        training = self.model.training
        self.model.eval()
        try:
            for rows in self._dev_batches():
                prompts = [row["prompt"] for row in rows]
                sampled = self.sample(prompts)
                self.grade(rows, prompts, sampled.completions, sampled.completion_ids)
            self.pending_values.clear()
            self.log(metrics)
        finally:
            self.model.train(training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _dev_batches(self) -> Iterator[list[dict[str, Any]]]:
        """This process' rows of each batch; where the last cannot be shared evenly, the first problems fill it up."""
        samples, problems = self.num_generations_eval, len(self.eval_dataset)
        size = max(1, self.args.generation_batch_size // samples)
        for start in range(0, problems, size):
            count = whole_groups(min(size, problems - start), samples, distributed.world_size())
            rows = [self.eval_dataset[number % problems] for number in range(start, start + count)]
            yield distributed.share([dict(row) for row in rows for _ in range(samples)])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the trained weights of a checkpoint, where SFT's adapter is trained on and `beta` is set, too.

        TRL then keeps a copy of the adapter under the name `ref`, which peft saves into a folder of the checkpoint.
        transformers takes such folders for all there is, and leaves out the trained adapter beside them.
        """
        saved = os.path.isfile(os.path.join(resume_from_checkpoint, SAFETENSORS_WEIGHTS_NAME))
        if saved and model is None and "ref" in getattr(self.model, "peft_config", {}):
            self.model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            self.model.set_adapter("default")
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
