"""What a run would do, and why: HIT, RUN, RESUME or WAIT for every stage. Reads the store; starts nothing; imports no library
that computes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from evaluation.harness.nearest import nearest
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.plan.graph import Stage, build_graph, downstream, select_stages, upstream
from pipeline.plan.keys import KeyMaker
from pipeline.plan.reasons import OWN_PARTS, against_nearest, differences, resumes_from
from pipeline.store.documents import LatestEntry, Preimage
from pipeline.store.mirror import Mirror
from pipeline.store.store import Artifact, Found, Store

State = Literal["HIT", "RUN", "RESUME", "WAIT"]

TRIGGERS: dict[str, tuple[str, ...]] = {
    "config": ("settings", "seed", "schema"),
    "inputs": ("inputs", "outside"),
    "code": ("code",),
    "versions": ("versions",),
}
"""What can make a stage rerun (`--rerun-triggers`), and the parts of its pre-image that each one stands for."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One stage of a plan. `key` is unknown (None) while an input has not been made: the state is then WAIT."""

    stage: Stage
    state: State
    reason: str
    key: str | None = None
    preimage: Preimage | None = None
    artifact: Artifact | None = None
    forced: bool = False
    last_seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "state": self.state,
            "reason": self.reason,
            "key": self.key,
            "last_seconds": self.last_seconds,
            "folder": str(self.artifact.folder) if self.artifact else None,
        }


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line's choices: stages to force, a stage to start from, one to run alone, one to stop after, and what counts as a
    reason to rerun."""

    force: tuple[str, ...] = ()
    start: str | None = None
    only: str | None = None
    until: str | None = None
    triggers: tuple[str, ...] = tuple(TRIGGERS)


def parse_triggers(words: str | None) -> tuple[str, ...]:
    """`config,inputs` as a tuple; None is all of them. Raises `ConfigError` for a word that is none."""
    if words is None:
        return tuple(TRIGGERS)
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",")))
    for name in names:
        if name not in TRIGGERS:
            raise ConfigError(f"there is no trigger {name!r}{nearest(name, TRIGGERS)}", where="--rerun-triggers")
    return names


def accepted(
    store: Store, program: str, preimage: Preimage, latest: LatestEntry | None, triggers: tuple[str, ...]
) -> Found:
    """What the stage made last time, where it differs from what is asked now only in what is no trigger.

    `differences` says what was let pass.
    """
    if latest is None or len(triggers) == len(TRIGGERS):
        return Found(None)
    before, now = latest.preimage.to_json(), preimage.to_json()
    if any(before.get(part) != now[part] for name in triggers for part in TRIGGERS[name]):
        return Found(None)
    return store.find(program, latest.key)


def make_plan(config: PipelineConfig, store: Store, options: Options | None = None) -> list[Planned]:
    """Plan every stage (with `only` or `until`: that stage and what it needs).

    Raises `ConfigError` for a stage that does not exist, or that should run alone while something it needs is not cached.
    """
    options = options or Options()
    stages = build_graph(config)
    forced, wanted = chosen_stages(stages, options)
    keys = KeyMaker(config, stages, store)
    mirror = Mirror(config.execution.mirror) if config.execution.mirror is not None else None
    latest = store.latest(config.name)
    plan: dict[str, Planned] = {}
    for stage in stages:
        if wanted is None or stage.name in wanted:
            plan[stage.name] = _plan_stage(
                stage, plan, keys, store, latest.get(stage.name), stage.name in forced, options.triggers, mirror
            )
    if options.only is not None:
        alone = set(select_stages(stages, options.only))
        missing = [p for p in plan.values() if p.state != "HIT" and p.stage.name not in alone]
        if missing:
            names = ", ".join(p.stage.name for p in missing)
            raise ConfigError(
                f"{options.only} needs {names}, not cached",
                where="--only",
                fix=f"Run without --only, or first: --only {missing[0].stage.name} ({missing[0].reason})",
            )
    store.memo.save()
    return list(plan.values())


def chosen_stages(stages: list[Stage], options: Options) -> tuple[set[str], set[str] | None]:
    """(stages to compute although they are cached, stages to look at at all or None for all).

    Raises `ConfigError` for a stage that does not exist, and for one to force that would not run.
    """

    def select(option: str, name: str) -> set[str]:
        names = select_stages(stages, name)
        if not names:
            known = {s.name for s in stages} | {s.program for s in stages}
            raise ConfigError(f"this pipeline has no stage {name!r}{nearest(name, known)}", where=f"--{option} {name}")
        return set(names)

    if options.only is not None and options.until is not None:
        raise ConfigError("--only runs one stage, --until all up to one", where="--until", fix="Give one of the two.")
    wanted, runs, limit = None, {stage.name for stage in stages}, ""
    if options.only is not None:
        runs, limit = select("only", options.only), f"--only {options.only}"
        wanted = upstream(stages, runs)
    elif options.until is not None:
        wanted, limit = upstream(stages, select("until", options.until)), f"--until {options.until}"
        runs = wanted

    forced: set[str] = set()
    for option, name in [
        *(("force", name) for name in options.force),
        *([("from", options.start)] if options.start is not None else []),
    ]:
        named = select(option, name)
        if not named & runs:
            raise ConfigError(
                f"{limit} does not run {name}",
                where=f"--{option} {name}",
                fix="Leave one of the two out, or name a stage that runs.",
            )
        forced |= downstream(stages, named) if option == "from" else named
    return forced & runs, wanted


def _plan_stage(
    stage: Stage,
    plan: dict[str, Planned],
    keys: KeyMaker,
    store: Store,
    latest: LatestEntry | None,
    forced: bool,
    triggers: tuple[str, ...],
    mirror: Mirror | None,
) -> Planned:
    seconds = latest.seconds if latest else None
    inputs: dict[str, Artifact] = {}
    for name, source in stage.inputs.items():
        upstream = plan[source.stage]
        if upstream.artifact is None or upstream.state != "HIT":
            own = differences(latest.preimage, keys.own(stage), OWN_PARTS) if latest is not None else []
            reason = "; ".join([f"depends on the output of {source.stage}", *own])
            return Planned(stage, "WAIT", reason, forced=forced, last_seconds=seconds)
        inputs[name] = upstream.artifact
    preimage = keys.preimage(stage, inputs)
    key = preimage.key
    found = store.find(stage.program, key)
    if forced:
        return Planned(stage, "RUN", "forced", key, preimage, None, True, seconds)
    if found.artifact is not None:
        return Planned(stage, "HIT", "", key, preimage, found.artifact, False, found.artifact.manifest.seconds)
    remote = mirror.manifest(stage.program, key) if mirror is not None else None
    if mirror is not None and remote is not None:
        artifact = Artifact(store.folder(stage.program, key), remote)
        return Planned(stage, "HIT", f"fetched from {mirror.url}", key, preimage, artifact, False, remote.seconds)
    earlier = accepted(store, stage.program, preimage, latest, triggers).artifact
    if earlier is not None:
        reason = "accepted although " + "; ".join(differences(earlier.manifest.preimage, preimage))
        return Planned(stage, "HIT", reason, earlier.key, preimage, earlier, False, earlier.manifest.seconds)
    if store.has_state(stage.program, key):
        reason = resumes_from(store.work(stage.program, key))
        return Planned(stage, "RESUME", reason, key, preimage, None, False, seconds)
    if found.damage:
        reason = found.damage
    elif latest is None:
        reason = against_nearest(store.home / "store", stage.program, stage.name, preimage) or "never run"
    else:
        reason = "; ".join(differences(latest.preimage, preimage)) or "its artifact is gone from the store"
    return Planned(stage, "RUN", reason, key, preimage, None, False, seconds)
