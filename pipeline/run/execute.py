"""Making the artifacts of stages: found, fetched, or computed by a process and published. Knows nothing of Prefect."""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from pipeline.checks.sizes import smaller_micro_batch
from pipeline.core.errors import Interrupted, StageFailed, StoreError, disk_trouble
from pipeline.core.interpreters import environment_of, link_code
from pipeline.core.shipped import DISTRIBUTION
from pipeline.core.version import own_code
from pipeline.launch.environment import stage_environment
from pipeline.launch.gpus import lease
from pipeline.launch.machine import comes_back, cores, hardware, leased_gpus, stage_device, visible_gpus
from pipeline.launch.process import Launch, run_process
from pipeline.plan.decide import Decider, Decision
from pipeline.plan.graph import Stage
from pipeline.run.earlier_samples import GENERATE, earlier_samples
from pipeline.run.view import View
from pipeline.store.documents import GitState, InputRecord, ManifestDraft, utc_now
from pipeline.store.store import Artifact
from stages.harness.documents import Machine, Spec, StageResult


@dataclasses.dataclass(frozen=True)
class StageOutcome:
    """How a stage ended: `cached` where its artifact was there or was fetched, `ran` where it was computed now."""

    stage: str
    state: Literal["cached", "ran"]
    artifact: Artifact
    seconds: float
    """How long the computation took, whenever that was."""
    accepted: str = ""
    """What differs from what was asked for, where `--rerun-triggers` let it pass."""

    def as_json(self) -> dict[str, Any]:
        """The outcome as run records and reports list it."""
        memory = self.artifact.manifest.peak_memory_gib
        row = {"name": self.stage, "key": self.artifact.key, "state": self.state, "seconds": round(self.seconds, 2)}
        row |= {"peak_memory_gib": memory}
        return row | ({"accepted": self.accepted} if self.accepted else {})


class Executor:
    """Runs the stages of one pipeline against one store, as its decider says.

    Attributes:
        view: where stages are shown.
        command: what continues the run, for the manifests.
        outcomes: of the stages that have their artifact, by name.
        stopping: set where stages run in threads of their own: each then stops its process, or gives up waiting.
    """

    def __init__(self, decider: Decider, view: View, *, command: str) -> None:
        self.decider, self.view, self.command = decider, view, command
        self.config, self.store = decider.config, decider.store
        self.outcomes: dict[str, StageOutcome] = {}
        self.stopping = threading.Event()

    def ensure(self, stage: Stage, view: View | None = None) -> StageOutcome:
        """Find or make a stage's artifact, after those of its inputs. It is shown in `view` instead of the executor's.

        Raises:
            StageFailed: its process ended without a result, or what its key stands for changed meanwhile.
            Interrupted: it was stopped on request.
            StoreError: the store or the mirror cannot be used.
        """
        inputs = {name: self.outcomes[source.stage].artifact for name, source in stage.inputs.items()}
        outcome = _StageRun(self, stage, inputs, view or self.view).ensure()
        self.store.remember(self.config.name, stage.name, outcome.artifact.manifest)
        self.outcomes[stage.name] = outcome
        return outcome


@dataclasses.dataclass(frozen=True)
class _StageRun:
    """One stage, its inputs, and where it is shown."""

    run: Executor
    stage: Stage
    inputs: dict[str, Artifact]
    view: View

    def ensure(self) -> StageOutcome:
        program, store = self.stage.program, self.run.store
        decision = self.run.decider.decide(self.stage, self.inputs)
        if decision.action in ("hit", "accept") and not store.has_remains(program, decision.key):
            outcome = self._cached(decision)
        else:
            with store.lock(program, decision.key, self._waits_for, self._give_up) as lock:
                store.clear_remains(program, decision.key)
                outcome = self._ensure_locked(lock)
        self._push(outcome.artifact)
        return outcome

    def _ensure_locked(self, lock: int) -> StageOutcome:
        """Decide again with the key's lock held: another run may have made, or repaired, the artifact meanwhile."""
        decider, program = self.run.decider, self.stage.program
        decision = decider.decide(self.stage, self.inputs)
        if decision.damage and self.stage.name not in decider.forced:
            aside = escape(str(self.run.store.set_aside(program, decision.key)))
            self._say(f"[yellow]{escape(decision.damage)}: set aside in {aside} and made again[/]")
        if decision.action == "fetch" and decider.mirror is not None:
            fetched = decider.mirror.fetch(self.run.store, program, decision.key)
            if fetched is not None:
                return self._cached(dataclasses.replace(decision, artifact=fetched))
            decision = decider.decide(self.stage, self.inputs, ask_mirror=False)
        return self._cached(decision) if decision.action in ("hit", "accept") else self._make(decision, lock)

    def _cached(self, decision: Decision) -> StageOutcome:
        """The outcome of a stage whose artifact is there, shown."""
        assert decision.artifact is not None
        artifact, seconds = decision.artifact, decision.artifact.manifest.seconds
        word = "fetched" if decision.action == "fetch" else "cached"
        took, accepted = f" (took {seconds:.1f} s)[/]", f"[/] accepted although {escape(decision.accepted)}"
        about = accepted if decision.action == "accept" else took
        self.view.ended(self.stage.name, f"[cyan]{word}[/] [dim]{artifact.key[:12]}{about}")
        return StageOutcome(self.stage.name, "cached", artifact, seconds, decision.accepted)

    def _push(self, artifact: Artifact) -> None:
        """Upload what the mirror has not. A failure is a warning: the artifact is safe here, and the next run tries
        again."""
        mirror = self.run.decider.mirror
        try:
            if mirror is not None and mirror.push(artifact):
                self._say(f"uploaded to {escape(mirror.url)}")
        except StoreError as error:
            self._say(f"[yellow]not uploaded: {escape(error.message)}[/]")

    def _make(self, decision: Decision, lock: int) -> StageOutcome:
        """Run the stage's process and publish what it made. Call it with the key's lock held."""
        name, store = self.stage.name, self.run.store
        machine = self._machine()
        spec = self._spec(machine, decision)
        launch = self._launch(machine, store.work(self.stage.program, decision.key), lock)
        self.view.started(name, str(launch.log))
        started, clock = utc_now(), time.monotonic()
        try:
            with self._with_gpus(machine, launch) as launch:
                result = self._run_with_retries(spec, launch)
            self._check_inputs(decision.key, result)
            seconds = time.monotonic() - clock
            manifest = self._manifest(decision, result, started, seconds)
            artifact = store.publish(self.stage.program, decision.key, manifest)
        except (StageFailed, Interrupted, OSError) as error:
            self.view.ended(name, "[yellow]stopped[/]" if isinstance(error, Interrupted) else "[red]failed[/]")
            if isinstance(error, OSError):
                raise disk_trouble(error, store.home, where=f"stage {name}") from error
            raise
        headline = result.metrics.get("headline")
        shown = f"  {headline}" if isinstance(headline, str) else ""
        self.view.ended(name, f"[green]done[/]   {seconds:.1f} s [dim]{artifact.key[:12]}[/]{shown}")
        return StageOutcome(name, "ran", artifact, seconds)

    def _check_inputs(self, key: str, result: StageResult) -> None:
        """Refuse to publish what was computed while its inputs changed, or with other libraries than the key names; its
        state is set aside, never to be resumed."""
        try:
            self.run.decider.keys.check_inputs(self.stage)
            self.run.decider.keys.check_versions(self.stage, result.versions)
        except StageFailed:
            self.run.store.set_work_aside(self.stage.program, key)
            raise

    def _machine(self) -> Machine:
        config, launch = self.run.config, self.run.config.execution.launch_of(self.stage.name)
        share = config.execution.threads
        if share is None and launch.kind != "slurm":  # a job counts the cores of its node
            share = cores() // config.execution.stages_at_once
        device = stage_device(config.execution, self.stage)
        return Machine(
            device=device,
            threads=max(1, share // launch.processes) if share is not None else None,
            deterministic=config.execution.deterministic and device == "cuda" and self._deterministic_on_gpu,
            data_dir=str(config.data_folder.resolve()) if config.data_folder else None,
        )

    def _spec(self, machine: Machine, decision: Decision) -> Spec:
        outside = self.run.decider.keys.outside[self.stage.name]
        details: dict[str, Any] = {
            "commits": {label: entry.commit for label, entry in outside.items() if entry.commit},
            "code_digests": self.run.decider.keys.code_digests(self.stage),
        }
        if self.stage.program == GENERATE and self.stage.name not in self.run.decider.forced:
            versions = self.run.decider.keys.exact_versions(self.stage)
            details["earlier_samples"] = earlier_samples(self.run.store, decision.key, decision.preimage, versions)
        if self.stage.kind.needs_run:
            details = {
                "name": self.run.config.name,
                "command": self.run.command,
                "stages": [self.run.outcomes[name].as_json() for name in self.stage.inputs],
                "config": self.run.config.model_dump(mode="json"),
            }
        return Spec(
            stage=self.stage.program,
            settings=self.stage.settings.model_dump(mode="json"),
            inputs={name: str(artifact.folder) for name, artifact in self.inputs.items()},
            seed=self.run.config.seed,
            machine=machine,
            libraries=list(self.run.decider.keys.libraries(self.stage)),
            details=self.stage.details | details,
        )

    def _launch(self, machine: Machine, work: Path, lock: int) -> Launch:
        execution, outside = self.run.config.execution, self.run.decider.keys.outside[self.stage.name]
        hub = any(entry.hub is not None for entry in outside.values())
        environment = stage_environment(
            machine.device, machine.threads_given, hub=hub, deterministic=machine.deterministic
        )
        interpreter = self.run.decider.keys.interpreters.of(self.stage.name)
        if interpreter is not None:
            environment = environment_of(interpreter.python, link_code(work, self.stage.kind.program), environment)
        return Launch(
            stage=self.stage.name,
            program=self.stage.kind.program,
            work=work,
            environment=environment,
            locks=(lock,),
            grace_s=execution.stop_grace_s,
            steps_to_a_stop=self.stage.kind.steps_to_a_stop(self.stage.settings),
            saved_bytes=self._saved_bytes,
            settings=execution.launch_of(self.stage.name),
            python=sys.executable if interpreter is None else interpreter.python,
            time_limit_s=execution.time_limit_of(self.stage.name),
            home=self.run.store.home,
            stopping=self.run.stopping,
        )

    @contextlib.contextmanager
    def _with_gpus(self, machine: Machine, launch: Launch) -> Iterator[Launch]:
        """The launch with the GPUs that the stage takes for itself, where it computes on any of this machine."""
        visible, count = visible_gpus(), leased_gpus(self.run.config.execution, self.stage)
        if not count:
            yield launch
            return
        with lease(visible, count, f"{self.run.config.name} {self.stage.name}", self._waits_for, self._give_up) as held:
            environment = {**launch.environment, "CUDA_VISIBLE_DEVICES": ",".join(held.gpus)}
            yield dataclasses.replace(launch, environment=environment, locks=(*launch.locks, *held.descriptors))

    def _run_with_retries(self, spec: Spec, launch: Launch) -> StageResult:
        """Run the stage's process; again, after a pause, where its failure may pass: with half the micro-batch, or half
        its tokens, where memory was short."""
        execution = self.run.config.execution
        for number in range(execution.retries):
            try:
                return self._attempt(spec, launch)
            except StageFailed as error:
                smaller = self._smaller_batch(spec, launch) if error.cause == "memory" else {}
                if not smaller and error.cause not in ("network", "engine", "node"):
                    raise
                spec = spec.model_copy(update={"settings": {**spec.settings, **smaller}})
                how = "".join(f"with {name} {value}" for name, value in smaller.items()) or "again"
                pause = execution.retry_delay_s * 2**number
                self._say(f"[yellow]{escape(error.message)}; tried {how} in {pause:g} s[/]")
                if self.run.stopping.wait(pause):
                    raise Interrupted("interrupted") from error
        return self._attempt(spec, launch)

    def _smaller_batch(self, spec: Spec, launch: Launch) -> dict[str, int]:
        """The setting that halves what goes through the model at once; empty where there is none."""
        if tokens := spec.settings.get("max_tokens_per_micro_batch"):
            return {"max_tokens_per_micro_batch": tokens // 2} if tokens > 1 else {}
        size = smaller_micro_batch(self.stage, spec.settings.get("micro_batch_size"), launch.settings.world)
        return {} if size is None else {"micro_batch_size": size}

    def _attempt(self, spec: Spec, launch: Launch) -> StageResult:
        self.run.decider.keys.check_unchanged(self.stage)
        return run_process(launch, spec, lambda event: self.view.event(self.stage.name, event))

    def _manifest(self, decision: Decision, result: StageResult, started: str, seconds: float) -> ManifestDraft:
        sources = ((name, source, self.inputs[name]) for name, source in self.stage.inputs.items())
        code = own_code()
        return ManifestDraft(
            stage=self.stage.program,
            name=self.stage.name,
            key=decision.key,
            preimage=decision.preimage,
            inputs={
                name: InputRecord(stage=source.stage, key=made.key, digest=made.content_digest(source.select))
                for name, source, made in sources
            },
            git=GitState(commit=code.commit, dirty=code.dirty),
            argv=sys.argv,
            command=self.run.command,
            python=result.python,
            versions={DISTRIBUTION: code.release} | result.versions,
            hardware=hardware(),
            gpus=self._gpus if self._runs_here else None,
            # Samples that were taken over may be another machine's.
            comes_back=""
            if result.metrics.get("earlier_samples")
            else comes_back(self.run.config.execution, self.stage),
            started=started,
            ended=utc_now(),
            seconds=round(seconds, 3),
            peak_memory_gib=result.peak_memory_gib,
            proof=result.proof,
            metrics=result.metrics,
        )

    @property
    def _saved_bytes(self) -> int:
        """Of one state that the stage saves, by the size of the model it starts from."""
        disk, base = self.stage.kind.disk(self.stage.settings), self.run.outcomes.get("base")
        values = base.artifact.manifest.proof.get("parameters", 0) if base is not None else 0
        return disk.saved * values if disk is not None and isinstance(values, int) else 0

    @property
    def _gpus(self) -> int:
        """How many GPUs it computes on, on all of its nodes."""
        execution = self.run.config.execution
        return leased_gpus(execution, self.stage) * execution.launch_of(self.stage.name).nodes

    @property
    def _deterministic_on_gpu(self) -> bool:
        return self.stage.kind.deterministic_on_gpu(self.stage.settings)

    @property
    def _runs_here(self) -> bool:
        return self.run.config.execution.launch_of(self.stage.name).kind != "slurm"

    def _say(self, text: str) -> None:
        self.view.line(f"  {self.stage.name:<15} {text}")

    def _waits_for(self, who: str) -> None:
        self._say(f"waits for {escape(who)}")

    def _give_up(self) -> None:
        """Called while waiting for a lock or a GPU."""
        if self.run.stopping.is_set():
            raise Interrupted("interrupted")
