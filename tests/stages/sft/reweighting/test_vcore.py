"""VCORE's measurements on a real (tiny) model: utilities against exact gradients, restored parameters, probes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from stages.harness.context import Context, StageError
from stages.sft.encoding import read_demonstrations
from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Window
from stages.sft.reweighting.diagnostics import rank_agreement
from stages.sft.reweighting.direction import ProbeDirection
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.vcore import Vcore
from stages.sft.run import trainer_config
from stages.sft.settings import SftSettings
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.setup import prepare_torch

MakeContext = Callable[..., Context[SftSettings]]


def make_trainer(context: Context[SftSettings], steps: int = 20) -> Any:
    """A plain SFTTrainer after a few steps, so that the model is no longer random."""
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    rows = read_demonstrations(context.inputs["data"] / "sft.jsonl")
    trainer = SFTTrainer(
        model=model,
        args=trainer_config(context),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]),
        processing_class=tokenizer,
    )
    trainer.args.max_steps = steps
    trainer.train()
    return trainer


def evaluator_of(trainer: Any, micro_batch_size: int = 8) -> ModelEvaluator:
    return ModelEvaluator(
        trainer.model,
        trainer.train_dataset,
        trainer.data_collator,
        lambda: trainer.optimizer,
        batch_size=8,
        micro_batch_size=micro_batch_size,
        bfloat16=False,
        seed=0,
    )


@pytest.fixture(scope="module")
def trainer(sft_inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.tiny import open_stage, write_spec

    settings = {"batch_size": 8, "learning_rate": 5e-3, "max_length": 128, "max_steps": 20}
    return make_trainer(
        open_stage(SftSettings, write_spec(tmp_path_factory.mktemp("vcore"), "sft", settings, sft_inputs))
    )


def exact_utilities(trainer: Any, batch: dict[str, Any], gradient: list[torch.Tensor]) -> torch.Tensor:
    """<g, grad l_t> for every supervised token, by one backward pass a token; NaN elsewhere."""
    model = trainer.model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = -model(**batch, use_cache=False, fused_lm_head=True).log_probs
    mask = batch["labels"][:, 1:] != -100
    utilities = torch.full(losses.shape, math.nan, dtype=torch.float64)
    for row, position in mask.nonzero().tolist():
        parts = torch.autograd.grad(losses[row, position], parameters, retain_graph=True, allow_unused=True)
        products = [
            (part.double() * g.double()).sum().item()
            for part, g in zip(parts, gradient, strict=True)
            if part is not None
        ]
        utilities[row, position] = math.fsum(products)
    return utilities


@pytest.mark.parametrize(
    ("utility", "target"),
    [("finite_difference", 0.03), ("central_difference", 0.03), ("central_difference", 0.3), ("jvp", None)],
)
def test_utilities_agree_with_exact_token_gradients(trainer: Any, utility: str, target: float | None) -> None:
    evaluator = evaluator_of(trainer)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    mask = batch["labels"][:, 1:] != -100
    settings = {
        "name": "vcore",
        "utility": utility,
        "target_rms": target,
        "probe_clip": None,
        "direction": "fresh",
        "probe_fraction": 0.25,
    }
    method = Vcore(VcoreSettings.model_validate(settings))
    window = Window(batches=[batch], step=3, tokens=int(mask.sum()), trajectories=4)
    [prepared] = method.prepare(window, evaluator)
    measured = method.measurement.utility(evaluator.losses(batch), mask, prepared).double()
    exact = exact_utilities(trainer, batch, evaluator.probe_gradient(0.25, 3))
    error = ((measured - exact)[mask].norm() / exact[mask].norm()).item()
    assert min(rank_agreement(measured, exact, mask)) >= 0.95
    if target is not None:
        assert method.measurement.finish(evaluator)["loss_change_rms"] == pytest.approx(target, rel=0.5)
    if target != 0.3:
        assert error < {"finite_difference": 0.25, "central_difference": 0.05, "jvp": 1e-4}[utility]


def test_scoring_restores_parameters_modes_gradients_and_random_state(trainer: Any) -> None:
    model, evaluator = trainer.model, evaluator_of(trainer)
    model.train()
    model.model.layers[0].eval()  # a mode of its own, which must come back too
    modes = [module.training for module in model.modules()]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(8)])
    kept = [torch.ones_like(parameter) for parameter in model.parameters()]
    for parameter, gradient in zip(model.parameters(), kept, strict=True):
        parameter.grad = gradient
    window, method = Window([batch], 0, int((batch["labels"] != -100).sum()), 8), Vcore(VcoreSettings())
    method.prepare(window, evaluator)
    method.examine(window, evaluator)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), kept, strict=True))
    assert all(bool((gradient == 1).all()) for gradient in kept)
    for parameter in model.parameters():  # other tests use this model, too
        parameter.grad = None
    assert torch.equal(torch.get_rng_state(), random_state)


def test_parameters_are_restored_when_the_evaluation_raises(trainer: Any) -> None:
    evaluator = evaluator_of(trainer)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    bad = {"input_ids": torch.tensor([[10**6]]), "attention_mask": torch.tensor([[1]]), "labels": torch.tensor([[1]])}
    direction = [torch.ones_like(parameter) for parameter in evaluator.parameters]
    moved = False
    with pytest.raises(IndexError), evaluator.perturbed(direction, 0.1):  # noqa: PT012
        moved = not torch.equal(before[0], evaluator.parameters[0])
        evaluator.losses(bad)
    assert moved
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))


def test_the_probe_depends_on_seed_and_step_and_not_on_the_micro_batch(trainer: Any) -> None:
    whole, split = evaluator_of(trainer), evaluator_of(trainer, micro_batch_size=1)
    assert len(whole.probe_rows(0.25, 0)) == 2
    assert whole.probe_rows(0.5, 7) == split.probe_rows(0.5, 7) != whole.probe_rows(0.5, 8)
    for one, other in zip(whole.probe_gradient(0.5, 7), split.probe_gradient(0.5, 7), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_probe_gradient_is_that_of_the_uniform_loss(trainer: Any) -> None:
    evaluator = evaluator_of(trainer)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in evaluator.probe_rows(0.5, 1)])
    trainer.model.eval()
    trainer.model(**batch).loss.backward()  # the model's own loss: the mean over supervised tokens
    expected = [parameter.grad.clone() for parameter in evaluator.parameters]
    trainer.model.zero_grad()
    for one, other in zip(evaluator.probe_gradient(0.5, 1), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_average_of_probes_is_theirs_and_knows_how_well_it_agrees(trainer: Any) -> None:
    evaluator = evaluator_of(trainer)
    probe = ProbeDirection(
        VcoreSettings.model_validate(
            {"name": "vcore", "direction": "ema", "ema_decay": 0.5, "probe_clip": None, "probe_fraction": 0.25}
        )
    )
    first, second = (evaluator.probe_gradient(0.25, step) for step in (0, 1))
    assert probe.next(0, evaluator) is not None
    assert "probe_cosine" not in probe.metrics
    direction = probe.next(1, evaluator)
    assert direction is not None
    for got, one, other in zip(direction, first, second, strict=True):
        assert torch.allclose(got, (0.25 * one + 0.5 * other) / 0.75, atol=1e-6)
    flat = [torch.cat([part.flatten() for part in gradient]) for gradient in (first, second)]
    assert probe.metrics["probe_cosine"] == pytest.approx(torch.cosine_similarity(*flat, dim=0).item(), abs=1e-5)


def test_a_preconditioned_direction_is_adams(trainer: Any) -> None:
    evaluator = evaluator_of(trainer)
    gradient = evaluator.probe_gradient(0.25, 0)
    group = trainer.optimizer.param_groups[0]
    for parameter, got, part in zip(evaluator.parameters, evaluator.preconditioned(gradient), gradient, strict=True):
        state = trainer.optimizer.state[parameter]
        second = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"].item())
        assert torch.allclose(got, part / (second.sqrt() + group["eps"]), rtol=1e-4)


def test_rounding_is_noticed_and_stops_or_warns(trainer: Any) -> None:
    """A step of 1e-6 changes float32 losses by a few units in the last place."""
    evaluator = evaluator_of(trainer)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(8)])
    window = Window([batch], 0, int((batch["labels"][:, 1:] != -100).sum()), 8)
    settings = {"name": "vcore", "epsilon": 2e-7}
    stopped = Vcore(VcoreSettings.model_validate(settings))
    stopped.prepare(window, evaluator)
    with pytest.raises(StageError, match="the utilities are rounding"):
        stopped.examine(window, evaluator)
    warned = Vcore(VcoreSettings.model_validate({**settings, "unmeasurable": "warn"}))
    warned.prepare(window, evaluator)
    warned.examine(window, evaluator)
    assert "weights may be noise: at epsilon 2e-07" in warned._notes[0]
    fine = Vcore(VcoreSettings())
    fine.prepare(window, evaluator)
    fine.examine(window, evaluator)
    assert fine._notes == []
    assert fine._checks["rounding_agreement"] > 0.9
    assert -1 <= fine._checks["probe_agreement"] <= 1
