"""Stage keys: the digest of everything a stage's result depends on."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.config.schema import PipelineConfig
from pipeline.plan.code import code_of, library_versions
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
        store.memo.save()

    def preimage(self, stage: Stage, inputs: dict[str, Artifact]) -> Preimage:
        """Everything the stage's result depends on; the key is its digest."""
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


def origins_of(config: PipelineConfig, stages: Iterable[Stage]) -> dict[str, list[Origin]]:
    """Stage -> what it reads from outside the store."""
    places = DataPlaces(config.data_folder, config.benchmark_revisions)
    return {stage.name: list(stage.kind.origins(stage.settings, places)) for stage in stages}
