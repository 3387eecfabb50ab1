"""Take a checkpoint that exists, from a local folder or the hub, as it is."""

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from stages.harness.context import StageError

PATTERNS = (
    *("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"),
    "additional_chat_templates/*.jinja",
)
"""Weights, configuration and tokenizer. Other formats of the same weights, and any code, stay behind."""


def fetch(source: str, revision: str, model: Path) -> None:
    """Copy the checkpoint into `model`. Raises `StageError` when there is none under that name."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        _copy(folder, model)
        return
    try:
        snapshot_download(source, revision=revision, local_dir=model, allow_patterns=list(PATTERNS))
    except HFValidationError as error:
        raise StageError(
            f"model {source}: neither a folder nor a hub id", "Set `model` to an existing folder or to OWNER/NAME."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StageError(
            f"model {source} (revision {revision}) could not be downloaded: {str(error).splitlines()[0]}",
            "Check the id, the revision, your access (a gated model needs `hf auth login`) and the network, "
            "or set `model` to a local folder.",
        ) from error
    shutil.rmtree(model / ".cache", ignore_errors=True)  # the download's own book-keeping, with times in it


def _copy(folder: Path, model: Path) -> None:
    model.mkdir(parents=True)
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in files):
        raise StageError(
            f"{folder} holds no *.safetensors weights",
            "Save the model there with save_pretrained(), or name another folder.",
        )
    for path in files:
        copy = model / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
