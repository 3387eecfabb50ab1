"""The base stage: the checkpoint that training and evaluation start from, made here or fetched."""

from collections.abc import Iterator
from pathlib import Path

from stages.base.settings import MAKE, BaseSettings, gguf_file
from stages.harness.declaration import DataPlaces, Disk, Origin, StageDeclaration

LOCAL_MODEL = "Set model to a local checkpoint folder, or `make`."
EXISTING_MODEL = "Name a folder with a checkpoint, a .gguf file, a hub id such as Qwen/Qwen3-0.6B, or `make`."


def _origins(settings: BaseSettings, places: DataPlaces) -> Iterator[Origin]:
    if settings.source == MAKE:
        return
    folder = Path(settings.source).expanduser()
    if (file := gguf_file(settings.source)) is not None:
        yield Origin("model", path=file, what=f"model file {file}", fix=EXISTING_MODEL)
    elif folder.exists() or looks_like_path(settings.source):
        several = sorted(folder.glob("*.gguf"))
        fix = f"It holds {len(several)} GGUF files: name one, such as {several[0]}." if several else EXISTING_MODEL
        yield Origin("model", path=folder, holds="config.json", what=f"model folder {settings.source}", fix=fix)
    else:
        yield Origin("model", hub=settings.source, hub_kind="model", revision=settings.revision, fix=LOCAL_MODEL)


def looks_like_path(model: str) -> bool:
    """Whether a model name can only be a local folder (hub ids are NAME or OWNER/NAME)."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1


STAGE = StageDeclaration(
    name="base",
    settings=BaseSettings,
    libraries=("torch", "transformers", "tokenizers", "safetensors", "gguf"),
    origins=_origins,
    uses_gpu=True,
    deterministic_on_gpu=lambda s: s.source != MAKE,
    makes_checkpoint=True,
    disk=lambda s: Disk(4),
)
