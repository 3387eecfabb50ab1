"""A checkpoint on its way to the hub (which is not called), and a result that is run again."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.publish import assemble, upload
from pipeline.reproduce import compare, read_record

RESULT = {
    **{"checkpoint": "sft", "benchmark": "aime24", "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 30},
    **{"split": "test", "protocol": "p", "k": 1},
}
REPORT: dict[str, Any] = {
    "title": "nightly",
    "seed": 3,
    "verdict": "sft is higher than base on aime24.",
    "caveats": ["One seed."],
    "results": [RESULT],
    "stages": [{"name": "sft", "digest": "a"}, {"name": "score.sft", "digest": "b"}, {"name": "report", "digest": "c"}],
    "versions": {"torch": "1"},
    "git": {"commit": "abc", "dirty": False},
    "config": {"model": "Qwen/Qwen3-0.6B", "sft": {"method": {"name": "vcore"}, "learning_rate": 1e-5}, "grpo": None},
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one finished run of one checkpoint."""
    artifact, run = tmp_path / "store" / "sft" / "key", tmp_path / "runs" / "20260101-000000-nightly"
    (artifact / "model").mkdir(parents=True)
    run.mkdir(parents=True)
    for file, text in (("model/config.json", "{}"), ("model/model.safetensors", "weights"), ("manifest.json", "{}")):
        (artifact / file).write_text(text)
    (run / "run.json").write_text(json.dumps({"stages": [{"name": "sft", "folder": str(artifact)}]}))
    (run / "report.json").write_text(json.dumps(REPORT))
    (run / "report.md").write_text("# nightly")
    return tmp_path


def test_a_repository_holds_model_card_and_record(home: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    files = assemble(home, "latest", None, "me/model", "apache-2.0", tmp_path / "out")
    assert {str(file) for file in files} == {
        *("README.md", "config.json", "model.safetensors"),
        *("vcore/manifest.json", "vcore/report.json", "vcore/report.md"),
    }
    card = ModelCard.load(tmp_path / "out" / "README.md")  # the hub's own reader
    assert (card.data.base_model, card.data.license, card.data.model_name) == ("Qwen/Qwen3-0.6B", "apache-2.0", "model")
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("aime24", "accuracy", 50.0)
    assert "| aime24 | accuracy | 30 | 50.0 [40.0, 60.0] |" in card.text
    assert "vcore reproduce vcore/report.json" in card.text
    (tmp_path / "out" / "model.safetensors").write_text("changed")  # a copy: the store is not touched
    assert (home / "store" / "sft" / "key" / "model" / "model.safetensors").read_text() == "weights"


def test_what_cannot_be_pushed_is_said(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no repository on the hub"):
        assemble(home, "latest", None, "just-a-name", None, tmp_path / "out")
    with pytest.raises(ConfigError, match="has no checkpoint grpo; it has sft"):
        assemble(home, "latest", "grpo", "me/model", None, tmp_path / "out")
    with pytest.raises(ConfigError, match="is not empty"):
        assemble(home, "latest", None, "me/model", None, home)
    (home / "runs" / "20260101-000000-nightly" / "report.json").unlink()
    with pytest.raises(ConfigError, match="it did not end"):
        assemble(home, "latest", None, "me/model", None, tmp_path / "out")


def test_a_hub_that_does_not_answer_is_one_clear_error(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assemble(home, "latest", None, "me/model", None, tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, *_, **__: _refuse())
    with pytest.raises(ConfigError, match="the hub did not take it: ConnectError"):
        upload(tmp_path / "out", "me/model", private=True)


def _refuse() -> None:
    import httpx

    raise httpx.ConnectError("no route")


def again(**changes: Any) -> dict[str, Any]:
    return {**REPORT, **changes}


def test_how_a_result_came_back() -> None:
    assert compare(REPORT, again())["verdict"] == "bit for bit"
    other = [{"name": "sft", "digest": "x"}, *REPORT["stages"][1:]]
    found = compare(REPORT, again(stages=other, results=[{**RESULT, "value": 0.55}], versions={"torch": "2"}))
    assert found["verdict"] == "within the intervals"
    assert found["differences"] == ["torch: 1 -> 2"]
    for change in ({"value": 0.7}, {"protocol": "q"}, {"benchmark": "amc23"}):
        assert compare(REPORT, again(stages=other, results=[{**RESULT, **change}]))["verdict"] == "not reproduced"
    report_only = [*REPORT["stages"][:2], {"name": "report", "digest": "x"}]  # names times and paths
    assert compare(REPORT, again(stages=report_only))["verdict"] == "bit for bit"


def test_a_record_is_a_run_a_folder_or_a_file(home: Path, tmp_path: Path) -> None:
    run = home / "runs" / "20260101-000000-nightly"
    assert read_record(home, "latest") == (REPORT, "20260101-000000-nightly")
    assert read_record(home, str(run / "report.json"))[1] == "nightly-seed-3"
    (tmp_path / "other.json").write_text('{"title": 1}')
    with pytest.raises(ConfigError, match="is no record of a run: it has no seed, config"):
        read_record(home, str(tmp_path / "other.json"))
    with pytest.raises(ConfigError, match="there is no run 'nope'"):
        read_record(home, "nope")
