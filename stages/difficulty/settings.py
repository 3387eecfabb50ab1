"""Settings of the difficulty stage: which prompts are kept for RL, and whether RL starts at all."""

from typing import Self

from pydantic import model_validator

from stages.harness.settings import StageSettings, identity
from stages.score.settings import ScoreSettings


class DifficultySettings(StageSettings):
    """Prompts by the pass rate of the checkpoint that RL starts from, sampled as RL will sample.

    A group whose completions are all right or all wrong has no advantage: its prompt costs a rollout and teaches
    nothing.
    """

    samples: int = identity(8, gt=0)
    """Completions per prompt, with the temperature, lengths and system prompt of `grpo`."""
    above: float | None = identity(0.0, ge=0, lt=1)
    """Keep prompts whose share of right completions is larger. None: no bound."""
    below: float | None = identity(1.0, gt=0, le=1)
    """Keep prompts whose share of right completions is smaller. None: no bound."""
    min_solved: float | None = identity(None, gt=0, le=1)
    """RL starts only where at least this share of `data.dev` (of the prompts, where there is none) is solved in one of
    the samples: pass@k with k = samples."""
    max_solved: float | None = identity(None, gt=0, le=1)
    """RL starts only where no more than this share is: a policy that solves everything has little to learn."""
    scoring: ScoreSettings = identity(ScoreSettings())
    """Filled from the pipeline's `score:` section; write it there."""

    @model_validator(mode="after")
    def _some_rate_is_left(self) -> Self:
        above = -1.0 if self.above is None else self.above
        below = 2.0 if self.below is None else self.below
        if self.max_solved is not None and self.max_solved < (self.min_solved or 0.0):
            raise ValueError(f"max_solved: {self.max_solved} is less than min_solved {self.min_solved}")
        if not any(above < right / self.samples < below for right in range(self.samples + 1)):
            raise ValueError(
                f"below: no pass rate of {self.samples} samples lies above {self.above} and below {self.below}"
            )
        return self
