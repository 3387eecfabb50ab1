"""A checkpoint of the hub without a network: out of the cache, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from stages.base.fetch import fetch
from stages.harness.context import StageError
from tests.hub_cache import COMMIT, cached
from tests.tiny import make_tiny_model, run_stage_program

CHECKPOINT = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What a checkpoint's folder holds, by name alone, and what of it is none of a checkpoint's."""
    folder = tmp_path / "files"
    for name in (*CHECKPOINT, "README.md", "additional_chat_templates/tools.jinja"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("revision", ["main", COMMIT])
@pytest.mark.parametrize("listed", [True, False])
def test_a_whole_snapshot_is_taken_from_the_cache(
    tmp_path: Path, cache: Path, files: Path, revision: str, listed: bool
) -> None:
    cached(cache, "models", "someone/tiny", files, listed=listed)
    fetch("someone/tiny", revision, tmp_path / "model")
    taken = {str(file.relative_to(tmp_path / "model")) for file in (tmp_path / "model").rglob("*") if file.is_file()}
    assert taken == {*CHECKPOINT, "additional_chat_templates/tools.jinja"}


@pytest.mark.parametrize(
    ("missing", "listed"),
    [("model.safetensors", True), ("tokenizer.json", True), ("model.safetensors", False), ("config.json", False)],
)
def test_a_snapshot_in_pieces_is_not_taken(
    tmp_path: Path, cache: Path, files: Path, missing: str, listed: bool
) -> None:
    (cached(cache, "models", "someone/tiny", files, listed=listed) / missing).unlink()
    with pytest.raises(StageError, match="not whole in the hub's cache, and HF_HUB_OFFLINE is set") as caught:
        fetch("someone/tiny", COMMIT, tmp_path / "model")
    assert f"hf download someone/tiny --revision {COMMIT}" in caught.value.fix


def test_every_shard_has_to_be_there(tmp_path: Path, cache: Path, files: Path) -> None:
    (files / "model.safetensors").rename(files / "model-00001-of-00002.safetensors")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (files / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    cached(cache, "models", "someone/half", files, listed=False)
    with pytest.raises(StageError, match="not whole"):
        fetch("someone/half", COMMIT, tmp_path / "half")
    (files / shards[1]).write_text("")
    cached(cache, "models", "someone/whole", files, listed=False)
    fetch("someone/whole", COMMIT, tmp_path / "whole")


def test_another_commit_than_the_cached_one_is_not_taken(tmp_path: Path, cache: Path, files: Path) -> None:
    cached(cache, "models", "someone/tiny", files)
    with pytest.raises(StageError, match="not whole"):
        fetch("someone/tiny", "f" * 40, tmp_path / "model")


@pytest.mark.slow
def test_the_stage_takes_the_commit_that_its_key_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_tiny_model(tmp_path / "made")
    cached(tmp_path / "cache", "models", "someone/tiny", made)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    done = run_stage_program(tmp_path / "run", "base", {"source": "someone/tiny", "revision": COMMIT}, {})
    assert done.code == 0, done.log
    assert (done.output / "model" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
