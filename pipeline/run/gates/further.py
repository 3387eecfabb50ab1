"""More samples where a check of the gate is undecided: of its benchmark alone, until it is decided or has enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.markup import escape

from evaluation.gates.paired import Sampled
from pipeline.config.gate import BASELINE, CheckSettings
from pipeline.core.errors import Interrupted, StoreError, UserError
from pipeline.plan.decide import Decider, Options
from pipeline.plan.graph import Stage, evaluate
from pipeline.run.documents import FurtherSamples, GateVerdict
from pipeline.run.earlier_samples import GENERATE
from pipeline.run.execute import Executor, StageOutcome
from pipeline.run.gates.assess import Background, gate_verdicts
from pipeline.run.gates.baseline import read_scores
from pipeline.run.gates.gate import checkpoint_of, looks_at, whole
from pipeline.run.record import RunRecord

Want = tuple[str, str, int]
"""Checkpoint (of a baseline `RUN:sft`), benchmark, samples of each problem."""
Ensure = Callable[[Executor, Stage], StageOutcome]
"""Finds or makes a stage's artifact."""


def decide(
    executor: Executor, record: RunRecord, known: Background, checks: Sequence[CheckSettings], ensure: Ensure
) -> list[GateVerdict]:
    """The verdicts on checks of the run's gate, where `gate.more_samples` allows it on more samples than the config
    asks for.

    The samples of an undecided check are doubled, those of its checkpoint and of what it is held against, until all are
    decided or one has failed. A baseline that is a file, or whose model is gone, keeps those it has. What was claimed
    once stands: each look has its part of the level.

    Args:
        executor: of the run; it has the artifacts of all models that the checks name.
        known: gets the further scores.
    """
    failed: dict[Want, str] = {}
    while True:
        verdicts, wanted = gate_verdicts(known, executor.config.gate, checks), dict[Want, None]()
        judged = [check for check in checks if checkpoint_of(check, known.measured) is not None]
        for index, (check, one) in enumerate(zip(judged, verdicts, strict=True)):
            if one.verdict != "UNDECIDED" or one.difference is None:
                continue
            wants = list(_wanted(check, one.checkpoint, known, executor.config.gate.more_samples))
            if why := "; ".join(dict.fromkeys(failed[want] for want in wants if want in failed)):
                verdicts[index] = _because(one, f"more samples were not to be had: {why}")
            else:
                wanted |= dict.fromkeys(wants)
        if not wanted or whole(verdicts) == "FAIL":
            return verdicts
        for want in wanted:
            try:
                known.further[want] = _sample(executor, record, known, *want, ensure)
            except Interrupted:
                raise
            except UserError as error:  # the run has what it was to make: what is undecided remains so
                failed[want] = error.message
                executor.view.line(f"  {'gate':<15} [yellow]{escape(error.message)}[/]")


def _because(one: GateVerdict, why: str) -> GateVerdict:
    return one.model_copy(update={"reason": "; ".join(filter(None, [one.reason, why]))})


def _wanted(check: CheckSettings, checkpoint: str, known: Background, more_samples: int | None) -> Iterator[Want]:
    """What the next look at a check of a checkpoint takes and is not there."""
    benchmark, own = check.benchmark, known.scores[checkpoint, check.benchmark]
    sides = {checkpoint: own.samples}
    if check.against != BASELINE:
        sides[check.against] = known.scores[check.against, benchmark].samples
    elif known.anchor is not None and (old := known.anchor.find(checkpoint, benchmark)) is not None:
        side = f"{known.anchor.name}:{checkpoint}"
        sides |= {side: old.samples} if side in known.models else {}
    for samples in looks_at(own, check, more_samples)[1:]:
        wants = [(side, benchmark, samples) for side, has in sides.items() if has < samples]
        if missing := [want for want in wants if want not in known.further]:
            yield from missing
            return


def _sample(
    executor: Executor,
    record: RunRecord,
    known: Background,
    side: str,
    benchmark: str,
    samples: int,
    ensure: Ensure,
) -> Sampled:
    """Sample a checkpoint of the run or of its baseline on one benchmark more often, grade it, and note both. Of the
    samples only those are drawn that the store does not have (earlier_samples.py)."""
    run, _, checkpoint = side.rpartition(":")
    executor.view.line(f"  {'gate':<15} undecided: {samples} samples a problem of {escape(f'{benchmark}, {side}')}")
    config = executor.config
    asked = [one.model_copy(update={"samples": samples}) for one in config.benchmarks if one.name == benchmark]
    more = f".{benchmark.replace('.', '_')}-{samples}{'-baseline' if run else ''}"  # generate.sft.svamp-16
    stages = evaluate(config.model_copy(update={"benchmarks": asked}), checkpoint, more)
    forced = executor.decider.forced if not run else set()  # what was drawn anew is not mixed with what was there
    force = tuple(stage.name for stage in stages if f"{stage.program}.{checkpoint}" in forced)
    further = Executor(
        Decider(config, executor.store, Options(force=force), stages), executor.view, command=executor.command
    )
    further.outcomes, further.stopping = dict(executor.outcomes), executor.stopping
    if run:
        model = known.models[side]
        further.outcomes[checkpoint] = StageOutcome(checkpoint, "cached", model, model.manifest.seconds)
    noted = FurtherSamples(checkpoint=side, benchmark=benchmark, samples=samples, generations="")
    for stage in stages:
        key = ensure(further, stage).artifact.key
        noted = noted.model_copy(update={"generations" if stage.program == GENERATE else "scores": key})
        record.sampled_more(noted)
    found = read_scores(executor.store, str(noted.scores))
    if isinstance(found, str):
        raise StoreError(f"the scores {found}", where=f"score/{noted.scores}", fix="vcore store verify")
    return found[benchmark]
