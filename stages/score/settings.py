"""Settings of the score stage."""

from __future__ import annotations

from stages.settings import StageSettings, execution, identity


class ScoreSettings(StageSettings):
    """How generations are graded."""

    maths_timeout_s: float = identity(5.0, gt=0)
    """Wall seconds for one maths answer; past it the verdict is `timeout`."""
    code_timeout_s: float = identity(10.0, gt=0)
    """Wall seconds for one program; a problem whose reference is slow gets more."""
    max_grader_error_share: float = identity(0.01, ge=0, le=1)
    """Fail when the grader itself fails on more than this share of a benchmark's generations."""
    workers: int | None = execution(None, gt=0)
    """Grading processes; None takes one for each CPU thread."""
