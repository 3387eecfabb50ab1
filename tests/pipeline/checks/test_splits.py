"""What accelerate's files may share out over processes, and what a model that is shared out cannot serve."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pipeline.checks.preflight import preflight
from pipeline.core.errors import ConfigError
from pipeline.plan.planning import make_plan
from pipeline.store.store import Store
from tests.pipeline.helpers import config

ACCELERATE = Path(__file__).resolve().parents[3] / "configs" / "accelerate"


@pytest.mark.parametrize(("method", "refused"), [("uniform", False), ("vcore", False), ("jvp", True)])
def test_sft_may_be_split_by_fsdp2_but_not_differentiated_forward(tmp_path: Path, method: str, refused: bool) -> None:
    launch = f"execution.launch={{sft: {{kind: accelerate, processes: 2, config: {ACCELERATE / 'fsdp2.yaml'}}}}}"
    weights = "{name: vcore, utility: jvp}" if method == "jvp" else f"{{name: {method}}}"
    settings = config(tmp_path, launch, f"sft.method={weights}")
    said = pytest.raises(ConfigError, match=r"sft.method.utility: it needs whole weights .*FSDP2")
    with said if refused else contextlib.nullcontext():
        preflight(settings, make_plan(settings, Store(settings.home_folder)))


@pytest.mark.parametrize(
    ("file", "beta", "message"),
    [
        ("fsdp_config: {fsdp_version: 2}", 0.02, "fsdp_cpu_ram_efficient_loading leaves zeros"),
        ("fsdp_config: {fsdp_version: 2}", 0.0, None),
        ("fsdp_config: {fsdp_version: 2, fsdp_cpu_ram_efficient_loading: false}", 0.02, None),
    ],
)
def test_a_reference_model_of_zeros_is_refused(tmp_path: Path, file: str, beta: float, message: str | None) -> None:
    path = tmp_path / "fsdp.yaml"
    path.write_text(f"distributed_type: FSDP\n{file}\n")
    launch = f"execution.launch={{grpo: {{kind: accelerate, processes: 2, config: {path}}}}}"
    settings = config(tmp_path, launch, f"grpo.beta={beta}")
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        preflight(settings, make_plan(settings, Store(settings.home_folder)))
