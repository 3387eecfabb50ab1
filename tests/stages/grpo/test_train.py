"""The GRPO stage as a program with real vLLM: what it writes, what it refuses, and that a stopped run ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.grpo.settings import GrpoSettings
from stages.harness.context import StageError
from stages.training.checkpoint import load_model_and_tokenizer, save_checkpoint
from stages.training.loop import TRAINER_STATE
from stages.training.proof import relative_change
from tests.tiny import (
    StageRun,
    open_stage,
    read_stage_run,
    run_stage_program,
    stage_environment,
    write_jsonl,
    write_spec,
)

BRIEF: dict[str, Any] = {
    "steps": 8,
    "prompts_per_step": 4,
    "num_generations": 4,
    "micro_batch_size": 8,
    "max_completion_length": 40,
    "learning_rate": 3e-4,
    "checkpoint_steps": 3,
}
LEFT_OUT = "1 of 40 prompts are left out: too long with max_completion_length 40 in a context of 256 tokens"


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of the payload, `record/` left out."""
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and "record" not in path.relative_to(folder).parts
    ]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "record" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def result(run: StageRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.output / "record" / "result.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def straight(grpo_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """One run with vLLM from start to end, which several tests look at."""
    return run_stage_program(tmp_path_factory.mktemp("straight"), "grpo", BRIEF, grpo_inputs, seed=3)


@pytest.mark.slow
def test_the_program_trains_with_vllm_and_records_what_it_did(straight: StageRun) -> None:
    assert (straight.code, straight.error) == (0, None), straight.log
    assert {
        "model/model.safetensors",
        "model/generation_config.json",
        "model/tokenizer.json",
        "model/chat_template.jinja",
    } == (set(content(straight.output)) - {"model/config.json", "model/tokenizer_config.json"})
    proof, metrics = result(straight)["proof"], result(straight)["metrics"]
    assert proof["steps"] == proof["planned_steps"] == 8
    assert proof["relative_weight_change"] > 0
    assert 0 <= proof["logprob_difference_max"] < 1e-3
    assert sum(metrics["verdicts"].values()) == 8 * 16
    assert metrics["verdicts"]["grader_error"] == 0
    assert metrics["verdicts"]["wrong"] > 0  # the model boxes answers, so the grader had something to compare
    points = curve(straight.output)
    assert [point["step"] for point in points] == list(range(1, 9))
    wanted = (
        "reward",
        "rewards/correct/mean",
        "rewards/format/mean",
        "completions/mean_length",
        "completions/clipped_ratio",
        "entropy",
    )
    assert {
        *wanted,
        "frac_reward_zero_std",
        "step_time",
        "verdicts/correct",
        "sampling/sampling_logp_difference/max",
    } <= set(points[0])
    for point in points:
        assert point["reward"] == pytest.approx(
            point["rewards/correct/mean"] + 0.1 * point["rewards/format/mean"], abs=1e-6
        )
        assert sum(value for name, value in point.items() if name.startswith("verdicts/")) == 16
        spent = [point[f"time/{part}"] for part in ("generate", "sync", "grade", "train")]
        assert all(seconds >= 0 for seconds in spent)
        assert sum(spent) == pytest.approx(point["step_time"])
    assert points[-1]["time/sync"] > 0
    assert metrics["step_seconds"]["generate"] == pytest.approx(
        sum(point["time/generate"] for point in points) / 8, abs=1e-4
    )
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
    spec = write_spec(tmp_path, "grpo", BRIEF, grpo_inputs, seed=3)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.grpo", str(spec)],
        env=stage_environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while not (tmp_path / "state" / "checkpoints" / "checkpoint-3" / TRAINER_STATE).exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(blow)
    assert process.wait(timeout=60) == (75 if blow == signal.SIGTERM else -signal.SIGKILL)
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
    """Two runs whose bound lies below float32's own noise, so both end at step 1. All their prompts are equal and vLLM seeds the process
    with 0 when it is built: only the run's own seed, set after that, can make their completions differ."""
    first = json.loads((grpo_inputs["data"] / "rl.jsonl").read_text(encoding="utf-8").splitlines()[0])
    write_jsonl(tmp_path / "data" / "rl.jsonl", [{**first, "id": f"same-{number}"} for number in range(4)])
    entropies = []
    for seed in (3, 4):
        inputs = {**grpo_inputs, "data": tmp_path / "data"}
        run = run_stage_program(
            tmp_path / str(seed), "grpo", {**BRIEF, "max_logprob_difference": 1e-12}, inputs, seed=seed
        )
        assert run.code == 1
        assert run.error is not None
        assert "step 1: the max log-probability difference" in run.error["message"]
        assert "grpo.max_logprob_difference" in run.error["fix"]
        entropies.append(curve(run.output)[0]["entropy"])
    assert entropies[0] != entropies[1]


@pytest.mark.slow
def test_lora_with_transformers_rollouts_and_reused_completions(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = {
        **BRIEF,
        "rollout": "transformers",
        "steps": 8,
        "num_iterations": 2,
        "mini_batches": 2,
        "beta": 0.05,
        "lora": {"rank": 4},
        "learning_rate": 1e-2,
        "system_prompt": "Be brief.",
        "entropy_coef": 0.001,
        "rewards": {"overlong": 0.2, "overlong_buffer": 10, "repetition": 0.1, "repetition_ngram": 4},
    }
    run = run_stage_program(tmp_path, "grpo", settings, grpo_inputs)
    assert run.code == 0, run.log
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model/model.safetensors"} <= set(
        content(run.output)
    )
    proof = result(run)["proof"]
    assert proof["steps"] == 8
    assert proof["merge_difference"] < 1e-3
    assert "logprob_difference_max" not in proof
    assert ["reward" in point for point in curve(run.output)] == [True, False, False, False] * 2
    assert sum(result(run)["metrics"]["verdicts"].values()) == 2 * 16
    assert all("kl" in point for point in curve(run.output))
    first = curve(run.output)[0]
    weights = {"correct": 1.0, "format": 0.1, "overlong": 0.2, "repetition": 0.1}
    assert first["reward"] == pytest.approx(
        sum(weight * first[f"rewards/{name}/mean"] for name, weight in weights.items()), abs=1e-6
    )
    assert -1 <= first["rewards/overlong/mean"] <= 0


@pytest.mark.slow
def test_bad_inputs_are_named(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    from stages.grpo import run as train

    def fails(inputs: dict[str, Path], **settings: Any) -> StageError:
        spec = write_spec(tmp_path / "run", "grpo", {**BRIEF, "rollout": "transformers", **settings}, inputs)
        with pytest.raises(StageError) as error:
            train.run(open_stage(GrpoSettings, spec))
        return error.value

    assert (
        "all 40 prompts are too long with max_completion_length 250"
        in fails(grpo_inputs, max_completion_length=250).message
    )
    assert (
        "39 prompts are fewer than the 50 of one step"
        in fails(grpo_inputs, prompts_per_step=50, micro_batch_size=None).message
    )
    assert "the model has 256 positions" in fails(grpo_inputs, max_model_len=300).message
    assert "Did you mean vespo_k_pos?" in fails(grpo_inputs, trainer={"vespo_k_po": 0.5}).fix
    assert "grpo.learning_rate" in fails(grpo_inputs, trainer={"learning_rate": 1.0}).fix
    assert "does not fit" in fails(grpo_inputs, trainer={"vespo_k_pos": "much"}).message
    assert "draws from another distribution" in fails(grpo_inputs, trainer={"min_p": 0.1}).fix
    assert "nosuch is not a valid OptimizerNames" in fails(grpo_inputs, trainer={"optim": "nosuch"}).message
    with pytest.raises(StageError, match="nosuch is not a valid OptimizerNames"):  # known before anything loads, too
        train.check_trainer_options({"optim": "nosuch"})
    train.check_trainer_options({"optim": "sgd", "vespo_k_pos": 1.0})
    assert "config.json is missing" in fails({**grpo_inputs, "model": tmp_path}).message
    assert "no problems in it" in fails({**grpo_inputs, "data": tmp_path}).message
    write_jsonl(tmp_path / "bad" / "rl.jsonl", [{"id": "x", "prompt": "p"}])
    assert "rl.jsonl:1: not a Problem: missing" in fails({**grpo_inputs, "data": tmp_path / "bad"}).message


@pytest.mark.slow
def test_every_setting_reaches_trl(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    from stages.grpo import run as train

    settings = {
        **BRIEF,
        "loss_type": "dr_grpo",
        "beta": 0.01,
        "epsilon": 0.1,
        "epsilon_high": 0.3,
        "scale_rewards": "none",
        "delta": 7.0,
    }
    settings |= {
        "steps": 12,
        "num_iterations": 2,
        "rewards": {"correct": 2.0, "format": 0.5},
        "schedule": "constant",
        "warmup_steps": 2,
    }
    config = train.trainer_config(
        open_stage(GrpoSettings, write_spec(tmp_path, "grpo", settings, grpo_inputs, seed=5)), 100, [2.0, 0.5]
    )
    assert (config.loss_type, config.beta, config.epsilon, config.epsilon_high, config.scale_rewards) == (
        "dr_grpo",
        0.01,
        0.1,
        0.3,
        "none",
    )
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps, config.generation_batch_size) == (
        8,
        2,
        16,
    )
    assert (config.delta, config.max_steps, config.seed, config.save_steps) == (
        7,
        12,
        5,
        4,
    )  # checkpoints after whole rounds of completions
    assert (config.reward_weights, config.lr_scheduler_type, config.bf16) == ([2.0, 0.5], "constant_with_warmup", False)
    settings |= {"mini_batches": 2, "micro_batch_size": 4}
    halved = train.trainer_config(
        open_stage(GrpoSettings, write_spec(tmp_path, "grpo", settings, grpo_inputs, seed=5)), 100, [2.0, 0.5]
    )
    assert (halved.gradient_accumulation_steps, halved.steps_per_generation, halved.generation_batch_size) == (2, 4, 16)
    assert (config.use_vllm, config.vllm_max_model_length, config.vllm_importance_sampling_correction) == (
        True,
        100,
        True,
    )
    assert (config.gradient_checkpointing, config.mask_truncated_completions, config.num_iterations) == (
        False,
        False,
        2,
    )


@pytest.fixture(scope="session")
def dev_inputs(grpo_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs with ten dev problems beside."""
    lines = (grpo_inputs["data"] / "rl.jsonl").read_text(encoding="utf-8").splitlines()
    folder = tmp_path_factory.mktemp("dev")
    write_jsonl(
        folder / "dev.jsonl", [{**json.loads(line), "id": f"dev-{number}"} for number, line in enumerate(lines[10:20])]
    )
    return {**grpo_inputs, "dev": folder}


@pytest.mark.slow
def test_the_checkpoint_is_chosen_on_dev_problems_interrupted_or_not(
    dev_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """A learning rate that breaks the model makes the first look the best one: what is saved is not the last checkpoint."""
    settings = {**BRIEF, "dev_every": 4, "dev_samples": 2, "learning_rate": 0.05}
    straight = run_stage_program(tmp_path / "straight", "grpo", settings, dev_inputs)
    assert straight.code == 0, straight.log
    proof = result(straight)["proof"]
    assert [step for step, _ in proof["dev_pass_rate"]] == [4, 8]
    best = max(proof["dev_pass_rate"], key=lambda point: point[1])
    assert proof["chosen_step"] == best[0]
    assert any(
        note.startswith("step 4: ") and note.endswith("of 20 samples of data.dev are right") for note in straight.notes
    )
    assert [point["step"] for point in curve(straight.output)] == list(range(1, 9))  # looks are no steps
    assert sum(result(straight)["metrics"]["verdicts"].values()) == 8 * 16  # and no training completions

    spec = write_spec(tmp_path / "stopped", "grpo", settings, dev_inputs)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.grpo", str(spec)], env=stage_environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 180
    while not (tmp_path / "stopped" / "state" / "checkpoints" / "checkpoint-4" / TRAINER_STATE).exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait(timeout=60)
    resumed = run_stage_program(tmp_path / "stopped", "grpo", settings, dev_inputs)
    assert resumed.code == 0, resumed.log
    assert content(resumed.output) == content(straight.output)
    assert result(resumed)["proof"] == proof


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [0, 2])
def test_two_processes_share_a_step(dev_inputs: dict[str, Path], tmp_path: Path, rounds: int) -> None:
    """Each samples and grades half of the completions; counts, curve and checkpoint are of all of them."""
    settings = {**BRIEF, "rollout": "transformers", "steps": 4, "checkpoint_steps": 4, "dev_every": 4, "dev_samples": 2}
    settings["resampling_rounds"] = rounds
    spec = write_spec(tmp_path, "grpo", settings, dev_inputs, seed=3)
    several = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    process = subprocess.run(
        [sys.executable, "-m", *several, "-m", "stages.grpo", str(spec)],
        env=stage_environment(),
        text=True,
        capture_output=True,
    )
    assert process.returncode == 0, process.stderr
    run = read_stage_run(tmp_path, 0, process.stderr)
    further = sum(4 * point.get("resampling/groups", 0) for point in curve(run.output))
    assert (further > 0) == (rounds > 0)
    assert sum(result(run)["metrics"]["verdicts"].values()) == 4 * 16 + further
    assert any(note.endswith("of 20 samples of data.dev are right") for note in run.notes)
    assert [point["step"] for point in curve(run.output)] == [1, 2, 3, 4]
    assert result(run)["proof"]["relative_weight_change"] > 0
    events = list((run.output / "record" / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"rewards/correct/mean" in events[0].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rollout", ["vllm", "transformers"])
def test_processes_draw_their_own_completions_and_resume_to_the_same_bytes(
    grpo_inputs: dict[str, Path], tmp_path: Path, rollout: str
) -> None:
    """A group is shared by two processes: what one draws must not be what the other draws, or half of the rollout is a copy."""
    from datasets import Dataset

    settings = {
        **BRIEF,
        "rollout": rollout,
        "steps": 3,
        "prompts_per_step": 1,
        "num_generations": 8,
        "micro_batch_size": None,
    }
    settings |= {
        "checkpoint_steps": 1,
        "temperature": 1.2,
        "stop_check_prompts": 0,
        "trainer": {"log_completions": True},
    }
    spec = write_spec(tmp_path, "grpo", settings, grpo_inputs, seed=3)

    def run() -> dict[str, str]:
        several = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
        command = [sys.executable, "-m", *several, "-m", "stages.grpo", str(spec)]
        process = subprocess.run(command, env=stage_environment(), text=True, capture_output=True)
        assert process.returncode == 0, process.stderr
        return content(tmp_path / "output")

    straight = run()
    checkpoints = tmp_path / "state" / "checkpoints"
    for table in sorted((checkpoints / "completions").glob("*.parquet")):
        texts = [
            str(completion)
            for completion in Dataset.from_parquet(str(table), cache_dir=str(tmp_path / "cache"))["completion"]
        ]
        assert len(texts) == 8
        assert texts[:4] != texts[4:]
        assert sum(first == second for first, second in zip(texts[:4], texts[4:], strict=True)) < 2
    shutil.rmtree(checkpoints / "checkpoint-3")
    shutil.rmtree(tmp_path / "output")
    assert run() == straight


@pytest.mark.slow
def test_an_engine_without_memory_is_named(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    run = run_stage_program(tmp_path, "grpo", {**BRIEF, "cpu_kv_cache_gib": 100_000}, grpo_inputs)
    assert run.code == 1
    assert run.error is not None
    assert "the trainer cannot be built" in run.error["message"]
    assert "grpo.cpu_kv_cache_gib" in run.error["fix"]


@pytest.mark.slow
def test_the_adapter_of_sft_is_trained_on(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel, get_peft_model
    from safetensors.torch import load_file

    from stages.grpo import run as train
    from stages.sft.settings import LoraSettings
    from stages.training.lora import lora_config

    lora = {"rank": 4, "targets": ["q_proj", "v_proj"]}
    model, tokenizer = load_model_and_tokenizer(grpo_inputs["model"] / "model", "float32")
    adapted = get_peft_model(model, lora_config(LoraSettings.model_validate(lora)))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    adapted.save_pretrained(tmp_path / "sft" / "adapter")
    save_checkpoint(adapted.merge_and_unload(), tokenizer, tmp_path / "sft" / "model", "float32")
    inputs = {
        "data": grpo_inputs["data"],
        "model": tmp_path / "sft",
        "adapter": tmp_path / "sft",
        "below": grpo_inputs["model"],
    }
    settings = {
        **BRIEF,
        "steps": 2,
        "lora": lora,
        "lora_start": "sft_adapter",
        "beta": 0.05,
        "learning_rate": 1e-3,
        "checkpoint_steps": 1,
    }
    run = run_stage_program(tmp_path / "run", "grpo", settings, inputs)
    assert run.code == 0, run.log
    assert {name for name in content(run.output) if name.startswith("adapter/")} == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    # The first rollout is the SFT model's, whose reference it is: no divergence yet, and vLLM holds the merged weights.
    assert curve(run.output)[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert result(run)["proof"]["logprob_difference_max"] < 1e-3
    before = load_file(tmp_path / "sft" / "adapter" / "adapter_model.safetensors")
    after = load_file(run.output / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    below, _ = load_model_and_tokenizer(grpo_inputs["model"] / "model", "float32")
    again = PeftModel.from_pretrained(below, run.output / "adapter").merge_and_unload()
    saved, _ = load_model_and_tokenizer(run.output / "model", "float32")
    assert relative_change(again, saved) < 1e-6
    # TRL's copy of SFT's adapter, the reference, lies in each checkpoint beside the trained one. A run that goes on from one, be it the
    # last, has to go on with the trained one.
    straight = content(run.output)
    for lost, step in (("checkpoint-2", 1), (None, 2)):
        shutil.rmtree(run.output)
        if lost:
            shutil.rmtree(run.state / "checkpoints" / lost)
        resumed = run_stage_program(tmp_path / "run", "grpo", settings, inputs)
        assert resumed.code == 0, resumed.log
        assert any(note.startswith(f"resuming from step {step} of 2") for note in resumed.notes)
        assert content(resumed.output) == straight

    ends = (
        tmp_path / "sft" / "model" / "generation_config.json"
    )  # the checkpoint that SFT merged is checked, though it is not loaded
    ends.write_text(json.dumps(json.loads(ends.read_text(encoding="utf-8")) | {"eos_token_id": 7}), encoding="utf-8")
    with pytest.raises(
        StageError, match=r"sft/model: not a checkpoint to go on from: generation_config.json ends on 7"
    ):
        train.run(
            open_stage(
                GrpoSettings, write_spec(tmp_path / "bad", "grpo", {**settings, "rollout": "transformers"}, inputs)
            )
        )


@pytest.mark.slow
def test_groups_of_equal_reward_give_way_to_other_prompts_interrupted_or_not(
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
    assert (
        proof["logprob_difference_max"] < 1e-3
    )  # rows of different calls are put together with their own log-probabilities
    assert metrics["reward_first"] == points[0]["resampling/reward"] != points[0]["reward"]

    spec = write_spec(tmp_path / "stopped", "grpo", settings, grpo_inputs, seed=3)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.grpo", str(spec)], env=stage_environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 180
    while not (tmp_path / "stopped" / "state" / "checkpoints" / "checkpoint-3" / TRAINER_STATE).exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait(timeout=60)
    resumed = run_stage_program(tmp_path / "stopped", "grpo", settings, grpo_inputs, seed=3)
    assert resumed.code == 0, resumed.log
    assert content(resumed.output) == content(straight.output)
