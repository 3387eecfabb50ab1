"""The options that go on to TRL: which are refused, and that every setting arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stages.harness.context import Context, StageError
from stages.sft import run as sft
from stages.sft.settings import SftSettings

MakeContext = Callable[..., Context[SftSettings]]


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
        sft.check_trainer_options(options)
    with pytest.raises(StageError, match=message):
        sft.run(sft_context(trainer=options))


def test_trainer_options_reach_trl(sft_context: MakeContext) -> None:
    sft.check_trainer_options({"neftune_noise_alpha": 5.0, "optim": "sgd"})
    assert sft.trainer_config(sft_context(trainer={"optim": "sgd"})).optim == "sgd"


def test_every_owned_option_exists_and_every_setting_reaches_the_config(sft_context: MakeContext) -> None:
    config = sft.trainer_config(
        sft_context(schedule="linear", warmup_steps=2, weight_decay=0.1, adam_beta2=0.98, max_grad_norm=0.5)
    )
    assert [name for name in sft.OWNED_OPTIONS if not hasattr(config, name)] == []
    assert (config.lr_scheduler_type, config.warmup_steps, config.weight_decay) == ("linear", 2, 0.1)
    assert (config.adam_beta2, config.max_grad_norm, config.bf16, config.max_steps, config.max_length) == (
        0.98,
        0.5,
        False,
        3,
        128,
    )
