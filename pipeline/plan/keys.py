"""Stage keys: the digest of everything a stage's result depends on."""

from collections.abc import Iterable

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.plan.code import code_now, code_of, library_versions
from pipeline.plan.external import resolve
from pipeline.plan.graph import Stage
from pipeline.store.documents import OutsideInput, Preimage
from pipeline.store.store import Artifact, Store
from stages.harness.declaration import DataPlaces, Origin

STAGE_SCHEMA = 1
"""Raise it when the meaning of a stage's settings or payload changes in a way that its code digest does not show."""


class KeyMaker:
    """Makes the keys of one pipeline's stages.

    What they read from outside the store is resolved once, when it is created, and so are the versions of libraries. A
    hub is asked for a revision once, and a run has the keys that its plan shows.
    """

    def __init__(self, config: PipelineConfig, stages: list[Stage], store: Store) -> None:
        self.seed = config.seed
        self.origins = origins_of(config, stages)
        self.outside: dict[str, dict[str, OutsideInput]] = {
            name: {origin.label: resolve(origin, store.memo) for origin in origins}
            for name, origins in self.origins.items()
        }
        """Stage -> label -> what stands for it in the key."""
        self._versions = {libraries: library_versions(libraries) for libraries in {s.kind.libraries for s in stages}}
        self._memo = store.memo
        store.memo.save()

    def preimage(self, stage: Stage, inputs: dict[str, Artifact]) -> Preimage:
        """Everything the stage's result depends on; the key is its digest."""
        return self.own(stage).model_copy(
            update={
                "inputs": {name: inputs[name].content_digest(source.select) for name, source in stage.inputs.items()},
                "code": code_of(stage.kind, stage.settings),
                "versions": self._versions[stage.kind.libraries],
            }
        )

    def own(self, stage: Stage) -> Preimage:
        """The part of the pre-image that the config says of the stage itself, known before its inputs are made."""
        return Preimage(
            stage=stage.program,
            schema=STAGE_SCHEMA,
            settings=stage.settings.identity_settings(),
            seed=self.seed,
            outside=self.outside[stage.name],
        )

    def check_unchanged(self, stage: Stage) -> None:
        """Refuse to go on under a key whose files or libraries are no longer what they were when it was made.

        Called right before a process of the stage starts and again before what it made is published, so that a key
        never stands for two results. A file is read again only where its size, time or inode has changed; a change that
        was taken back meanwhile is not seen. A hub's revision needs no look: its commit is in the key.

        Raises:
            StageFailed: a file or folder from outside, a source file or a library of the stage has changed.
        """
        changed = self._changed(stage)
        if changed:
            message = f"{', '.join(changed)} changed after this run was planned, and its key stands for what was there"
            fix = "Run it again: it is planned anew. Nothing was published under that key; earlier artifacts are whole."
            raise StageFailed(stage.name, message, fix=fix)

    def _changed(self, stage: Stage) -> list[str]:
        planned = self.outside[stage.name]
        changed = [
            f"{origin.label} ({origin.path})"
            for origin in self.origins[stage.name]
            if origin.path is not None and self._now(origin) != planned[origin.label]
        ]
        try:
            code = code_now(stage.kind, stage.settings)
        except (OSError, SyntaxError) as error:
            return [*changed, str(error.filename)]
        changed += [name for name, _ in sorted(code.items() ^ code_of(stage.kind, stage.settings).items())]
        versions = self._versions[stage.kind.libraries].items() ^ library_versions(stage.kind.libraries).items()
        return list(dict.fromkeys([*changed, *(name for name, _ in sorted(versions))]))

    def _now(self, origin: Origin) -> OutsideInput | None:
        try:
            return resolve(origin, self._memo)
        except (ConfigError, OSError):  # it is gone
            return None


def origins_of(config: PipelineConfig, stages: Iterable[Stage]) -> dict[str, list[Origin]]:
    """Stage -> what it reads from outside the store."""
    places = DataPlaces(config.data_folder, config.benchmark_revisions)
    return {stage.name: list(stage.kind.origins(stage.settings, places)) for stage in stages}
