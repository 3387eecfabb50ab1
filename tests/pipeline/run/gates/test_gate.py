"""The gate of a run: between stages, at the end, and what is refused before anything is computed. Real plan, store and
session; what the stages' processes write is given."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Score, write_jsonl
from pipeline.core.errors import ConfigError, GateFailed
from pipeline.launch.process import Launch
from pipeline.plan.decide import Options
from pipeline.run import execute
from pipeline.run.gates.baseline import bless
from pipeline.run.gates.planned import gate_notes
from pipeline.run.record import load_run
from pipeline.run.session import Session, plan_only
from pipeline.run.view import View
from stages.harness.documents import Spec, StageResult
from tests.pipeline.helpers import config

N = 200
BENCHMARK = f"benchmarks=[{{name: word_problems, problems: {N}, max_new_tokens: 64}}]"
BROKEN = "gate.checks=[{benchmark: word_problems, checkpoint: sft, against: base, max_drop: 5}]"


class Pipeline:
    """Runs the small pipeline; `right` says how many problems each checkpoint solves, `started` which stages ran."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.started = folder, list[str]()
        self.right = {"base": 100, "sft": 100, "grpo": 100}
        self.truncated = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(execute, "run_process", self._process)
        config(folder)

    def _process(self, launch: Launch, spec: Spec, on_event: Any) -> StageResult:
        self.started.append(launch.stage)
        out = launch.work / "out"
        (out / "model").mkdir(parents=True, exist_ok=True)
        (out / "benchmarks").mkdir(exist_ok=True)
        program, _, checkpoint = launch.stage.partition(".")
        for file in ("sft.jsonl", "rl.jsonl", "model/weights", "benchmarks/word_problems.jsonl", "generations.jsonl"):
            (out / file).write_text(f"{launch.stage} {self.right.get(checkpoint or program)}")
        if program == "score":
            self._scores(out, self.right.get(checkpoint, 0))
        for file, text in (("report.md", ""), ("report.html", ""), ("report.json", '{"seed": 0, "results": []}')):
            (out / file).write_text(text)
        return StageResult(proof={"made": 1})

    def _scores(self, out: Path, right: int) -> None:
        rows = [Score("word_problems", f"p{i}", 0, "correct" if i < right else "wrong", "1", "1") for i in range(N)]
        write_jsonl(out / "scores.jsonl", rows)
        entry = {"n": N, "k": 1, "protocol": "p", "truncated": self.truncated, "no_answer": 0}
        (out / "metrics.json").write_text(json.dumps({"word_problems": entry}))

    def settings(self, *more: str) -> list[str]:
        return [f"home={self.folder / 'home'}", BENCHMARK, "execution.device=cpu", *more]

    def run(self, *more: str, options: Options | None = None) -> Session:
        """Run all of it, or what the options say, as `vcore run` does without Prefect."""
        session = Session.prepare(self.folder / "small.yaml", self.settings(*more), options or Options(), View())
        session.emit = lambda event, **about: self.events.append((event, about))
        with session.recorded():
            session.run_remaining()
            session.finish()
        return session


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    return Pipeline(tmp_path, monkeypatch)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_broken_sft_stops_before_rl_with_the_command_that_goes_on_anyway(pipeline: Pipeline, at_once: int) -> None:
    pipeline.right["sft"] = 50
    with pytest.raises(GateFailed, match="gate before grpo: FAIL") as caught:
        pipeline.run(BROKEN, f"execution.stages_at_once={at_once}")
    assert caught.value.exit_code == 3
    assert "word_problems, sft: may drop by 5 points against base; -25.0 points" in str(caught.value)
    assert "score.sft" in pipeline.started
    assert "grpo" not in pipeline.started
    assert caught.value.continue_with.endswith("--set gate.stop=false")
    record = load_run(next((pipeline.folder / "home" / "runs").iterdir()))
    assert record.status == "failed"
    assert [verdict.verdict for verdict in record.gate or ()] == ["FAIL"]
    assert [event for event, _ in pipeline.events] == ["vcore.gate.failed"]

    session = pipeline.run(BROKEN, "gate.stop=false")
    assert session.record.data.status == "done"
    assert pipeline.started.count("score.sft") == 1, "what was computed is kept: the gate is in no key"
    assert "grpo" in pipeline.started


def test_a_model_that_kept_its_score_goes_on_and_the_end_judges_all(pipeline: Pipeline) -> None:
    checks = "{benchmark: word_problems, checkpoint: sft, against: base, max_drop: 5}"
    session = pipeline.run(f"gate.checks=[{checks}, {{benchmark: word_problems, against: sft, must_exceed: 2}}]")
    assert session.record.data.status == "done"
    judged = [(verdict.checkpoint, verdict.verdict) for verdict in session.record.data.gate or ()]
    assert judged[0] == ("sft", "PASS")
    assert judged[1][0] == "grpo"
    assert pipeline.events[0][0] == "vcore.gate.passed"


def test_too_many_completions_cut_at_the_limit_stop_a_run(pipeline: Pipeline) -> None:
    pipeline.truncated = 30
    with pytest.raises(GateFailed, match=r"15\.0 % of the samples are cut at the token limit, and 10 % may"):
        pipeline.run("gate.checks=[{benchmark: word_problems, checkpoint: sft, max_truncated: 10}]")


def test_an_advisory_check_stops_nothing(pipeline: Pipeline) -> None:
    pipeline.right["sft"] = 50
    session = pipeline.run(BROKEN.replace("max_drop: 5", "max_drop: 5, tier: advisory"))
    assert [verdict.verdict for verdict in session.record.data.gate or ()] == ["FAIL"]
    assert session.record.data.status == "done"


def test_what_a_gate_cannot_judge_is_refused_by_the_plan(pipeline: Pipeline) -> None:
    def plan(*settings: str) -> None:
        plan_only(pipeline.folder / "small.yaml", pipeline.settings(*settings), Options())

    refused = {
        "{benchmark: gsm8k, max_drop: 1}": "gate.checks.0.benchmark: 'gsm8k' is not measured here",
        "{benchmark: word_problems, checkpoint: dpo, max_drop: 1}": "there is no checkpoint 'dpo'",
        "{benchmark: word_problems, checkpoint: sft, against: grpo, max_drop: 1}": "'grpo' is nothing before sft",
        "{benchmark: word_problems}": "nothing is asked of word_problems",
        "{benchmark: word_problems, max_drop: 1, max_change: 1}": "max_drop is set already",
    }
    for check, said in refused.items():
        with pytest.raises(ConfigError, match=said):
            plan(f"gate.checks=[{check}]")
    with pytest.raises(ConfigError, match="9 problems of word_problems, and a gate needs 10"):
        plan(BROKEN, BENCHMARK.replace(str(N), "9"))
    with pytest.raises(ConfigError, match=r"gate\.baseline: no run is recorded"):
        plan("gate.baseline=20250101-020000-nightly")


def test_a_baseline_that_lacks_or_measured_otherwise_is_refused_by_the_plan(pipeline: Pipeline) -> None:
    pipeline.run("grpo=null", "data.rl=[]")
    home = pipeline.folder / "home"
    blessed = bless(home, "latest", "ada")
    against = "gate.checks=[{benchmark: word_problems, max_drop: 1}]"

    def plan(*settings: str) -> None:
        plan_only(pipeline.folder / "small.yaml", pipeline.settings(against, *settings), Options())

    with pytest.raises(ConfigError, match=f"the baseline {blessed.run} has no word_problems of grpo"):
        plan()
    plan("gate.stop=false")
    plan("grpo=null", "data.rl=[]")
    with pytest.raises(ConfigError, match=r"measured by another protocol: max_new_tokens: 64 / 65"):
        plan("grpo=null", "data.rl=[]", BENCHMARK.replace("64", "65"))
    for folder in (home / "store" / "score").iterdir():
        folder.rename(home / "trash" / folder.name)
    plan("grpo=null", "data.rl=[]")  # this run makes just these again
    other = ("grpo=null", "data.rl=[]", "sft.learning_rate=1e-3")
    gone = f"gate.checks.0: the scores of sft of the baseline {blessed.run} are gone from the store"
    with pytest.raises(ConfigError, match=gone):
        raise_whole(lambda: plan(*other))
    plan(*other, "gate.stop=false")


SFT_ALONE = ("grpo=null", "data.rl=[]")
AGAINST_BASELINE = "gate.checks=[{benchmark: word_problems, max_drop: 5}]"


def raise_whole(call: Callable[[], object]) -> None:
    """Call; an error has its place in front and what to do behind, as it is shown."""
    try:
        call()
    except ConfigError as error:
        raise ConfigError(str(error)) from error


@pytest.mark.parametrize("loss", ["folder gone", "record cut in half", "record gone"])
def test_a_lost_blessed_run_stops_only_runs_that_are_held_against_it(pipeline: Pipeline, loss: str) -> None:
    first = pipeline.run(*SFT_ALONE).record.data.id
    blessed = bless(pipeline.folder / "home", pipeline.run(*SFT_ALONE).record.data.id, "ada").run
    folder = pipeline.folder / "home" / "runs" / blessed
    file = folder / "run.json"
    if loss == "folder gone":
        shutil.rmtree(folder)
        time.sleep(1.1)  # a run of the same second would take the id that is free again, and be the baseline itself
    elif loss == "record gone":
        file.unlink()
    else:
        file.write_text(file.read_text()[:100])

    def plan(*settings: str) -> list[str]:
        arguments = pipeline.settings(*SFT_ALONE, *settings)
        config, store, _ = plan_only(pipeline.folder / "small.yaml", arguments, Options())
        return gate_notes(config, store)

    where = str(folder if loss == "folder gone" else file)
    with pytest.raises(ConfigError, match=rf"(?s)^{where}: run {blessed} was .*vcore bless RUN.*gate\.stop=false"):
        raise_whole(lambda: plan(AGAINST_BASELINE))
    for settings in ((), (BROKEN,), ("gate.checks=[{benchmark: word_problems, max_truncated: 5}]",)):
        (note,) = plan(*settings)
        assert note.startswith(f"{where}: run {blessed} was blessed")
        assert "the first run with the same seed stands in for it. " in note
        assert "UNDECIDED" not in note
    assert "checks against it stay UNDECIDED" in plan(AGAINST_BASELINE, "gate.stop=false")[0]

    record = pipeline.run(*SFT_ALONE, BROKEN).record.data
    assert (record.status, record.anchor, record.anchor_blessed) == ("done", first, False)
    assert [one.verdict for one in record.gate or ()] == ["PASS"]
    record = pipeline.run(*SFT_ALONE, AGAINST_BASELINE, "gate.stop=false").record.data
    (judged,) = record.gate or ()
    assert (judged.verdict, judged.reason.partition(" was blessed")[0]) == ("UNDECIDED", f"run {blessed}")


@pytest.mark.parametrize("file", ["scores.jsonl", "manifest.json"])
def test_damaged_scores_of_the_baseline_are_made_again_or_named(pipeline: Pipeline, file: str) -> None:
    session = pipeline.run(*SFT_ALONE)
    blessed = bless(pipeline.folder / "home", "latest", "ada").run
    key = {stage.name: stage.key for stage in session.record.data.stages}["score.sft"]
    damaged = pipeline.folder / "home" / "store" / "score" / key / file
    damaged.write_text(damaged.read_text()[:100])
    said = rf"(?s)of sft of the baseline {blessed} cannot be read \((file )?{file} .*--until score.sft --set gate.stop="
    with pytest.raises(ConfigError, match=said) as refused:
        raise_whole(lambda: pipeline.run(*SFT_ALONE, AGAINST_BASELINE, "sft.learning_rate=1e-3"))
    command = next(line for line in str(refused.value).splitlines() if "vcore run" in line).partition("again: ")[2]
    assert command.startswith(f"vcore run {pipeline.folder / 'small.yaml'} ")

    record = pipeline.run(*SFT_ALONE, AGAINST_BASELINE).record.data
    assert [stage.name for stage in record.stages if stage.state == "ran"] == ["score.sft"]
    assert [(one.against, one.verdict) for one in record.gate or ()] == [(blessed, "PASS")]


def test_the_gate_is_in_no_key(pipeline: Pipeline) -> None:
    _, _, plain = plan_only(pipeline.folder / "small.yaml", pipeline.settings(), Options())
    _, _, gated = plan_only(pipeline.folder / "small.yaml", pipeline.settings(BROKEN), Options())
    assert [planned.key for planned in plain] == [planned.key for planned in gated]
    assert next(p.stage.after for p in gated if p.stage.name == "grpo") == ("score.base", "score.sft")
