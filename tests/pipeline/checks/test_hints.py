"""What costs more than it has to is said in the plan and refused nowhere."""

from pathlib import Path

import pytest

from pipeline.checks.hints import hints
from pipeline.launch import machine
from pipeline.plan.planning import make_plan
from pipeline.store.store import Store
from tests.pipeline.helpers import config

LONG = ("sft.max_length=4096", "grpo.max_completion_length=4096")
CONFIGS = Path(__file__).parents[3] / "configs" / "accelerate"


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H100, 81559 MiB"])


def said(tmp_path: Path, *overrides: str) -> list[str]:
    settings = config(tmp_path, *overrides)
    return hints(settings, make_plan(settings, Store(settings.home_folder)))


def test_long_rows_in_float32_on_a_gpu(tmp_path: Path) -> None:
    found = said(tmp_path, "execution.device=cuda", *LONG)
    assert [hint.split(":")[0] for hint in found] == ["sft", "grpo"]
    assert all("of up to 4,096 tokens" in hint for hint in found)
    assert said(tmp_path, "execution.device=cuda", *LONG, "sft.dtype=bfloat16", "grpo.dtype=bfloat16") == []
    assert said(tmp_path, "execution.device=cuda") == []
    assert said(tmp_path, "execution.device=cpu", *LONG) == []


@pytest.mark.parametrize(("file", "slow"), [("fsdp2.yaml", True), ("zero2.yaml", True), ("ddp.yaml", False)])
def test_a_check_that_samples_on_the_cpu(tmp_path: Path, file: str, slow: bool) -> None:
    launch = f"execution.launch={{grpo: {{kind: accelerate, processes: 2, config: {CONFIGS / file}}}}}"
    found = said(tmp_path, "execution.device=cuda", launch)
    assert len(found) == slow
    assert all("8 prompts are completed on the CPU" in hint for hint in found)
    assert said(tmp_path, "execution.device=cuda", launch, "grpo.stop_check_prompts=0") == []


def test_rows_end_to_end_in_float32_on_a_gpu(tmp_path: Path) -> None:
    [found] = said(tmp_path, "execution.device=cuda", "sft.packing=true")
    assert "as rows end to end have no mask" in found
    assert len(said(tmp_path, "execution.device=cuda", "sft.packing=true", *LONG)) == 2  # one for each stage
    assert said(tmp_path, "execution.device=cuda", "sft.packing=true", "sft.dtype=bfloat16") == []
    assert said(tmp_path, "execution.device=cpu", "sft.packing=true") == []
