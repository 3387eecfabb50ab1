"""Running a recorded result again, and how it came back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.app import main
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import EXIT_STAGE_FAILED, ConfigError, StageFailed
from pipeline.run.session import Session
from pipeline.share.publish import assemble
from pipeline.share.reproduce import compare, pinned, read_record
from tests.pipeline.helpers import config
from tests.pipeline.share.records import OUTSIDE, REPORT, RESULT


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


def stage(name: str, digest: str, comes_back: str = "bit for bit", base: str = "", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "ran",
        "digest": digest,
        "comes_back": comes_back,
        "inputs": {"base": {"stage": "base", "key": "k", "digest": base}} if base else {},
        "versions": {"torch": "1"},
        "hardware": {"cpu": "a CPU", "cores": 2, "gpu": []},
        "git": {"commit": "c", "dirty": False},
        **facts,
    }


BROKEN, WITHIN = ("not reproduced", "sft"), ("within the intervals", None)


@pytest.mark.parametrize(
    ("again_is", "config", "found"),
    [
        ([stage("base", "b"), stage("sft", "s", base="b")], {}, ("bit for bit", None)),
        ([stage("base", "b"), stage("sft", "x", base="b")], {}, BROKEN),
        ([stage("base", "b"), stage("sft", "x", "to rounding", base="b")], {}, WITHIN),
        ([stage("base", "b"), stage("sft", "x", "", base="b")], {}, WITHIN),
        ([stage("base", "y", "to rounding"), stage("sft", "x", base="y")], {}, WITHIN),
        ([stage("base", "b"), stage("sft", "x", base="b", versions={"torch": "2"})], {}, WITHIN),
        ([stage("base", "b"), stage("sft", "x", base="b", hardware={"cpu": "another"})], {}, WITHIN),
        ([stage("base", "b"), stage("sft", "x", base="b", git={"commit": "c", "dirty": True})], {}, WITHIN),
        ([stage("base", "b"), stage("sft", "x", base="b")], {"sft": {"micro_batch_size": 2}}, WITHIN),
        ([stage("base", "b"), stage("sft", "x", base="b")], {"execution": {"threads": 1}}, WITHIN),
    ],
)
def test_other_bytes_are_judged_by_what_the_stage_promised(
    again_is: list[dict[str, Any]], config: dict[str, Any], found: tuple[str, str | None]
) -> None:
    how = {**REPORT["config"], "execution": {"threads": 2}, "sft": {"micro_batch_size": 1}}
    first = {**REPORT, "config": how, "stages": [stage("base", "b"), stage("sft", "s", base="b")]}
    compared = compare(first, {**first, "stages": again_is, "config": {**how, **config}})
    assert (compared["verdict"], compared["broken"]) == found
    assert compared["differences"] == (["execution.threads: 2 -> 1"] if "execution" in config else [])
    earlier = {**first, "stages": [{**one, "state": "cached"} for one in first["stages"]]}  # nobody knows its threads
    assert compare(earlier, {**first, "stages": again_is})["broken"] is None


def test_grading_goes_by_the_clock_and_is_not_judged_by_its_bytes() -> None:
    first = {**REPORT, "stages": [stage("score.sft", "s")]}
    assert compare(first, {**first, "stages": [stage("score.sft", "x")]})["broken"] is None


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
    with pytest.raises(ConfigError, match=r"repor.json: there is no such file or folder"):
        read_record(home, str(run / "repor.json"))


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
