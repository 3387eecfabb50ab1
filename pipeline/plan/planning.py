"""What a run would do, and why: HIT, RUN, RESUME or WAIT for every stage.

Reads the store; starts nothing; imports no library that computes.
"""

import dataclasses
from typing import Any, Literal

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Decider, Options
from pipeline.plan.graph import Stage, select_stages
from pipeline.store.documents import Preimage
from pipeline.store.store import Artifact, Store

State = Literal["HIT", "RUN", "RESUME", "WAIT"]
STATES: dict[str, State] = {"hit": "HIT", "fetch": "HIT", "accept": "HIT", "resume": "RESUME", "run": "RUN"}
"""Action of a decision -> how a plan shows it."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One stage of a plan. `key` is unknown (None) while an input has not been made: the state is then WAIT, as it is
    while another process computes the key."""

    stage: Stage
    state: State
    reason: str
    key: str | None = None
    preimage: Preimage | None = None
    artifact: Artifact | None = None
    forced: bool = False
    last_seconds: float | None = None
    notes: tuple[str, ...] = ()
    """What a user should know of the key."""

    def as_json(self) -> dict[str, Any]:
        """The stage as `vcore plan --json` and run records show it."""
        return {
            "stage": self.stage.name,
            "state": self.state,
            "reason": self.reason,
            "key": self.key,
            "last_seconds": self.last_seconds,
            "notes": list(self.notes),
            "folder": str(self.artifact.folder) if self.artifact else None,
        }


def make_plan(config: PipelineConfig, store: Store, options: Options | None = None) -> list[Planned]:
    """Plan a pipeline that is not run afterwards; see `plan_stages`."""
    return plan_stages(Decider(config, store, options))


def plan_stages(decider: Decider) -> list[Planned]:
    """Plan every stage (with the options `only` or `until`: that stage and what it needs).

    Raises `ConfigError` where a stage should run alone while something it needs is not cached, and where code of the
    user's own could not be loaded.
    """
    plan: dict[str, Planned] = {}
    for stage in decider.stages:
        if decider.chosen is None or stage.name in decider.chosen:
            planned = _plan_stage(stage, plan, decider)
            if planned.state != "HIT":
                decider.keys.check_imports(stage)
            plan[stage.name] = dataclasses.replace(planned, notes=tuple(decider.keys.notes(stage)))
    if decider.options.only is not None:
        alone = set(select_stages(decider.stages, decider.options.only))
        missing = [p for p in plan.values() if p.state != "HIT" and p.stage.name not in alone]
        if missing:
            names = ", ".join(p.stage.name for p in missing)
            raise ConfigError(
                f"{decider.options.only} needs {names}, not cached",
                where="--only",
                fix=f"Run without --only, or first: --only {missing[0].stage.name} ({missing[0].reason})",
            )
    decider.store.memo.save()
    return list(plan.values())


def _plan_stage(stage: Stage, plan: dict[str, Planned], decider: Decider) -> Planned:
    latest = decider.latest.get(stage.name)
    seconds, forced = latest.seconds if latest else None, stage.name in decider.forced
    inputs: dict[str, Artifact] = {}
    for name, source in stage.inputs.items():
        upstream = plan[source.stage]
        if upstream.artifact is None or upstream.state != "HIT":
            reason = decider.waits_for(stage, source.stage)
            return Planned(stage, "WAIT", reason, forced=forced, last_seconds=seconds)
        inputs[name] = upstream.artifact
    decision = decider.decide(stage, inputs)
    state, reason = STATES[decision.action], decider.reason(stage, decision)
    key, artifact = decision.key, decision.artifact
    if artifact is not None:
        key, seconds = artifact.key, artifact.manifest.seconds
    if state in ("RUN", "RESUME") and (holder := decider.store.holder(stage.program, key)) is not None:
        state, reason = "WAIT", f"is being computed by {holder}"
    if forced and state == "RESUME":  # a plan says what was asked for
        state = "RUN"
    return Planned(stage, state, reason, key, decision.preimage, artifact, forced, seconds)
