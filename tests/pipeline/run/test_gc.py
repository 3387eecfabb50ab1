"""Names of artifacts, export, adoption and removal, on a real store that a small pipeline has filled."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import ConfigError, StoreError
from pipeline.plan.decide import Decider
from pipeline.plan.graph import build_graph
from pipeline.run.adopt import adopt
from pipeline.run.execute import Executor
from pipeline.run.gc import collect, export, find_artifact, remove
from pipeline.run.record import RunRecord
from pipeline.run.view import View
from pipeline.store.store import Store
from tests.pipeline.helpers import config, make, plan


def store_of(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def recorded_run(tmp_path: Path, *overrides: str, until: str = "report", status: str = "done") -> RunRecord:
    """A run in which every stage up to one is cached, through the real executor."""
    settings = config(tmp_path, *overrides)
    store = store_of(tmp_path)
    record = RunRecord.start(store.home, settings, "vcore run small.yaml", [])
    executor = Executor(Decider(settings, store), View(), command="")
    for stage in build_graph(settings):
        outcome = executor.ensure(stage)
        assert outcome.state == "cached"
        record.stage_done(outcome)
        if stage.name == until:
            break
    record.end(status)
    return record


def test_artifacts_are_named_by_key_and_by_stage_of_a_run(tmp_path: Path) -> None:
    make(tmp_path)
    key = plan(tmp_path)["sft"].key
    assert key is not None
    first = recorded_run(tmp_path)
    store = store_of(tmp_path)
    assert find_artifact(store, key[:8]).key == find_artifact(store, "sft").key == key
    assert find_artifact(store, f"{first.data.id}:score.sft").manifest.name == "score.sft"
    with pytest.raises(ConfigError, match=r"has no stage 'sgt'; it has data, base"):
        find_artifact(store, "sgt")
    (store.folder("sft", key) / "model/weights").write_text("other bytes")
    with pytest.raises(StoreError, match="model/weights damaged"):
        find_artifact(store, "sft")


def test_export_copies_whole_artifacts_only(tmp_path: Path) -> None:
    make(tmp_path)
    recorded_run(tmp_path)
    artifact = find_artifact(store_of(tmp_path), "sft")
    export(artifact, tmp_path / "taken")
    assert (tmp_path / "taken/model/weights").read_bytes() == (artifact.folder / "model/weights").read_bytes()
    assert json.loads((tmp_path / "taken/manifest.json").read_text())["key"] == artifact.key
    with pytest.raises(ConfigError, match="exists"):
        export(artifact, tmp_path / "taken")
    (artifact.folder / "model/weights").write_text("damaged after it was found")
    with pytest.raises(StoreError, match="not what its manifest says"):
        export(artifact, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_removal_keeps_what_the_last_runs_and_named_pipelines_need(tmp_path: Path) -> None:
    make(tmp_path)
    recorded_run(tmp_path)
    make(tmp_path, "sft.learning_rate=0.001", content="other")
    second = recorded_run(tmp_path, "sft.learning_rate=0.001")
    make(tmp_path, "name=kept", "grpo.steps=3", content="third")
    recorded_run(tmp_path, "name=kept", "grpo.steps=3")
    make(tmp_path, "name=kept", "grpo.steps=4", content="fourth")
    recorded_run(tmp_path, "name=kept", "grpo.steps=4")
    store = store_of(tmp_path)
    before = {key for _, key, _ in store.artifacts()}

    gone = {r.key for r in collect(store, keep_last=1, keep_named=(), max_bytes=None)}
    needed = {entry.key for entry in second.data.stages}
    assert gone
    assert not gone & needed
    kept = {r.key for r in collect(store, keep_last=1, keep_named=("ke*",), max_bytes=None)}
    assert kept < gone
    assert {r.key for r in collect(store, keep_last=2, keep_named=(), max_bytes=None)} == set()
    assert {r.key for r in collect(store, keep_last=0, keep_named=(), max_bytes=10**9)} == set(), (
        "below the size nothing goes"
    )
    assert before == {key for _, key, _ in store.artifacts()}, "saying what would go removes nothing"

    freed, busy = remove(store, collect(store, keep_last=1, keep_named=(), max_bytes=None))
    assert freed > 0
    assert busy == []
    assert {key for _, key, _ in store.artifacts()} == before - gone
    assert {p.state for p in plan(tmp_path, "sft.learning_rate=0.001").values()} == {"HIT"}
    assert "gone from the store" not in plan(tmp_path)["data"].reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("until", "status"), [("data", "done"), ("sft", "failed"), ("sft", "interrupted"), ("sft", "running")]
)
def test_a_part_of_a_run_does_not_take_the_last_whole_one_away(tmp_path: Path, until: str, status: str) -> None:
    make(tmp_path, "grpo=null")
    whole = recorded_run(tmp_path, "grpo=null")
    other = ("grpo=null", "sft.learning_rate=0.001", "data.sft.0.rows=32")
    make(tmp_path, *other, until=until)
    part = recorded_run(tmp_path, *other, until=until, status=status)
    made = {stage.key for record in (whole, part) for stage in record.data.stages}
    store = store_of(tmp_path)
    assert made == {key for _, key, _ in store.artifacts()}
    assert collect(store, keep_last=1, keep_named=(), max_bytes=None) == []
    make(tmp_path, *other)
    recorded_run(tmp_path, *other)
    gone = {removal.key for removal in collect(store, keep_last=1, keep_named=(), max_bytes=None)}
    assert {stage.key for stage in whole.data.stages if stage.name == "sft"} < gone, "a whole one follows"


def test_attempts_that_can_be_resumed_stay_and_other_leftovers_go(tmp_path: Path) -> None:
    make(tmp_path, until="base")
    recorded_run(tmp_path, until="base")
    store = store_of(tmp_path)
    data, base = str(plan(tmp_path)["data"].key), str(plan(tmp_path)["base"].key)
    for attempt in (store.work("base", base), store.work("sft", "9" * 64)):
        (attempt / "state" / "checkpoint").mkdir(parents=True)
        (attempt / "out").mkdir()
    over, copied = store.work("data", data), store.work("data", f"{data}.incoming")
    (over / "out").mkdir(parents=True)
    copied.mkdir()
    removals = collect(store, keep_last=1, keep_named=(), max_bytes=None)
    assert {removal.folder: removal.reason for removal in removals} == {
        over: "its artifact exists",
        copied: "left of a copy that was not finished",
    }
    with store.lock("data", data, lambda who: None):
        assert remove(store, removals) == (0, ["work", "work"])
    remove(store, removals)
    assert remove(store, removals) == (0, []), "two may clear up at once"
    assert not over.exists()
    assert not copied.exists()


def test_an_artifact_in_use_is_not_removed(tmp_path: Path) -> None:
    make(tmp_path)
    store = store_of(tmp_path)
    key = plan(tmp_path)["data"].key
    assert key is not None
    removals = [r for r in collect(store, keep_last=1, keep_named=(), max_bytes=None) if r.key == key]
    with store.lock("data", key, lambda who: None):
        freed, busy = remove(store, removals)
    assert (freed, busy) == (0, [f"data/{key[:12]}"])
    assert store.find("data", key).artifact is not None


def test_adopting_what_a_stage_made_last(tmp_path: Path) -> None:
    make(tmp_path)
    old = plan(tmp_path)["sft"].key
    assert plan(tmp_path, "sft.learning_rate=0.001")["sft"].state == "RUN"
    artifact, differing = adopt(config(tmp_path, "sft.learning_rate=0.001"), store_of(tmp_path), "sft", None)
    assert differing == ["settings.learning_rate 0.002 → 0.001"]
    assert artifact.manifest.adopted is not None
    assert artifact.manifest.adopted.source == f"sft/{old}"
    after = plan(tmp_path, "sft.learning_rate=0.001")
    assert after["sft"].state == "HIT"
    assert after["generate.sft"].state == "HIT", "equal content keeps what depends on it"
    assert plan(tmp_path)["sft"].state == "HIT", "the original stays"


def test_adopting_a_checkpoint_from_elsewhere(tmp_path: Path) -> None:
    make(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    settings = config(tmp_path, "sft.learning_rate=0.001")
    with pytest.raises(ConfigError, match=r"no config.json, tokenizer_config.json, \*.safetensors"):
        adopt(settings, store_of(tmp_path), "sft", str(foreign))
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (foreign / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"not for score\.sft"):
        adopt(config(tmp_path, "score.max_grader_error_share=0.5"), store_of(tmp_path), "score.sft", str(foreign))
    artifact, _ = adopt(settings, store_of(tmp_path), "sft", str(foreign))
    assert (artifact.folder / "model/model.safetensors").read_text() == "{}"
    assert artifact.manifest.git.commit is None, "who made it is not known"
    after = plan(tmp_path, "sft.learning_rate=0.001")
    assert (after["sft"].state, after["generate.sft"].state) == ("HIT", "RUN")


def test_adopting_leaves_an_interrupted_attempt_alone(tmp_path: Path) -> None:
    make(tmp_path, until="sft")
    store, settings = store_of(tmp_path), config(tmp_path, "sft.learning_rate=0.001")
    state = store.work("sft", str(plan(tmp_path, "sft.learning_rate=0.001")["sft"].key)) / "state"
    state.mkdir(parents=True)
    (state / "checkpoint").write_text("a day's work")
    adopt(settings, store, "sft", None)
    assert (state / "checkpoint").is_file()
    assert [folder.name for folder in (store.home / "work" / "sft").iterdir()] == [state.parent.name]


def test_adopting_what_another_process_is_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, until="sft")
    store, settings, said = store_of(tmp_path), config(tmp_path, "sft.learning_rate=0.001"), []
    lock = Store.lock

    @contextlib.contextmanager
    def made_meanwhile(self: Store, program: str, key: str, waiting: Callable[[str], None]) -> Iterator[int]:
        waiting("process 1 on elsewhere")
        make(tmp_path, "sft.learning_rate=0.001", until="sft")
        with lock(self, program, key, waiting) as held:
            yield held

    monkeypatch.setattr(Store, "lock", made_meanwhile)
    with pytest.raises(ConfigError, match="sft was made meanwhile"):
        adopt(settings, store, "sft", None, said.append)
    assert said == ["sft waits for process 1 on elsewhere, which is making it"]
    assert plan(tmp_path, "sft.learning_rate=0.001")["sft"].artifact.manifest.adopted is None  # type: ignore[union-attr]


def test_adopting_onto_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, until="sft")
    store = store_of(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(StoreError, match=r"stage sft: cannot write below .*No space left on device\nFree some"):
        adopt(config(tmp_path, "sft.learning_rate=0.001"), store, "sft", None)
    assert list((store.home / "work" / "sft").iterdir()) == []
    assert plan(tmp_path, "sft.learning_rate=0.001")["sft"].state == "RUN"


@pytest.mark.parametrize(("stage", "message"), [("sgt", "no stage 'sgt'"), ("sft", "nothing to adopt")])
def test_nothing_to_adopt(tmp_path: Path, stage: str, message: str) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        adopt(config(tmp_path), store_of(tmp_path), stage, None)


def test_commands(tmp_path: Path) -> None:
    make(tmp_path)
    recorded_run(tmp_path)
    home = ["--home", str(tmp_path / "home")]
    shown = CliRunner().invoke(app, ["store", "show", "sft", *home])
    assert shown.exit_code == 0, shown.output
    assert "model/weights" in shown.output
    kept = CliRunner().invoke(app, ["store", "gc", *home]).output
    assert kept.startswith("Nothing to remove: kept runs need all that is there")
    listed = CliRunner().invoke(app, ["store", "gc", "--keep-last", "0", *home, "--json"])
    assert json.loads(listed.output)["removed"] is False
    assert len(json.loads(listed.output)["removals"]) == 11
    done = CliRunner().invoke(app, ["store", "gc", "--keep-last", "0", "--yes", *home])
    assert done.exit_code == 0
    assert not list(store_of(tmp_path).artifacts())
    assert os.listdir(tmp_path / "home/trash") == []


@pytest.mark.parametrize("words", [["store", "ls"], ["store", "verify"], ["store", "gc"], ["store", "show", "sft"]])
def test_looking_into_no_store_makes_none(tmp_path: Path, words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--home", str(tmp_path / "none")])
    assert isinstance(result.exception, StoreError)
    assert not (tmp_path / "none").exists()
