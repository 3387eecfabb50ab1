"""A gate that is undecided takes more samples, of its benchmark alone. Real plan, store and session; what the stages'
processes write is given: each problem's samples are drawn with a chance of their checkpoint, always the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evaluation.gates.paired import Sampled
from evaluation.gates.verdict import Rule
from evaluation.records import Score, write_jsonl
from pipeline.cli.app import app
from pipeline.core.errors import ConfigError, GateFailed, StageFailed
from pipeline.launch.process import Launch
from pipeline.plan.decide import Options
from pipeline.run.documents import RunRecordDocument
from pipeline.run.gates.baseline import bless
from pipeline.run.gates.gate import Asked, judge_all
from pipeline.run.gc import collect
from pipeline.run.session import plan_only
from pipeline.store.store import Store
from stages.harness.documents import Spec, StageResult
from tests.pipeline.run.gates.test_gate import N, Pipeline

SAMPLED = f"{{name: word_problems, problems: {N}, max_new_tokens: 64, temperature: 1.0, samples: 2}}"
BESIDE = "{name: tiny_code, problems: 20, max_new_tokens: 64}"
AGAINST_BASE = "{benchmark: word_problems, checkpoint: sft, against: base, max_drop: 5}"


class Sampling(Pipeline):
    """`chance`: with which a checkpoint solves a problem. `drawn`: (stage, benchmarks with their samples) sampled."""

    chance: dict[str, float]
    drawn: list[tuple[str, dict[str, int]]]
    draw = 0
    """Another one draws other samples."""
    broken = ""
    """A stage that fails."""

    def _process(self, launch: Launch, spec: Spec, on_event: Any) -> StageResult:
        if launch.stage == self.broken:
            raise StageFailed(launch.stage, "there is no engine")
        result = super()._process(launch, spec, on_event)
        program, _, rest = launch.stage.partition(".")
        if program == "generate":
            benchmarks = {one["name"]: one["samples"] for one in spec.settings["benchmarks"]}
            self.drawn.append((launch.stage, benchmarks))
            said = json.dumps({"of": rest.partition(".")[0], "benchmarks": benchmarks, "p": self.chance})
            (launch.work / "out" / "generations.jsonl").write_text(said)
        if program == "score" and "-" in rest:  # what is graded is noted, so that nobody clears it away
            going = {removal.key for removal in collect(self.store, keep_last=0, keep_named=(), max_bytes=None)}
            assert Path(spec.inputs["generations"]).name not in going
        if program == "score":
            made = json.loads((Path(spec.inputs["generations"]) / "generations.jsonl").read_text())
            self._write(launch.work / "out", made["benchmarks"], self.chance[made["of"]], made["of"])
        return result

    def _scores(self, out: Path, right: int) -> None:
        pass

    def _write(self, out: Path, benchmarks: dict[str, int], chance: float, of: str) -> None:
        rows, metrics = [], {}
        for name, k in benchmarks.items():
            right = np.random.default_rng([self.draw, ord(of[0]), len(name)]).random((N, 64))[:, :k] < chance
            rows += [
                Score(name, f"p{i}", s, "correct" if right[i, s] else "wrong", "1", "1")
                for i in range(N)
                for s in range(k)
            ]
            details = {"sampling": {"samples": k, "temperature": 1.0 if k > 1 else 0.0}}
            metrics[name] = {"n": N, "k": k, "protocol": f"{name} {k}", "protocol_details": details}
            metrics[name] |= {"truncated": 0, "no_answer": 0}
        write_jsonl(out / "scores.jsonl", rows)
        (out / "metrics.json").write_text(json.dumps(metrics))

    @property
    def store(self) -> Store:
        return Store(self.folder / "home")

    def settings(self, *more: str) -> list[str]:
        return super().settings(f"benchmarks=[{SAMPLED}, {BESIDE}]", *more)

    def judge(self, *more: str) -> tuple[RunRecordDocument, list[tuple[str, int | None]]]:
        """Run all of it; the record, and each check's verdict with the samples of a problem that it was judged by."""
        record = self.run(*more).record.data
        return record, [(one.verdict, one.samples) for one in record.gate or ()]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sampling:
    made = Sampling(tmp_path, monkeypatch)
    made.chance, made.drawn = {"base": 0.5, "sft": 0.5, "grpo": 0.5}, []
    return made


def further(pipeline: Sampling) -> list[tuple[str, dict[str, int]]]:
    return [one for one in pipeline.drawn if "-" in one[0]]


def test_undecided_without_more_samples_and_decided_with_them(pipeline: Sampling) -> None:
    _, judged = pipeline.judge(f"gate.checks=[{AGAINST_BASE}]")
    assert judged == [("UNDECIDED", 2)]
    assert further(pipeline) == []
    record, judged = pipeline.judge(f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=32")
    verdict, samples = judged[0]
    assert verdict == "PASS"
    assert samples in (4, 8, 16)
    looks = [k for k in (4, 8, 16) if k <= samples]
    assert further(pipeline) == [
        (f"generate.{of}.word_problems-{k}", {"word_problems": k}) for k in looks for of in ("sft", "base")
    ]
    assert [(one.checkpoint, one.samples) for one in record.further] == [
        (of, k) for k in looks for of in ("sft", "base")
    ]
    assert record.gate is not None
    assert record.gate[0].looks == 5
    assert record.gate[0].p_pass is not None
    assert record.gate[0].p_pass <= 0.05


def test_what_was_drawn_is_there_the_next_time_and_kept_while_its_run_is(pipeline: Sampling) -> None:
    asked = (f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=32")
    _, before = pipeline.judge(*asked)
    drawn = len(pipeline.drawn)
    record, after = pipeline.judge(*asked)
    assert (after, len(pipeline.drawn)) == (before, drawn)
    store = pipeline.store
    keys = {key for one in record.further for key in (one.generations, one.scores)}
    assert keys
    going = {removal.key for removal in collect(store, keep_last=1, keep_named=(), max_bytes=None)}
    assert not keys & going
    assert keys <= {removal.key for removal in collect(store, keep_last=0, keep_named=(), max_bytes=None)}


def test_more_samples_that_show_a_drop_stop_the_run_before_rl(pipeline: Sampling) -> None:
    pipeline.chance["sft"] = 0.4
    with pytest.raises(GateFailed, match="FAIL, and the run stops here"):
        pipeline.run(f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=32")
    assert further(pipeline)
    assert "grpo" not in pipeline.started


def test_samples_end_at_the_budget_with_the_check_undecided(pipeline: Sampling) -> None:
    pipeline.chance["sft"] = 0.45  # just the margin
    record, judged = pipeline.judge(f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=6")
    assert judged == [("UNDECIDED", 6)]
    assert {k for _, sampled in further(pipeline) for k in sampled.values()} == {4, 6}
    assert record.gate is not None
    assert record.gate[0].problems_needed is not None


def test_a_baseline_is_sampled_more_too_where_its_model_is_there(pipeline: Sampling) -> None:
    home = pipeline.folder / "home"
    baseline = pipeline.run().record.data.id
    bless(home, baseline, "ada")
    yaml = pipeline.folder / "small.yaml"
    yaml.write_text(yaml.read_text().replace("max_steps: 4", "max_steps: 5"))
    pipeline.right["sft"] = pipeline.right["grpo"] = 99  # other weights
    pipeline.draw = 1
    check = "{benchmark: word_problems, max_change: 8}"
    record, judged = pipeline.judge(f"gate.checks=[{check}]", "gate.more_samples=16")
    assert judged[0][0] == "PASS"
    assert {one.checkpoint for one in record.further} == {"grpo", f"{baseline}:grpo"}
    first, second, *_ = further(pipeline)
    assert first == ("generate.grpo.word_problems-4", {"word_problems": 4})
    assert second == ("generate.grpo.word_problems-4-baseline", {"word_problems": 4})
    models = {
        json.loads((home / "store" / "score" / one.scores / "manifest.json").read_text())["key"]
        for one in record.further
    }
    assert len(models) == len(record.further)


def test_a_baseline_that_is_a_file_keeps_the_samples_it_has(pipeline: Sampling) -> None:
    session = pipeline.run()
    keys = {stage.name: stage.key for stage in session.record.data.stages}
    file = pipeline.folder / "home" / "store" / "score" / keys["score.grpo"]
    pipeline.right["sft"] = pipeline.right["grpo"] = 99
    pipeline.draw = 1
    checks = "gate.checks=[{benchmark: word_problems, max_change: 12}]"
    _, judged = pipeline.judge(checks, "gate.more_samples=32", f"gate.baseline={file}", "sft.learning_rate=1e-3")
    assert judged[0][0] == "PASS"
    assert judged[0][1] in (4, 8, 16, 32)
    assert {stage for stage, _ in further(pipeline)} <= {f"generate.grpo.word_problems-{k}" for k in (4, 8, 16, 32)}


def test_greedy_and_advisory_checks_buy_nothing(pipeline: Sampling) -> None:
    others = "{benchmark: tiny_code, checkpoint: sft, against: base, max_drop: 1}"
    advisory = AGAINST_BASE.replace("max_drop: 5", "max_drop: 1, tier: advisory")
    sure = "{benchmark: word_problems, checkpoint: sft, against: base, max_drop: 40}"
    _, judged = pipeline.judge(f"gate.checks=[{others}, {advisory}, {sure}]", "gate.more_samples=32")
    assert further(pipeline) == []
    assert judged == [("UNDECIDED", 1), ("UNDECIDED", 2), ("PASS", 2)]


def test_an_advisory_check_beside_a_critical_one_is_judged_by_the_configs_samples(pipeline: Sampling) -> None:
    advisory = AGAINST_BASE.replace("max_drop: 5", "max_drop: 5, tier: advisory")
    record, judged = pipeline.judge(f"gate.checks=[{advisory}, {AGAINST_BASE}]", "gate.more_samples=32")
    assert judged[0] == ("UNDECIDED", 2)
    assert judged[1][0] == "PASS"
    assert record.further


def test_what_was_claimed_at_one_look_stands_at_later_ones() -> None:
    def sampled(right: int, samples: int) -> Sampled:
        shares = {f"p{i}": float(i < right) for i in range(N)}
        return Sampled(shares, samples, "p", {"sampling": {"samples": samples, "temperature": 1.0}})

    looks = [(sampled(150, k), sampled(right, k)) for k, right in ((2, 150), (4, 190))]  # (new, old)
    for series, verdict, samples in ((looks, "PASS", 2), (looks[::-1], "FAIL", 4)):
        new, old = series[0]
        one = Asked("b", "sft", "base", new, old, Rule("drop", 0.05), looks=2, series=tuple(series))
        ((judged),) = judge_all([one], 0.05, 0.05)
        assert (judged.verdict, judged.samples) == (verdict, samples)


def test_more_samples_that_are_not_to_be_had_leave_a_check_undecided_and_say_why(pipeline: Sampling) -> None:
    pipeline.broken = "generate.grpo.word_problems-4"
    other = "{benchmark: word_problems, checkpoint: grpo, against: sft, max_change: 6}"
    greedy = "{benchmark: tiny_code, checkpoint: sft, against: base, max_drop: 1}"
    record, judged = pipeline.judge(f"gate.checks=[{other}, {AGAINST_BASE}, {greedy}]", "gate.more_samples=32")
    assert record.status == "done"
    assert judged[0] == ("UNDECIDED", 2)
    assert judged[1][0] == "PASS", "what fails for one check does not keep another from its samples"
    reasons = [one.reason for one in record.gate or ()]
    assert reasons == ["more samples were not to be had: there is no engine", "", ""]
    pipeline.broken = ""
    _, judged = pipeline.judge(f"gate.checks=[{other}]", "gate.more_samples=32")
    assert judged[0][0] == "PASS"


def test_what_is_forced_is_drawn_anew_with_its_further_samples(pipeline: Sampling) -> None:
    asked = (f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=32")
    pipeline.judge(*asked)
    first = further(pipeline)
    pipeline.drawn.clear()
    session = pipeline.run(*asked, options=Options(force=("generate.sft", "score.sft")))
    assert further(pipeline) == [one for one in first if one[0].startswith("generate.sft")]
    assert session.summary().startswith("11 stages: 2 ran, 9 cached; ")
    assert "more for undecided checks of the gate" in session.summary()
    pipeline.drawn.clear()
    session = pipeline.run(*asked)
    assert session.nothing_ran
    assert session.summary() == "11 stages: 0 ran, 11 cached; nothing has changed"


def test_a_stage_that_runs_alone_is_not_joined_by_others(pipeline: Sampling) -> None:
    pipeline.run("grpo=null", "data.rl=[]")
    pipeline.run(f"gate.checks=[{AGAINST_BASE}]", options=Options(until="score.sft"))
    alone = Options(only="grpo")
    pipeline.run(f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=32", options=alone)
    assert "grpo" in pipeline.started
    assert further(pipeline) == []


def test_a_baseline_of_another_pipeline_with_other_samples_is_sampled_more(pipeline: Sampling) -> None:
    baseline = pipeline.run("name=other", "benchmarks.0.samples=3").record.data.id
    pipeline.right["sft"] = pipeline.right["grpo"] = 99
    pipeline.draw = 1
    check = "{benchmark: word_problems, max_change: 8}"
    changed = ("sft.learning_rate=1e-3", f"gate.baseline={baseline}")
    record, judged = pipeline.judge(f"gate.checks=[{check}]", "gate.more_samples=16", *changed)
    assert judged[0][0] == "PASS"
    assert record.gate is not None
    assert record.gate[0].samples_before == record.gate[0].samples
    assert f"{baseline}:grpo" in {one.checkpoint for one in record.further}


def test_a_plan_says_after_how_many_samples_a_check_is_looked_at(pipeline: Sampling) -> None:
    asked = pipeline.settings(f"gate.checks=[{AGAINST_BASE}, {{benchmark: tiny_code, max_drop: 1}}]")
    for most, looks in ((32, "2 → 4 → 8 → 16 → 32"), (6, "2 → 4 → 6")):
        words = [word for one in (*asked, f"gate.more_samples={most}") for word in ("--set", one)]
        planned = CliRunner().invoke(app, ["plan", str(pipeline.folder / "small.yaml"), *words])
        said = f"gate: word_problems: {looks} samples of each problem at most, while a check is undecided"
        assert planned.output.splitlines()[-1] == said
    as_json = CliRunner().invoke(app, ["plan", str(pipeline.folder / "small.yaml"), "--json", *words])
    assert json.loads(as_json.output)["gate"] == [said.removeprefix("gate: ")]


@pytest.mark.parametrize("baseline", ["", " "])
def test_an_empty_baseline_is_refused_with_its_line(pipeline: Sampling, baseline: str) -> None:
    file = pipeline.folder / "small.yaml"
    file.write_text(f"{file.read_text()}gate:\n  baseline: '{baseline}'\n")
    line = len(file.read_text().splitlines())
    with pytest.raises(ConfigError, match=rf"small\.yaml:{line}: gate\.baseline: name a run \(vcore runs\)"):
        plan_only(file, pipeline.settings(), Options())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("gate.more_samples=32",), "no critical check has a margin that more samples could decide"),
        ((f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=1"), r"gate\.more_samples"),
        ((f"gate.checks=[{AGAINST_BASE}]", "benchmarks.0.samples=4", "gate.more_samples=4"), "have 4 samples or more"),
        ((f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=0"), r"gate\.more_samples"),
        (
            (f"gate.checks=[{AGAINST_BASE}]", "gate.more_samples=100000000000"),
            r"gate\.more_samples: Input should be less than or equal to 1024 \(found 100000000000\)",
        ),
        (("benchmarks.0.samples=65537",), r"benchmarks\.0\.samples: Input should be less than or equal to 65536"),
        (
            ("gate.checks=[{benchmark: tiny_code, max_drop: 1}]", "gate.more_samples=4"),
            "tiny_code: greedy, so that further samples would be the same",
        ),
    ],
)
def test_what_cannot_be_bought_is_refused_by_the_plan(pipeline: Sampling, settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_only(pipeline.folder / "small.yaml", pipeline.settings(*settings), Options())
