"""What is read from outside the store: which commit it stands for, and what to do where it cannot be had."""

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.digests import DigestMemo
from pipeline.core.errors import ConfigError
from pipeline.plan.external import resolve
from pipeline.plan.graph import build_graph
from pipeline.plan.keys import origins_of
from stages.harness.declaration import Origin
from tests.hub_cache import COMMIT, cached

CONFIG = """
name: outside
seed: 0
model: Qwen/Qwen3-0.6B
benchmarks: [{name: aime24}]
data:
  sft:
  - {hub: someone/dataset, rows: 8, columns: {prompt: q, completion: a}}
  - {task: word_problems, rows: 8}
  rl: [{task: gsm8k, rows: 8}]
sft: {}
grpo: {steps: 2}
"""


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", asked)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", asked)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("VCORE_DATA_DIR", raising=False)


@pytest.mark.parametrize("model", ["owner/na me", "-x/y"])
def test_what_no_hub_can_have_is_said_without_asking(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError, match="neither a file or folder here nor an id of the hub"):
        resolved(tmp_path, "base", f"model={model}")


def config(tmp_path: Path, *overrides: str) -> PipelineConfig:
    path = tmp_path / "outside.yaml"
    path.write_text(CONFIG)
    return load_config(path, list(overrides))


def origins(tmp_path: Path, stage: str, *overrides: str) -> list[Origin]:
    settings = config(tmp_path, *overrides)
    return origins_of(settings, build_graph(settings))[stage]


def resolved(tmp_path: Path, program: str, *overrides: str) -> dict[str, object]:
    memo = DigestMemo(tmp_path / "memo.json")
    return {origin.label: resolve(origin, memo).to_json() for origin in origins(tmp_path, program, *overrides)}


PINNED = (
    *(f"data.sft.0.revision={COMMIT}", f"data.rl.0.revision={COMMIT}"),
    *(f"benchmark_revisions={{aime24: {COMMIT}}}", f"model_revision={COMMIT}"),
)


@pytest.mark.parametrize("offline", [False, True])
def test_of_a_complete_commit_hash_the_hub_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolved(tmp_path, "base", *PINNED) == {"model": {"hub": "Qwen/Qwen3-0.6B", "commit": COMMIT}}
    assert resolved(tmp_path, "data", *PINNED) == {
        "data.sft.0": {"hub": "someone/dataset", "commit": COMMIT},
        "data.rl.0": {"hub": "openai/gsm8k", "commit": COMMIT},
        "benchmark aime24": {"hub": "HuggingFaceH4/aime_2024", "commit": COMMIT},
    }


def test_offline_a_revision_is_what_the_hubs_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    other = "f" * 40
    cached(tmp_path / "cache", "models", "Qwen/Qwen3-0.6B", tmp_path / "empty")
    cached(tmp_path / "cache", "datasets", "someone/dataset", tmp_path / "empty", commit=other)
    assert resolved(tmp_path, "base") == {"model": {"hub": "Qwen/Qwen3-0.6B", "commit": COMMIT}}
    memo = DigestMemo(tmp_path / "memo.json")
    assert resolve(origins(tmp_path, "data")[0], memo).commit == other
    with pytest.raises(ConfigError, match="it is not in the hub's cache") as caught:
        resolved(tmp_path, "base", "model_revision=v2")
    assert "hf download Qwen/Qwen3-0.6B --revision v2" in caught.value.fix
    with pytest.raises(ConfigError, match="needs openai/gsm8k from the hub") as caught:
        resolve(origins(tmp_path, "data")[1], memo)
    assert "hf download openai/gsm8k --repo-type dataset" in caught.value.fix


def test_the_remedy_is_one_that_this_source_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    memo = DigestMemo(tmp_path / "memo.json")
    said = {}
    for program in ("data", "base"):
        for origin in origins(tmp_path, program):
            with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set") as caught:
                resolve(origin, memo)
            said[origin.label] = caught.value.fix
    assert "`file:`" in said["data.sft.0"]
    assert "`revision:`" in said["data.sft.0"]
    assert "data_dir" not in said["data.sft.0"], "a source with `hub:` is not looked for there"
    assert "data_dir" in said["data.rl.0"]
    assert "data_dir" in said["benchmark aime24"]
    assert "checkpoint folder" in said["model"]


def test_a_hub_that_does_not_answer_or_has_no_such_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import RevisionNotFoundError

    def silent(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no route")

    def none(*_: object, **__: object) -> None:
        raise RevisionNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    with pytest.raises(ConfigError, match="does not answer") as caught:
        resolved(tmp_path, "base")
    assert "checkpoint folder" in caught.value.fix
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", none)
    with pytest.raises(ConfigError, match=r"has no model Qwen/Qwen3-0\.6B at revision v9") as caught:
        resolved(tmp_path, "base", "model_revision=v9")
    assert "hf auth login" in caught.value.fix


def test_a_missing_local_copy_of_a_task_names_data_dir_and_a_file_of_ones_own_does_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, "data", f"data_dir={tmp_path}", f"data.sft.0.revision={COMMIT}")
    assert caught.value.where == "data.rl.0"
    assert "data_dir" in caught.value.fix
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, "data", "data.sft=[{file: own.jsonl}]", *PINNED[1:])
    assert caught.value.where == "data.sft.0"
    assert "data_dir" not in caught.value.fix


def test_revisions_of_benchmarks_are_of_benchmarks_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"benchmark_revisions.aime25: .*did you mean 'aime24'"):
        config(tmp_path, "benchmark_revisions={aime25: main}")


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Reading it would wait for somebody who writes, in every command that plans."""
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"rows\.jsonl is no regular file") as refused:
        resolved(tmp_path, "data", f"data.sft.0={{file: {pipe}}}")
    assert refused.value.where == "data.sft.0"
