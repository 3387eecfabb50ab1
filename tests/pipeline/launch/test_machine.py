"""What a machine is to a stage."""

from pathlib import Path

import pytest

from pipeline.launch import machine
from pipeline.plan.graph import build_graph
from tests.pipeline.helpers import config


def test_a_stage_says_how_it_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_rounding(*overrides: str) -> set[str]:
        settings = config(tmp_path, *overrides)
        said = {stage.name: machine.comes_back(settings.execution, stage) for stage in build_graph(settings)}
        assert set(said.values()) <= {"bit for bit", "to rounding"}
        return {name for name, how in said.items() if how == "to rounding"}

    assert to_rounding() == set(), "on a CPU"
    monkeypatch.setattr(machine, "gpus", lambda: ["a GPU"] * 2)
    sampling = {"generate.base", "generate.sft", "generate.grpo"}
    assert to_rounding() == {"base", "sft", "grpo", *sampling}
    made = {"base", "grpo"}  # its base model is trained from nothing
    assert to_rounding("execution.deterministic=true") == made
    assert to_rounding("execution.deterministic=true", "generate.engine=transformers") == {*made, *sampling}
    assert to_rounding("execution.deterministic=true", "generate.tensor_parallel=2") == {*made, *sampling}
    two = "execution.launch={sft: {kind: torchrun, processes: 2}}"
    assert to_rounding("execution.deterministic=true", two) == {"sft", *made}
