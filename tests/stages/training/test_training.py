"""What training stages share: loading with clear errors, checkpoints that reload, and a proof that has to be earned."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import TrainerControl, TrainerState

from stages.harness.context import StageError
from stages.training.checkpoint import load_model_and_tokenizer, make_saveable, save_checkpoint
from stages.training.loop import StageCallback
from stages.training.lora import COMPARED_TOKENS, lora_config, merge_adapter
from stages.training.options import record_config
from stages.training.proof import training_proof
from stages.training.settings import LoraSettings
from stages.training.setup import prepare_torch
from tests.tiny import CHAT_TEMPLATE, make_tiny_model, make_tiny_tokenizer, stage_environment


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "base")


@pytest.fixture
def trained(base: Path, tmp_path: Path) -> tuple[Any, Any, Path]:
    """A model whose weights moved, and its saved checkpoint."""
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    save_checkpoint(model, tokenizer, tmp_path / "trained", "float32")
    return model, tokenizer, tmp_path / "trained"


def state(steps: int = 2, losses: tuple[float, ...] = (2.0, 1.0)) -> TrainerState:
    return TrainerState(
        global_step=steps, log_history=[{"loss": loss, "step": step} for step, loss in enumerate(losses, 1)]
    )


def prove(trained: tuple[Any, Any, Path], base: Path, **changes: Any) -> dict[str, Any]:
    model, tokenizer, after = trained
    arguments = {"before": base, "after": after, "dtype": "float32", "state": state(), "planned_steps": 2, **changes}
    return training_proof(model, tokenizer, **arguments)


def test_the_proof_says_what_was_done(trained: tuple[Any, Any, Path], base: Path) -> None:
    proof = prove(trained, base)
    assert (proof["steps"], proof["loss_first"], proof["loss_last"]) == (2, 2.0, 1.0)
    before, after = (load_model_and_tokenizer(folder, "float32")[0] for folder in (base, trained[2]))
    change = (after.model.norm.weight - before.model.norm.weight).double().norm()
    norm = torch.cat([parameter.flatten().double() for parameter in before.parameters()]).norm()
    assert proof["relative_weight_change"] == pytest.approx((change / norm).item())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"planned_steps": 3}, "did 2 of 3 planned steps"),
        ({"planned_steps": 0, "state": state(0)}, "did 0 of 0 planned steps"),
        ({"state": state(losses=())}, "missing or not finite"),
        ({"state": state(losses=(2.0, float("nan")))}, "missing or not finite"),
    ],
)
def test_no_proof_without_steps_and_losses(
    trained: tuple[Any, Any, Path], base: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        prove(trained, base, **changes)


def test_no_proof_without_a_change(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    save_checkpoint(model, tokenizer, tmp_path / "same", "float32")
    with pytest.raises(StageError, match="the weights did not change"):
        prove((model, tokenizer, tmp_path / "same"), base)


def test_no_proof_for_weights_that_the_last_step_broke(trained: tuple[Any, Any, Path], base: Path) -> None:
    with torch.no_grad():
        trained[0].model.norm.weight[0] = torch.nan
    with pytest.raises(StageError, match=r"1 trained weights are not finite .* model.norm.weight") as error:
        prove(trained, base)
    assert "learning rate" in error.value.fix


def test_no_proof_for_a_checkpoint_that_is_not_the_model(trained: tuple[Any, Any, Path], base: Path) -> None:
    with torch.no_grad():
        trained[0].model.norm.weight[0] += 1e-6
    with pytest.raises(StageError, match="differs from the trained model"):
        prove(trained, base)


def test_no_proof_when_tokenizer_and_configs_disagree(trained: tuple[Any, Any, Path], base: Path) -> None:
    path = trained[2] / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "eos_token_id": 5}), encoding="utf-8")
    with pytest.raises(StageError, match="disagree on: end of sequence"):
        prove(trained, base)


def test_a_saved_checkpoint_is_complete_and_agrees_with_its_tokenizer(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    model.generation_config.eos_token_id = [7]
    model.config.pad_token_id = None
    save_checkpoint(model, tokenizer, tmp_path / "out", "bfloat16")
    saved, saved_tokenizer = load_model_and_tokenizer(tmp_path / "out", "bfloat16")
    assert saved.dtype == torch.bfloat16
    assert saved.generation_config.eos_token_id == [tokenizer.eos_token_id, 7]
    assert saved.config.pad_token_id == saved_tokenizer.pad_token_id == tokenizer.pad_token_id
    assert saved_tokenizer.chat_template == tokenizer.chat_template


def test_models_that_do_not_load_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no model here \(config.json is missing\)"):
        load_model_and_tokenizer(tmp_path / "nowhere", "float32")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(StageError, match="the model does not load"):
        load_model_and_tokenizer(base, "float32")
    weights.unlink()
    with pytest.raises(StageError, match="the model does not load"):
        load_model_and_tokenizer(base, "float32")


def test_missing_weights_are_not_made_up(base: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="1 weights are missing and would be random"):
        load_model_and_tokenizer(base, "float32")


def test_tokenizers_that_cannot_chat_with_the_model_are_refused(base: Path) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens([f"extra{index}" for index in range(3)])
    tokenizer.save_pretrained(base)
    with pytest.raises(
        StageError,
        match=f"the tokenizer has {config['vocab_size'] + 3} tokens but the model embeds {config['vocab_size']}",
    ):
        load_model_and_tokenizer(base, "float32")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(StageError, match="no chat template"):
        load_model_and_tokenizer(base, "float32")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    with pytest.raises(StageError, match=r"the tokenizer \(1 tokens\) has none for text"):
        load_model_and_tokenizer(base, "float32")


class Reported:
    """A stage's context that keeps what it is told."""

    def __init__(self, record: Path) -> None:
        self.record, self.main, self.stop_requested = record, True, False
        self.shown: list[dict[str, Any]] = []

    def progress(self, step: int, total: int, phase: str, **shown: Any) -> None:
        self.shown.append(shown)

    def curve(self, step: int, **values: Any) -> None:
        pass


def test_rates_count_tokens_where_they_come_and_time_always(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions that serve two steps count with the first; a resumed run does not count what was done before."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ctx: Any = Reported(tmp_path)
    callback = StageCallback(ctx, "grpo")
    callback.on_train_begin(None, TrainerState(global_step=2, max_steps=6, num_input_tokens_seen=5000), None)
    for step, logs in enumerate([{"num_tokens": 6000.0}, {}, {"num_tokens": 7000.0}, {}], start=3):
        now += 2.0
        callback.on_log(None, TrainerState(global_step=step, max_steps=6), None, {"loss": 0.0, **logs})
    assert [shown.get("tokens_per_s") for shown in ctx.shown[1:]] == [500, None, 250, None]
    assert (callback.tokens, callback.seconds, callback.tokens_per_second) == (2000.0, 8.0, 250.0)


def test_the_time_left_is_that_of_recent_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step, which warms up, does not count; half of the steps are logged."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ctx: Any = Reported(tmp_path)
    callback = StageCallback(ctx, "sft")
    callback.on_train_begin(None, TrainerState(global_step=0, max_steps=40), None)
    for step in range(1, 41):
        now += 100.0 if step == 1 else 10.0
        state, control = TrainerState(global_step=step, max_steps=40), TrainerControl(should_log=step % 2 == 0)
        callback.on_step_end(None, state, control)
        if control.should_log:
            callback.on_log(None, state, control, {"loss": 0.0})
    assert [shown.get("left") for shown in ctx.shown[1:5]] == [None, "6 min", "6 min", "6 min"]
    assert [shown.get("left") for shown in ctx.shown[-3:]] == ["20 s", "10 s", None]


def test_the_whole_configuration_is_recorded_without_the_machines_paths(tmp_path: Path) -> None:
    from trl import SFTConfig

    arguments = SFTConfig(
        output_dir=str(tmp_path / "out"), bf16=False, use_cpu=True, report_to="none", optim="sgd", deepspeed=None
    )
    record_config(Reported(tmp_path), arguments)  # type: ignore[arg-type]
    text = (tmp_path / "trainer_config.json").read_text(encoding="utf-8")
    recorded = json.loads(text)
    assert {field.name for field in dataclasses.fields(SFTConfig) if field.init} - recorded.keys() <= {
        "output_dir",
        "logging_dir",
        "run_name",
    }
    assert (recorded["optim"], recorded["lr_scheduler_kwargs"]) == ("sgd", None)
    assert str(tmp_path) not in text


FREED = """
import sys
from types import SimpleNamespace
import torch
from stages.harness.context import Context
from stages.training.setup import prepare_torch
if "prepared" in sys.argv:
    prepare_torch(SimpleNamespace(machine=SimpleNamespace(threads=1, device="cpu", deterministic=False), seed=0))
faults = lambda: int(open("/proc/self/stat").read().rpartition(")")[2].split()[7])
for _ in range(3):
    torch.ones(16 << 20)
before = faults()
for _ in range(20):
    torch.ones(16 << 20)
print("FAULTS", faults() - before)
"""


def test_the_memory_of_a_freed_tensor_serves_the_next_one_on_a_cpu() -> None:
    faults = []
    for argument in ("plain", "prepared"):
        command = [sys.executable, "-c", FREED, argument]
        done = subprocess.run(command, capture_output=True, text=True, env=stage_environment(), check=True)
        faults.append(int(done.stdout.partition("FAULTS")[2]))
    plain, prepared = faults
    assert prepared < 100  # pages that the kernel had to hand over for 1.3 GB of tensors
    assert plain > 20 * 1000


def test_a_process_of_several_on_a_cpu_can_load_what_it_saved(tmp_path: Path) -> None:
    machine = SimpleNamespace(threads=torch.get_num_threads(), device="cpu", deterministic=False)
    ctx: Any = SimpleNamespace(machine=machine, seed=0)
    prepare_torch(ctx)
    torch.use_deterministic_algorithms(False)
    torch.save({"moment": torch.arange(3.0)}, tmp_path / "optimizer.pt")
    loaded = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", 1), weights_only=True)
    assert loaded["moment"].tolist() == [0.0, 1.0, 2.0]


GREEDY = {"temperature": 0.6, "top_p": 0.9, "top_k": 20}
DRAWN = {"do_sample": True, **GREEDY, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("declared", "left_out"),
    [
        ({}, {}),
        (DRAWN, {}),
        (GREEDY, GREEDY),
        ({"do_sample": False, **GREEDY, "repetition_penalty": 1.05}, GREEDY),
        ({"top_k": 20}, {"top_k": 20}),
        ({"early_stopping": True}, {"early_stopping": True}),
        ({"early_stopping": True, "num_beams": 4, "length_penalty": 0.5}, {}),
        ({**DRAWN, "length_penalty": 0.5}, {"length_penalty": 0.5}),
        ({"pad_token_id": -1}, {"pad_token_id": -1}),
        ({"output_scores": True, "max_length": 20}, {"output_scores": True}),
        ({"use_cache": False, "cache_implementation": "static"}, {"cache_implementation": "static"}),
        ({"min_p": 0.1, "typical_p": 0.9, "own_note": "x"}, {"min_p": 0.1, "typical_p": 0.9}),
    ],
)
def test_a_generation_config_that_cannot_be_saved_loses_what_has_no_effect_and_is_noted(
    base: Path, tmp_path: Path, declared: dict[str, Any], left_out: dict[str, Any]
) -> None:
    path = base / "generation_config.json"
    before = json.loads(path.read_text(encoding="utf-8")) | declared
    path.write_text(json.dumps(before), encoding="utf-8")
    ctx, notes = Reported(tmp_path), list[str]()
    ctx.note = notes.append  # type: ignore[attr-defined]
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    assert make_saveable(ctx, model, tokenizer) == left_out  # type: ignore[arg-type]
    assert all(f"{name} {value}" in notes[0] for name, value in left_out.items())
    assert bool(notes) == bool(left_out)
    save_checkpoint(model, tokenizer, tmp_path / "out", "float32")
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert {name: saved.get(name) for name in declared.keys() - left_out.keys()} == {
        name: declared[name] for name in declared.keys() - left_out.keys()
    }
    assert not saved.keys() & (left_out.keys() - {"pad_token_id"})


def test_sampling_settings_in_the_models_own_config_do_not_keep_it_from_being_saved(base: Path, tmp_path: Path) -> None:
    """Where there is no generation config, transformers makes one of them."""
    (base / "generation_config.json").unlink()
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"temperature": 0.6}), encoding="utf-8")
    ctx: Any = Reported(tmp_path)
    ctx.note = list[str]().append
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    assert make_saveable(ctx, model, tokenizer) == {"temperature": 0.6}
    save_checkpoint(model, tokenizer, tmp_path / "out", "float32")


def test_what_could_not_be_saved_is_found_before_the_first_step(base: Path, tmp_path: Path) -> None:
    ctx: Any = Reported(tmp_path)
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "../outside": "x"}
    with pytest.raises(StageError, match=r"could not be saved: .*outside"):
        make_saveable(ctx, model, tokenizer)
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    model.config.note = {1, 2}
    with pytest.raises(StageError, match=r"could not be saved: .*set"):
        make_saveable(ctx, model, tokenizer)


def test_a_merge_is_checked_on_the_cpu_and_on_few_tokens(base: Path, tmp_path: Path) -> None:
    """A row may have tens of thousands of tokens, whose logits and attention no GPU holds in float32."""
    model, _ = load_model_and_tokenizer(base, "bfloat16")
    adapted: Any = get_peft_model(model, lora_config(LoraSettings(rank=2)))
    lengths: list[int] = []
    adapted.get_input_embeddings().register_forward_hook(lambda module, given, output: lengths.append(len(given[0][0])))
    moved: list[Any] = []
    to = adapted.to
    adapted.to = lambda *place, **options: moved.append(place) or to(*place, **options)
    merged, difference = merge_adapter(adapted, [5] * 5000, tmp_path / "adapter")
    assert lengths == [COMPARED_TOKENS] * 2
    assert ("cpu",) in moved
    assert difference < 1e-6
    assert merged.dtype == torch.float32
