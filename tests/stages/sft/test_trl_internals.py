"""What stages/sft/trl_internals.py relies on, tried on the installed versions. A failure says which source to read."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn.modules import dropout
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssPreTrainedModel
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from stages.harness.context import Context
from stages.sft import trl_internals
from stages.sft.encoding import read_demonstrations
from stages.sft.run import trainer_config
from stages.sft.settings import SftSettings
from stages.sft.trl_internals import (
    HeadSignals,
    TrainerWithOwnState,
    adapter_off,
    attention_can_be_set,
    attention_set_to,
    forward_without_head,
    log_probs_times,
    token_log_probs,
    watch_hidden_states,
)
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.same_outputs import DROPOUTS
from stages.training.setup import prepare_torch

MakeContext = Callable[..., Context[SftSettings]]
FUSED_HEAD = "read trl.trainer.utils.add_fused_lm_head again, then token_log_probs and log_probs_times"
BACKBONE = "read trl.trainer.utils.add_fused_lm_head again, then watch_hidden_states and forward_without_head"
ADAPTER = "read peft's BaseTunerLayer.enable_adapters again, then adapter_off"
LOSS = "read trl.SFTTrainer.compute_loss again, then log_probs_times and ReweightingTrainer.compute_loss"
CHECKPOINT = (
    "read transformers.Trainer._save_checkpoint and .train again, then TrainerWithOwnState and stages/training/loop.py"
)
ROWS = (
    "read trl.SFTTrainer._prepare_dataset again, then TrainerWithOwnState._prepare_dataset and stages/sft/encoding.py"
)
STEP = "read transformers.Trainer's training loop again, then the head of stages/sft/trainer.py"
ATTENTION = "read transformers' guide to AttentionInterface again, then attention_set_to"


def tiny_model() -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=1)).eval()
    add_fused_lm_head(model)
    return model


def padded_batch() -> dict[str, torch.Tensor]:
    tokens = torch.arange(20).reshape(2, 10)
    present = torch.arange(10) < torch.tensor([[10], [7]])
    labels = tokens.masked_fill(~present, -100)
    labels[:, :3] = -100
    return {"input_ids": tokens, "attention_mask": present.long(), "labels": labels}


class Recorder(TrainerWithOwnState):
    """Writes down the order in which the Trainer calls what this project hooks into."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.calls: list[str] = []
        super().__init__(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.calls.append(f"window of {len(batches)}")
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("step")
        loss = super().training_step(*args, **kwargs)
        self.calls.append("complete" if self.accelerator.sync_gradients else "partial")
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("loss")
        return super().compute_loss(*args, **kwargs)

    def write_own_state(self, folder: Path) -> None:
        self.calls.append(f"write, {'complete' if (folder / 'trainer_state.json').exists() else 'incomplete'}")

    def read_own_state(self, folder: Path) -> None:
        self.calls.append(f"read {folder.name}")


def make_trainer(context: Context[SftSettings]) -> Recorder:
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    rows = read_demonstrations(context.inputs["data"] / "sft.jsonl")
    data = Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])
    return Recorder(model=model, args=trainer_config(context), train_dataset=data, processing_class=tokenizer)


def test_the_fused_head_gives_log_probabilities_of_the_next_tokens() -> None:
    model, batch = tiny_model(), padded_batch()
    labels, mask = batch["labels"][:, 1:], batch["labels"][:, 1:] != -100
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    expected = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1) * mask
    assert torch.allclose(token_log_probs(model, batch), expected, atol=1e-5), FUSED_HEAD
    masks = []
    with log_probs_times(model, lambda losses, label_mask, _: masks.append(label_mask)):  # type: ignore[func-returns-value]
        token_log_probs(model, batch)
    assert torch.equal(masks[0], mask), FUSED_HEAD


def test_the_backbones_hidden_states_are_those_that_the_head_is_given() -> None:
    model, batch = tiny_model(), padded_batch()
    seen: list[torch.Tensor] = []
    watch_hidden_states(model, seen.append)
    expected = token_log_probs(model, batch)
    logits = model.lm_head(seen[0])[:, :-1].log_softmax(-1)
    labels = batch["labels"][:, 1:]
    again = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (labels != -100)
    assert torch.allclose(again, expected, atol=1e-5), BACKBONE
    for whole in (False, True):
        forward_without_head(model, batch, whole=whole)
        assert torch.equal(seen[-1], seen[0]), BACKBONE
    assert len(seen) == 3, BACKBONE


def test_an_adapter_that_is_off_leaves_the_model_as_it_was_and_stays_trainable() -> None:
    model, batch = tiny_model(), padded_batch()
    before = token_log_probs(model, batch)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    with adapter_off(adapted):
        assert torch.equal(token_log_probs(adapted, batch), before), ADAPTER
        assert [name for name, parameter in adapted.named_parameters() if parameter.requires_grad] == trained, ADAPTER
    assert trained
    assert not torch.allclose(token_log_probs(adapted, batch), before), ADAPTER


def test_the_options_that_scale_logits_are_those_that_trl_reads() -> None:
    source = inspect.getsource(add_fused_lm_head)
    read = set(re.findall(r'getattr\(text_config, "(\w+)"', source)) - {"output_router_logits", "router_aux_loss_coef"}
    assert read == set(trl_internals.SCALED_LOGITS), f"{FUSED_HEAD}; SCALED_LOGITS must name every option that scales"


def test_trls_loss_is_the_sum_of_the_log_probabilities_it_is_given(sft_context: MakeContext) -> None:
    trainer = make_trainer(sft_context())
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    plain = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=10)
    with log_probs_times(trainer.model, lambda losses, mask, _: torch.full_like(losses, 2.0)):
        doubled = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=10)
    with log_probs_times(trainer.model, lambda *_: None, lambda: torch.tensor(30.0)):
        more = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=10)
    assert doubled.item() == 2 * plain.item(), LOSS
    assert more.item() == pytest.approx(plain.item() + 3.0, rel=1e-6), LOSS
    assert plain.item() == pytest.approx(-token_log_probs(trainer.model, batch).sum().item() / 10, rel=1e-6), LOSS


def test_a_step_calls_its_hooks_in_order_and_checkpoints_are_marked_last(sft_context: MakeContext) -> None:
    settings = {"micro_batch_size": 4, "max_steps": 2, "checkpoint_steps": 1}
    trainer = make_trainer(sft_context("first", **settings))
    trainer.train()
    step = ["window of 2", "step", "loss", "partial", "step", "loss", "complete"]
    assert [call for call in trainer.calls if "write" not in call] == 2 * step, STEP
    assert trainer.calls == 2 * [*step, "write, incomplete"], CHECKPOINT
    again = make_trainer(sft_context("first", **settings))
    shutil.rmtree(Path(again.args.output_dir) / "checkpoint-2")
    again.train(resume_from_checkpoint=str(Path(again.args.output_dir) / "checkpoint-1"))
    assert again.calls == ["read checkpoint-1", *step, "write, incomplete"], CHECKPOINT


def test_a_checkpoint_is_marked_when_every_process_has_written_its_part(
    sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(sft_context(max_steps=1, checkpoint_steps=1))
    folder, waits = Path(trainer.args.output_dir) / "checkpoint-1", []

    def wait() -> None:
        waits.append((any(folder.glob("rng_state*.pth")), (folder / "trainer_state.json").exists()))

    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", wait)
    trainer.train()
    assert (True, False) in waits, CHECKPOINT


def test_rows_that_are_tokenised_here_are_cut_and_labelled_by_trl_and_no_more(
    sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [
        {"input_ids": [5, 6, 7], "completion_mask": [0, 1, 1]},
        {"input_ids": list(range(5, 205)), "completion_mask": [0] * 10 + [1] * 190},
    ]
    monkeypatch.setattr(Recorder, "encode", staticmethod(lambda tokenizer: Dataset.from_list(encoded)))
    rows = make_trainer(sft_context()).train_dataset
    assert (rows[0]["input_ids"], rows[0]["labels"]) == ([5, 6, 7], [-100, 6, 7]), ROWS
    assert (len(rows[1]["input_ids"]), rows[1]["labels"][9:12]) == (128, [-100, 15, 16]), ROWS


@pytest.mark.parametrize("name", ["_save_optimizer_and_scheduler", "_save_rng_state", "_load_from_checkpoint"])
def test_the_trainers_private_methods_take_what_the_overrides_pass_on(name: str) -> None:
    ours, theirs = (list(inspect.signature(getattr(cls, name)).parameters) for cls in (TrainerWithOwnState, SFTTrainer))
    assert ours == theirs, CHECKPOINT


def test_a_registered_attention_is_used_with_sdpas_masks_and_given_up_again() -> None:
    model, batch, seen = tiny_model(), padded_batch(), []

    def forward(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        out, weights = trl_internals.sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        seen.append((query.shape[1], key.shape[1], attention_mask.dtype, out.shape, weights))
        return out, weights

    usual = token_log_probs(model, batch)
    with attention_set_to(model, "canary", forward):
        assert torch.equal(token_log_probs(model, batch), usual), ATTENTION
    assert seen == 2 * [(2, 1, torch.bool, (2, 10, 2, 8), None)], ATTENTION
    token_log_probs(model, batch)
    assert len(seen) == 2, f"{ATTENTION}: the attention of before did not come back"
    assert attention_can_be_set(model), ATTENTION
    assert GptOssPreTrainedModel._supports_sdpa is False, ATTENTION


def test_every_module_that_drops_activations_is_known() -> None:
    known = set(DROPOUTS)
    derived = {cls for cls in dropout._DropoutNd.__subclasses__() if cls.__module__.startswith("torch.")}
    assert derived <= known, f"torch has another dropout: {derived - known}; add it to DROPOUTS"


def test_the_names_are_used_nowhere_else_in_the_stage() -> None:
    names = (
        "fused_lm_head",
        ".log_probs",
        ".label_mask",
        "_attn_implementation",
        "_supports_sdpa",
        "sdpa_mask",
        "_DropoutNd",
        "_metrics[",
    )
    names += ("_prepare_inputs", "_prepare_dataset", "_optimizer_and_scheduler", "_load_from_checkpoint")
    names += ("_signature_columns", "_supports_attention_backend", "_disable_adapters", "fsdp2_prepare_model")
    sources = Path(trl_internals.__file__).parent.rglob("*.py")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sources if path.name != "trl_internals.py"}
    assert [(file, name) for file, text in texts.items() for name in names if name in text] == [], "use trl_internals"


def test_signals_of_the_start_alone_keep_nothing_of_a_training_forward() -> None:
    model, batch = tiny_model(), padded_batch()
    head = HeadSignals(model, frozenset({"mass", "logit_gap"}), bfloat16=False)
    head.in_training = frozenset({"logit_gap"})
    output = model(**batch, use_cache=False, fused_lm_head=True)
    assert set(head.of(output, batch["labels"])) == {"logit_gap"}
    assert set(head.measured(model, batch)) == {"mass", "logit_gap"}
    head.in_training = frozenset()
    assert head.of(model(**batch, use_cache=False, fused_lm_head=True), batch["labels"]) == {}
    assert head._hidden is None
