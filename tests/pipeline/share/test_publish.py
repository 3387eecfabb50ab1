"""A checkpoint on its way to the hub, which is not called."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.share import publish
from pipeline.share.publish import assemble, card, upload
from stages.sft.settings import SftSettings
from tests.pipeline.helpers import config
from tests.pipeline.share.records import OUTSIDE, REPORT


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


def test_a_checkpoint_that_the_report_is_not_about_stays_here(home: Path, tmp_path: Path) -> None:
    artifact = home / "store" / "sft" / "key"
    manifest = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(
        json.dumps(manifest | {"digest": "x"})
    )  # forced, and computed anew under the same key
    with pytest.raises(ConfigError, match="computed anew since"):
        assemble(home, "latest", None, "me/model", None, tmp_path / "out")
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    (artifact / "model" / "model.safetensors").write_text("wei")
    with pytest.raises(ConfigError, match=r"model/model.safetensors of .* is missing or damaged"):
        assemble(home, "latest", None, "me/model", None, tmp_path / "out")
    shutil.rmtree(artifact)
    with pytest.raises(ConfigError, match="is not there any more: removed by `vcore store gc`"):
        assemble(home, "latest", None, "me/model", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_says_how_tokens_were_weighed_and_on_which_data(tmp_path: Path) -> None:
    sft = SftSettings.model_validate({"method": {"name": "vcore", "preset": "official"}, "lora": {"rank": 8}})
    custom = {"name": "custom", "file": "/home/someone/secret/focal.py", "options": {"power": 2.0}}
    made = {"task": "word_problems", "rows": 64}
    settings = {**REPORT["config"], "sft": sft.model_dump(mode="json"), "data": {"sft": [made] * 3}}
    text = card({**REPORT, "config": settings, "outside": OUTSIDE}, "sft", "me/model", None)
    for told in (
        "preset: official",
        "epsilon: 0.0001",
        "temperature: 5000.0",
        "loss_ratio_per_trajectory",
        "learning_rate: 2.0e-05",
        "rank: 8",
    ):
        assert told in text
    for never in ("kl: null", "checkpoint_steps", "micro_batch_size"):
        assert never not in text
    address = f"https://huggingface.co/datasets/someone/dataset/tree/{'a' * 40}"
    assert f"`data.sft.0`: [someone/dataset]({address}) at `{'a' * 40}`" in text
    assert f"`data.sft.1`: local files, sha256 `{'b' * 64}`" in text
    assert "`data.sft.2`: 64 problems of `word_problems`, made from a seed" in text
    assert f"`model`: [Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B/tree/{'d' * 40})" in text
    assert "datasets:\n- someone/dataset\n" in text  # the hub's metadata
    own = card({**REPORT, "config": {**settings, "sft": {"method": custom}}}, "sft", "me/model", None)
    assert "file: focal.py" in own
    assert "someone/secret" not in own
    assert "method" not in card({**REPORT, "config": settings}, "base", "me/model", None)


def test_the_settings_of_a_card_are_those_of_a_config_again(tmp_path: Path) -> None:
    given = config(tmp_path, "sft.lora={rank: 4}", "base.steps=50", "data.sft.0.rows=7")
    text = publish._settings(given.model_dump(mode="json"), "grpo")
    (tmp_path / "again.yaml").write_text(
        f"name: again\nseed: 0\nbenchmarks: [{{name: word_problems, problems: 2}}]\n{text}"
    )
    again = load_config(tmp_path / "again.yaml")
    for name in ("data", "base", "sft", "grpo"):
        assert getattr(again, name).identity_settings() == getattr(given, name).identity_settings()
    assert "base" not in publish._settings({**given.model_dump(mode="json"), "model": "someone/model"}, "sft")


def test_a_hub_that_does_not_answer_is_one_clear_error(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble(home, "latest", None, "me/model", None, tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, *_, **__: _refuse())
    with pytest.raises(ConfigError, match="the hub did not take it: ConnectError"):
        upload(tmp_path / "out", "me/model", private=True)


def _refuse() -> None:
    import httpx

    raise httpx.ConnectError("no route")
