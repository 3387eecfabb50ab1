"""A GRPOTrainer whose optimizer step is the same however its completions are cut into micro-batches."""

import functools
from typing import Any

import torch
from torch.nn.functional import pad
from trl import GRPOTrainer

from stages.grpo.trl_internals import shared_prompts
from stages.grpo.trl_internals.sampler_check import SamplerCheck
from stages.grpo.trl_internals.shared_prompts import Shared
from stages.grpo.trl_internals.step_means import StepMeans
from stages.training import distributed
from stages.training.dealing import Lengths, deal, deal_together, deal_within
from stages.training.same_outputs import check_same, has_dropout

MEANS_OF_COMPLETIONS = ("grpo", "sapo", "dr_grpo", "luspo")
"""Losses of TRL's that are divided by the completions of a micro-batch; all others by a number that it is given."""

SHARED = "shared"
"""Key of a micro-batch's `Shared`, beside TRL's tensors; None where completions share no prompts."""


class WholeStepTrainer(GRPOTrainer):  # type: ignore[misc]
    """A GRPOTrainer whose optimizer step is the same however its completions are cut into micro-batches.

    TRL takes three means over the micro-batch of one process; here they are over all tokens of the optimizer step: the
    loss `bnpo`, the quantile of entropy above which tokens are trained on, and the entropy bonus. So are the curves
    that `StepMeans` names. The load-balancing loss of experts stays TRL's, since a forward pass defines it.

    So the completions of a step are dealt to its micro-batches by length. TRL pads all of a rollout to the longest. And
    those that move no weight are left out of forward and backward pass, where that changes nothing: see `_trained_on`.
    Completions of one prompt may share it in the model's input: see `Shared`.
    Where vLLM samples for one step, the sampler is compared with the trainer in that step's forward: see SamplerCheck.
    """

    loss_type: str
    vllm_importance_sampling_correction: bool
    _metrics: dict[str, dict[str, list[float]]]
    _buffered_inputs: list[dict[str, Any]]

    def __init__(self, *args: Any, max_tokens: int | None = None, share_prompts: bool = False, **kwargs: Any) -> None:
        """`max_tokens`: of a micro-batch, padding included; TRL's batches are then of one completion each.

        Raises StageError where `share_prompts` would change the step: see `require_same`.
        """
        super().__init__(*args, **kwargs)
        self._max_tokens = max_tokens
        self._shares = share_prompts
        self._shared_checked = False
        """Whether completions that did share a prompt have been compared with rows of their own."""
        if share_prompts:
            shared_prompts.require_same(self.model, experts=self.aux_loss_enabled)
        if self.loss_type == "bnpo":  # the sum over tokens is dapo's, and so is what divides it, which each step sets
            self.loss_type = "dapo"
        self._in_use: list[dict[str, Any]] | None = None
        """Micro-batches of the rollout in use; TRL's `_buffered_inputs` as long as it has not sampled anew."""
        self._masks: list[torch.Tensor] = []
        """Of each micro-batch of the step: the tokens that the entropy bonus acts on, [completions, positions]."""
        self._chosen = False
        """Whether `_masks` were chosen by entropy over the whole step."""
        self._bonus_tokens = torch.tensor(0.0)
        """Tokens of the entropy bonus, over all micro-batches and processes."""
        self._entropies: torch.Tensor | None = None
        bounds = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        self._check = SamplerCheck(self.vllm_importance_sampling_mode, *bounds)
        self._means = StepMeans(by_sequence=self.importance_sampling_level == "sequence")
        self._reuses = False
        """Whether the rollout in use has no log-probabilities of the trainer, but gets them in the training forward."""
        self._scored: dict[str, Any] = {}
        """The micro-batch that is in the training forward."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        correction, parts = self.vllm_importance_sampling_correction, self.current_gradient_accumulation_steps
        one_step = self.num_iterations == 1 and self.args.steps_per_generation == parts
        self._reuses = self.use_vllm and correction and self.model.training and one_step and not self._sharded
        self._reuses = self._reuses and not has_dropout(self.model)  # else no two forwards are the same
        self.vllm_importance_sampling_correction = correction and not self._reuses
        try:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        finally:
            self.vllm_importance_sampling_correction = correction
        return batch

    @property
    def _sharded(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return inputs
        parts, rollout = self.current_gradient_accumulation_steps, self.args.steps_per_generation
        if self._buffered_inputs is not self._in_use:
            steps = [self._buffered_inputs[first : first + parts] for first in range(0, rollout, parts)]
            self._buffered_inputs = self._in_use = [batch for step in steps for batch in self._dealt(step)]
        first = self._step % rollout
        if self._step % parts == 0 and (self._entropy_bonus_enabled or self.top_entropy_quantile < 1):
            self._measure_entropy(self._buffered_inputs[first : first + parts])
        dealt: dict[str, Any] = self._buffered_inputs[first]
        return dealt

    def _deal(
        self, ids: torch.Tensor, prompts: torch.Tensor, completions: torch.Tensor, size: int
    ) -> list[tuple[list[int], Lengths, Shared | None]]:
        """The micro-batches of these masks, each [completions, positions]; a completion masked as a whole is empty.

        With each, where its completions share prompts, of the tokens `ids`, how they do.
        """
        lengths = list(zip(prompts.sum(1).tolist(), completions.sum(1).tolist(), strict=True))
        if self._shares:
            numbers = shared_prompts.numbers(ids, prompts)
            return [
                (rows, widths, Shared.of([lengths[row] for row in rows], [numbers[row] for row in rows], widths))
                for rows, widths in deal_together(lengths, numbers, size, self.pad_to_multiple_of)
            ]
        if self._max_tokens is None:
            dealt = deal(lengths, size, self.pad_to_multiple_of)
        else:
            dealt = deal_within(lengths, self._max_tokens, self.pad_to_multiple_of, distributed.gather)
        return [(rows, widths, None) for rows, widths in dealt]

    def _dealt(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The micro-batches of an optimizer step: those of `_trained_on`, sorted by length, with little padding.

        There are as many as before. What is left over is empty, and comes first: processes share their gradients in
        the last one.
        """
        values = {name: [batch[name] for batch in batches] for name in batches[0]}
        rows = {name: torch.cat(parts) if parts[0].ndim else parts[0] for name, parts in values.items()}
        prompts, completions = rows["prompt_mask"], rows["completion_mask"]
        if self.args.loss_type == "bnpo":
            tokens = completions.sum().float()
            distributed.sum_tensors([tokens])  # TRL divides by one share of `steps_per_generation`, for each batch
            rows["num_items_in_batch"] = tokens * self.args.steps_per_generation / len(batches)

        def cut(name: str, value: torch.Tensor, part: list[int], prompt: int, completion: int) -> torch.Tensor:
            if name.startswith("prompt_"):
                return value[part, -prompt:]
            if value.shape[1:] == completions.shape[1:]:
                return value[part, :completion]
            return value[part] if value.ndim else value

        trained = self._trained_on(rows["advantages"], completions)
        size, ids = len(batches[0]["prompt_ids"]), rows["prompt_ids"]
        dealt = []
        for part, widths, shared in self._deal(ids[trained], prompts[trained], completions[trained], size):
            here = [trained[row] for row in part]
            batch = {name: cut(name, value, here, *widths) for name, value in rows.items()}
            dealt.append({**batch, SHARED: shared})
        empty: list[dict[str, Any]] = [{} for _ in batches[len(dealt) :]]
        return empty + dealt

    def _trained_on(self, advantages: torch.Tensor, mask: torch.Tensor) -> list[int]:
        """Numbers of the completions of a step, [completions], that go through the model; as many in each process.

        A completion without an advantage, or without a token in `mask`, has a gradient of 0 in every loss. All go
        through the model where it has another one: with `beta`, an entropy bonus or the load-balancing loss of experts;
        where its entropies help to choose tokens; and under FSDP and DeepSpeed, for which it was not tried. What
        divides a loss counts all completions, whoever goes through the model.

        A process that has fewer fills up with its shortest others: metrics are gathered from equally many. One
        completion goes through the model in any case, and leaves a gradient of 0 where no gradient at all would be
        another step; as many as a group has where they are compared with the sampler.
        """
        others = self.beta != 0 or self._entropy_bonus_enabled or self.top_entropy_quantile < 1 or self.aux_loss_enabled
        if others or self._sharded:
            return list(range(len(mask)))
        lengths = mask.sum(1).tolist()
        moves = ((advantages != 0) & mask.any(1)).tolist()
        most = max(self.num_generations if self._reuses else 1, *distributed.gather(sum(moves)))
        order = sorted(range(len(mask)), key=lambda row: (not moves[row], lengths[row]))
        return sorted(order[:most])

    def _measure_entropy(self, batches: list[dict[str, Any]]) -> None:
        """Choose the tokens of high entropy over an optimizer step, and count those that the entropy bonus acts on."""
        empty, batches = [batch for batch in batches if not batch], [batch for batch in batches if batch]
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
        self._bonus_tokens = torch.stack([mask.sum() for mask in self._masks]).sum().float()
        distributed.sum_tensors([self._bonus_tokens])
        self._masks = [masks[0] for _ in empty] + self._masks  # of the empty ones nothing is asked

    def _entropies_of(self, batch: dict[str, Any]) -> torch.Tensor:
        ids, mask = (torch.cat([batch[f"prompt_{part}"], batch[f"completion_{part}"]], 1) for part in ("ids", "mask"))
        length = batch["completion_ids"].size(1)
        scored = self._score(self.model, ids, mask, length, batch[SHARED], compute_entropy=True)
        entropies: torch.Tensor = scored[1]
        return entropies

    def _score(self, model: Any, ids: Any, mask: Any, length: int, shared: Shared | None, **options: Any) -> Any:
        """Log-probabilities and entropies as TRL computes them, of completions that may share prompts."""
        alone = functools.partial(super()._get_per_token_logps_and_entropies, model, ids, mask, length, **options)
        if shared is None:
            return alone()
        entropy = bool(options.get("compute_entropy"))
        with self.accelerator.autocast():
            logps, entropies = shared.score(model, ids, length, entropy=entropy)
        if not self._shared_checked and any(distributed.gather(shared.has_company)):  # a forward of every process
            with torch.no_grad():
                with self.accelerator.autocast():
                    sees_all, _ = shared.score(model, ids, length, sees_all=True)
                expected, exact = alone()[0], not (self.args.bf16 or self.args.fp16)
            if shared.has_company:  # else all see the same, and there is nothing to tell
                own = mask[:, -length:]
                check_same(logps.detach(), expected, sees_all, own, shared_prompts.SETTING, exact=exact)
            self._shared_checked = True
        return logps, entropies, None

    def get_high_entropy_mask(self, entropies: torch.Tensor, mask: torch.Tensor, threshold: float) -> torch.Tensor:
        """The tokens of one micro-batch that are trained on, [completions, positions], chosen over the whole step."""
        if self._chosen:
            return self._masks[self._step % self.current_gradient_accumulation_steps]
        here: torch.Tensor = super().get_high_entropy_mask(entropies, mask, threshold)
        return here

    def _get_per_token_logps_and_entropies(
        self, model: Any, ids: Any, mask: Any, logits_to_keep: int, batch_size: Any = None, **options: Any
    ) -> Any:
        if batch_size is None:  # a micro-batch of the loss
            result = self._score(model, ids, mask, logits_to_keep, self._scored.get(SHARED), **options)
            self._entropies = result[1]
            if self._reuses:
                sampled, tokens = self._scored["sampling_per_token_logps"], self._scored["completion_mask"]
                self._scored["importance_sampling_ratio"] = self._check.ratio(result[0].detach(), sampled, tokens)
            return result
        start = ids.size(1) - logits_to_keep  # all completions of a rollout, of which TRL keeps this alone
        dealt = self._deal(ids[:, :start], mask[:, :start], mask[:, start:], batch_size)
        parts = []
        for rows, (prompt, completion), shared in dealt:
            here = slice(start - prompt, start + completion)
            logps = self._score(model, ids[rows, here], mask[rows, here], completion, shared, **options)[0]
            parts.append(pad(logps, (0, logits_to_keep - completion)))
        order = torch.tensor([row for rows, _, _ in dealt for row in rows], device=ids.device)
        return torch.cat(parts)[order.argsort()], None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if not inputs:
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        coefficient = self.entropy_coef if self._entropy_bonus_enabled else 0.0
        if self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target:
            coefficient = 0.0
        self._scored = inputs = dict(inputs)
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        if self.model.training:
            self._means.add(inputs["completion_mask"])
            if (self._step + 1) % self.current_gradient_accumulation_steps == 0:
                self._means.finish(self._metrics["train"])
                for name, value in self._check.curves().items() if self._reuses else ():
                    self._metrics["train"][name].append(value)
        share = 1.0
        if self.loss_type in MEANS_OF_COMPLETIONS:
            share = len(inputs["prompt_ids"]) / self.args.per_device_train_batch_size
            loss = loss * share
        entropies, self._entropies = self._entropies, None
        parts, processes = self.current_gradient_accumulation_steps, distributed.world_size()
        if coefficient and parts * processes > 1 and entropies is not None:
            mask = self._masks[self._step % parts]
            total = (entropies * mask).sum()
            of_micro_batch = total / mask.sum().clamp(min=1) / parts
            loss = loss + coefficient * (share * of_micro_batch - total * processes / self._bonus_tokens.clamp(min=1))
        return loss
