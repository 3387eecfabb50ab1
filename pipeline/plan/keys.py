"""Stage keys: the digest of everything a stage's result depends on."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.plan.code import code_of, file_digest, file_mark, library_versions
from pipeline.plan.external import resolve
from pipeline.plan.graph import Stage
from pipeline.store.documents import OutsideInput, Preimage
from pipeline.store.store import Artifact, Store
from stages.harness.declaration import DataPlaces, Origin

STAGE_SCHEMA = 1
"""Raise it when the meaning of a stage's settings or payload changes in a way that its code digest does not show."""


class KeyMaker:
    """Makes the keys of one pipeline's stages. What they read from outside the store is resolved once, when it is
    created."""

    def __init__(self, config: PipelineConfig, stages: Iterable[Stage], store: Store) -> None:
        self.seed = config.seed
        self.origins = origins_of(config, stages)
        self.outside: dict[str, dict[str, OutsideInput]] = {
            name: {origin.label: resolve(origin, store.memo) for origin in origins}
            for name, origins in self.origins.items()
        }
        """Stage -> label -> what stands for it in the key."""
        self._memo = store.memo
        self._sources: dict[str, tuple[int, int]] = {}
        store.memo.save()

    def preimage(self, stage: Stage, inputs: dict[str, Artifact]) -> Preimage:
        """Everything the stage's result depends on; the key is its digest."""
        for file in code_of(stage.kind, stage.settings):
            self._sources.setdefault(file, file_mark(file))
        return self.own(stage).model_copy(
            update={
                "inputs": {name: inputs[name].content_digest(source.select) for name, source in stage.inputs.items()},
                "code": code_of(stage.kind, stage.settings),
                "versions": library_versions(stage.kind.libraries),
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
        """Refuse to go on under a key whose files are no longer what they were when it was made.

        Called right before the stage's process starts and again before what it made is published: a key never stands
        for two results. Files are looked at again only where size or time changed.

        Raises:
            StageFailed: a data file, a model folder, a custom file or a source file of the stage has changed.
        """
        changed = [
            origin.label
            for origin in self.origins[stage.name]
            if origin.path is not None and self._now(origin) != self.outside[stage.name][origin.label]
        ]
        digests = code_of(stage.kind, stage.settings)
        marked = [file for file in digests if file_mark(file) != self._sources.get(file, file_mark(file))]
        changed += [file for file in marked if file_digest(file) != digests[file]]
        if changed:
            message = (
                f"{', '.join(changed)} changed after this run was planned; under its key there would be two results"
            )
            raise StageFailed(
                stage.name, message, fix="Run it again: it is planned anew, and what is finished is kept."
            )

    def _now(self, origin: Origin) -> OutsideInput | None:
        try:
            return resolve(origin, self._memo)
        except (ConfigError, OSError):  # it is gone
            return None


def origins_of(config: PipelineConfig, stages: Iterable[Stage]) -> dict[str, list[Origin]]:
    """Stage -> what it reads from outside the store."""
    places = DataPlaces(config.data_folder, config.benchmark_revisions)
    return {stage.name: list(stage.kind.origins(stage.settings, places)) for stage in stages}
