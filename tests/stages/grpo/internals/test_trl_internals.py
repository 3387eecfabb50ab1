"""What stages/grpo/trl_internals relies on, tried on the installed versions; a failure says what to read."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import trl.generation.vllm_generation as vllm_generation
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_repetition_penalty_reward

from stages.grpo import trl_internals
from stages.grpo.settings import GrpoSettings
from stages.grpo.trl_internals import LOGPROB_DIFFERENCES, ZERO_VARIANCE, Sampled, StageTrainer
from stages.harness.context import StageError
from stages.training.checkpoint import load_model_and_tokenizer
from tests.tiny import make_tiny_model, open_stage, write_spec

ENGINE = "read how trl.generation.vllm_generation builds and feeds vLLM again, then configure_engine"
ROLLOUT = "read GRPOTrainer._generate_and_score_completions and what it calls again, then StageTrainer"
STEP = "read GRPOTrainer.training_step and .log again, then StageTrainer.training_step"
SYNC = "read VLLMGeneration.sync_weights and GRPOTrainer._generate_single_turn again, then StageTrainer.__init__"
RESUME = "read transformers.Trainer._load_from_checkpoint again, then StageTrainer's"


def names_of(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


class Recorder(StageTrainer):
    """Writes down the order in which TRL calls the parts of a step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.calls: list[Any] = []
        super().__init__(*args, **kwargs)

    def rollout(self, rows: Any) -> Any:
        self.calls.append("rollout")
        batch = super().rollout(rows)
        self.calls.append(sorted(self.pending_values))
        self.step_values[ZERO_VARIANCE][-1] = 0.125
        return batch

    def sample(self, prompts: Any) -> Sampled:
        sampled = super().sample(prompts)
        assert sampled.images is None, ROLLOUT
        assert (sampled.tool_mask, sampled.extra_fields, sampled.tool_images) == (None, {}, []), ROLLOUT
        assert len(sampled.completion_ids) == len(sampled.prompt_ids) == len(sampled.completions) == 4, ROLLOUT
        self.calls.append("sample")
        return sampled

    def grade(self, rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        rewards = super().grade(rows, prompts, completions, completion_ids)
        assert rewards.shape == (4, 2), ROLLOUT
        self.calls.append(["grade", sorted(self.pending_values)])
        return rewards

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        self.calls.append(len(self.step_values["step_time"]) if self.step_values["step_time"] else "partial")
        return loss


@pytest.fixture
def trainer(tmp_path: Path) -> Recorder:
    """Two steps of four completions in two micro-batches, sampled by transformers, rewarded by two functions."""
    seen: list[Any] = []

    def length(completion_ids: Any, log_metric: Any, **_: Any) -> list[float]:
        seen.append(completion_ids)
        log_metric("told", 1.0)
        return [float(len(ids)) for ids in completion_ids]

    def same_list(completion_ids: Any, **_: Any) -> list[float]:
        assert completion_ids is seen[-1], "TRL hands each reward function a list of its own: see Rewards._read"
        return [0.0] * len(completion_ids)

    model, tokenizer = load_model_and_tokenizer(make_tiny_model(tmp_path / "model"), "float32")
    arguments = GRPOConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_generations=2,
        max_completion_length=4,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
    )
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "2+2?"}], "problem": 0}] * 4)
    return Recorder(
        model=model,
        args=arguments,
        reward_funcs=[length, same_list],
        train_dataset=rows,
        processing_class=tokenizer,
    )


def test_a_step_samples_grades_and_logs_where_the_stage_expects_it(trainer: Recorder) -> None:
    trainer.train()
    step = ["rollout", "sample", ["grade", ["told"]], [], "partial", 1]
    assert trainer.calls == 2 * step, f"{ROLLOUT}; {STEP}"
    logged = trainer.state.log_history[0]
    assert (logged[ZERO_VARIANCE], logged["told"]) == (0.125, 1.0), STEP
    assert {"reward", "completions/mean_length", "num_tokens", "step_time"} <= logged.keys(), STEP
    assert trainer.step_values == {}, STEP  # log() empties what it logged


def test_a_checkpoint_is_marked_when_every_process_has_written_its_part(
    trainer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.args.save_strategy, trainer.args.save_steps = "steps", 1
    folder, waits = Path(trainer.args.output_dir) / "checkpoint-1", []

    def wait() -> None:
        waits.append((any(folder.glob("rng_state*.pth")), (folder / "trainer_state.json").exists()))

    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", wait)
    trainer.train()
    assert (True, False) in waits, RESUME


CALLED = ["_generate", "_calculate_rewards", "_generate_and_score_completions"]


@pytest.mark.parametrize("name", [*CALLED, "_load_from_checkpoint", "_save_rng_state"])
def test_the_private_methods_take_what_the_overrides_pass_on(name: str) -> None:
    assert names_of(getattr(StageTrainer, name)) == names_of(getattr(GRPOTrainer, name)), f"{name}: {ROLLOUT}"


def test_generate_returns_what_sampled_names() -> None:
    returned = re.findall(r"return ([\w, ]+)\n", inspect.getsource(GRPOTrainer._generate))[-1].split(", ")
    assert tuple(returned) == Sampled._fields, ROLLOUT


def test_trl_builds_the_engine_by_the_name_that_is_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = inspect.getsource(vllm_generation.VLLMGeneration._init_vllm)
    assert "self.llm = LLM(" in source, ENGINE
    call = next(node for node in ast.walk(ast.parse(textwrap.dedent(source))) if is_call_of(node, "LLM"))
    ours = {"dtype", "disable_log_stats", "enforce_eager", "kv_cache_memory_bytes"}
    assert not ours & {keyword.arg for keyword in call.keywords}, f"TRL passes one of ours itself now; {ENGINE}"
    monkeypatch.delattr(vllm_generation, "LLM")
    with pytest.raises(StageError, match="does not build vLLM's engine where it did"):
        trl_internals.configure_engine(open_stage(GrpoSettings, write_spec(tmp_path, "grpo", {}, {})))


def is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_weights_are_handed_to_vllm_by_the_methods_that_are_replaced() -> None:
    engine = vllm_generation.VLLMGeneration
    assert names_of(engine.sync_weights) == names_of(engine._iter_named_params) == ["self"], SYNC
    assert "in self._iter_named_params():" in inspect.getsource(engine.sync_weights), SYNC
    assert "self.vllm_generation.sync_weights()" in inspect.getsource(GRPOTrainer._generate_single_turn), SYNC


def test_the_curves_that_are_read_are_those_that_trl_writes() -> None:
    source = inspect.getsource(GRPOTrainer)
    assert [curve for curve in (*LOGPROB_DIFFERENCES.values(), ZERO_VARIANCE) if f'"{curve}"' not in source] == [], STEP


def test_the_adapter_beside_trls_copy_of_it_is_loaded(trainer: Recorder, tmp_path: Path) -> None:
    """transformers alone takes folders with adapters for all there is."""
    adapted = get_peft_model(trainer.model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.add_adapter("ref", LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "ref" / "adapter_model.safetensors").exists(), RESUME
    saved = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".default." in name:
                parameter.zero_()
    trainer.model = adapted
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    assert all(torch.equal(parameter, saved[name]) for name, parameter in adapted.named_parameters()), RESUME
    assert "adapter_subdirs" in inspect.getsource(transformers.Trainer._load_from_checkpoint), f"fixed? {RESUME}"


def test_a_penalty_of_trls_may_be_given_the_name_of_its_curve() -> None:
    penalty = get_repetition_penalty_reward(2)
    penalty.__name__ = "repetition"
    assert penalty(completion_ids=[[1, 1, 1]]) == [-0.5]


def test_the_names_are_used_nowhere_else_in_the_stage() -> None:
    """Private names of TRL's and transformers' trainers, and those that TRL does not document."""
    private = {name for name in dir(GRPOTrainer) if name.startswith("_") and not name.startswith("__")}
    private |= set(re.findall(r"self\.(_\w+)", inspect.getsource(GRPOTrainer)))
    private |= {"vllm_generation", "current_gradient_accumulation_steps"}
    paths = list(Path(trl_internals.__file__).parent.parent.glob("*.py"))
    assert "train.py" in [path.name for path in paths]
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not used & private, f"{path.name}: use trl_internals"
