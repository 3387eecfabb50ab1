"""VCORE's measurements on a real (tiny) model: utilities against exact gradients, restored parameters, probes, servo, alpha."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from stages import training
from stages.runtime import Context
from stages.sft.reweighting.base import Window
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.vcore import Vcore, variance_ratio
from stages.sft.settings import SftSettings, VcoreSettings
from stages.sft.train import read_demonstrations, trainer_config

MakeContext = Callable[..., Context[SftSettings]]


def make_trainer(context: Context[SftSettings], steps: int = 20) -> Any:
    """A plain SFTTrainer after a few steps, so that the model is no longer random."""
    training.prepare_torch(context)
    model, tokenizer = training.load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
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
        trainer._prepare_inputs,
        batch_size=8,
        micro_batch_size=micro_batch_size,
        seed=0,
    )


@pytest.fixture(scope="module")
def trainer(sft_inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.tiny import open_stage, write_spec

    settings = {"batch_size": 8, "learning_rate": 5e-3, "max_length": 128, "max_steps": 20}
    return make_trainer(open_stage(SftSettings, write_spec(tmp_path_factory.mktemp("vcore"), "sft", settings, sft_inputs)))


def exact_utilities(trainer: Any, batch: dict[str, Any], gradient: list[torch.Tensor]) -> torch.Tensor:
    """<g, grad l_t> for every supervised token, by one backward pass a token; NaN elsewhere."""
    model = trainer.model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = -model(**batch, use_cache=False, fused_lm_head=True).log_probs
    mask = batch["labels"][:, 1:] != -100
    utilities = torch.full(losses.shape, math.nan, dtype=torch.float64)
    for row, position in mask.nonzero().tolist():
        parts = torch.autograd.grad(losses[row, position], parameters, retain_graph=True, allow_unused=True)
        products = [(part.double() * g.double()).sum().item() for part, g in zip(parts, gradient, strict=True) if part is not None]
        utilities[row, position] = math.fsum(products)
    return utilities


def rank_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    ranks = torch.stack([values.argsort().argsort().double() for values in (first, second)])
    return torch.corrcoef(ranks)[0, 1].item()


@pytest.mark.parametrize(("differences", "target"), [("one_sided", 0.03), ("central", 0.03), ("central", 0.3)])
def test_utilities_agree_with_exact_token_gradients(trainer: Any, differences: str, target: float) -> None:
    evaluator = evaluator_of(trainer)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    mask = batch["labels"][:, 1:] != -100
    method = Vcore(VcoreSettings.model_validate({"name": "vcore", "differences": differences, "target_rms": target, "probe_clip": None}))
    window = Window(batches=[batch], step=3, tokens=int(mask.sum()), trajectories=4)
    [prepared] = method.prepare(window, evaluator)
    change = prepared["change"] if differences == "central" else evaluator.losses(batch) - prepared["minus"]
    measured = change.double() / method._step
    exact = exact_utilities(trainer, batch, evaluator.probe_gradient(0.25, 3))
    assert change[mask].square().mean().sqrt().item() == pytest.approx(target, rel=0.5)
    assert min(rank_correlation(measured[row][mask[row]], exact[row][mask[row]]) for row in range(4)) >= 0.95
    if target == 0.03:
        assert (measured - exact)[mask].norm() / exact[mask].norm() < (0.05 if differences == "central" else 0.25)


def test_scoring_restores_parameters_modes_gradients_and_random_state(trainer: Any) -> None:
    model, evaluator = trainer.model, evaluator_of(trainer)
    model.train()
    model.model.layers[0].eval()  # a mode of its own, which must come back too
    modes = [module.training for module in model.modules()]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(8)])
    Vcore(VcoreSettings()).prepare(Window([batch], 0, int((batch["labels"] != -100).sum()), 8), evaluator)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
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
    batch = trainer.data_collator(evaluator.probe_rows(0.5, 1))
    trainer.model.eval()
    trainer.model(**batch).loss.backward()  # the model's own loss: the mean over supervised tokens
    expected = [parameter.grad.clone() for parameter in evaluator.parameters]
    trainer.model.zero_grad()
    for one, other in zip(evaluator.probe_gradient(0.5, 1), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def weigh(settings: dict[str, Any], change: torch.Tensor, losses: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
    method = Vcore(VcoreSettings.model_validate({"name": "vcore", **settings}))
    method._step, method.radius = 0.1, 0.1
    method._tokens_per_trajectory = mask.sum().item() / len(mask)
    factors = method.weigh(losses, mask, {"change": change})
    radius = method.radius
    outcome = method.finish()
    return factors, (outcome, method.radius / radius)


def test_normalisation_decides_whether_long_trajectories_count_more() -> None:
    torch.manual_seed(0)
    change, losses = torch.randn(2, 6), torch.rand(2, 6)
    mask = torch.tensor([[True] * 6, [True, True] + [False] * 4])
    by_tokens, _ = weigh({"normalisation": "tokens"}, change, losses, mask)
    by_rows, _ = weigh({"normalisation": "trajectories"}, change, losses, mask)
    assert by_tokens.sum(-1).tolist() == pytest.approx([6.0, 2.0])
    assert by_rows.sum(-1).tolist() == pytest.approx([4.0, 4.0])  # divided by 8 tokens: half each


@pytest.mark.parametrize(("rms", "factor"), [(0.06, 0.5), (0.03, 1.0), (1e-6, 4.0), (10.0, 0.25)])
def test_the_servo_steers_to_its_target_by_at_most_four(rms: float, factor: float) -> None:
    change, mask = torch.full((2, 5), rms), torch.ones(2, 5, dtype=torch.bool)
    _, (outcome, moved) = weigh({"target_rms": 0.03}, change, torch.ones(2, 5), mask)
    assert moved == pytest.approx(factor, rel=1e-5)
    assert outcome.metrics["loss_change_rms"] == pytest.approx(rms)


def test_the_servo_shortens_a_step_along_which_the_losses_bend() -> None:
    """The odd change is far below its target, but the even one is twice as large: a longer step would only bend more."""
    method = Vcore(VcoreSettings.model_validate({"name": "vcore", "differences": "central", "target_rms": 0.3}))
    method._step, method.radius = 0.1, 0.1
    losses, mask = torch.ones(2, 5), torch.ones(2, 5, dtype=torch.bool)
    method.weigh(losses, mask, {"change": torch.full((2, 5), 0.05), "middle": losses + 0.1})
    assert method.finish().metrics["loss_change_bend"] == pytest.approx(2.0)
    assert method.radius == pytest.approx(0.05)


def test_a_change_that_is_not_finite_is_neutral_and_shrinks_the_step() -> None:
    mask = torch.ones(2, 4, dtype=torch.bool)
    factors, (outcome, moved) = weigh({}, torch.full((2, 4), math.nan), torch.ones(2, 4), mask)
    assert factors.tolist() == [[1.0] * 4] * 2
    assert (outcome.metrics["neutral_tokens"], outcome.scale, moved) == (8.0, 1.0, 0.25)


def test_loss_ratio_never_lets_the_weighted_loss_exceed_the_uniform_one() -> None:
    change = torch.tensor([[3.0, 0.0, 0.0, 0.0]])
    losses = torch.tensor([[4.0, 1.0, 1.0, 1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    factors, (outcome, _) = weigh({"kl": 0.5, "variance_control": "loss_ratio"}, change, losses, mask)
    assert outcome.scale * (losses * factors).sum().item() == pytest.approx(7.0, rel=1e-6)
    _, (outcome, _) = weigh({"kl": 0.5, "variance_control": "loss_ratio"}, -change, losses, mask)
    assert outcome.scale == 1.0


def test_variance_ratio_is_the_papers_and_never_amplifies() -> None:
    uniform, weighted = [1.0, 2.0, 4.0], [2.0, 6.0, 1.0]
    expected = math.sqrt(torch.tensor(uniform).double().var().item() / torch.tensor(weighted).double().var().item())
    assert variance_ratio(uniform, weighted) == pytest.approx(expected)
    assert variance_ratio(weighted, uniform) == 1.0
    assert variance_ratio([1.0], [2.0]) == 1.0
    assert variance_ratio([1.0, 1.0], [3.0, 3.0]) == 1.0
