"""A checkpoint on its way to the hub (which is not called), and a result that is run again."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.app import main
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import EXIT_STAGE_FAILED, ConfigError, StageFailed
from pipeline.run.session import Session
from pipeline.share import publish
from pipeline.share.publish import assemble, card, upload
from pipeline.share.reproduce import compare, pinned, read_record
from stages.sft.settings import SftSettings
from tests.pipeline.helpers import config

RESULT = {
    **{
        "checkpoint": "sft",
        "benchmark": "aime24",
        "metric": "accuracy",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 30,
    },
    **{"split": "test", "protocol": "p", "k": 1},
}
REPORT: dict[str, Any] = {
    "title": "nightly",
    "seed": 3,
    "verdict": "sft is higher than base on aime24.",
    "caveats": ["One seed."],
    "results": [RESULT],
    "stages": [
        {"name": "sft", "key": "key", "digest": "a"},
        {"name": "score.sft", "digest": "b"},
        {"name": "report", "digest": "c"},
    ],
    "versions": {"torch": "1"},
    "git": {"commit": "abc", "dirty": False},
    "config": {"model": "Qwen/Qwen3-0.6B", "sft": {"method": {"name": "vcore"}, "learning_rate": 1e-5}, "grpo": None},
    "outside": {},
}


OUTSIDE = {
    "data.sft.0": {"hub": "someone/dataset", "commit": "a" * 40},
    "data.sft.1": {"sha256": "b" * 64},
    "benchmark aime24": {"hub": "HuggingFaceH4/aime_2024", "commit": "c" * 40},
    "model": {"hub": "Qwen/Qwen3-0.6B", "commit": "d" * 40},
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one finished run of one checkpoint."""
    artifact, run = tmp_path / "store" / "sft" / "key", tmp_path / "runs" / "20260101-000000-nightly"
    (artifact / "model").mkdir(parents=True)
    run.mkdir(parents=True)
    manifest: dict[str, Any] = {
        "stage": "sft",
        "key": "key",
        "digest": "a",
        "files": [],
        "seconds": 1.0,
        "preimage": {"outside": {"model": OUTSIDE["model"]}},
    }
    for file, text in (("model/config.json", "{}"), ("model/model.safetensors", "weights")):
        (artifact / file).write_text(text)
        manifest["files"].append({"path": file, "size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()})
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    record = {"id": run.name, "name": "nightly", "status": "done", "command": "vcore run nightly.yaml", "plan": []}
    stage = {"name": "sft", "key": "key", "state": "ran", "folder": str(artifact)}
    (run / "run.json").write_text(json.dumps(record | {"started": "2026-01-01T00:00:00+00:00", "stages": [stage]}))
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
    for name in ("latest", str(run)):
        assert read_record(home, name) == (REPORT, "20260101-000000-nightly")
    assert read_record(home, str(run / "report.json"))[1] == "nightly-seed-3"
    (tmp_path / "other.json").write_text('{"title": 1}')
    with pytest.raises(ConfigError, match="is no record of a run: it has no seed, config"):
        read_record(home, str(tmp_path / "other.json"))
    with pytest.raises(ConfigError, match="there is no run 'nope'"):
        read_record(home, "nope")


def test_a_manifest_stands_for_the_run_that_ended_with_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, run = home / "store" / "sft" / "key", home / "runs" / "20260101-000000-nightly"
    for name in (artifact / "manifest.json", artifact):
        assert read_record(tmp_path / "another", str(name)) == (REPORT, run.name), (
            "its own home is looked in, whatever --home says"
        )
    failed = home / "runs" / "20260102-000000-nightly"  # a later run that used it and failed has no result to reproduce
    failed.mkdir()
    (failed / "run.json").write_text((run / "run.json").read_text().replace(run.name, failed.name))
    assert read_record(home, str(artifact))[1] == run.name
    exported = tmp_path / "exported" / "manifest.json"  # `vcore store export`: --home says where its run is
    exported.parent.mkdir()
    exported.write_text((artifact / "manifest.json").read_text())
    assert read_record(home, str(exported))[1] == run.name
    with pytest.raises(ConfigError, match=r"no run in .* ended with it") as caught:
        read_record(tmp_path / "another", str(exported))
    assert "HOME/runs/ID/report.json" in caught.value.fix
    (exported.parent / "report.json").write_text(json.dumps(REPORT))  # as in a pushed repository
    assert read_record(tmp_path / "another", str(exported)) == (REPORT, "nightly-seed-3")


@pytest.mark.parametrize(
    ("status", "why"), [("failed", "status: failed"), ("interrupted", "did not end"), ("done", "only a part")]
)
def test_a_run_without_a_result_says_how_it_gets_one(home: Path, tmp_path: Path, status: str, why: str) -> None:
    run = home / "runs" / "20260101-000000-nightly"
    (run / "report.json").unlink()
    (run / "run.json").write_text(json.dumps(json.loads((run / "run.json").read_text()) | {"status": status}))
    for use in (
        lambda: read_record(home, "latest"),
        lambda: assemble(home, "latest", None, "me/model", None, tmp_path / "out"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            use()
        assert "vcore run nightly.yaml" in caught.value.fix


def test_hub_revisions_are_set_to_the_commits_that_were_read() -> None:
    sources = [{"hub": "someone/dataset", "revision": "main"}, {"file": "rows.jsonl", "revision": "main"}]
    config = {"model": "Qwen/Qwen3-0.6B", "model_revision": "main", "data": {"sft": sources, "rl": []}}
    found = pinned(config, OUTSIDE)
    assert found["model_revision"] == "d" * 40
    assert [source["revision"] for source in found["data"]["sft"]] == ["a" * 40, "main"]
    assert found["benchmark_revisions"] == {"aime24": "c" * 40}
    assert config["model_revision"] == "main"  # the record is left as it is


def test_commits_of_a_record_without_them_are_those_of_its_artifacts(home: Path) -> None:
    older = {name: value for name, value in REPORT.items() if name != "outside"}
    run = home / "runs" / "20260101-000000-nightly"
    (run / "report.json").write_text(json.dumps(older))
    assert read_record(home, "latest")[0]["outside"] == {"model": OUTSIDE["model"]}
    shutil.rmtree(home / "store")  # gone with `vcore store gc`: the run is reproduced on what the hub has today
    assert read_record(home, "latest")[0]["outside"] == {}


def test_other_data_are_a_reason_for_another_result() -> None:
    now = OUTSIDE | {"data.sft.1": {"sha256": "e" * 64}, "model": {"sha256": "f" * 64}}
    found = compare({**REPORT, "outside": OUTSIDE}, again(outside=now, results=[{**RESULT, "value": 0.9}], stages=[]))
    assert found["differences"] == [
        "data.sft.1: local files with sha256 bbbbbbbbbbbb -> local files with sha256 eeeeeeeeeeee",
        "model: Qwen/Qwen3-0.6B at dddddddddddd -> local files with sha256 ffffffffffff",
    ]
    assert compare(REPORT, again(outside=OUTSIDE))["differences"][0].startswith("benchmark aime24: none recorded -> ")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("5a79e33b1", "5a79e33b1887", []),
        ("5a79e33b1887", "5a79e33b1", []),
        (None, None, []),
        ("5a79e33b1", "5a79e33c0", ["commit: 5a79e33b1 -> 5a79e33c0"]),
        (None, "5a79e33b1", ["commit: None -> 5a79e33b1"]),
        ("5a79e33b1", None, ["commit: 5a79e33b1 -> None"]),
    ],
)
def test_a_wheels_commit_is_that_of_the_checkout_it_was_made_from(
    before: str | None, now: str | None, said: list[str]
) -> None:
    first = {**REPORT, "outside": OUTSIDE, "git": {"commit": before, "dirty": False}}
    assert compare(first, again(outside=OUTSIDE, git={"commit": now, "dirty": False}))["differences"] == said


def test_it_runs_apart_from_the_first_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mirror would hand over the first run's artifacts, and a tracker may be somebody else's; and a stage that fails
    ends in 1 and the command that compares as well."""
    planned: list[PipelineConfig] = []

    def failing(session: Session) -> None:
        with session.recorded():
            planned.append(session.config)
            raise StageFailed("data", "no memory")

    monkeypatch.setattr("pipeline.share.reproduce.run_session", failing)
    mirror, tracker = f"execution.mirror=file://{tmp_path / 'mirror'}", "export={to: mlflow, uri: http://theirs}"
    settings = config(tmp_path, mirror, tracker).model_dump(mode="json")
    record = tmp_path / "record.json"
    record.write_text(json.dumps({**REPORT, "config": settings}))
    home = tmp_path / "new home"
    monkeypatch.setattr(
        "sys.argv", ["vcore", "reproduce", str(record), "--home", str(home), "--set", "execution.threads=1"]
    )
    for _ in range(2):  # called again, it goes on in the same place
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == EXIT_STAGE_FAILED
    assert [(c.execution.mirror, c.export) for c in planned] == [(None, []), (None, [])]
    assert {c.home for c in planned} == {str(home / "reproduce" / "nightly-seed-3")}
    assert f"vcore reproduce {record} --home '{home}' --set execution.threads=1" in capsys.readouterr().err
