"""The GRPO stage with adapters: a new one, and SFT's own trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from stages.grpo.run import run as train_here
from stages.grpo.settings import GrpoSettings
from stages.harness.context import StageError
from stages.training.checkpoint import load_model_and_tokenizer, save_checkpoint
from stages.training.lora import lora_config
from stages.training.proof import relative_change
from stages.training.settings import LoraSettings
from tests.stages.grpo.runs import BRIEF, content, curve, result
from tests.tiny import open_stage, run_stage_program, write_spec


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
    files = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model/model.safetensors"}
    assert files <= content(run.output).keys()
    proof = result(run)["proof"]
    assert proof["steps"] == 8
    assert proof["merge_difference"] < 1e-3
    assert "logprob_difference_max" not in proof
    assert ["reward" in point for point in curve(run.output)] == [True, False, False, False] * 2
    assert sum(result(run)["metrics"]["verdicts"].values()) == 2 * 16
    assert all("kl" in point for point in curve(run.output))
    first = curve(run.output)[0]
    weights = {"correct": 1.0, "format": 0.1, "overlong": 0.2, "repetition": 0.1}
    total = sum(weight * first[f"rewards/{name}/mean"] for name, weight in weights.items())
    assert first["reward"] == pytest.approx(total, abs=1e-6)
    assert -1 <= first["rewards/overlong/mean"] <= 0


@pytest.mark.slow
def test_the_adapter_of_sft_is_trained_on(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
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
    adapter = {name for name in content(run.output) if name.startswith("adapter/")}
    assert adapter == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
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
    # TRL's copy of SFT's adapter, the reference, lies in each checkpoint beside the trained one, with which a run has
    # to go on, be it from the last checkpoint.
    straight = content(run.output)
    for lost, step in (("checkpoint-2", 1), (None, 2)):
        shutil.rmtree(run.output)
        if lost:
            shutil.rmtree(run.state / "checkpoints" / lost)
        resumed = run_stage_program(tmp_path / "run", "grpo", settings, inputs)
        assert resumed.code == 0, resumed.log
        assert any(note.startswith(f"resuming from step {step} of 2") for note in resumed.notes)
        assert content(resumed.output) == straight

    # The checkpoint that SFT merged is checked, though it is not loaded.
    ends = tmp_path / "sft" / "model" / "generation_config.json"
    ends.write_text(json.dumps(json.loads(ends.read_text(encoding="utf-8")) | {"eos_token_id": 7}), encoding="utf-8")
    spec = write_spec(tmp_path / "bad", "grpo", {**settings, "rollout": "transformers"}, inputs)
    refusal = r"sft/model: not a checkpoint to go on from: generation_config.json ends on 7"
    with pytest.raises(StageError, match=refusal):
        train_here(open_stage(GrpoSettings, spec))
