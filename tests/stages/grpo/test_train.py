"""The GRPO stage as a program with real vLLM: what it writes and refuses; stopped runs end in the same bytes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from stages.grpo.run import run
from stages.grpo.settings import GrpoSettings
from stages.harness.context import StageError
from tests.stages.grpo.runs import BRIEF, content, curve, result, stop_after_checkpoint
from tests.tiny import StageRun, open_stage, run_stage_program, write_jsonl, write_spec

LEFT_OUT = "1 of 40 prompts are left out: too long with max_completion_length 40 in a context of 256 tokens"


@pytest.fixture(scope="module")
def straight(grpo_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """One run with vLLM from start to end, which several tests look at."""
    return run_stage_program(tmp_path_factory.mktemp("straight"), "grpo", BRIEF, grpo_inputs, seed=3)


@pytest.mark.slow
def test_the_program_trains_with_vllm_and_records_what_it_did(straight: StageRun) -> None:
    assert (straight.code, straight.error) == (0, None), straight.log
    names = ("model.safetensors", "generation_config.json", "tokenizer.json", "chat_template.jinja")
    names = (*names, "config.json", "tokenizer_config.json")
    assert content(straight.output).keys() == {f"model/{name}" for name in names}
    proof, metrics = result(straight)["proof"], result(straight)["metrics"]
    assert proof["steps"] == proof["planned_steps"] == 8
    assert proof["relative_weight_change"] > 0
    assert 0 <= proof["logprob_difference_max"] < 1e-3
    assert sum(metrics["verdicts"].values()) == 8 * 16
    assert metrics["verdicts"]["grader_error"] == 0
    assert metrics["verdicts"]["wrong"] > 0  # the model boxes answers, so the grader had something to compare
    points = curve(straight.output)
    assert [point["step"] for point in points] == list(range(1, 9))
    curves = (
        "reward rewards/correct/mean rewards/format/mean completions/mean_length completions/clipped_ratio entropy "
    )
    curves += "frac_reward_zero_std step_time verdicts/correct sampling/sampling_logp_difference/max"
    assert set(curves.split()) <= points[0].keys()
    for point in points:
        total = point["rewards/correct/mean"] + 0.1 * point["rewards/format/mean"]
        assert point["reward"] == pytest.approx(total, abs=1e-6)
        assert sum(value for name, value in point.items() if name.startswith("verdicts/")) == 16
        spent = [point[f"time/{part}"] for part in ("generate", "sync", "grade", "train")]
        assert all(seconds >= 0 for seconds in spent)
        assert sum(spent) == pytest.approx(point["step_time"])
    assert points[-1]["time/sync"] > 0
    mean = sum(point["time/generate"] for point in points) / 8
    assert metrics["step_seconds"]["generate"] == pytest.approx(mean, abs=1e-4)
    assert any(point["frac_reward_zero_std"] < 1 for point in points)
    config = json.loads((straight.output / "record" / "trainer_config.json").read_text(encoding="utf-8"))
    assert (config["learning_rate"], config["sapo_temperature_neg"], config["generation_kwargs"]) == (3e-4, 1.05, None)
    assert straight.notes[0] == LEFT_OUT
    assert any("programs run with isolation level" in note for note in straight.notes)
    last = [event for event in straight.events if event["event"] == "progress"][-1]
    assert (last["step"], last["total"]) == (8, 8)
    assert {"reward", "tokens_per_s"} <= set(last["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_program_resumes_to_the_same_bytes(
    grpo_inputs: dict[str, Path], straight: StageRun, tmp_path: Path, blow: signal.Signals
) -> None:
    code = stop_after_checkpoint(tmp_path, 3, BRIEF, grpo_inputs, blow, seed=3)
    assert code == (75 if blow == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "output" / "record" / "result.json").exists()
    resumed = run_stage_program(tmp_path, "grpo", BRIEF, grpo_inputs, seed=3)
    assert resumed.code == 0, resumed.log
    assert any(note.startswith("resuming from step") for note in resumed.notes)
    assert content(resumed.output) == content(straight.output)
    same = ("step", "loss", "reward", "completions/mean_length", "entropy")
    assert [[point[name] for name in same] for point in curve(resumed.output)] == [
        [point[name] for name in same] for point in curve(straight.output)
    ]


@pytest.mark.slow
def test_the_guard_fires_and_the_runs_own_seed_draws_the_completions(
    grpo_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Two runs whose bound lies below float32's own noise, so both end at step 1. All their prompts are equal, and vLLM
    seeds the process with 0 when it is built: only the run's own seed, set after that, makes completions differ."""
    first = json.loads((grpo_inputs["data"] / "rl.jsonl").read_text(encoding="utf-8").splitlines()[0])
    write_jsonl(tmp_path / "data" / "rl.jsonl", [{**first, "id": f"same-{number}"} for number in range(4)])
    entropies = []
    for seed in (3, 4):
        inputs = {**grpo_inputs, "data": tmp_path / "data"}
        settings = {**BRIEF, "max_logprob_difference": 1e-12}
        run = run_stage_program(tmp_path / str(seed), "grpo", settings, inputs, seed=seed)
        assert run.code == 1
        assert run.error is not None
        assert "step 1: the max log-probability difference" in run.error["message"]
        assert "grpo.max_logprob_difference" in run.error["fix"]
        entropies.append(curve(run.output)[0]["entropy"])
    assert entropies[0] != entropies[1]


@pytest.mark.slow
def test_bad_inputs_are_named(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    def fails(inputs: dict[str, Path], **settings: Any) -> tuple[str, str]:
        spec = write_spec(tmp_path / "run", "grpo", {**BRIEF, "rollout": "transformers", **settings}, inputs)
        with pytest.raises(StageError) as error:
            run(open_stage(GrpoSettings, spec))
        return error.value.message, error.value.fix

    assert (
        "all 40 prompts are too long with max_completion_length 250" in fails(grpo_inputs, max_completion_length=250)[0]
    )
    few = {"prompts_per_step": 50, "micro_batch_size": None}
    assert "39 prompts are fewer than the 50 of one step" in fails(grpo_inputs, **few)[0]
    assert "the model has 256 positions" in fails(grpo_inputs, max_model_len=300)[0]
    assert "config.json is missing" in fails({**grpo_inputs, "model": tmp_path})[0]
    assert "no problems in it" in fails({**grpo_inputs, "data": tmp_path})[0]
    write_jsonl(tmp_path / "bad" / "rl.jsonl", [{"id": "x", "prompt": "p"}])
    assert "rl.jsonl:1: not a Problem: missing" in fails({**grpo_inputs, "data": tmp_path / "bad"})[0]
    options = fails(grpo_inputs, trainer={"learning_rate": 1.0})
    assert options == ("trainer.learning_rate: this option is set by the pipeline", "Use grpo.learning_rate instead.")


@pytest.mark.slow
def test_the_checkpoint_is_chosen_on_dev_problems_interrupted_or_not(
    dev_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """A learning rate that breaks the model makes the first look the best: what is saved is not the last checkpoint."""
    settings = {**BRIEF, "dev_every": 4, "dev_samples": 2, "learning_rate": 0.05}
    straight = run_stage_program(tmp_path / "straight", "grpo", settings, dev_inputs)
    assert straight.code == 0, straight.log
    proof = result(straight)["proof"]
    assert [step for step, _ in proof["dev_pass_rate"]] == [4, 8]
    best = max(proof["dev_pass_rate"], key=lambda point: point[1])
    assert proof["chosen_step"] == best[0]
    looks = [note for note in straight.notes if note.endswith("of 20 samples of data.dev are right")]
    assert looks[0].startswith("step 4: ")
    assert [point["step"] for point in curve(straight.output)] == list(range(1, 9))  # looks are no steps
    assert sum(result(straight)["metrics"]["verdicts"].values()) == 8 * 16  # and no training completions

    stop_after_checkpoint(tmp_path / "stopped", 4, settings, dev_inputs, signal.SIGKILL)
    resumed = run_stage_program(tmp_path / "stopped", "grpo", settings, dev_inputs)
    assert resumed.code == 0, resumed.log
    assert content(resumed.output) == content(straight.output)
    assert result(resumed)["proof"] == proof


@pytest.mark.slow
def test_an_engine_without_memory_is_named(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    run = run_stage_program(tmp_path, "grpo", {**BRIEF, "cpu_kv_cache_gib": 100_000}, grpo_inputs)
    assert run.code == 1
    assert run.error is not None
    assert "the trainer cannot be built" in run.error["message"]
    assert "grpo.cpu_kv_cache_gib" in run.error["fix"]


@pytest.mark.slow
def test_zero_variance_groups_give_way_to_other_prompts_interrupted_or_not(
    grpo_inputs: dict[str, Path], tmp_path: Path
) -> None:
    settings = {**BRIEF, "resampling_rounds": 3}
    straight = run_stage_program(tmp_path / "straight", "grpo", settings, grpo_inputs, seed=3)
    assert straight.code == 0, straight.log
    points = curve(straight.output)
    for point in points:
        before, after = point["resampling/frac_same_verdict"], point["frac_reward_zero_std"]
        rounds, groups = point["resampling/rounds"], point["resampling/groups"]
        assert point["resampling/frac_reward_zero_std"] <= before
        assert after <= before
        assert (rounds > 0) == (groups > 0) == (before > 0)
        assert after == 0 or rounds == 3
        assert before * 4 <= groups <= 3 * before * 4  # a round samples only what is missing
        assert sum(value for name, value in point.items() if name.startswith("verdicts/")) == 16 + 4 * groups
    assert any(point["frac_reward_zero_std"] < point["resampling/frac_reward_zero_std"] for point in points)
    proof, metrics = result(straight)["proof"], result(straight)["metrics"]
    # Rows of different calls are put together with their own log-probabilities.
    assert proof["logprob_difference_max"] < 1e-3
    assert metrics["reward_first"] == points[0]["resampling/reward"] != points[0]["reward"]

    stop_after_checkpoint(tmp_path / "stopped", 3, settings, grpo_inputs, signal.SIGKILL, seed=3)
    resumed = run_stage_program(tmp_path / "stopped", "grpo", settings, grpo_inputs, seed=3)
    assert resumed.code == 0, resumed.log
    assert content(resumed.output) == content(straight.output)
