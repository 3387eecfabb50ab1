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
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import Interrupted, StageFailed, StoreError, disk_trouble
from pipeline.launch.environment import stage_environment
from pipeline.launch.gpus import Lease, lease
from pipeline.launch.machine import cores, git_state, hardware, stage_device, visible_gpus
from pipeline.launch.process import Launch, run_process
from pipeline.plan.code import library_versions
from pipeline.plan.graph import Stage, build_graph
from pipeline.plan.keys import KeyMaker
from pipeline.plan.planning import TRIGGERS, accepted
from pipeline.plan.reasons import differences
from pipeline.run.view import View
from pipeline.store.documents import InputRecord, ManifestDraft, OutsideInput, Preimage, utc_now
from pipeline.store.mirror import Mirror
from pipeline.store.store import Artifact, Store
from stages.harness.documents import Machine, Spec, StageResult


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a stage ended: `cached` (found) or `ran` (computed now), with the seconds its computation took whenever that was."""

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

    def __init__(
        self,
        config: PipelineConfig,
        store: Store,
        view: View,
        *,
        command: str,
        forced: set[str],
        triggers: tuple[str, ...] = tuple(TRIGGERS),
        keys: KeyMaker | None = None,
    ) -> None:
        self.config, self.store, self.view = config, store, view
        self.command, self.forced, self.triggers = command, forced, triggers
        self.keys = keys or KeyMaker(config, build_graph(config), store)
        self.mirror = Mirror(config.execution.mirror) if config.execution.mirror is not None else None
        self.outcomes: dict[str, Outcome] = {}
        self.stopping = threading.Event()
        """Set where stages run in threads of their own: each then stops its process, or gives up waiting."""

    def seen_by(self, view: View) -> Executor:
        """The same executor, which shows what it does in another view."""
        other = copy.copy(self)
        other.view = view
        return other

    def ensure(self, stage: Stage) -> Outcome:
        """The stage's artifact, from the store or made now. Raises `StageFailed`, `Interrupted` or `StoreError`."""
        inputs = {name: self.outcomes[source.stage].artifact for name, source in stage.inputs.items()}
        preimage = self.keys.preimage(stage, inputs)
        key = preimage.key
        look = stage.name not in self.forced and not self.store.has_remains(stage.program, key)
        outcome = (self._find(stage, key) or self._accept_unless_mirrored(stage, key, preimage)) if look else None
        if outcome is None:

            def waits_for(who: str) -> None:
                self.view.line(f"  {stage.name:<15} waits for {who}")

            with self.store.lock(stage.program, key, waits_for, self._give_up) as lock:
                self.store.clear_remains(stage.program, key)
                if stage.name not in self.forced:
                    self._set_damage_aside(stage, key)
                    outcome = self._find(stage, key) or self._fetch(stage, key) or self._accept(stage, preimage)
                outcome = outcome or self._make(stage, key, preimage, inputs, lock)
        if self.mirror is not None:
            self._push(self.mirror, stage, outcome.artifact)
        self.store.remember(self.config.name, stage.name, outcome.artifact.manifest)
        self.outcomes[stage.name] = outcome
        return outcome

    def _find(self, stage: Stage, key: str) -> Outcome | None:
        artifact = self.store.find(stage.program, key).artifact
        if artifact is None:
            return None
        seconds = artifact.manifest.seconds
        self.view.ended(stage.name, f"[cyan]cached[/] [dim]{key[:12]} (took {seconds:.1f} s)[/]")
        return Outcome(stage.name, "cached", artifact, seconds)

    def _set_damage_aside(self, stage: Stage, key: str) -> None:
        """Look again with the lock held: another run may have met the same damage, and made the artifact again."""
        damage = self.store.find(stage.program, key).damage
        if damage:
            aside = self.store.set_aside(stage.program, key)
            self.view.line(
                f"  {stage.name:<15} [yellow]{escape(damage)}: set aside in {escape(str(aside))} and made again[/]"
            )

    def _fetch(self, stage: Stage, key: str) -> Outcome | None:
        """The artifact from the mirror, where only that has it."""
        artifact = self.mirror.fetch(self.store, stage.program, key) if self.mirror is not None else None
        if artifact is None:
            return None
        seconds = artifact.manifest.seconds
        self.view.ended(stage.name, f"[cyan]fetched[/] [dim]{key[:12]} (took {seconds:.1f} s)[/]")
        return Outcome(stage.name, "cached", artifact, seconds)

    def _push(self, mirror: Mirror, stage: Stage, artifact: Artifact) -> None:
        """Upload what the mirror has not. A failure is said and stops nothing: the artifact is safe here, the next run tries again."""
        try:
            if mirror.push(artifact):
                self.view.line(f"  {stage.name:<15} uploaded to {escape(mirror.url)}")
        except StoreError as error:
            self.view.line(f"  {stage.name:<15} [yellow]not uploaded: {escape(error.message)}[/]")

    def _accept_unless_mirrored(self, stage: Stage, key: str, preimage: Preimage) -> Outcome | None:
        """As the plan has it: what is exactly asked for, wherever it is, comes before what differs and is let pass."""
        if self.mirror is not None and self.mirror.manifest(stage.program, key) is not None:
            return None
        return self._accept(stage, preimage)

    def _accept(self, stage: Stage, preimage: Preimage) -> Outcome | None:
        """What this stage of the pipeline made last time, where only what is no trigger has changed since."""
        latest = self.store.latest(self.config.name).get(stage.name)
        artifact = accepted(self.store, stage.program, preimage, latest, self.triggers).artifact
        if artifact is None:
            return None
        passed = "; ".join(differences(artifact.manifest.preimage, preimage))
        seconds = artifact.manifest.seconds
        self.view.ended(stage.name, f"[cyan]cached[/] [dim]{artifact.key[:12]}[/] accepted although {escape(passed)}")
        return Outcome(stage.name, "cached", artifact, seconds, passed)

    def _make(self, stage: Stage, key: str, preimage: Preimage, inputs: dict[str, Artifact], lock: int) -> Outcome:
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
        return Outcome(stage.name, "ran", artifact, seconds)

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
        """Run the stage's process; again, after a pause, where its failure may pass: with half the micro-batch where memory was short."""
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
