"""Settings of the score stage: how long an answer or a program may take, and how many the grader itself may fail on."""

from typing import Literal

from stages.harness.settings import StageSettings, execution, identity, identity_where_set


class ScoreSettings(StageSettings):
    """How generations are graded."""

    maths_timeout_s: float = identity(5.0, gt=0)
    """Seconds on the clock for one answer that needs algebra."""
    code_timeout_s: float = identity(4.0, gt=0)
    """CPU seconds for one program; more where the reference program needs more than a quarter of it."""
    memory_mib: int = identity(4096, ge=256)
    """Address space of one program, in MiB."""
    packages: list[str] = identity_where_set([])
    """Filled from the pipeline's top-level `sandbox.packages`; write it there."""
    max_grader_error_share: float = identity(0.01, ge=0, le=1)
    """Share of generations that the grader itself may fail on; above it the stage fails. Those of problems that are
    refused by name (`not_graded`) are no failures."""
    require_sandbox: Literal["rlimits", "namespaces"] = execution("rlimits")
    """The least isolation that programs may run with; the machine's best is used either way. See evaluation/sandbox."""
    workers: int | None = execution(None, gt=0)
    """Items graded at once. None: as many as the machine's threads."""
