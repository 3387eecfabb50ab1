"""Take a checkpoint that exists, from a local folder or the hub, as it is."""

import fnmatch
import json
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from stages.harness.context import StageError

TOKENIZER = "tokenizer_config.json"
PATTERNS = (
    *("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"),
    "additional_chat_templates/*.jinja",
)
"""Weights, configuration and tokenizer. Other formats of the same weights, and any code, stay behind."""


def fetch(source: str, revision: str, model: Path) -> None:
    """Copy the checkpoint into `model`: from a folder, from the hub's cache on this machine, or from the hub.

    Raises:
        StageError: there is none under that name, or it is not whole.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        _copy(folder, model)
        return
    try:
        cached = _cached(source, revision)
        if cached is not None:
            _copy(cached, model, nested=True)
        else:
            snapshot_download(source, revision=revision, local_dir=model, allow_patterns=list(PATTERNS))
    except HFValidationError as error:
        raise StageError(
            f"model {source}: neither a folder nor a hub id", "Set `model` to an existing folder or to OWNER/NAME."
        ) from error
    except OfflineModeIsEnabled as error:
        raise StageError(
            f"model {source} (revision {revision}) is not whole in the hub's cache, and HF_HUB_OFFLINE is set",
            f"Fetch it where there is a network: hf download {source} --revision {revision}. Or set `model` to a "
            "local folder.",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StageError(
            f"model {source} (revision {revision}) could not be downloaded: {str(error).splitlines()[0]}",
            "Check the id, the revision, your access (a gated model needs `hf auth login`) and the network, "
            "or set `model` to a local folder.",
        ) from error
    shutil.rmtree(model / ".cache", ignore_errors=True)  # the download's own book-keeping, with times in it


def _cached(source: str, revision: str) -> Path | None:
    """The snapshot in the hub's cache, where it is whole; None where it has to be downloaded."""
    try:
        folder = Path(
            snapshot_download(source, revision=revision, local_files_only=True, allow_patterns=list(PATTERNS))
        )
    except LocalEntryNotFoundError:
        return None
    # Without the repository's listing, which older versions did not keep, a snapshot may be only what was asked for.
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return folder if all((folder / name).is_file() for name in (*shards, "config.json", TOKENIZER)) else None


def _copy(folder: Path, model: Path, *, nested: bool = False) -> None:
    """Copy what a checkpoint is made of. `nested`: from folders inside it, too, as a download has them."""
    paths = folder.rglob("*") if nested else [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    names = {path.relative_to(folder) for path in paths if path.is_file()}
    chosen = sorted(name for name in names if any(fnmatch.fnmatch(str(name), pattern) for pattern in PATTERNS))
    if not any(name.suffix == ".safetensors" for name in chosen):
        raise StageError(
            f"{folder} holds no *.safetensors weights",
            "Save the model there with save_pretrained(), or name another folder.",
        )
    for name in chosen:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, model / name)
