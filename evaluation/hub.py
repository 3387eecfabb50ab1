"""Data sets of the hub at one commit: from the hub, or offline from what its caches hold of exactly that commit."""

import re
from collections.abc import Sequence
from typing import Any

COMMIT = re.compile("[0-9a-f]{40}")


def load_dataset(
    name: str,
    config: str | None,
    split: str,
    revision: str | None = None,
    *,
    files: Sequence[str] = (),
    streaming: bool = False,
) -> Any:
    """The rows of one split, as `datasets.Dataset`, or with `streaming` as `datasets.IterableDataset`.

    Where the hub does not answer, datasets takes whatever version it prepared last, whatever commit is asked for. Here
    that is an error. With HF_HUB_OFFLINE a complete download of the commit is read (`hf download --repo-type dataset`),
    or else what datasets prepared of it.

    Args:
        revision: a commit, or a branch or tag, of which nothing can be compared; None: `main`.
        files: paths or patterns of the repository's files to read; empty: as its card says.

    Raises:
        ValueError: what is cached is another commit, or datasets knows no such data set, config or split.
        OSError: the hub does not answer and nothing is cached.
    """
    from datasets import load_dataset_builder
    from huggingface_hub import get_cached_repo_tree, is_offline_mode, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    pinned = revision if revision is not None and COMMIT.fullmatch(revision) else None
    data_files = list(files) or None
    builder: Any = None
    if is_offline_mode():
        try:  # without its listing, nobody knows whether a download is complete
            get_cached_repo_tree(name, repo_type="dataset", revision=revision)
            folder = snapshot_download(
                name, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=data_files
            )
            builder = load_dataset_builder(folder, config, data_files=data_files)
        except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
            pass  # then what datasets itself prepared
    if builder is None:
        builder = load_dataset_builder(name, config, data_files=data_files, revision=revision)
        if pinned is not None and builder.hash != pinned:
            raise ValueError(f"commit {pinned} is asked for; the hub does not answer, and another one is cached")
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)
