"""The `gate:` section of a config: what a score is held against, and what comes of it. None of it enters a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import field_validator, model_validator

from evaluation.gates.levels import LEVEL
from evaluation.gates.margin import FEWEST
from evaluation.gates.verdict import Rule
from evaluation.harness.nearest import nearest
from stages.generate.settings import BenchmarkSettings
from stages.harness.settings import StageSettings, execution

BASELINE = "baseline"
MOST_SAMPLES = 1024
"""Of each problem, for an undecided check: with so many, the variance within problems is next to nothing beside that
between them."""
MARGINS = ("max_drop", "max_change", "must_exceed")
BOUNDS = ("max_truncated", "max_no_answer")


class CheckSettings(StageSettings):
    """What one checkpoint has to keep on one benchmark: one of the margins, in points, bounds on rates, or both."""

    benchmark: str = execution()
    checkpoint: str | None = execution(None)
    """`base`, `sft` or `grpo`; None is the last one of the pipeline."""
    against: str = execution(BASELINE)
    """`baseline`, or an earlier checkpoint of the same run."""
    max_drop: float | None = execution(None, ge=0, lt=100)
    """Points that the score may be lower."""
    max_change: float | None = execution(None, gt=0, lt=100)
    """Points that the score may be lower or higher."""
    must_exceed: float | None = execution(None, ge=0, lt=100)
    """Points that the score has to be higher by more than."""
    max_truncated: float | None = execution(None, ge=0, le=100)
    """Per cent of the samples that may be cut at the token limit."""
    max_no_answer: float | None = execution(None, ge=0, le=100)
    """Per cent of the samples that may have no answer."""
    tier: Literal["critical", "advisory"] = execution("critical")
    """An advisory check is shown and counts for nothing."""

    @property
    def rule(self) -> Rule | None:
        """The margin; None where only rates are bounded."""
        if self.max_drop is not None:
            return Rule("drop", self.max_drop / 100)
        if self.max_change is not None:
            return Rule("change", self.max_change / 100)
        return Rule("exceed", self.must_exceed / 100) if self.must_exceed is not None else None

    @model_validator(mode="after")
    def _consistent(self) -> CheckSettings:
        margins = [name for name in MARGINS if getattr(self, name) is not None]
        if len(margins) > 1:
            raise ValueError(f"{margins[1]}: {margins[0]} is set already; a check has one margin, so write two checks")
        if not margins and all(getattr(self, name) is None for name in BOUNDS):
            raise ValueError(f"benchmark: nothing is asked of {self.benchmark}; set {', '.join((*MARGINS, *BOUNDS))}")
        return self


class GateSettings(StageSettings):
    """What scores are held against."""

    baseline: str | None = execution(None)
    """A run (its id or the beginning of it), the folder of a score artifact, or a scores file. None: the run that was
    blessed last (`vcore bless`), and before any was, the first run under the same protocol."""
    checks: list[CheckSettings] = execution([])
    level: float = execution(LEVEL, gt=0, lt=0.5)
    """Chance of a false alarm over all benchmarks and nights at one baseline, and of a false PASS."""
    more_samples: int | None = execution(None, gt=1, le=MOST_SAMPLES)
    """The most samples of each problem, up to 1,024. A critical check that is UNDECIDED, of a benchmark that is sampled
    at a temperature, gets twice as many as it had, again and again: of its checkpoint and of what it is held against.
    None: checks are judged on the benchmark's own `samples`."""
    window: int = execution(7, ge=0, le=100)
    """So many runs before this one whose mean is a second yardstick for whether a score moved. 0: none."""
    stop: bool = execution(True)
    """Whether a FAIL of a critical check ends a run before the next training, and a gate that cannot be judged keeps a
    run from starting."""

    @field_validator("baseline")
    @classmethod
    def _named(cls, baseline: str | None) -> str | None:
        if baseline is not None and not baseline.strip():
            raise ValueError("name a run (vcore runs), a scores file or an artifact's folder; null is the blessed run")
        return baseline


def check_gate(gate: GateSettings, sizes: Mapping[str, int | None], checkpoints: Sequence[str]) -> None:
    """Raise `ValueError`, beginning with the setting, for a check of what the pipeline does not measure.

    Args:
        sizes: benchmark -> the number of problems that the config asks for.
        checkpoints: of the pipeline, in the order of training.
    """
    for index, check in enumerate(gate.checks):
        where, checkpoint = f"gate.checks.{index}", check.checkpoint or checkpoints[-1]
        if check.benchmark not in sizes:
            what = f"{check.benchmark!r} is not measured here{nearest(check.benchmark, sizes)}"
            raise ValueError(f"{where}.benchmark: {what}")
        if checkpoint not in checkpoints:
            there = f"this pipeline has {', '.join(checkpoints)}"
            raise ValueError(f"{where}.checkpoint: there is no checkpoint {checkpoint!r}; {there}")
        before = checkpoints[: checkpoints.index(checkpoint)]
        if check.against not in (BASELINE, *before):
            can = ", ".join([BASELINE, *before])
            raise ValueError(f"{where}.against: {check.against!r} is nothing before {checkpoint}; it can be {can}")
        problems = sizes[check.benchmark]
        if check.rule is not None and problems is not None and problems < FEWEST:
            raise ValueError(f"{where}.benchmark: {problems} problems of {check.benchmark}, and a gate needs {FEWEST}")


def check_more_samples(gate: GateSettings, benchmarks: Sequence[BenchmarkSettings], *, served: bool) -> None:
    """Raise `ValueError`, beginning with the setting, where no check can have the further samples that are asked for.

    Args:
        benchmarks: of the pipeline.
        served: whether a server has the model.
    """
    most = gate.more_samples
    if most is None:
        return
    where = "gate.more_samples"
    if served:
        raise ValueError(
            f"{where}: a served model would be asked for all samples again; set benchmarks' samples higher"
        )
    checked = _checked(gate)
    if not checked:
        raise ValueError(f"{where}: no critical check has a margin that more samples could decide")
    drawn = [benchmark for benchmark in benchmarks if benchmark.name in checked and _is_drawn(benchmark)]
    if not drawn:
        raise ValueError(f"{where}: {', '.join(sorted(checked))}: greedy, so that further samples would be the same")
    if not more_sampled(gate, benchmarks):
        raise ValueError(f"{where}: the benchmarks have {most} samples or more already")


def more_sampled(gate: GateSettings, benchmarks: Sequence[BenchmarkSettings]) -> list[str]:
    """The benchmarks of which an undecided check may take more samples: of a critical check with a margin, sampled at a
    temperature, and fewer than `gate.more_samples` times."""
    most, checked = gate.more_samples or 0, _checked(gate)
    return [one.name for one in benchmarks if one.name in checked and _is_drawn(one) and one.samples < most]


def _checked(gate: GateSettings) -> set[str]:
    """The benchmarks of critical checks with a margin."""
    return {check.benchmark for check in gate.checks if check.rule is not None and check.tier == "critical"}


def _is_drawn(benchmark: BenchmarkSettings) -> bool:
    """Whether its samples may differ from each other; what a checkpoint's own file says is not known yet."""
    return benchmark.temperature > 0 or benchmark.from_generation_config
