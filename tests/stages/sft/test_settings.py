"""What the SFT settings accept, refuse and fill in."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from stages.sft.settings import SftSettings, VcoreSettings


def make(**values: object) -> SftSettings:
    return SftSettings.model_validate(values)


def vcore(**values: object) -> VcoreSettings:
    return VcoreSettings.model_validate({"name": "vcore", **values})


def test_settings_import_nothing_heavy() -> None:
    heavy = "('torch', 'transformers', 'trl', 'datasets', 'numpy')"
    code = f"import sys, stages.sft.settings; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_alternative_replaces_the_default_it_excludes() -> None:
    assert make(max_steps=5).epochs is None
    assert (vcore(temperature=2.0).kl, vcore(epsilon=1e-4).target_rms) == (None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 1.0, "max_steps": 5}, "exactly one of epochs and max_steps"),
        ({"epochs": None}, "exactly one of epochs and max_steps"),
        (
            {"method": {"name": "vcore", "kl": 0.1, "temperature": 1.0}},
            "exactly one of kl, temperature and inverse_temperature",
        ),
        ({"method": {"name": "vcore", "target_rms": 0.1, "epsilon": 1e-4}}, "exactly one of target_rms and epsilon"),
        ({"method": {"name": "vcore", "target_rms": None}}, "exactly one of target_rms and epsilon"),
        (
            {"method": {"name": "vcore", "temperature": 1.0, "inverse_temperature": 1.0}},
            "exactly one of kl, temperature and inverse",
        ),
        ({"method": {"name": "vcore", "temperature": 0.0}}, "greater than 0"),
        ({"method": {"name": "vcore", "probe_fraction": 0.0}}, "greater than 0"),
        ({"method": {"name": "vcore", "utility": "jvp", "target_rms": 0.1}}, "jvp takes no step"),
        ({"method": {"name": "vcore", "utility": "jvp", "epsilon": 0.1}}, "jvp takes no step"),
        ({"method": {"name": "vcore", "utility": "jvp", "utility_dropout": "independent"}}, "finite_difference only"),
        ({"method": {"name": "vcore", "preset": "papers"}}, "'paper' or 'official'"),
        ({"method": {"name": "vcore", "max_relative_weight": 1.0}}, "greater than 1"),
        ({"method": {"name": "vcore", "epsilon": 1e-8}}, "epsilon 1e-08 is below what float32 resolves"),
        ({"method": {"name": "vcore", "epsilon": 1e-4}, "dtype": "bfloat16"}, "below what bfloat16 resolves"),
        ({"method": {"name": "random", "kept": 0.0}}, "greater than 0"),
        ({"method": {"name": "noise", "kl": 0.0}}, "greater than 0"),
        ({"method": {"name": "asft", "kl_weight": 0.0}}, "greater than 0"),
        ({"method": {"name": "asft", "preset": "paper"}}, "'paper_v1' or 'official'"),
        ({"method": {"name": "wit", "response_weight": 0.0}}, "greater than 0"),
        ({"method": {"name": "wit"}, "completion_only_loss": True}, "prompt_weight 0.4 needs completion_only_loss fal"),
        (
            {"method": {"name": "wit", "prompt_weight": 0.0}, "completion_only_loss": False},
            "prompt_weight 0 needs completion_only_loss true",
        ),
        ({"batch_size": 8, "micro_batch_size": 3}, "does not divide"),
        ({"micro_batch_size": 8, "max_tokens_per_micro_batch": 512}, "it takes the place of micro_batch_size"),
        ({"method": {"name": "uniform", "kl": 0.1}}, "Extra inputs"),
        ({"method": {"name": "vcor"}}, "vcore"),
        ({"learning_rate": "1e-5"}, "valid number"),
        ({"lora": {"rank": 0}}, "greater than 0"),
    ],
)
def test_contradictions_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**values)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, ("jvp", None, None)),
        ({"kl": 0.1, "preset": None}, ("jvp", None, None)),
        ({"target_rms": 0.1}, ("central_difference", 0.1, None)),
        ({"epsilon": 1e-2}, ("central_difference", None, 1e-2)),
        ({"utility": "central_difference"}, ("central_difference", 0.3, None)),
        ({"utility": "finite_difference"}, ("finite_difference", 0.3, None)),
        ({"utility": "finite_difference", "epsilon": 1e-2}, ("finite_difference", None, 1e-2)),
        ({"utility_dropout": "independent"}, ("finite_difference", 0.3, None)),
    ],
)
def test_bfloat16_is_exact_or_measures_larger_changes(given: dict[str, Any], used: tuple[object, ...]) -> None:
    method = make(dtype="bfloat16", method={"name": "vcore", **given}).method
    assert isinstance(method, VcoreSettings)
    assert (method.utility, method.target_rms, method.epsilon) == used


def test_the_identity_is_the_effective_batch_and_not_how_it_is_split() -> None:
    split = make(batch_size=8, micro_batch_size=2, gradient_checkpointing=True, checkpoint_steps=3, logging_steps=5)
    assert split.identity_settings() == make(batch_size=8).identity_settings()
    assert make(batch_size=16).identity_settings() != make(batch_size=8).identity_settings()
    assert make().identity_settings()["method"]["kl"] == 0.05


def test_presets_fill_what_is_not_given() -> None:
    paper, official = vcore(preset="paper"), vcore(preset="official")
    assert (paper.epsilon, paper.temperature, paper.kl, paper.probe_clip, paper.probe_fraction) == (
        1e-4,
        5e3,
        None,
        None,
        1.0,
    )
    assert (paper.variance_control, paper.normalisation, paper.max_alpha) == ("trajectories", "trajectories", None)
    assert (official.utility_dropout, official.variance_control, official.normalisation) == (
        "independent",
        "loss_ratio_per_trajectory",
        "tokens",
    )
    exact = vcore(preset="official", utility="jvp")
    assert (exact.epsilon, exact.target_rms, exact.utility_dropout) == (None, None, "off")
    assert (exact.temperature, exact.probe_fraction) == (official.temperature, official.probe_fraction)
    central = vcore(preset="official", utility="central_difference")
    assert (central.epsilon, central.utility_dropout) == (official.epsilon, "off")
    other = vcore(preset="paper", kl=0.1, target_rms=0.05)
    assert (other.kl, other.temperature, other.target_rms, other.epsilon) == (0.1, None, 0.05, None)
    assert make(dtype="bfloat16", method={"name": "vcore", "preset": "official"}).method == official
    assert "preset" not in paper.identity_settings(), "the values are the identity, not what they were called"


def test_forward_mode_takes_no_step() -> None:
    settings = make(method={"name": "vcore", "utility": "jvp"}, dtype="bfloat16").method
    assert isinstance(settings, VcoreSettings)
    assert (settings.utility, settings.target_rms, settings.epsilon) == ("jvp", None, None)


def test_a_custom_methods_path_is_not_its_identity() -> None:
    one, other = (
        make(method={"name": "custom", "file": file, "options": {"x": 1}}).identity_settings()
        for file in ("a.py", "b/c.py")
    )
    assert one == other
    assert one["method"] == {"name": "custom", "class_name": "Weights", "options": {"x": 1}}


def test_weights_of_prompts_give_them_a_loss() -> None:
    assert make().completion_only_loss
    assert not make(method={"name": "wit"}).completion_only_loss
    assert make(method={"name": "wit", "prompt_weight": 0.0}).completion_only_loss
    written = make(method={"name": "wit"}).model_dump()
    assert SftSettings.model_validate(written).model_dump() == written
