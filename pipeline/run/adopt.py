"""Accepting what exists as a stage's artifact: an earlier one whose difference does not matter, or a checkpoint from
anywhere.

The artifact then stands in the store under the key that the stage has now, and its manifest says that it was adopted,
from where, and what differed.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError, disk_trouble
from pipeline.plan.planning import Planned, make_plan
from pipeline.plan.reasons import differences
from pipeline.run.gc import copy, find_artifact, whole_artifact
from pipeline.store.documents import Adopted, GitState, Hardware, ManifestDraft, Preimage, utc_now
from pipeline.store.store import Artifact, Store


def adopt(
    config: PipelineConfig, store: Store, stage: str, source: str | None, say: Callable[[str], None] = lambda line: None
) -> tuple[Artifact, list[str]]:
    """Publish `source` as the artifact of `stage`; returns it and what differs from what the stage would have made.

    Args:
        source: a checkpoint folder; or an artifact of this stage by key or run (see pipeline/run/gc.py); None is what
            this stage of the pipeline made last time.
        say: is called with whom this waits for.

    Raises:
        ConfigError: there is nothing to adopt, or `source` cannot stand for this stage.
        StoreError: the source is damaged, or the disk is full; the store is then as it was.
    """
    planned, key, preimage = _to_make(config, store, stage)
    program = planned.stage.program
    folder = Path(source).expanduser() if source is not None else None
    # Beside the stage's own work folder: what an interrupted attempt has saved there is still worth resuming, should
    # this one not do.
    incoming = store.work(program, f"{key}.adopted")
    with store.lock(program, key, lambda who: say(f"{stage} waits for {who}, which is making it")):
        if store.find(program, key).artifact is not None:
            raise ConfigError(f"{stage} was made meanwhile; there is nothing to adopt", where="STAGE")
        if folder is not None and folder.is_dir():
            draft = _of_checkpoint(planned, folder, key, preimage)
            origin, differing, parts = str(folder.resolve()), ["made outside this pipeline"], {"model": folder}
        else:
            earlier = _earlier(config, store, planned, source)
            draft, origin = earlier.manifest.draft(), f"{earlier.manifest.stage}/{earlier.key}"
            differing = differences(earlier.manifest.preimage, preimage)
            parts = {entry.name: entry for entry in earlier.folder.iterdir() if entry.name != "manifest.json"}
        adopted = Adopted.model_validate({"from": origin, "differences": differing, "at": utc_now()})
        draft = draft.model_copy(update={"key": key, "preimage": preimage, "adopted": adopted, "comes_back": ""})
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir(parents=True)
            for name, entry in parts.items():
                copy(entry, incoming / name)
            artifact = store.take(program, key, incoming, draft)
            store.remember(config.name, stage, artifact.manifest)
        except OSError as error:
            raise disk_trouble(error, store.home, where=f"stage {stage}") from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return artifact, differing


def _to_make(config: PipelineConfig, store: Store, stage: str) -> tuple[Planned, str, Preimage]:
    """A stage that a run would compute, with its key. Raises `ConfigError` where there is none to adopt for."""
    planned = {p.stage.name: p for p in make_plan(config, store)}.get(stage)
    if planned is None:
        raise ConfigError(f"this pipeline has no stage {stage!r}", where="STAGE", fix="Its stages: vcore plan")
    if planned.state == "HIT":
        raise ConfigError(f"{stage} is cached under the key it has now; there is nothing to adopt", where="STAGE")
    if planned.key is None or planned.preimage is None:
        message = f"{stage} {planned.reason}, so its key is not known"
        raise ConfigError(message, where="STAGE", fix="Run what it needs first.")
    return planned, planned.key, planned.preimage


def _earlier(config: PipelineConfig, store: Store, planned: Planned, source: str | None) -> Artifact:
    program = planned.stage.program
    if source is None:
        latest = store.latest(config.name).get(planned.stage.name)
        if latest is None:
            message = f"{planned.stage.name} of {config.name} was never run here"
            raise ConfigError(message, where="--from", fix="Name an artifact or a folder.")
        return whole_artifact(store, program, latest.key, fix="Name another: --from")
    artifact = find_artifact(store, source)
    if artifact.manifest.stage != program:
        message = f"{source} is the artifact of a {artifact.manifest.stage} stage, not of {program}"
        raise ConfigError(message, where="--from")
    return artifact


def _of_checkpoint(planned: Planned, folder: Path, key: str, preimage: Preimage) -> ManifestDraft:
    """The manifest of a checkpoint that was made elsewhere. By what, when and where is not known: it claims nothing.

    Raises `ConfigError` where the folder holds no checkpoint, or the stage makes none.
    """
    if not planned.stage.kind.makes_checkpoint:
        message = f"a folder can stand for a checkpoint, not for {planned.stage.name}"
        raise ConfigError(message, where="--from")
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        message = f"{folder} is no checkpoint: it has no {', '.join(missing)}"
        raise ConfigError(message, where="--from", fix="Name a checkpoint's folder.")
    now = utc_now()
    return ManifestDraft(
        stage=planned.stage.program,
        name=planned.stage.name,
        key=key,
        preimage=preimage,
        inputs={},
        git=GitState(commit=None, dirty=None),
        argv=sys.argv,
        command="",
        versions={},
        hardware=Hardware(cpu="unknown", cores=0, memory_gib=0.0, gpu=[], system="unknown"),
        started=now,
        ended=now,
        seconds=0.0,
        proof={"adopted": True},
        metrics={},
    )
