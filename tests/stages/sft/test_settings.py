"""What the SFT settings accept, refuse and fill in."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from stages.sft.settings import SftSettings, VcoreSettings


def make(**values: object) -> SftSettings:
    return SftSettings.model_validate(values)


def vcore(**values: object) -> VcoreSettings:
    return VcoreSettings.model_validate({"name": "vcore", **values})


def test_settings_import_nothing_heavy() -> None:
    code = "import sys, stages.sft.settings; print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_alternative_replaces_the_default_it_excludes() -> None:
    assert make(max_steps=5).epochs is None
    assert (vcore(temperature=2.0).kl, vcore(epsilon=1e-4).target_rms) == (None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 1.0, "max_steps": 5}, "exactly one of epochs and max_steps"),
        ({"epochs": None}, "exactly one of epochs and max_steps"),
        ({"method": {"name": "vcore", "kl": 0.1, "temperature": 1.0}}, "exactly one of kl and temperature"),
        ({"method": {"name": "vcore", "target_rms": 0.1, "epsilon": 1e-4}}, "exactly one of target_rms and epsilon"),
        ({"method": {"name": "vcore", "target_rms": None}}, "exactly one of target_rms and epsilon"),
        ({"batch_size": 8, "micro_batch_size": 3}, "does not divide"),
        ({"method": {"name": "uniform", "kl": 0.1}}, "Extra inputs"),
        ({"method": {"name": "vcor"}}, "vcore"),
        ({"packing": True}, "False"),
        ({"learning_rate": "1e-5"}, "valid number"),
        ({"lora": {"rank": 0}}, "greater than 0"),
    ],
)
def test_contradictions_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**values)


def test_bfloat16_measures_larger_changes_unless_told_otherwise() -> None:
    method = make(dtype="bfloat16").method
    assert isinstance(method, VcoreSettings)
    assert (method.differences, method.target_rms) == ("central", 0.3)
    chosen = make(dtype="bfloat16", method={"name": "vcore", "differences": "one_sided", "epsilon": 1e-3}).method
    assert isinstance(chosen, VcoreSettings)
    assert (chosen.differences, chosen.target_rms, chosen.epsilon) == ("one_sided", None, 1e-3)


def test_the_identity_is_the_effective_batch_and_not_how_it_is_split() -> None:
    split = make(batch_size=8, micro_batch_size=2, gradient_checkpointing=True, checkpoint_steps=3, logging_steps=5)
    assert split.identity_settings() == make(batch_size=8).identity_settings()
    assert make(batch_size=16).identity_settings() != make(batch_size=8).identity_settings()
    assert make().identity_settings()["method"]["kl"] == 0.05
