"""What a pipeline reads from outside the store, as entries of the key: the sha256 of a file or folder, or the commit
that a hub revision stands for today."""

import os

from pipeline.core.digests import DigestMemo, folder_digest
from pipeline.core.errors import ConfigError
from pipeline.store.documents import OutsideInput
from stages.harness.declaration import Origin

CHECK_THE_PATH = "Check the path; where it is relative, it starts in the folder that vcore is called in."


def resolve(origin: Origin, memo: DigestMemo) -> OutsideInput:
    """The part of the key that stands for an origin. Raises `ConfigError` when a file is missing or the hub does not
    answer."""
    if origin.path is None:
        return OutsideInput(hub=origin.hub, commit=_hub_commit(origin))
    what, fix = origin.what or f"file {origin.path}", origin.fix or CHECK_THE_PATH
    if not origin.path.exists():
        raise ConfigError(f"{what} does not exist", where=origin.label, fix=fix)
    if origin.path.is_dir() != bool(origin.holds):
        raise ConfigError(f"{origin.path} is no {'folder' if origin.holds else 'file'}", where=origin.label, fix=fix)
    if not origin.holds:
        if not origin.path.is_file():  # reading a named pipe would wait for a writer
            raise ConfigError(f"{origin.path} is no regular file", where=origin.label, fix=fix)
        return OutsideInput(sha256=memo.sha256(origin.path))
    if not (origin.path / origin.holds).is_file():  # before everything in a large folder is read
        message = f"{origin.path} holds no {origin.holds}"
        raise ConfigError(message, where=origin.label, fix=fix)
    return OutsideInput(sha256=folder_digest(origin.path, memo))


def hub_is_offline() -> bool:
    """Whether the environment says that the hub must not be asked; huggingface_hub reads it in the same way."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def _hub_commit(origin: Origin) -> str:
    """The commit that a revision stands for. A complete commit hash stands for itself, so the hub is not asked."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(origin.hub)
    except HFValidationError as error:
        message = f"{origin.hub} is neither a file or folder here nor an id of the hub (OWNER/NAME)"
        raise ConfigError(message, where=origin.label, fix=origin.fix) from error
    if len(origin.revision) == 40 and all(c in "0123456789abcdef" for c in origin.revision):
        return origin.revision
    if hub_is_offline():
        return _cached_commit(origin)
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    lookup = api.dataset_info if origin.hub_kind == "dataset" else api.model_info
    try:
        commit = lookup(origin.hub, revision=origin.revision, timeout=10).sha
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        message = f"{_no_folder(origin)}the hub has no {origin.hub_kind} {origin.hub} at revision {origin.revision}"
        fix = f"Check the name; for one that is private or gated, `hf auth login`. Or without the hub: {origin.fix}"
        raise ConfigError(message, where=origin.label, fix=fix) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        message = f"{_no_folder(origin)}needs {origin.hub} from the hub, which does not answer ({type(error).__name__})"
        cached = "HF_HUB_OFFLINE=1 takes what the hub's cache has."
        raise ConfigError(message, where=origin.label, fix=f"{origin.fix} {cached}") from error
    if commit is None:
        message = f"the hub names no commit for {origin.hub} at {origin.revision}"
        raise ConfigError(message, where=origin.label, fix=origin.fix)
    return str(commit)


def _no_folder(origin: Origin) -> str:
    """What comes first of a model without an owner, whose name is nearly always meant as that of a folder."""
    if origin.hub_kind != "model" or "/" in origin.hub:
        return ""
    return f"there is no folder {origin.hub}; as an id of the hub: "


def _cached_commit(origin: Origin) -> str:
    """The commit that the hub's cache on this machine has for a revision."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    try:
        found = HfApi().resolve_revision(
            origin.hub, repo_type=origin.hub_kind, revision=origin.revision, local_files_only=True
        )
    except RevisionResolutionError as error:
        missing = "but HF_HUB_OFFLINE is set and it is not in the hub's cache"
        message = f"{_no_folder(origin)}needs {origin.hub} from the hub, {missing}"
        kind = " --repo-type dataset" if origin.hub_kind == "dataset" else ""
        revision = f" --revision {origin.revision}" if origin.revision != "main" else ""
        fix = f"Fetch it where there is a network (hf download {origin.hub}{kind}{revision})."
        raise ConfigError(message, where=origin.label, fix=f"{fix} Or without the hub: {origin.fix}") from error
    return str(found.resolved)
