"""Making one stage's artifact: look it up, else run its process and publish what it made. Knows nothing of Prefect."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from rich.markup import escape

from pipeline.checks.sizes import smaller_micro_batch
from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import Interrupted, StageFailed, StoreError, disk_trouble
from pipeline.launch.environment import stage_environment
from pipeline.launch.gpus import Lease, lease
from pipeline.launch.machine import cores, git_state, hardware, stage_device, visible_gpus
from pipeline.launch.process import Launch, run_process
from pipeline.plan.code import library_versions
from pipeline.plan.decide import Decider, Decision
from pipeline.plan.graph import Stage
from pipeline.run.view import View
from pipeline.store.documents import InputRecord, ManifestDraft, OutsideInput, utc_now
from pipeline.store.mirror import Mirror
from pipeline.store.store import Artifact
from stages.harness.documents import Machine, Spec, StageResult


@dataclasses.dataclass(frozen=True)
class StageOutcome:
    """How a stage ended: `cached` (found) or `ran` (computed now), with the seconds its computation took whenever that
    was."""

    stage: str
    state: Literal["cached", "ran"]
    artifact: Artifact
    seconds: float
    accepted: str = ""
    """What differs from what was asked for, where `--rerun-triggers` let it pass."""

    def as_json(self) -> dict[str, Any]:
        row = {"name": self.stage, "key": self.artifact.key, "state": self.state, "seconds": round(self.seconds, 2)}
        return row | ({"accepted": self.accepted} if self.accepted else {})


class Executor:
    """Runs the stages of one pipeline against one store. Call `ensure` in running order; it remembers what it made."""

    def __init__(self, decider: Decider, view: View, *, command: str) -> None:
        """`command` is what continues the run, for the manifests."""
        self.decider, self.view, self.command = decider, view, command
        self.config, self.store, self.keys = decider.config, decider.store, decider.keys
        self.outcomes: dict[str, StageOutcome] = {}
        self.stopping = threading.Event()
        """Set where stages run in threads of their own: each then stops its process, or gives up waiting."""

    def seen_by(self, view: View) -> Executor:
        """The same executor, which shows what it does in another view."""
        other = copy.copy(self)
        other.view = view
        return other

    def ensure(self, stage: Stage) -> StageOutcome:
        """The stage's artifact, from the store or made now. Raises `StageFailed`, `Interrupted` or `StoreError`."""
        inputs = {name: self.outcomes[source.stage].artifact for name, source in stage.inputs.items()}
        decision = self.decider.decide(stage, inputs)
        outcome = None
        if decision.action in ("hit", "accept") and not self.store.has_remains(stage.program, decision.key):
            outcome = self._found(stage, decision)
        if outcome is None:

            def waits_for(who: str) -> None:
                self.view.line(f"  {stage.name:<15} waits for {who}")

            with self.store.lock(stage.program, decision.key, waits_for, self._give_up) as lock:
                self.store.clear_remains(stage.program, decision.key)
                outcome = self._ensure_locked(stage, inputs, lock)
        if self.decider.mirror is not None:
            self._push(self.decider.mirror, stage, outcome.artifact)
        self.store.remember(self.config.name, stage.name, outcome.artifact.manifest)
        self.outcomes[stage.name] = outcome
        return outcome

    def _ensure_locked(self, stage: Stage, inputs: dict[str, Artifact], lock: int) -> StageOutcome:
        """Decide again with the key's lock held: another run may have made, or repaired, the artifact meanwhile."""
        decision = self.decider.decide(stage, inputs)
        if decision.damage and stage.name not in self.decider.forced:
            aside = escape(str(self.store.set_aside(stage.program, decision.key)))
            damage = escape(decision.damage)
            self.view.line(f"  {stage.name:<15} [yellow]{damage}: set aside in {aside} and made again[/]")
        if decision.action in ("hit", "accept"):
            return self._found(stage, decision)
        if decision.action == "fetch" and self.decider.mirror is not None:
            fetched = self.decider.mirror.fetch(self.store, stage.program, decision.key)
            if fetched is not None:
                return self._found(stage, dataclasses.replace(decision, artifact=fetched))
            decision = self.decider.decide(stage, inputs, ask_mirror=False)
            if decision.action == "accept":
                return self._found(stage, decision)
        return self._make(stage, decision, inputs, lock)

    def _found(self, stage: Stage, decision: Decision) -> StageOutcome:
        """The outcome of a stage whose artifact is there, shown."""
        assert decision.artifact is not None
        artifact, seconds = decision.artifact, float(decision.artifact.manifest.seconds)
        word = "fetched" if decision.action == "fetch" else "cached"
        if decision.action == "accept":
            text = f"[cyan]{word}[/] [dim]{artifact.key[:12]}[/] accepted although {escape(decision.accepted)}"
        else:
            text = f"[cyan]{word}[/] [dim]{artifact.key[:12]} (took {seconds:.1f} s)[/]"
        self.view.ended(stage.name, text)
        return StageOutcome(stage.name, "cached", artifact, seconds, decision.accepted)

    def _push(self, mirror: Mirror, stage: Stage, artifact: Artifact) -> None:
        """Upload what the mirror has not. A failure is said and stops nothing: the artifact is safe here, the next run
        tries again."""
        try:
            if mirror.push(artifact):
                self.view.line(f"  {stage.name:<15} uploaded to {escape(mirror.url)}")
        except StoreError as error:
            self.view.line(f"  {stage.name:<15} [yellow]not uploaded: {escape(error.message)}[/]")

    def _make(self, stage: Stage, decision: Decision, inputs: dict[str, Artifact], lock: int) -> StageOutcome:
        """Run the stage's process and publish what it made. Call it with the key's lock held."""
        key, preimage = decision.key, decision.preimage
        work = self.store.work(stage.program, key)
        settings = self.config.execution
        outside = self.keys.outside[stage.name]
        launch = settings.launch_of(stage.name)
        where = stage_device(settings, stage)
        share = settings.threads or (cores() // settings.stages_at_once if launch.kind != "slurm" else None)
        threads = max(1, share // launch.processes) if share is not None else None  # a job counts the cores of its node
        data_dir = str(self.config.data_folder.resolve()) if self.config.data_folder else None
        spec = Spec(
            stage=stage.program,
            settings=stage.settings.model_dump(mode="json"),
            inputs={name: str(artifact.folder) for name, artifact in inputs.items()},
            seed=self.config.seed,
            machine=Machine(device=where, threads=threads, data_dir=data_dir),
            details={**stage.details, **self._details(stage, outside)},
        )
        uses_hub = any(entry.hub is not None for entry in outside.values())
        environment = stage_environment(where, threads, hub=uses_hub)
        self.view.started(stage.name, str(work / "stage.log"))
        started, clock = utc_now(), time.monotonic()
        try:
            self.keys.check_unchanged(stage)
            with self._gpus(stage, where, launch) as lease:
                if lease is not None:
                    environment["CUDA_VISIBLE_DEVICES"] = ",".join(lease.gpus)
                attempt = Launch(
                    stage=stage.name,
                    program=stage.kind.program,
                    work=work,
                    environment=environment,
                    locks=(lock, *(lease.descriptors if lease is not None else ())),
                    grace_s=settings.stop_grace_s,
                    settings=launch,
                    time_limit_s=settings.time_limit_s.get(stage.name),
                    stopping=self.stopping,
                )
                result = self._run_with_retries(stage, spec, attempt)
            self.keys.check_unchanged(stage)
            seconds = time.monotonic() - clock
            manifest = ManifestDraft(
                stage=stage.program,
                name=stage.name,
                key=key,
                preimage=preimage,
                inputs={
                    n: InputRecord(stage=s.stage, key=inputs[n].key, digest=inputs[n].content_digest(s.select))
                    for n, s in stage.inputs.items()
                },
                git=git_state(),
                argv=sys.argv,
                command=self.command,
                versions=library_versions(stage.kind.libraries, exact=True),
                hardware=hardware(),
                started=started,
                ended=utc_now(),
                seconds=round(seconds, 3),
                proof=result.proof,
                metrics=result.metrics,
            )
            artifact = self.store.publish(stage.program, key, manifest)
        except (StageFailed, Interrupted) as error:
            self.view.ended(stage.name, "[red]failed[/]" if isinstance(error, StageFailed) else "[yellow]stopped[/]")
            raise
        except OSError as error:
            self.view.ended(stage.name, "[red]failed[/]")
            raise disk_trouble(error, self.store.home, where=f"stage {stage.name}") from error
        self.view.ended(stage.name, f"[green]done[/]   {seconds:.1f} s [dim]{key[:12]}[/]{_headline(result.metrics)}")
        return StageOutcome(stage.name, "ran", artifact, seconds)

    @contextlib.contextmanager
    def _gpus(self, stage: Stage, where: str, launch: LaunchSettings) -> Iterator[Lease | None]:
        """The GPUs the stage takes for itself, where it computes on any of this machine."""
        if where != "cuda" or launch.kind == "slurm" or not stage.kind.uses_gpu:
            yield None
            return
        visible = visible_gpus()
        count = self.config.execution.gpus or len(visible)
        who = f"{self.config.name} {stage.name}"

        def waits_for(holders: str) -> None:
            self.view.line(f"  {stage.name:<15} waits for {escape(holders)}")

        with lease(visible, count, who, waits_for, self._give_up) as held:
            yield held

    def _give_up(self) -> None:
        """Called while waiting for a lock or a GPU."""
        if self.stopping.is_set():
            raise Interrupted("interrupted")

    def _run_with_retries(self, stage: Stage, spec: Spec, launch: Launch) -> StageResult:
        """Run the stage's process; again, after a pause, where its failure may pass: with half the micro-batch where
        memory was short."""
        settings = self.config.execution
        for attempt in range(settings.retries + 1):
            try:
                return run_process(launch, spec, lambda event: self.view.event(stage.name, event))
            except StageFailed as error:
                smaller = (
                    smaller_micro_batch(stage, spec.settings.get("micro_batch_size"), launch.settings.processes)
                    if error.cause == "memory"
                    else None
                )
                if attempt == settings.retries or not (error.cause == "network" or smaller):
                    raise
                if smaller:
                    spec = spec.model_copy(update={"settings": {**spec.settings, "micro_batch_size": smaller}})
                how = f"with micro_batch_size {smaller}" if smaller else "again"
                pause = settings.retry_delay_s * 2**attempt
                self.view.line(f"  {stage.name:<15} [yellow]{escape(error.message)}; tried {how} in {pause:g} s[/]")
                if self.stopping.wait(pause):
                    raise Interrupted("interrupted") from error
        raise AssertionError("the last attempt returns or raises")

    def _details(self, stage: Stage, outside: dict[str, OutsideInput]) -> dict[str, Any]:
        if stage.kind.needs_run:
            return {
                "name": self.config.name,
                "command": self.command,
                "stages": [self.outcomes[name].as_json() for name in stage.inputs],
                "config": self.config.model_dump(mode="json"),
            }
        return {"commits": {label: entry.commit for label, entry in outside.items() if entry.commit is not None}}


def _headline(metrics: dict[str, Any]) -> str:
    headline = metrics.get("headline")
    return f"  {headline}" if isinstance(headline, str) else ""
