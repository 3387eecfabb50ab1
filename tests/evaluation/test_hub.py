"""Data sets of the hub without a network: the commit that is asked for, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from evaluation.hub import load_dataset
from tests.hub_cache import COMMIT, cached

OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that does not answer."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    return tmp_path / "cache"


def repository(folder: Path, value: int = 1) -> Path:
    """Two configs, one with two splits, the larger one in two files."""
    for name in ("data/train-0", "data/train-1", "data/test-0", "more/train-0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text(json.dumps({"at": name, "value": value}) + "\n")
    splits = ", ".join(f"{{split: {split}, path: data/{split}-*}}" for split in ("train", "test"))
    configs = f"- {{config_name: default, data_files: [{splits}]}}\n- {{config_name: more, data_files: more/*}}"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    return folder


def at(rows: Any) -> list[str]:
    return [row["at"] for row in rows]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("revision", [COMMIT, "main", None])
def test_a_complete_download_is_read(tmp_path: Path, cache: Path, revision: str | None, streaming: bool) -> None:
    cached(cache, "datasets", "someone/set", repository(tmp_path / "set"))
    read = {"revision": revision, "streaming": streaming}
    assert at(load_dataset("someone/set", None, "train", **read)) == ["data/train-0", "data/train-1"]
    assert at(load_dataset("someone/set", None, "test", **read)) == ["data/test-0"]
    assert at(load_dataset("someone/set", "more", "train", **read)) == ["more/train-0"]
    assert at(load_dataset("someone/set", None, "train", files=["data/train-1.jsonl"], **read)) == ["data/train-1"]


@pytest.mark.parametrize("listed", [True, False])
def test_a_download_that_may_be_in_pieces_is_not_read(tmp_path: Path, cache: Path, listed: bool) -> None:
    (
        cached(cache, "datasets", "someone/set", repository(tmp_path / "set"), listed=listed) / "data/train-1.jsonl"
    ).unlink()
    with pytest.raises(OSError, match="someone/set"):
        load_dataset("someone/set", None, "train", COMMIT)


def test_what_datasets_prepared_is_read_only_if_it_is_the_commit(tmp_path: Path, cache: Path) -> None:
    """datasets itself takes what it prepared last, without a word."""
    builder = datasets.load_dataset_builder(str(repository(tmp_path / "set")))
    builder.repo_id, builder.dataset_name, builder.hash = "someone/set", "set", OTHER
    builder._cache_dir = str(tmp_path / "prepared" / "someone___set" / "default" / "0.0.0" / OTHER)
    builder.download_and_prepare(builder._cache_dir)
    assert at(load_dataset("someone/set", None, "test", OTHER)) == ["data/test-0"]
    assert at(load_dataset("someone/set", None, "test", OTHER, streaming=True)) == ["data/test-0"]
    with pytest.raises(ValueError, match=f"commit {COMMIT} is asked for; the hub does not answer, and another one is"):
        load_dataset("someone/set", None, "test", COMMIT)
