"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): groups that are all right or all wrong give way to groups of other prompts.

TRL has no such option. What is used of it here are three methods: `_generate` samples completions, `_calculate_rewards` grades them, and
`_generate_and_score_completions` calls both and computes advantages. The step's rollout is put together beforehand with the first two, and
then handed to the third in their place, so that masks, advantages and the comparison with the sampler are TRL's own.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from stages.grpo.trainer import StageTrainer, equal_groups, whole_groups
from stages.harness.context import StageError
from stages.training import distributed

FIRST_REWARD = "resampling/reward"
"""Mean reward of the prompts a step drew first. `reward` is that of the completions trained on, which are chosen for being mixed."""

CORRECT = 0
"""Place of the part `correct` among the reward functions (`stages.grpo.rewards.Rewards.parts`)."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One completion as TRL hands it on; log-probabilities are the sampler's, None where it gives none."""

    row: Mapping[str, Any]
    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    completion: Any
    logprobs: Any


class ResamplingTrainer(StageTrainer):
    """A StageTrainer that samples further prompts for the groups of a step that are all right or all wrong, for at most `rounds` rounds.

    Prompts are drawn from the training set without those the step has had, by `seed` and the step's number: a resumed run draws the same.
    Each round samples only as many groups as are missing. What is still missing after the last round, or when no prompt is left, keeps its
    group, so that a step always has the same number of completions. Evaluation samples as ever.
    """

    def __init__(self, *args: Any, rounds: int, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rounds, self._draw_seed = rounds, seed
        self._ready: tuple[list[Sample], torch.Tensor] | None = None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.model.training:
            self._ready, inputs = self._rollout(inputs)
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self._ready is not None:
            raise StageError(
                "this TRL does not sample and grade where it did",
                "Install the pinned versions, or set grpo.resampling_rounds: 0.",
            )
        return batch

    def _rollout(self, rows: list[dict[str, Any]]) -> tuple[tuple[list[Sample], torch.Tensor], list[dict[str, Any]]]:
        """What the step trains on, and the rows of it that are this process'. The curve gets its figures here, save those of the loss."""
        metrics = self._metrics["train"]
        samples, first = self._sample(rows)
        before = {name: len(values) for name, values in metrics.items()}
        samples, rewards, drawn = self._replace_groups(samples, first)
        for name, values in metrics.items():  # lengths and the share cut stay those of the prompts drawn first
            if name != "num_tokens":
                del values[before.get(name, 0) :]
        for name, values in self._pending_metrics.items():  # counts of verdicts are of all completions that were graded
            self._pending_metrics[name] = [sum(values)]
        totals = self._total(first)
        metrics[FIRST_REWARD].append(totals.mean().item())
        metrics["resampling/frac_reward_zero_std"].append(
            len(equal_groups(totals, self.num_generations)) * self.num_generations / len(totals)
        )
        metrics["resampling/frac_same_verdict"].append(
            len(self._without_signal(first)) * self.num_generations / len(first)
        )
        metrics["resampling/rounds"].append(float(len(drawn)))
        metrics["resampling/groups"].append(float(sum(drawn)))
        return (samples, rewards), [dict(sample.row) for sample in samples]

    def _generate(self, prompts: list[Any]) -> Any:
        if self._ready is None:
            return super()._generate(prompts)
        samples, _ = self._ready
        logprobs = None if samples[0].logprobs is None else [sample.logprobs for sample in samples]
        ids = [list(sample.prompt_ids) for sample in samples], [list(sample.completion_ids) for sample in samples]
        return *ids, None, [sample.completion for sample in samples], logprobs, {}, *self._no_images

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        if self._ready is None:
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        (_, rewards), self._ready = self._ready, None
        return self._remembered(rewards)

    def _sample(self, rows: list[dict[str, Any]]) -> tuple[list[Sample], torch.Tensor]:
        """This process' completions of its rows, and the rewards of all processes' completions by reward function."""
        prompts = [row["prompt"] for row in rows]
        prompt_ids, completion_ids, tool_mask, completions, logprobs, extra, *self._no_images = self._generate(prompts)
        if tool_mask is not None or extra or any(self._no_images):
            raise StageError("completions with tools or images cannot be resampled", "Set grpo.resampling_rounds: 0.")
        rewards = self._calculate_rewards(rows, prompts, completions, completion_ids)
        columns = zip(rows, prompt_ids, completion_ids, completions, logprobs or [None] * len(rows), strict=True)
        return [Sample(*column) for column in columns], rewards

    def _without_signal(self, rewards: torch.Tensor) -> list[int]:
        """Numbers of the groups to replace, from the rewards by reward function.

        As in DAPO, what counts is whether the answers are right: a group that is all right differs by its form or length alone, and
        would teach only that. Where `correct` has no weight, the total reward decides.
        """
        decides = rewards[:, CORRECT] if self.reward_weights[CORRECT] > 0 else self._total(rewards)
        return equal_groups(decides, self.num_generations)

    def _replace_groups(
        self, samples: list[Sample], rewards: torch.Tensor
    ) -> tuple[list[Sample], torch.Tensor, list[int]]:
        """The same with groups without a signal replaced as far as the rounds, and the prompts, go; and each round's number of groups."""
        samples, rewards, drawn = list(samples), rewards.clone(), list[int]()
        here = distributed.rank() * len(samples)
        missing = self._without_signal(rewards)
        waiting = self._further_prompts(
            problem for part in distributed.gather([sample.row["problem"] for sample in samples]) for problem in part
        )
        while missing and len(drawn) < self._rounds:
            count = whole_groups(len(missing), self.num_generations, distributed.world_size())
            while (
                count > len(waiting) or count * self.num_generations % distributed.world_size()
            ):  # few are left: as many as can be shared
                count -= 1
            if count == 0:
                break
            drawn.append(count)
            found, found_rewards = self._sample_groups([waiting.pop() for _ in range(count)])
            equal = set(self._without_signal(found_rewards))
            mixed = [group for group in range(count) if group not in equal]
            for source, target in zip(mixed, missing, strict=False):
                for offset in range(self.num_generations):
                    place, taken = target * self.num_generations + offset, source * self.num_generations + offset
                    rewards[place] = found_rewards[taken]
                    if 0 <= place - here < len(samples):
                        samples[place - here] = found[taken]
            missing = missing[len(mixed) :]
        return samples, rewards, drawn

    def _further_prompts(self, had: Iterable[int]) -> list[int]:
        """Rows of the training set that this step has not had, in the order of the step's own draw."""
        had = set(had)
        left = [problem for problem in range(len(self.train_dataset)) if problem not in had]
        random.Random(f"{self._draw_seed} {self.state.global_step}").shuffle(left)
        return left

    def _sample_groups(self, problems: list[int]) -> tuple[list[Sample], torch.Tensor]:
        """All processes' completions of these problems, each process having sampled an equal share, and their rewards."""
        rows = [self.train_dataset[problem] for problem in problems for _ in range(self.num_generations)]
        share = len(rows) // distributed.world_size()
        samples, rewards = self._sample(rows[distributed.rank() * share : (distributed.rank() + 1) * share])
        return [sample for part in distributed.gather(samples) for sample in part], rewards
