"""What a pipeline reads from outside the store: local data files, datasets and models on the hub.

Each becomes an entry of the stage's key: the sha256 of a file or folder, or the commit a hub revision stands for today.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.benchmarks import get
from pipeline.config.schema import MAKE_MODEL, PipelineConfig
from pipeline.core.digests import DigestMemo, folder_digest
from pipeline.core.errors import ConfigError
from stages.data.settings import SourceSettings
from stages.sft.method_settings import CustomSettings

READS_OUTSIDE = ("data", "base", "sft", "grpo")
"""The stage programs that `origins` knows something for: data and models, and a user's own method or reward file."""


LOCAL_BENCHMARK = "Set data_dir (or VCORE_DATA_DIR) to a folder with a local copy; docs/data.md lists the files."
LOCAL_DATASET = (
    "Use `file:` with a local copy instead of `hub:`, or pin `revision:` to a commit that is in the hub's cache here."
)
LOCAL_MODEL = "Set model to a local checkpoint folder, or `make`."


@dataclasses.dataclass(frozen=True)
class Origin:
    """One thing outside: a local path, or a repository on the hub at a revision."""

    label: str
    path: Path | None = None
    hub: str = ""
    hub_kind: str = "dataset"
    revision: str = "main"
    in_data_dir: bool = False
    """Whether `path` is looked for below data_dir."""
    local: str = ""
    """How to do without the hub: not every source is looked for in data_dir."""


def origins(config: PipelineConfig, program: str) -> Iterator[Origin]:
    """What a stage program reads from outside, as the config says."""
    if program == "data":
        for kind, sources in (("sft", config.data.sft), ("rl", config.data.rl), ("dev", config.data.dev)):
            for index, source in enumerate(sources):
                yield from _source_origin(config, f"data.{kind}.{index}", source)
        for benchmark in config.benchmarks:
            if benchmark.own is not None:
                yield Origin(f"benchmarks.{benchmark.name}.own.file", path=Path(benchmark.own.file).expanduser())
            else:
                revision = config.benchmark_revisions.get(benchmark.name)
                yield from _task_origin(
                    config, f"benchmark {benchmark.name}", benchmark.name, benchmark.split, revision
                )
    elif program == "sft" and config.sft is not None and isinstance(config.sft.method, CustomSettings):
        yield Origin("sft.method.file", path=Path(config.sft.method.file).expanduser())
    elif program == "grpo" and config.grpo is not None:
        for index, part in enumerate(config.grpo.rewards.custom):
            yield Origin(f"grpo.rewards.custom.{index}.file", path=Path(part.file).expanduser())
    elif program == "base" and config.model != MAKE_MODEL:
        folder = Path(config.model).expanduser()
        if folder.is_dir():
            yield Origin("model", path=folder)
        elif looks_like_path(config.model):
            raise ConfigError(
                f"model folder {config.model} does not exist",
                where="model",
                fix="Name a folder with a checkpoint, a hub id such as Qwen/Qwen3-0.6B, or `make`.",
            )
        else:
            yield Origin("model", hub=config.model, hub_kind="model", revision=config.model_revision, local=LOCAL_MODEL)


def resolve(origin: Origin, memo: DigestMemo) -> dict[str, Any]:
    """The part of the key that stands for an origin. Raises `ConfigError` when a file is missing or the hub does not answer."""
    if origin.path is not None:
        if origin.path.is_dir():
            return {"sha256": folder_digest(origin.path, memo)}
        if not origin.path.is_file():
            raise ConfigError(
                f"file {origin.path} does not exist",
                where=origin.label,
                fix="Check data_dir in the config (or VCORE_DATA_DIR): the file is looked for below it."
                if origin.in_data_dir
                else "Check the path; where it is relative, it starts in the folder that vcore is called in.",
            )
        return {"sha256": memo.sha256(origin.path)}
    return {"hub": origin.hub, "commit": _hub_commit(origin)}


def looks_like_path(model: str) -> bool:
    """Whether a model name can only be a local folder (hub ids are NAME or OWNER/NAME)."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1


def _source_origin(config: PipelineConfig, label: str, source: SourceSettings) -> Iterator[Origin]:
    if source.task is not None:
        # Where the source names no revision, the task's own counts.
        yield from _task_origin(
            config, label, source.task, source.split, source.revision if source.revision != "main" else None
        )
    elif source.file is not None:
        yield Origin(label, path=Path(source.file).expanduser())
    elif source.hub is not None:
        yield Origin(label, hub=source.hub, revision=source.revision, local=LOCAL_DATASET)


def _task_origin(config: PipelineConfig, label: str, task: str, split: str, revision: str | None) -> Iterator[Origin]:
    source = get(task).sources.get(split)
    if source is None:
        return  # generated from a seed
    if config.data_folder is not None:
        yield Origin(label, path=config.data_folder / source.local, in_data_dir=True)
    else:
        yield Origin(label, hub=source.hub, revision=revision or source.revision, local=LOCAL_BENCHMARK)


def _hub_commit(origin: Origin) -> str:
    """The commit that a revision stands for. Of a complete commit hash the hub is not asked: it stands for itself, also offline."""
    if len(origin.revision) == 40 and all(c in "0123456789abcdef" for c in origin.revision):
        return origin.revision
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "TRUE", "yes", "on", "ON"):
        raise ConfigError(
            f"needs {origin.hub} from the hub, but HF_HUB_OFFLINE is set", where=origin.label, fix=origin.local
        )
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    lookup = api.dataset_info if origin.hub_kind == "dataset" else api.model_info
    try:
        commit = lookup(origin.hub, revision=origin.revision, timeout=10).sha
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            f"the hub has no {origin.hub_kind} {origin.hub} at revision {origin.revision}",
            where=origin.label,
            fix=f"Check the name; for one that is private or gated, `hf auth login`. Or without the hub: {origin.local}",
        ) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ConfigError(
            f"needs {origin.hub} from the hub, which does not answer ({type(error).__name__})",
            where=origin.label,
            fix=origin.local,
        ) from error
    if commit is None:
        raise ConfigError(
            f"the hub names no commit for {origin.hub} at {origin.revision}", where=origin.label, fix=origin.local
        )
    return str(commit)
