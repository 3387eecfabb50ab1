"""Memory on shapes against memory that is there: parameters, adapters, optimizer state and what a backward pass keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError
from pipeline.estimate import adapter_parameters, estimate, saved_bytes, shape_of
from stages.sft.settings import LoraSettings
from tests.pipeline.test_plan import config
from tests.tiny import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "model", hidden_size=128, layers=4)


def loaded(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")


def test_parameters_and_adapters_are_those_of_the_model(tmp_path: Path, folder: Path) -> None:
    from peft import get_peft_model

    from stages.lora import lora_config

    shape = shape_of(config(tmp_path, f"model={folder}"))
    model = loaded(folder)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    for targets in ("all-linear", ["q_proj", "v_proj"]):
        lora = LoraSettings(rank=4, targets=targets)
        counted = sum(p.numel() for p in get_peft_model(loaded(folder), lora_config(lora)).parameters() if p.requires_grad)
        assert adapter_parameters(shape, lora) == counted


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_backward_pass_keeps_is_what_a_real_one_keeps(tmp_path: Path, folder: Path, checkpointing: bool) -> None:
    import torch

    model, kept = loaded(folder), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.zeros((2, 128), dtype=torch.long), use_cache=False)
    real = sum(size for size, _ in kept.values())
    assert saved_bytes(shape_of(config(tmp_path, f"model={folder}")), 2, 128, checkpointing) == pytest.approx(real, rel=0.1)


def test_needs_follow_the_settings(tmp_path: Path, folder: Path) -> None:
    model = f"model={folder}"
    full, lora = (estimate(config(tmp_path, model, *more))[0] for more in ((), ("sft.lora={rank: 4}",)))
    assert full.parts["optimizer"] == pytest.approx(2 * full.parts["gradients"])
    assert lora.parts["optimizer"] < 0.2 * full.parts["optimizer"]
    stages = {need.stage: need.parts for need in estimate(config(tmp_path, model, "grpo.beta=0.1", "grpo.rollout=transformers"))}
    assert "reference model" in stages["grpo"]
    assert "vLLM's weights" not in stages["grpo"]


def test_the_command(tmp_path: Path, folder: Path) -> None:
    config(tmp_path)  # writes small.yaml
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "small.yaml"), "--estimate", "--set", f"model={folder}", "--json"])
    assert [stage["stage"] for stage in json.loads(result.output)["stages"]] == ["sft", "grpo", "generate"]
    said = CliRunner().invoke(app, ["plan", str(tmp_path / "small.yaml"), "--estimate"]).output
    assert "together" in said
    (tmp_path / "empty").mkdir()
    no_model = config(tmp_path, f"model={tmp_path / 'empty'}")
    with pytest.raises(ConfigError, match=r"the config of .* cannot be had"):
        estimate(no_model)
