"""Planning: states and reasons, forcing, running alone, and stopping where content did not change. The store is real;
no stage runs."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Decider, Options, chosen_stages, parse_triggers
from pipeline.plan.graph import build_graph
from pipeline.plan.keys import KeyMaker
from pipeline.run.execute import Executor
from pipeline.run.view import View
from pipeline.store.store import Store
from stages.score.settings import ScoreSettings
from tests.pipeline.helpers import ORDER, config, make, plan, states


def test_first_plan_runs_the_roots_and_waits_for_the_rest(tmp_path: Path) -> None:
    first = plan(tmp_path)
    assert list(first) == ORDER
    assert {n for n, s in states(first).items() if s == "RUN"} == {"data", "base"}
    assert first["data"].reason == "never run"
    assert first["sft"].state == "WAIT"
    assert first["sft"].reason == "depends on the output of data"


def test_all_cached_after_a_run(tmp_path: Path) -> None:
    make(tmp_path)
    again = plan(tmp_path)
    assert set(states(again).values()) == {"HIT"}
    assert again["sft"].last_seconds == 2.5


def test_a_changed_setting_runs_exactly_what_depends_on_it(tmp_path: Path) -> None:
    make(tmp_path)
    changed = plan(tmp_path, "sft.learning_rate=1e-3")
    assert changed["sft"].state == "RUN"
    assert changed["sft"].reason == "settings.learning_rate 0.002 → 0.001"
    hits = {"data", "base", "generate.base", "score.base"}
    assert {n for n, s in states(changed).items() if s == "HIT"} == hits
    assert {s for n, s in states(changed).items() if n not in hits | {"sft"}} == {"WAIT"}


def test_packages_of_the_sandbox_rerun_what_runs_programs_by_their_versions_too(tmp_path: Path) -> None:
    make(tmp_path)
    changed = plan(tmp_path, "sandbox.packages=[numpy, pandas]")
    assert "packages" in changed["score.base"].reason
    assert {n for n, s in states(changed).items() if s == "HIT"} >= {"data", "base", "generate.base", "sft"}
    assert [states(changed)[name] for name in ("score.base", "grpo")] == ["RUN", "RUN"]
    with_pandas = config(tmp_path, "sandbox.packages=[pandas]")
    score = next(stage for stage in build_graph(with_pandas) if stage.name == "score.base")
    keys = KeyMaker(with_pandas, build_graph(with_pandas), Store(with_pandas.home_folder))
    assert {"pandas", "numpy", "python-dateutil"} <= set(keys.libraries(score))
    assert "packages" not in ScoreSettings().identity_settings()
    assert set(states(plan(tmp_path, "sandbox={packages: []}")).values()) == {"HIT"}


def test_a_package_that_is_not_installed_is_refused_when_planning(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-package is not installed here") as refused:
        plan(tmp_path, "sandbox.packages=[no-such-package]")
    assert "sandbox.packages" in str(refused.value)
    with pytest.raises(ConfigError, match=r"score.packages.*write it there"):
        plan(tmp_path, "score.packages=[numpy]")


def test_execution_settings_change_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    assert set(states(plan(tmp_path, "execution.threads=1", "name=small")).values()) == {"HIT"}


@pytest.mark.parametrize(
    ("stage", "label", "setting"),
    [
        ("sft", "sft.method.file", "sft.method={name: custom, file: FILE}"),
        ("grpo", "grpo.rewards.custom.0.file", "grpo.rewards={correct: 1.0, custom: [{file: FILE, weight: 0.1}]}"),
    ],
)
def test_an_edited_file_of_the_users_own_reruns_its_stage(tmp_path: Path, stage: str, label: str, setting: str) -> None:
    file = tmp_path / "own.py"
    file.write_text("one = 1\n")
    override = setting.replace("FILE", str(file))
    make(tmp_path, override)
    assert set(states(plan(tmp_path, override)).values()) == {"HIT"}
    file.write_text("one = 2\n")
    changed = plan(tmp_path, override)[stage]
    assert (changed.state, changed.reason) == ("RUN", f"{label} changed")


def test_the_seed_reaches_every_stage_that_draws(tmp_path: Path) -> None:
    make(tmp_path)
    changed = plan(tmp_path, "seed=1")
    assert changed["data"].reason == "seed 0 → 1"
    assert set(states(changed).values()) == {"RUN", "WAIT"}


def test_equal_bytes_upstream_stop_the_rerun(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, forced=("sft",))
    assert set(states(plan(tmp_path)).values()) == {"HIT"}


def test_other_bytes_upstream_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    settings = config(tmp_path)
    store = Store(settings.home_folder)
    key = plan(tmp_path)["generate.sft"].key
    assert key is not None
    artifact = store.find("generate", key).artifact
    assert artifact is not None
    store.set_aside("generate", key)
    out = store.work("generate", key) / "out"
    out.mkdir(parents=True)
    (out / "generations.jsonl").write_text("other")
    store.publish("generate", key, artifact.manifest.draft())
    changed = plan(tmp_path)
    assert changed["generate.sft"].state == "HIT"
    assert (changed["score.sft"].state, changed["score.sft"].reason) == ("RUN", "input generations has other content")


def test_sft_does_not_depend_on_the_benchmarks(tmp_path: Path) -> None:
    make(tmp_path)
    settings = config(tmp_path)
    store = Store(settings.home_folder)
    first = plan(tmp_path)
    changed = plan(tmp_path, "benchmarks.0.temperature=0.5")
    assert changed["sft"].state == "HIT"
    assert changed["generate.base"].reason.startswith("settings.benchmarks.0.temperature")
    assert store.find("sft", str(first["sft"].key)).artifact is not None


def test_damage_is_a_reason(tmp_path: Path) -> None:
    make(tmp_path)
    artifact = plan(tmp_path)["base"].artifact
    assert artifact is not None
    (artifact.folder / "model" / "weights").write_text("cut")
    damaged = plan(tmp_path)
    assert damaged["base"].reason == "file model/weights damaged"
    assert damaged["sft"].state == "WAIT"


def test_a_stage_that_waits_says_what_was_changed_in_it(tmp_path: Path) -> None:
    make(tmp_path)
    changed = plan(tmp_path, "sft.learning_rate=1e-3", "grpo.steps=7")
    assert changed["grpo"].reason == "depends on the output of sft; settings.steps 2 → 7"
    assert changed["generate.sft"].reason == "depends on the output of sft"


def test_a_pipeline_under_another_name_is_compared_with_the_nearest_artifact(tmp_path: Path) -> None:
    make(tmp_path, until="sft")
    make(tmp_path, "sft.learning_rate=0.003", "sft.max_steps=5", until="sft")
    near = str(plan(tmp_path)["sft"].key)
    planned = plan(tmp_path, "name=other", "sft.learning_rate=1e-3")["sft"]
    assert planned.state == "RUN"
    assert planned.reason.startswith(f"settings.learning_rate 0.002 → 0.001 (nearest: {near[:12]} of 20")
    assert plan(tmp_path, "name=other")["generate.sft"].reason == "never run", "no stage of that name has run"


def test_a_plan_among_hundreds_of_artifacts_takes_about_a_second(tmp_path: Path) -> None:
    make(tmp_path, until="sft")
    store = Store(tmp_path / "home")
    planned = plan(tmp_path)["sft"]
    assert planned.artifact is not None
    for number in range(400):
        folder = store.folder("sft", f"{number:064d}")
        folder.mkdir()
        preimage = planned.artifact.manifest.preimage.model_copy(update={"seed": 100 + number})
        changed = planned.artifact.manifest.model_copy(update={"key": folder.name, "preimage": preimage})
        (folder / "manifest.json").write_text(json.dumps(changed.to_json()))
    started = time.process_time()
    assert "(nearest: " in plan(tmp_path, "name=other", "sft.learning_rate=1e-3")["sft"].reason
    first = time.process_time() - started
    for seed in range(20):
        plan(tmp_path, "name=other", f"sft.max_steps={5 + seed}")
    assert first < 1.0
    assert time.process_time() - started < 1.0 + 20 * 0.3, "a sweep plans many cells in one process"


def test_force_from_and_only(tmp_path: Path) -> None:
    make(tmp_path)
    forced = plan(tmp_path, force=("sft",))
    assert (forced["sft"].state, forced["sft"].reason) == ("RUN", "forced")
    assert forced["grpo"].state == "WAIT"
    start = plan(tmp_path, start="grpo")
    assert {n for n, p in start.items() if p.forced} == {"grpo", "generate.grpo", "score.grpo", "report"}
    score = plan(tmp_path, force=("score",))
    assert {n for n, p in score.items() if p.forced} == {"score.base", "score.sft", "score.grpo"}
    only = plan(tmp_path, only="score.sft")
    assert set(only) == {"data", "base", "sft", "generate.sft", "score.sft"}, "what it needs, directly or not"


def test_only_refuses_what_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="grpo needs data, base, sft, not cached"):
        plan(tmp_path, only="grpo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": "score.sft", "force": ("sft",)}, "--force sft: --only score.sft does not run sft"),
        ({"until": "sft", "force": ("grpo",)}, "--force grpo: --until sft does not run grpo"),
        ({"until": "sft", "start": "grpo"}, "--from grpo: --until sft does not run grpo"),
        ({"only": "score.sft", "start": "sft"}, "--from sft: --only score.sft does not run sft"),
    ],
)
def test_what_is_to_be_forced_has_to_run(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, **options)


def test_a_force_that_reaches_beyond_what_runs_is_cut(tmp_path: Path) -> None:
    assert {n for n, p in plan(tmp_path, until="score.sft", force=("score",)).items() if p.forced} == {"score.sft"}
    graph = build_graph(config(tmp_path))
    assert chosen_stages(graph, Options(until="score.sft", start="sft"))[0] == {"sft", "generate.sft", "score.sft"}


def test_unknown_stage_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        plan(tmp_path, force=("scores",))


def test_a_pipeline_without_rl(tmp_path: Path) -> None:
    short = plan(tmp_path, "grpo=null")
    assert "grpo" not in short
    assert "score.grpo" not in short
    assert "report" in short


def test_until_plans_a_stage_and_what_it_needs(tmp_path: Path) -> None:
    assert list(plan(tmp_path, until="sft")) == ["data", "base", "sft"]
    assert list(plan(tmp_path, until="score.base")) == ["data", "base", "generate.base", "score.base"]
    with pytest.raises(ConfigError, match="--only runs one stage"):
        plan(tmp_path, until="sft", only="sft")
    with pytest.raises(ConfigError, match="--until sgt"):
        plan(tmp_path, until="sgt")


def test_what_is_no_trigger_does_not_rerun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.setattr("pipeline.plan.interpreters.library_versions", lambda libraries, exact: {"torch": "9.9"})
    assert plan(tmp_path)["data"].state == "RUN"
    accepted = plan(tmp_path, triggers=("config", "inputs", "code"))
    assert set(states(accepted).values()) == {"HIT"}
    assert accepted["sft"].reason.startswith("accepted although")
    assert "torch" in accepted["sft"].reason
    changed = plan(tmp_path, "sft.learning_rate=0.001", triggers=("config", "inputs", "code"))
    assert states(changed)["sft"] == "RUN", "a change that is a trigger still counts"
    assert states(changed)["data"] == "HIT"


def test_the_executor_accepts_what_the_plan_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    key = plan(tmp_path)["data"].key
    monkeypatch.setattr("pipeline.plan.interpreters.library_versions", lambda libraries, exact: {"torch": "9.9"})
    settings = config(tmp_path)
    triggers = parse_triggers("config,inputs,code")
    executor = Executor(Decider(settings, Store(settings.home_folder), Options(triggers=triggers)), View(), command="")
    outcome = executor.ensure(build_graph(settings)[0])
    assert (outcome.state, outcome.artifact.key) == ("cached", key)
    assert "torch" in outcome.as_json()["accepted"]


def test_an_unknown_trigger_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no trigger 'cofig'; did you mean 'config'"):
        parse_triggers("cofig")


def test_chosen_prompts_and_a_chosen_checkpoint(tmp_path: Path) -> None:
    """RL takes the prompts of the difficulty stage, which samples the checkpoint that RL starts from with RL's own
    settings."""
    dev = "data.dev=[{task: word_problems, split: dev, rows: 8}]"
    stages = {
        s.name: s
        for s in build_graph(
            config(tmp_path, dev, "difficulty={samples: 4}", "grpo.dev_every=1", "grpo.temperature=0.7")
        )
    }
    assert list(stages)[7:10] == ["generate.prompts", "difficulty", "grpo"]
    sampled = stages["generate.prompts"].settings.benchmarks  # type: ignore[attr-defined]
    assert [(b.name, b.samples, b.temperature, b.max_new_tokens) for b in sampled] == [
        ("rl", 4, 0.7, 64),
        ("dev", 4, 0.7, 64),
    ]
    assert {name: source.stage for name, source in stages["grpo"].inputs.items()} == {
        "data": "difficulty",
        "model": "sft",
        "dev": "data",
    }


def test_a_continued_adapter_takes_the_model_below_it(tmp_path: Path) -> None:
    lora = ("sft.lora={rank: 4}", "grpo.lora={rank: 4}", "grpo.lora_start=sft_adapter")
    inputs = {s.name: s for s in build_graph(config(tmp_path, *lora))}["grpo"].inputs
    assert {name: source.stage for name, source in inputs.items()} == {
        "data": "data",
        "model": "sft",
        "adapter": "sft",
        "below": "base",
    }
    with pytest.raises(ConfigError, match=r"grpo.lora: an adapter that is continued has the shape it has"):
        config(tmp_path, *lora, "grpo.lora.rank=8")
    with pytest.raises(ConfigError, match=r"sft.lora is not set"):
        config(tmp_path, *lora[1:])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.dev_every=1", "grpo.dev_every: there are no problems to choose a checkpoint by"),
        ("data.dev=[{task: word_problems, split: dev, rows: 8}]", "data.dev: nothing uses these problems"),
        ("data.dev=[{task: word_problems, split: test, rows: 8}]", "has no 'test' split to train on"),
        ("grpo=null", None),
    ],
)
def test_dev_problems_need_a_use(tmp_path: Path, override: str, message: str | None) -> None:
    if message is None:
        config(tmp_path, override)
        return
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, override)
