"""A run keeps what it planned: its keys are made once, and a key never stands for two results."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import StageFailed
from pipeline.launch.process import Launch
from pipeline.plan import code
from pipeline.plan.decide import Decider, Options
from pipeline.plan.graph import Stage
from pipeline.plan.keys import KeyMaker
from pipeline.run import execute
from pipeline.run.execute import Executor
from pipeline.run.session import Session
from pipeline.run.view import View
from pipeline.store.store import Store
from stages.difficulty.settings import DifficultySettings
from stages.difficulty.stage import STAGE as DIFFICULTY
from stages.harness.documents import Spec, StageResult
from tests.pipeline.helpers import config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "1 + 1?", "completion": "2"}\n')
    return file


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our sources, to be edited, which keys are made of."""
    root = tmp_path / "checkout"
    for package in ("stages", "evaluation"):
        shutil.copytree(code.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", root)
    monkeypatch.setattr(code, "_first_digests", functools.cache(code.source_digests))
    return root


def overrides(tmp_path: Path, pairs: Path) -> list[str]:
    return [f"home={tmp_path / 'home'}", f"data.sft=[{{file: {pairs}}}]", "execution.device=cpu"]


def append(file: Path) -> None:
    with open(file, "a", encoding="utf-8") as lines:
        lines.write('{"prompt": "2 + 2?", "completion": "4"}\n')


def stage_program(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = lambda: None) -> list[str]:
    """Let stage processes write a payload, and something else happen while they run; the names of those started."""
    started: list[str] = []

    def run_process(launch: Launch, spec: Spec, on_event: Any) -> StageResult:
        started.append(launch.stage)
        (launch.work / "out" / "model").mkdir(parents=True, exist_ok=True)
        for file in ("sft.jsonl", "rl.jsonl", "model/weights"):
            (launch.work / "out" / file).write_text(launch.stage)
        meanwhile()
        return StageResult(proof={"rows": 1})

    monkeypatch.setattr(execute, "run_process", run_process)
    return started


def test_data_that_changed_after_the_plan_is_refused(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = stage_program(monkeypatch)
    config(tmp_path)
    session = Session.prepare(tmp_path / "small.yaml", overrides(tmp_path, pairs), Options(), View())
    append(pairs)
    with (
        pytest.raises(StageFailed, match=r"data.sft.0 \(.*pairs.jsonl\) changed after this run was planned") as caught,
        session.recorded(),
    ):
        session.run_remaining()
    assert "planned anew" in caught.value.fix
    assert caught.value.exit_code == 1
    assert started == []
    assert list(session.store.artifacts()) == []
    recorded = json.loads((session.record.folder / "run.json").read_text())
    assert recorded["plan"][0]["key"] == session.executor.decider.decide(session.plan[0].stage, {}).key
    assert recorded["status"] == "failed"


def test_data_that_changes_while_a_stage_reads_it_is_not_published(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_program(monkeypatch, meanwhile=lambda: append(pairs))
    settings = config(tmp_path, *overrides(tmp_path, pairs))
    decider = Decider(settings, Store(settings.home_folder))
    with pytest.raises(StageFailed, match=r"data.sft.0 \(.*\) changed"):
        Executor(decider, View(), command="").ensure(decider.stages[0])
    assert list(decider.store.artifacts()) == []


def test_nothing_resumes_from_an_attempt_that_was_refused(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting the file back would else continue, under the old key, what was computed from another one."""
    before = pairs.read_text()
    settings = config(tmp_path, *overrides(tmp_path, pairs))
    decider = Decider(settings, Store(settings.home_folder))
    data = decider.stages[0]
    work = decider.store.work("data", decider.decide(data, {}).key)

    def train() -> None:
        (work / "state").mkdir()
        (work / "state" / "checkpoint").write_text("of other data")
        append(pairs)

    stage_program(monkeypatch, meanwhile=train)
    with pytest.raises(StageFailed, match=r"data.sft.0 .*changed"):
        Executor(decider, View(), command="").ensure(data)
    pairs.write_text(before)
    assert Decider(settings, Store(settings.home_folder)).decide(data, {}).action == "run"


def test_a_file_that_is_written_again_with_the_same_content_stops_nothing(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_program(monkeypatch, meanwhile=lambda: pairs.write_text(pairs.read_text()))
    settings = config(tmp_path, *overrides(tmp_path, pairs))
    decider = Decider(settings, Store(settings.home_folder))
    assert Executor(decider, View(), command="").ensure(decider.stages[0]).state == "ran"


def test_a_source_file_edited_during_a_run_starts_no_stage_under_the_old_key(
    tmp_path: Path, pairs: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = checkout / "stages" / "base" / "make" / "corpus.py"

    def edit() -> None:
        edited.write_text(edited.read_text().replace("FACTS_PER_DOCUMENT = 12", "FACTS_PER_DOCUMENT = 13"))

    started = stage_program(monkeypatch, meanwhile=edit)
    settings = config(tmp_path, *overrides(tmp_path, pairs))
    executor = Executor(Decider(settings, Store(settings.home_folder)), View(), command="")
    data, base = executor.decider.stages[:2]
    executor.decider.decide(base, {})  # as the plan does
    assert executor.ensure(data).state == "ran", "no file of its own was edited"
    with pytest.raises(StageFailed, match=r"stages/base/make/corpus.py changed"):
        executor.ensure(base)
    assert started == ["data"]


@pytest.mark.parametrize("remade", ["evaluation/records.py", "evaluation/graders/added.txt"])
def test_a_source_file_that_goes_or_comes_changes_what_a_key_stands_for(
    tmp_path: Path, checkout: Path, remade: str
) -> None:
    settings = config(tmp_path)
    difficulty = Stage("difficulty", DIFFICULTY, DifficultySettings(), {})
    keys = KeyMaker(settings, [difficulty], Store(settings.home_folder))
    keys.check_unchanged(difficulty)
    file = checkout / remade
    file.unlink() if file.exists() else file.write_text("")
    with pytest.raises(StageFailed, match=remade):
        keys.check_unchanged(difficulty)


def test_a_library_that_is_replaced_during_a_run_starts_no_stage_under_the_old_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = stage_program(monkeypatch)
    settings = config(tmp_path)
    executor = Executor(Decider(settings, Store(settings.home_folder)), View(), command="")
    monkeypatch.setattr("pipeline.plan.interpreters.library_versions", lambda libraries, exact: {"torch": "9.9"})
    with pytest.raises(StageFailed, match=r"torch.* changed after this run was planned"):
        executor.ensure(executor.decider.stages[1])
    assert started == []


def test_files_are_looked_at_again_before_another_attempt(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def run_process(launch: Launch, spec: Spec, on_event: Any) -> StageResult:
        attempts.append(launch.stage)
        append(pairs)
        raise StageFailed(launch.stage, "the network is away", cause="network")

    monkeypatch.setattr(execute, "run_process", run_process)
    settings = config(tmp_path, *overrides(tmp_path, pairs), "execution.retry_delay_s=0.0")
    executor = Executor(Decider(settings, Store(settings.home_folder)), View(), command="")
    with pytest.raises(StageFailed, match=r"data.sft.0 \(.*\) changed"):
        executor.ensure(executor.decider.stages[0])
    assert attempts == ["data"]


def test_a_hub_revision_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    lookups: list[str] = []

    def dataset_info(self: object, name: str, **options: Any) -> Any:
        lookups.append(name)
        return type("Info", (), {"sha": COMMIT})()

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    stage_program(monkeypatch)
    config(tmp_path)
    source = "data.sft=[{hub: someone/dataset}]"
    settings = [f"home={tmp_path / 'home'}", source, "execution.device=cpu"]
    session = Session.prepare(tmp_path / "small.yaml", settings, Options(), View())
    session.run_stage(session.plan[0].stage)
    assert lookups == ["someone/dataset"]
