"""The trainer's options, and its hooks: equal to plain TRL where they must be, independent of how a batch is split."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from stages.harness.context import Context, StageError
from stages.sft.encoding import encoded, read_demonstrations
from stages.sft.reweighting import make_method
from stages.sft.run import OWNED_OPTIONS, check_trainer_options, run, trainer_config
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer, dealt_by_length
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.lora import lora_config
from stages.training.setup import prepare_torch

MakeContext = Callable[..., Context[SftSettings]]
REFERENCE = Path(__file__).with_name("reference_losses.json")
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {"name": "uniform"},
    "dft": {"name": "dft"},
    "iw_sft": {"name": "iw_sft"},
    "eaft": {"name": "eaft"},
    "profit": {"name": "profit", "threshold": 0.003},
    "deft": {"name": "deft"},
    "trim_sft": {"name": "trim_sft"},
    "prift": {"name": "prift"},
    "prift_mass": {"name": "prift", "weights": "mass"},
    "asft": {"name": "asft", "kl_weight": 0.1},
    "asft_reverse": {"name": "asft", "kl": "reverse", "kl_weight": 0.1},
    "wit": {"name": "wit"},
    "random": {"name": "random"},
    "noise": {"name": "noise"},
    "vcore": {"name": "vcore"},
    "vcore_jvp": {"name": "vcore", "utility": "jvp"},
    "vcore_ema": {"name": "vcore", "direction": "ema"},
    "vcore_central_trajectories": {
        "name": "vcore",
        "utility": "central_difference",
        "normalisation": "trajectories",
        "kl": 0.3,
    },
    "vcore_tokens_capped": {
        "name": "vcore",
        "variance_control": "tokens",
        "max_relative_weight": 2.0,
        "precondition": True,
    },
    "vcore_paper": {"name": "vcore", "preset": "paper", "epsilon": 1e-2, "temperature": 1.0},
    "vcore_official": {"name": "vcore", "preset": "official", "epsilon": 1e-2, "temperature": 1.0},
}


def train(context: Context[SftSettings], trainer_class: type = ReweightingTrainer, **options: Any) -> Any:
    """Train by the context's settings; `options` override the SFTConfig. Returns the trainer."""
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    args = trainer_config(context)
    for name, value in options.items():
        setattr(args, name, value)
    rows = read_demonstrations(context.inputs["data"] / "sft.jsonl")
    method: dict[str, Any] = {}
    if issubclass(trainer_class, ReweightingTrainer):
        method = {"method": make_method(context.settings.method, tokenizer, context.seed)}
        method["max_tokens"] = context.settings.max_tokens_per_micro_batch
        method["packing"] = context.settings.packing
        if any("weight" in row for row in rows) or not context.settings.completion_only_loss:
            method["encode"] = lambda tokenizer: encoded(rows, tokenizer, context.settings, "its template", print)
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]),
        processing_class=tokenizer,
        peft_config=lora_config(context.settings.lora),
        **method,
    )
    trainer.train()
    return trainer


class DealtByLength(SFTTrainer):  # type: ignore[misc]
    """Plain TRL on the micro-batches that a ReweightingTrainer makes of the same rows."""

    def get_batch_samples(self, *args: Any) -> Any:
        batches, items = super().get_batch_samples(*args)
        return dealt_by_length(batches, self.data_collator.pad_token_id), items


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses(trainer: Any, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def assert_identical(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"rank": 2, "dropout": 0.2}])
@pytest.mark.parametrize(
    "method",
    [
        {"name": "uniform"},
        {"name": "vcore", "kl": 0.0},
        {"name": "vcore", "kl": 0.0, "normalisation": "tokens", "utility": "central_difference"},
    ],
)
def test_uniform_weights_train_bit_for_bit_as_plain_trl(
    sft_context: MakeContext, method: dict[str, Any], lora: dict[str, Any] | None
) -> None:
    common = {"lora": lora, "micro_batch_size": 4, "max_steps": 4}
    plain = train(sft_context("plain", **common), DealtByLength)
    ours = train(sft_context("ours", method=method, **common))
    assert_identical(weights(plain), weights(ours))
    assert losses(plain) == losses(ours)


def test_dft_is_trls_dft_bit_for_bit(sft_context: MakeContext) -> None:
    theirs = train(sft_context("theirs", micro_batch_size=4), DealtByLength, loss_type="dft")
    ours = train(sft_context("ours", micro_batch_size=4, method={"name": "dft"}))
    assert_identical(weights(theirs), weights(ours))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_batch_in_parts_trains_as_a_whole_one_and_so_does_an_epochs_short_last_one(
    sft_context: MakeContext, name: str
) -> None:
    """40 rows by twelve leave four, which micro-batches of three share as three and one."""
    settings = {"method": METHODS[name], "batch_size": 12, "max_steps": None, "epochs": 1.0, "learning_rate": 0.1}
    settings["trainer"] = {"optim": "sgd"}  # Adam would amplify rounding
    whole = weights(train(sft_context("whole", **settings)))
    split = weights(train(sft_context("split", micro_batch_size=3, **settings)))
    start = load_model_and_tokenizer(sft_context("start").inputs["model"] / "model", "float32")[0].state_dict()
    for tensor in whole:
        moved = (whole[tensor] - start[tensor]).norm()
        assert (whole[tensor] - split[tensor]).norm() <= 1e-3 * moved, tensor


@pytest.mark.slow
def test_vcore_changes_the_update_and_reports_why(sft_context: MakeContext) -> None:
    uniform = train(sft_context("uniform", method={"name": "uniform"}))
    vcore = train(sft_context("vcore", method={"name": "vcore"}))
    assert any(
        not torch.equal(one, other)
        for one, other in zip(weights(uniform).values(), weights(vcore).values(), strict=True)
    )
    assert losses(vcore, "kl") == pytest.approx([0.05] * 3, rel=1e-3)
    assert all(0.5 < value < 1 for value in losses(vcore, "ess"))
    assert all(0 < value <= 1 for value in losses(vcore, "alpha"))
    assert losses(vcore, "loss_change_rms") == pytest.approx([0.03] * 3, rel=0.5)
    assert losses(vcore, "weighted_loss") == pytest.approx(losses(vcore), rel=1e-5)
    assert losses(vcore, "uniform_loss")[0] == pytest.approx(losses(uniform)[0], rel=1e-5)


@pytest.mark.slow
def test_the_control_factor_scales_the_gradient_before_clipping(sft_context: MakeContext) -> None:
    settings = {"max_steps": 1, "max_grad_norm": 1e6}
    sharp = {"name": "vcore", "kl": 0.5, "direction": "fresh", "probe_fraction": 0.25}
    free = train(sft_context("free", method={**sharp, "variance_control": "none"}, **settings))
    held = train(sft_context("held", method={**sharp, "variance_control": "loss_ratio"}, **settings))
    [alpha] = losses(held, "alpha")
    assert alpha < 0.999
    assert losses(held, "grad_norm")[0] == pytest.approx(alpha * losses(free, "grad_norm")[0], rel=1e-5)


@pytest.mark.slow
def test_split_into_single_rows_and_not_at_all_give_the_same_update(sft_context: MakeContext) -> None:
    settings = {
        "batch_size": 32,
        "max_steps": 1,
        "learning_rate": 0.1,
        "trainer": {"optim": "sgd"},
        "method": {"name": "vcore", "probe_fraction": 0.25},
    }
    updates = [weights(train(sft_context(str(micro), micro_batch_size=micro, **settings))) for micro in (32, 8, 1)]
    start = load_model_and_tokenizer(sft_context("start").inputs["model"] / "model", "float32")[0].state_dict()
    for tensor in start:
        moved = (updates[0][tensor] - start[tensor]).norm()
        for split in updates[1:]:
            assert (updates[0][tensor] - split[tensor]).norm() <= 1e-3 * moved, tensor


def test_a_short_last_window_is_weighted_too(sft_context: MakeContext) -> None:
    trainer = train(
        sft_context("epoch", batch_size=16, micro_batch_size=8, epochs=1.0, max_steps=None)
    )  # 40 rows: 16, 16, 8
    assert trainer.state.global_step == 3
    assert losses(trainer, "kl") == pytest.approx([0.05] * 3, rel=1e-3)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(sft_context: MakeContext) -> None:
    plain = weights(train(sft_context("plain")))
    checkpointed = weights(train(sft_context("checkpointed", gradient_checkpointing=True)))
    for name, tensor in plain.items():
        assert torch.allclose(tensor, checkpointed[name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_losses_are_those_of_the_committed_reference(sft_context: MakeContext, name: str) -> None:
    """Thirty steps against stored losses. After an intended change run this with VCORE_UPDATE_REFERENCE=1."""
    trainer = train(sft_context(name, method=METHODS[name], max_steps=30, micro_batch_size=4))
    measured = {
        "loss": losses(trainer),
        "uniform_loss": losses(trainer, "uniform_loss"),
        "grad_norm": losses(trainer, "grad_norm"),
    }
    stored = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.exists() else {}
    if os.environ.get("VCORE_UPDATE_REFERENCE"):
        REFERENCE.write_text(json.dumps({**stored, name: measured}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        pytest.skip("reference losses rewritten")
    for quantity, values in measured.items():
        assert values == pytest.approx(stored[name][quantity], rel=2e-3), quantity


@pytest.mark.parametrize("library", ["fsdp", "deepspeed"])
def test_what_keeps_parameters_to_itself_is_refused(
    sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    original = SFTTrainer.__init__

    def under(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        setattr(self, f"is_{library}_enabled", True)

    monkeypatch.setattr(SFTTrainer, "__init__", under)  # accelerate itself says that this is no second version
    with pytest.raises(StageError, match="DeepSpeed and FSDP's first version keep to themselves"):
        train(sft_context())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1e-4}, "trainer.learning_rat: SFTConfig has no such option"),
        ({"learning_rate": 1e-4}, "trainer.learning_rate: this option is set by the pipeline"),
        ({"loss_type": "dft"}, "set by the pipeline"),
        ({"neftune_noise_alpha": "much"}, "trainer.neftune_noise_alpha: 'much' does not fit"),
        ({"optim": "adamm"}, "TRL refuses these options: .*adamm"),
    ],
)
def test_trainer_options_are_checked(sft_context: MakeContext, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError, match=message):
        check_trainer_options(options)
    with pytest.raises(StageError, match=message):
        run(sft_context(trainer=options))


def test_trainer_options_reach_trl(sft_context: MakeContext) -> None:
    check_trainer_options({"neftune_noise_alpha": 5.0, "optim": "sgd"})
    assert trainer_config(sft_context(trainer={"optim": "sgd"})).optim == "sgd"


def test_every_owned_option_exists_and_every_setting_reaches_the_config(sft_context: MakeContext) -> None:
    config = trainer_config(
        sft_context(schedule="linear", warmup_steps=2, weight_decay=0.1, adam_beta2=0.98, max_grad_norm=0.5)
    )
    assert [name for name in OWNED_OPTIONS if not hasattr(config, name)] == []
    assert (config.lr_scheduler_type, config.warmup_steps, config.weight_decay) == ("linear", 2, 0.1)
    assert (config.adam_beta2, config.max_grad_norm, config.bf16, config.max_steps, config.max_length) == (
        0.98,
        0.5,
        False,
        3,
        128,
    )
