"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): groups that are all right or all wrong give way to others.

TRL has no such option. A step's completions are sampled and graded here beforehand, until enough groups are mixed, and
then handed to TRL in place of what it would sample: masks, advantages and the comparison with the sampler are its own.
"""

import random
from typing import Any, NamedTuple

import torch

from stages.grpo.trl_internals import Sampled, StageTrainer, whole_groups, zero_variance_groups
from stages.harness.context import StageError
from stages.training import distributed

FIRST_REWARD = "resampling/reward"
"""Mean reward of the prompts a step drew first. TRL's `reward` is of those trained on, chosen for being mixed."""
CORRECT = 0
"""Place of the part `correct` among the reward functions (`stages.grpo.rewards.Rewards.parts`)."""


class Sample(NamedTuple):
    """One completion as TRL hands it on; log-probabilities are the sampler's, None where it gives none."""

    row: dict[str, Any]
    prompt_ids: list[int]
    completion_ids: list[int]
    completion: Any
    logprobs: list[float] | None


class ResamplingTrainer(StageTrainer):
    """A StageTrainer that samples other prompts for groups that are all right or all wrong, in up to `rounds` rounds.

    Prompts are drawn from the training set without those the step has had, by `seed` and the step's number: a resumed
    run draws the same. Each round samples as many groups as are missing. What is missing after the last round, or when
    no prompt is left, keeps its group: a step always has as many completions. Dev problems are not resampled.
    """

    def __init__(self, *args: Any, rounds: int, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rounds, self._draw_seed = rounds, seed
        self._ready: tuple[list[Sample], torch.Tensor] | None = None
        """What TRL gets in place of what it would sample and grade."""

    def rollout(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.model.training:
            samples, rewards = self._assemble(rows)
            self._ready = distributed.share(samples), rewards
            rows = [dict(sample.row) for sample in self._ready[0]]
        batch = super().rollout(rows)
        if self._ready is not None:
            fix = "Install the pinned versions, or set grpo.resampling_rounds: 0."
            raise StageError("this TRL does not sample and grade where it did", fix)
        return batch

    def sample(self, prompts: list[Any]) -> Sampled:
        if self._ready is None:
            return super().sample(prompts)
        _, prompt_ids, completion_ids, completions, logprobs = map(list, zip(*self._ready[0], strict=True))
        given = None if logprobs[0] is None else logprobs
        return Sampled(prompt_ids, completion_ids, None, completions, given, {}, None, [])

    def grade(self, rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        if self._ready is None:
            return super().grade(rows, prompts, completions, completion_ids)
        (_, self._graded), self._ready = self._ready, None
        return self._graded

    def _assemble(self, rows: list[dict[str, Any]]) -> tuple[list[Sample], torch.Tensor]:
        """All processes' completions to train on in a step, from this process' rows, and their rewards by function.

        Curves of lengths stay those of the prompts drawn first; verdicts and tokens count for everything sampled.
        """
        values = self.step_values
        first_samples, first = self._sample_all(rows)
        before = {name: len(entries) for name, entries in values.items()}
        samples, rewards, drawn = self._replace_groups(first_samples, first)
        for name, entries in values.items():
            if name != "num_tokens":
                del entries[before.get(name, 0) :]
        for name, entries in self.pending_values.items():
            self.pending_values[name] = [sum(entries)]
        totals = self.total_reward(first)
        values[FIRST_REWARD].append(totals.mean().item())
        values["resampling/frac_reward_zero_std"].append(self.zero_variance_share(totals))
        values["resampling/frac_same_verdict"].append(self.zero_variance_share(self._signal(first)))
        values["resampling/rounds"].append(float(len(drawn)))
        values["resampling/groups"].append(float(sum(drawn)))
        return samples, rewards

    def _sample_all(self, rows: list[dict[str, Any]]) -> tuple[list[Sample], torch.Tensor]:
        """All processes' completions, each of its own rows, and their rewards by reward function."""
        prompts = [row["prompt"] for row in rows]
        sampled = self.sample(prompts)
        if sampled.tool_mask is not None or sampled.extra_fields or sampled.images or sampled.tool_images:
            raise StageError("completions with tools or images cannot be resampled", "Set grpo.resampling_rounds: 0.")
        rewards = self.grade(rows, prompts, sampled.completions, sampled.completion_ids)
        logprobs: list[Any] = sampled.logprobs or [None] * len(rows)
        columns = rows, sampled.prompt_ids, sampled.completion_ids, sampled.completions, logprobs
        samples = [Sample(*values) for values in zip(*columns, strict=True)]
        return [sample for part in distributed.gather(samples) for sample in part], rewards

    def _signal(self, rewards: torch.Tensor) -> torch.Tensor:
        """The reward of each completion by which its group is kept or replaced, from the rewards by reward function.

        As in DAPO it is `correct`, since a group that is all right would teach form or length alone; the total reward
        where that has no weight.
        """
        return rewards[:, CORRECT] if self.reward_weights[CORRECT] > 0 else self.total_reward(rewards)

    def _without_signal(self, rewards: torch.Tensor) -> list[int]:
        """Numbers of the groups to replace, from the rewards by reward function."""
        return zero_variance_groups(self._signal(rewards), self.num_generations)

    def _replace_groups(
        self, samples: list[Sample], rewards: torch.Tensor
    ) -> tuple[list[Sample], torch.Tensor, list[int]]:
        """Both with groups without a signal replaced as far as rounds and prompts go; and the groups of each round."""
        samples, rewards, drawn = list(samples), rewards.clone(), list[int]()
        size, processes = self.num_generations, distributed.world_size()
        missing = self._without_signal(rewards)
        waiting = self._further_prompts({sample.row["problem"] for sample in samples})
        while missing and len(drawn) < self._rounds:
            count = whole_groups(len(missing), size, processes)
            while count > len(waiting) or count * size % processes:  # few are left: as many as can be shared
                count -= 1
            if count == 0:
                break
            drawn.append(count)
            prompts = [self.train_dataset[waiting.pop()] for _ in range(count)]
            rows = [prompt for prompt in prompts for _ in range(size)]
            new_samples, new_rewards = self._sample_all(distributed.share(rows))
            without = self._without_signal(new_rewards)
            mixed = [group for group in range(count) if group not in without]
            for source, target in zip(mixed, missing, strict=False):
                new, old = slice(source * size, (source + 1) * size), slice(target * size, (target + 1) * size)
                samples[old], rewards[old] = new_samples[new], new_rewards[new]
            missing = missing[len(mixed) :]
        return samples, rewards, drawn

    def _further_prompts(self, had: set[int]) -> list[int]:
        """Rows of the training set that this step has not had, in the order of the step's own draw."""
        problems = [problem for problem in range(len(self.train_dataset)) if problem not in had]
        random.Random(f"{self._draw_seed} {self.state.global_step}").shuffle(problems)
        return problems
