"""The baselines: what each weighs, and that it does not depend on how rows are batched."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stages import sft as package
from stages.harness.context import Context, StageError
from stages.sft import run as sft
from stages.sft.method_settings import CustomSettings, IwSftSettings, NoiseSettings, RandomSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import Window, row_digests
from stages.sft.reweighting.baselines import boxed_tokens
from stages.sft.reweighting.diagnostics import Concentration
from stages.sft.settings import SftSettings
from tests.stages.sft.reweighting.test_arithmetic import OneProcess
from tests.tiny import make_tiny_tokenizer

PAGE = Path(package.__file__).parents[2] / "docs" / "methods.md"


class Reference(OneProcess):
    """An initial model with known mean losses."""

    def mean_losses_of_all_rows(self) -> dict[str, float]:
        return dict(zip(row_digests(BATCH), [2.0, 1.0], strict=True))


def batch_of(texts: list[str], prompt: int = 4) -> dict[str, Any]:
    tokenizer = make_tiny_tokenizer()
    rows = tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    labels[:, :prompt] = -100
    return {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"], "labels": labels}


BATCH = batch_of(["Mia has some coins: 3+4=7. \\boxed{7} and so on", "Tom says this to them: \\boxed{\\frac{1}{2}}."])
MASK = BATCH["labels"][:, 1:] != -100
WINDOW = Window([BATCH], 0, int(MASK.sum()), 2)


def weights(settings: Any, window: Window = WINDOW, losses: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
    method = make_method(settings, make_tiny_tokenizer(), seed)
    [prepared] = method.prepare(window, Reference())  # type: ignore[arg-type]
    mask = window.batches[0]["labels"][:, 1:] != -100
    factors = method.weigh(mask.float() if losses is None else losses, mask, prepared)
    assert factors is not None
    return factors


def test_importance_weights_are_those_of_whole_trajectories() -> None:
    losses = torch.where(MASK, torch.tensor([[1.5], [9.0]]), 0.0)
    factors = weights(IwSftSettings(), losses=losses)
    assert factors[0, MASK[0]].unique().item() == pytest.approx(math.exp(2.0 - 1.5))
    assert factors[1, MASK[1]].unique().item() == pytest.approx(math.exp(1.0 - 9.0), rel=1e-4)
    hot = weights(IwSftSettings(temperature=2.0, max_weight=2.5), losses=losses)
    assert hot[0, MASK[0]].unique().item() == 2.5


def test_random_tokens_keep_a_share_and_the_box() -> None:
    factors = weights(RandomSettings())
    assert torch.equal(factors > 0, factors * MASK > 0), "nothing outside the supervised tokens"
    assert factors.sum().item() == pytest.approx(MASK.sum().item(), rel=1e-5), "the mean over the tokens kept"
    tokenizer = make_tiny_tokenizer()
    for row in range(2):
        supervised = MASK[row].nonzero().flatten()
        pieces = [tokenizer.decode([int(BATCH["input_ids"][row, i + 1])]) for i in supervised]
        inside = boxed_tokens(pieces)
        assert inside.any()
        assert (factors[row, supervised][torch.from_numpy(inside)] > 0).all()
    long = batch_of(["word " * 3000])
    window = Window([long], 0, int((long["labels"] != -100).sum()), 1)
    assert (weights(RandomSettings(kept=0.2), window) > 0).float().mean().item() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("pieces", "inside"),
    [
        (["so ", "\\", "boxed", "{", "4", "2", "}", "."], [0, 1, 1, 1, 1, 1, 1, 0]),
        (["\\boxed{\\frac{1}", "{2}", "}", "x"], [1, 1, 1, 0]),
        (["\\boxed {1", "} \\boxed{2}", "!"], [1, 1, 0]),
        (["\\boxed{never", " closed"], [1, 1]),
        (["no", " box", "ed{1}"], [0, 0, 0]),
    ],
)
def test_boxes_are_found_across_tokens(pieces: list[str], inside: list[int]) -> None:
    assert boxed_tokens(pieces).astype(int).tolist() == inside


@pytest.mark.parametrize("settings", [RandomSettings(keep_boxed=False), NoiseSettings()])
def test_draws_depend_on_seed_step_and_row_and_not_on_the_batch(settings: Any) -> None:
    together = weights(settings)
    assert torch.equal(together, weights(settings))
    assert not torch.equal(together, weights(settings, Window([BATCH], 1, WINDOW.tokens, 2)))
    assert not torch.equal(together, weights(settings, seed=1))
    second = {name: value[1:, : int(BATCH["attention_mask"][1].sum())] for name, value in BATCH.items()}
    alone = weights(settings, Window([second], 0, int((second["labels"][:, 1:] != -100).sum()), 1))
    assert torch.equal(together[1, : alone.shape[1]] > 0, alone[0] > 0)
    if isinstance(settings, NoiseSettings):
        assert torch.allclose(together[1, : alone.shape[1]], alone[0])


def test_noise_is_as_far_from_uniform_as_it_says() -> None:
    measured = Concentration()
    measured.add(weights(NoiseSettings(kl=0.1)), MASK)
    means = measured.metrics(OneProcess())  # type: ignore[arg-type]
    assert means["kl"] == pytest.approx(0.1, rel=1e-4)
    assert 0.5 < means["ess"] < 0.95
    assert means["top_share"] > 1 / MASK.sum(-1).max().item()


def test_concentration_by_hand() -> None:
    measured = Concentration()
    measured.add(
        torch.tensor([[3.0, 1.0, 0.0, 9.0], [2.0, 2.0, 2.0, 2.0]]),
        torch.tensor([[True, True, False, False], [True] * 4]),
    )
    means = measured.metrics(OneProcess())  # type: ignore[arg-type]
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert means == pytest.approx({"kl": first / 2, "ess": (1 / (0.625 * 2) + 1) / 2, "top_share": (0.75 + 0.25) / 2})


def test_a_method_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from stages.sft.reweighting.base import Method\n"
        "class Weights(Method):\n"
        "    def __init__(self, power): self.power = power\n"
        "    def weigh(self, losses, mask, prepared): return losses ** self.power\n"
    )
    losses = torch.full(MASK.shape, 2.0)
    made = weights(CustomSettings(name="custom", file=str(file), options={"power": 3}), losses=losses)
    assert (made == 8.0).all()
    for settings, message in (
        ({"file": str(tmp_path / "none.py")}, "No such file"),
        ({"file": str(file), "class_name": "Other"}, "no attribute 'Other'"),
        ({"file": str(file)}, "missing 1 required positional argument: 'power'"),
        ({"file": str(file), "class_name": "str"}, "no attribute|does not derive"),
    ):
        with pytest.raises(StageError, match=message):
            make_method(CustomSettings(name="custom", **settings), None, 0)


def test_the_method_of_the_documentation_trains(
    sft_context: Callable[..., Context[SftSettings]], tmp_path: Path
) -> None:
    """The example of docs/methods.md, run as it stands there."""
    text = PAGE.read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [config] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    method = yaml.safe_load(config)["sft"]["method"]
    file = tmp_path / method["file"]
    file.write_text(code, encoding="utf-8")
    context = sft_context("run", method={**method, "file": str(file)})
    assert sft.run(context).proof["steps"] == 3
    curve = (context.record / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"kl"' in curve, "its weights are described like any other's"
