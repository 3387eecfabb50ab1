"""One invocation of a pipeline, which the CLI and the Prefect flow work on: its plan, executor and run record."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.markup import escape

from pipeline.checks.preflight import preflight
from pipeline.config.gate import CheckSettings
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import (
    EXIT_CONFIG,
    EXIT_INTERRUPTED,
    EXIT_STAGE_FAILED,
    GateFailed,
    Interrupted,
    UserError,
    disk_trouble,
)
from pipeline.core.signals import asked_to_stop
from pipeline.launch.by_hand import hosting
from pipeline.plan.decide import TRIGGERS, Decider, Options
from pipeline.plan.graph import Stage
from pipeline.plan.planning import Planned, plan_stages
from pipeline.run.documents import GateVerdict
from pipeline.run.execute import Executor, StageOutcome
from pipeline.run.gates.assess import Background, assess, background, gate_verdicts
from pipeline.run.gates.further import Ensure, decide
from pipeline.run.gates.gate import COLOURS, CRITICAL, check_failed, line, whole
from pipeline.run.gates.planned import check_baseline, gate_notes
from pipeline.run.outlook import WORTH_SAYING_S, outlook
from pipeline.run.parallel import run_stages
from pipeline.run.record import RunRecord
from pipeline.run.view import View
from pipeline.store.store import Store

IGNORE_GATE = "gate.stop=false"
"""The override with which a run goes on although its gate failed."""


@dataclasses.dataclass
class Session:
    """A planned and checked run. Create it with `prepare`, then hand it to `pipeline.prefect_.run.run`."""

    path: Path
    """The config's file."""
    overrides: tuple[str, ...]
    config: PipelineConfig
    store: Store
    plan: list[Planned]
    executor: Executor
    record: RunRecord
    emit: Callable[..., None] = lambda event, **about: None
    """Tells an event to automations, where somebody shows the run: `session.emit("vcore.gate.failed",
    checkpoint="sft", benchmark="math500", payload={...})` (pipeline/prefect_/telling.py has the arguments)."""
    show_gate: Callable[[str, list[GateVerdict]], None] = lambda checkpoint, verdicts: None
    """Shows a gate that has been judged, where somebody shows the run: its verdicts, and the last checkpoint that was
    judged, empty at the run's end."""
    ensure: Ensure = lambda executor, stage: executor.ensure(stage)
    """Finds or makes a stage of further samples, and shows it where somebody shows the run."""
    _hosted: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack, repr=False)
    """Holds the place where nodes meet that were started by hand, until the run has ended."""
    _further: list[StageOutcome] = dataclasses.field(default_factory=list, repr=False)
    """Of stages that sampled more for an undecided check."""
    _judged: set[tuple[str, ...]] = dataclasses.field(default_factory=set, repr=False)
    """The scores that a gate has let pass."""

    @classmethod
    def prepare(cls, path: Path, overrides: list[str], options: Options, view: View) -> Session:
        """Plan, check, and open the run record. Raises `ConfigError` or `StoreError` before anything has been
        computed; nodes that were started by hand, and wait for this run, then hear of it."""
        config = load_config(path, overrides)
        with contextlib.ExitStack() as hosted:
            with _disk_errors(config.home_folder):
                hosted.enter_context(hosting(config.home_folder, config.execution))
            session = cls._prepare(path, overrides, config, options, view)
            session._hosted = hosted.pop_all()
        return session

    @classmethod
    def _prepare(
        cls, path: Path, overrides: list[str], config: PipelineConfig, options: Options, view: View
    ) -> Session:
        decider, plan = _planned(config, options, running=True)
        store = decider.store
        for planned in plan:
            for note in planned.notes:
                view.line(f"[yellow]{planned.stage.name}: {escape(note)}[/]")
        for note in gate_notes(config, store):
            view.line(f"[yellow]gate: {escape(note)}[/]")
        command = command_line(path, overrides, options)
        with _disk_errors(store.home, "the run's record"):
            record = RunRecord.start(store.home, config, command, [planned.as_json() for planned in plan], view.line)
        return cls(path, tuple(overrides), config, store, plan, Executor(decider, view, command=command), record)

    @property
    def options(self) -> Options:
        """The command line's choices."""
        return self.executor.decider.options

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage is in the store or on the mirror, by the plan."""
        return all(planned.state == "HIT" for planned in self.plan)

    @property
    def nothing_ran(self) -> bool:
        """Whether no stage that has ended was computed, those of further samples among them."""
        return all(outcome.state == "cached" for outcome in (*self.executor.outcomes.values(), *self._further))

    @property
    def outlook(self) -> str:
        """When the run will end, and what it will cost, in a line; empty where nothing is known, or little is left."""
        return outlook(self.plan, self.config.execution, self.executor.outcomes)

    @property
    def report_folder(self) -> Path | None:
        """The report's artifact; None where the run has none, or not yet."""
        outcome = self.executor.outcomes.get("report")
        return outcome.artifact.folder if outcome else None

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record how the run ends; what it is left with by an exception names the command that continues it.

        An error that means wrong arguments before a run means a failed run from here on: its exit code becomes 1.
        """
        try:
            with self._hosted, _disk_errors(self.store.home):
                yield
                self.record.end("done")
        except UserError as error:
            if error.exit_code == EXIT_CONFIG:
                error.exit_code = EXIT_STAGE_FAILED
            self.record.end("interrupted" if error.exit_code == EXIT_INTERRUPTED else "failed", str(error))
            anyway = (IGNORE_GATE,) if isinstance(error, GateFailed) else ()
            error.continue_with = self.continue_command(*anyway)
            raise
        except BaseException as error:
            self.record.end("interrupted", f"{type(error).__name__}: {error}")
            if asked_to_stop():
                stopped = Interrupted("interrupted")
                stopped.continue_with = self.continue_command()
                raise stopped from error
            raise

    def finish(self) -> None:
        """Keep a copy of the report, where there is one, and hold its scores against the anchor and the gate. Once."""
        if self.report_folder is not None and self.record.data.moved is None:
            self.record.keep_report(self.report_folder)
            known = assess(self.store, self.record.data, self.config.gate)
            if checks := self.config.gate.checks:
                self.record.data.gate = self._decide(known, checks)
            self._tell_gate("")

    def run_remaining(self) -> None:
        """Run every stage that has no outcome yet, without Prefect."""
        self.run_stages(self.run_stage)

    def run_stages(self, run: Callable[[Stage], object]) -> None:
        """Call `run` with every stage that has no outcome yet, as many at once as the config says."""
        left = [planned.stage for planned in self.plan if planned.stage.name not in self.executor.outcomes]
        run_stages(left, self.config.execution.stages_at_once, run, self.executor.stopping)

    def run_stage(self, stage: Stage, view: View | None = None) -> StageOutcome:
        """Find or make one stage's artifact and record it; shown in `view` instead of the executor's own."""
        if asked_to_stop():  # and a library swallowed it
            raise Interrupted("interrupted")
        # Here and not in the caller: Prefect, through which this is called, wraps errors it does not know.
        with _disk_errors(self.store.home, f"stage {stage.name}"):
            if stage.after:
                self._pass_gate(stage)
            self.record.stage_begins(stage.name)
            outcome = self.executor.ensure(stage, view)
            self.record.stage_done(outcome)
            if outcome.state == "ran" and outcome.seconds >= WORTH_SAYING_S and (left := self.outlook):
                self.executor.view.line(f"  {left}")
        return outcome

    def _pass_gate(self, stage: Stage) -> None:
        """Judge the checkpoints there are before a training. Raises `GateFailed` where a critical check fails, unless
        `gate.stop` is off."""
        if stage.after in self._judged:
            return
        gate, record = self.config.gate, self.record.data
        judged = [check for check in gate.checks if f"score.{check.checkpoint}" in stage.after]
        known = background(self.store, record, gate)
        record.anchor, record.look = known.anchor.name if known.anchor is not None else None, known.look
        record.gate = self._decide(known, judged)
        self.record.save()
        for one in record.gate:
            colour = COLOURS[one.verdict]
            said = f"[{colour}]{one.verdict}[/] {escape(f'{one.benchmark}, {one.checkpoint}: {line(one)}')}"
            self.executor.view.line(f"  {'gate':<15} {said}")
        self._tell_gate(stage.after[-1].partition(".")[2])
        if gate.stop:
            check_failed(record.gate, stage.name)
        self._judged.add(stage.after)

    def _decide(self, known: Background, checks: Sequence[CheckSettings]) -> list[GateVerdict]:
        """The verdicts on checks; more is sampled for undecided ones, unless one stage was to run alone."""

        def ensure(executor: Executor, stage: Stage) -> StageOutcome:
            if asked_to_stop():  # and a library swallowed it
                raise Interrupted("interrupted")
            self._further.append(self.ensure(executor, stage))
            return self._further[-1]

        if self.options.only is not None:
            return gate_verdicts(known, self.config.gate, checks)
        return decide(self.executor, self.record, known, checks, ensure)

    def _tell_gate(self, checkpoint: str) -> None:
        """Show the gate, with events for automations: each critical check that failed, or once that the gate passed.

        Args:
            checkpoint: the last one that was judged; empty at the end of the run.
        """
        verdicts = self.record.data.gate or []
        if verdicts:
            self.show_gate(checkpoint, verdicts)
        for one in verdicts:
            if one.tier == CRITICAL and one.verdict == "FAIL":
                self.emit(
                    "vcore.gate.failed", checkpoint=one.checkpoint, benchmark=one.benchmark, payload=one.to_json()
                )
        if verdicts and whole(verdicts) == "PASS":
            told = {"checks": [one.to_json() for one in verdicts]}
            self.emit("vcore.gate.passed", checkpoint=checkpoint or verdicts[-1].checkpoint, payload=told)

    def continue_command(self, *more: str) -> str:
        """The command that goes on where this run ended: it forces what was forced and has not been computed.

        Args:
            more: further overrides.
        """
        left = self.executor.decider.forced - self.executor.outcomes.keys()
        force = tuple(planned.stage.name for planned in self.plan if planned.stage.name in left)
        options = dataclasses.replace(self.options, force=force, start=None)
        return command_line(self.path, [*self.overrides, *more], options)

    def summary(self) -> str:
        """`8 stages: 2 ran, 6 cached`"""
        states = [outcome.state for outcome in self.executor.outcomes.values()]
        ran, stages = states.count("ran"), "stage" if len(states) == 1 else "stages"
        text = f"{len(states)} {stages}: {ran} ran, {states.count('cached')} cached"
        if more := sum(outcome.state == "ran" for outcome in self._further):
            text += f"; {more} more for undecided checks of the gate"
        return f"{text}; nothing has changed" if self.nothing_ran else text


@contextlib.contextmanager
def _disk_errors(home: Path, where: str = "") -> Iterator[None]:
    """What the disk refuses, as a `StoreError` that says what to do."""
    try:
        yield
    except (ConnectionError, TimeoutError):  # of a server, not of a disk
        raise
    except OSError as error:
        raise disk_trouble(error, home, where) from error


def plan_only(path: Path, overrides: list[str], options: Options) -> tuple[PipelineConfig, Store, list[Planned]]:
    """Config, store and plan, checked; what `vcore plan` shows. A store that is there is only read."""
    decider, plan = _planned(load_config(path, overrides), options, running=False)
    return decider.config, decider.store, plan


def _planned(config: PipelineConfig, options: Options, *, running: bool) -> tuple[Decider, list[Planned]]:
    store = Store(config.home_folder, writing=running or not (config.home_folder / "store").is_dir())
    decider = Decider(config, store, options)
    plan = plan_stages(decider)
    preflight(config, plan)
    check_baseline(config, store, plan)
    return decider, plan


def command_line(path: Path, overrides: list[str], options: Options) -> str:
    """The command that repeats this run, as one would type it."""
    triggers = ",".join(options.triggers) if options.triggers != tuple(TRIGGERS) else None
    chosen = [("--from", options.start), ("--only", options.only), ("--until", options.until)]
    pairs = [("--set", override) for override in overrides] + [("--force", name) for name in options.force]
    pairs += [(option, value) for option, value in [*chosen, ("--rerun-triggers", triggers)] if value]
    return shlex.join(["vcore", "run", str(path), *(word for pair in pairs for word in pair)])
