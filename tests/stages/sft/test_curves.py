"""Curves are of the optimizer step, however its rows are cut; and what is said of their beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from stages.harness.context import StageError
from stages.sft.run import run
from tests.stages.sft.test_trainer import MakeContext, losses, train
from tests.tiny import make_tiny_model, read_stage_run

CURVES = ("loss", "uniform_loss", "weighted_loss", "entropy", "mean_token_accuracy")


def test_curves_do_not_depend_on_the_cut(sft_context: MakeContext) -> None:
    """40 rows by 16: the epoch's last step is a short one."""

    def curves(name: str, **cut: Any) -> dict[str, list[float]]:
        settings = {"batch_size": 16, "max_steps": None, "epochs": 2.0, "method": {"name": "uniform"}}
        trainer = train(sft_context(name, **settings, learning_rate=1.0, trainer={"optim": "sgd"}, **cut))
        return {curve: losses(trainer, curve) for curve in CURVES}

    whole = curves("whole")
    assert [len(values) for values in whole.values()] == [6] * len(CURVES)
    assert min(whole["entropy"]) > 0
    assert whole["mean_token_accuracy"][-1] > 0.1, "it has learnt something"
    cuts: dict[str, dict[str, Any]] = {
        "rows": {"micro_batch_size": 2},
        "tokens": {"max_tokens_per_micro_batch": 150},
        "packed": {"packing": True, "micro_batch_size": 4},
    }
    for name, cut in cuts.items():
        for curve, values in curves(name, **cut).items():
            assert values == pytest.approx(whole[curve], rel=1e-4), (name, curve)


def test_a_log_of_several_steps_has_the_mean_of_theirs(sft_context: MakeContext) -> None:
    settings: dict[str, Any] = {"max_steps": 3, "micro_batch_size": 2, "method": {"name": "uniform"}}
    each, once = (train(sft_context(f"every-{n}", logging_steps=n, **settings)) for n in (1, 3))
    for curve in ("entropy", "mean_token_accuracy"):
        assert losses(once, curve)[-1] == pytest.approx(sum(losses(each, curve)[1:]) / 2), "the first step is logged"


def test_a_warm_up_that_does_not_end_is_said(sft_context: MakeContext) -> None:
    context = sft_context(max_steps=None, epochs=0.3, warmup_steps=2)
    run(context)
    [note] = read_stage_run(context.spec_path.parent, 0, "").notes
    assert note == "sft.warmup_steps: 2 leave nothing of 2 steps: the learning rate stays below 0.002"


def test_a_loss_that_is_none_before_any_step_is_the_models(sft_context: MakeContext, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base" / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="the loss is nan at step 1") as error:
        run(sft_context(inputs={"model": tmp_path / "base"}))
    assert error.value.fix.startswith("It is of the model before any step")
