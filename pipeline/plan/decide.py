"""The one decision of a pipeline: what becomes of a stage whose inputs exist. The plan shows it, a run follows it."""

import dataclasses
from typing import Literal

from evaluation.harness.nearest import nearest
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.plan.graph import Stage, build_graph, check_stage, downstream, select_stages, upstream
from pipeline.plan.keys import KeyMaker
from pipeline.plan.reasons import OWN_PARTS, against_nearest, came_to_nothing, differences, resumes_from
from pipeline.store.documents import Preimage
from pipeline.store.mirror import Mirror
from pipeline.store.store import Artifact, Store

TRIGGERS: dict[str, tuple[str, ...]] = {
    "config": ("settings", "seed", "schema"),
    "inputs": ("inputs", "outside"),
    "code": ("code",),
    "versions": ("versions",),
}
"""What can make a stage rerun (`--rerun-triggers`), and the parts of its pre-image that each one stands for."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line's choices.

    Attributes:
        force: stages to compute although they are cached.
        start: a stage to compute, with all that depends on it, although they are cached.
        only: one stage to run alone.
        until: the last stage to run.
        triggers: what counts as a reason to rerun, of `TRIGGERS`.
    """

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


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of a stage.

    Attributes:
        action: `hit`: its artifact is in the store. `fetch`: only the mirror has it. `accept`: an earlier artifact
            stands for it, which differs only in what is no trigger. `resume`: an interrupted attempt is continued.
            `run`: it is computed.
        key, preimage: of the stage as it is asked for, whatever artifact stands for it.
        artifact: what stands for the stage; None where it has to be computed.
        damage: what is wrong with the artifact that lies under the key, empty where nothing is.
        accepted: what differs in an artifact that was accepted.
    """

    action: Literal["hit", "fetch", "accept", "resume", "run"]
    key: str
    preimage: Preimage
    artifact: Artifact | None = None
    damage: str = ""
    accepted: str = ""


class Decider:
    """Decides for the stages of one pipeline against one store, with keys that are made once for plan and run."""

    def __init__(
        self, config: PipelineConfig, store: Store, options: Options | None = None, stages: list[Stage] | None = None
    ) -> None:
        """Raises `ConfigError` for a stage that the options name and the pipeline does not have, and for an outside
        input that is not there.

        Args:
            stages: the pipeline's stages in running order; None takes the graph of the config.
        """
        self.config, self.store, self.options = config, store, options or Options()
        self.stages = stages if stages is not None else build_graph(config)
        self.forced, self.chosen = chosen_stages(self.stages, self.options)
        self.keys = KeyMaker(config, self.stages, store)
        self.mirror = Mirror(config.execution.mirror) if config.execution.mirror is not None else None
        self.latest = store.latest(config.name)
        """Stage -> what it was when this pipeline ran last."""

    def decide(self, stage: Stage, inputs: dict[str, Artifact], *, ask_mirror: bool = True) -> Decision:
        """What becomes of a stage, given the artifacts of its inputs.

        What is exactly asked for, wherever it is, comes before what differs and is accepted. The answer holds as long
        as nobody else changes the store: a caller who acts on it holds the key's lock and calls again.
        """
        preimage = self.keys.preimage(stage, inputs)
        key = preimage.key
        stored = self.store.find(stage.program, key)
        if stage.name not in self.forced:
            if stored.artifact is not None:
                return Decision("hit", key, preimage, stored.artifact)
            remote = self.mirror.manifest(stage.program, key) if ask_mirror and self.mirror is not None else None
            if remote is not None:
                artifact = Artifact(self.store.folder(stage.program, key), remote)
                return Decision("fetch", key, preimage, artifact, stored.damage)
            earlier = self._acceptable(stage, preimage)
            if earlier is not None:
                passed = "; ".join(differences(earlier.manifest.preimage, preimage))
                return Decision("accept", key, preimage, earlier, stored.damage, passed)
        resumable = self.store.has_state(stage.program, key) and not came_to_nothing(
            self.store.work(stage.program, key)
        )
        return Decision("resume" if resumable else "run", key, preimage, None, stored.damage)

    def _acceptable(self, stage: Stage, preimage: Preimage) -> Artifact | None:
        """What the stage was last time, where that differs from what is asked for only in what is no trigger."""
        latest = self.latest.get(stage.name)
        counted = [part for name in self.options.triggers for part in TRIGGERS[name]]
        if latest is None or len(self.options.triggers) == len(TRIGGERS):
            return None
        before, now = latest.preimage.to_json(), preimage.to_json()
        if any(before.get(part) != now[part] for part in counted):
            return None
        return self.store.find(stage.program, latest.key).artifact

    def reason(self, stage: Stage, decision: Decision) -> str:
        """Why, in words; empty for an artifact that is simply there."""
        latest = self.latest.get(stage.name)
        if decision.action == "hit":
            return ""
        if decision.action == "fetch" and self.mirror is not None:
            return f"fetched from {self.mirror.url}"
        if decision.action == "accept":
            return f"accepted although {decision.accepted}"
        if stage.name in self.forced:
            return "forced"
        if decision.action == "resume":
            return resumes_from(self.store.work(stage.program, decision.key))
        if decision.damage:
            return decision.damage
        if latest is None:
            store = self.store.home / "store"
            return against_nearest(store, stage.program, stage.name, decision.preimage) or "never run"
        return "; ".join(differences(latest.preimage, decision.preimage)) or "its artifact is gone from the store"

    def waits_for(self, stage: Stage, source: str) -> str:
        """Why it is not known yet what becomes of a stage that takes from `source`, with what the config changes."""
        latest = self.latest.get(stage.name)
        own = differences(latest.preimage, self.keys.own(stage), OWN_PARTS) if latest is not None else []
        return "; ".join([f"depends on the output of {source}", *own])


def chosen_stages(stages: list[Stage], options: Options) -> tuple[set[str], set[str] | None]:
    """(stages to compute although they are cached, stages to look at at all or None for all).

    Raises `ConfigError` for a stage that does not exist, and for one to force that would not run.
    """

    def select(option: str, name: str) -> set[str]:
        check_stage(stages, name, f"--{option} {name}")
        return set(select_stages(stages, name))

    if options.only is not None and options.until is not None:
        raise ConfigError("--only runs one stage, --until all up to one", where="--until", fix="Give one of the two.")
    chosen, runs, limit = None, {stage.name for stage in stages}, ""
    if options.only is not None:
        runs, limit = select("only", options.only), f"--only {options.only}"
        chosen = upstream(stages, runs)
    elif options.until is not None:
        chosen, limit = upstream(stages, select("until", options.until)), f"--until {options.until}"
        runs = chosen

    forced: set[str] = set()
    start = [("from", options.start)] if options.start is not None else []
    for option, name in [*(("force", name) for name in options.force), *start]:
        named = select(option, name)
        if not named & runs:
            fix = "Leave one of the two out, or name a stage that runs."
            raise ConfigError(f"{limit} does not run {name}", where=f"--{option} {name}", fix=fix)
        forced |= downstream(stages, named) if option == "from" else named
    return forced & runs, chosen
