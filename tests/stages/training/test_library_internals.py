"""What stages/training/library_internals.py relies on, tried on the installed versions; a failure says what to read."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import get_peft_model

from stages.training import library_internals
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.library_internals import load_onto_numbered_cpus, load_weights, merged_parameters
from stages.training.lora import lora_config
from stages.training.settings import LoraSettings
from tests.tiny import make_tiny_model

RESUME = "read how transformers.Trainer.train begins a resume again, then load_weights and stages/training/loop.py"
DEVICES = "read torch.serialization.register_package again, then load_onto_numbered_cpus"
NAMES = "read how peft names and merges LoRA layers again (peft.tuners.lora.layer), then merged_parameters"


def test_torch_loads_onto_a_numbered_cpu_only_with_our_deserializer(tmp_path: Path) -> None:
    assert list(inspect.signature(torch.serialization.register_package).parameters) == [
        "priority",
        "tagger",
        "deserializer",
    ], DEVICES
    torch.save({"moment": torch.arange(3.0)}, tmp_path / "optimizer.pt")
    load_onto_numbered_cpus()
    load_onto_numbered_cpus()
    loaded = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", 1), weights_only=True)
    assert loaded["moment"].tolist() == [0.0, 1.0, 2.0], DEVICES


def test_the_trainer_loads_a_checkpoints_weights_and_nothing_else(tmp_path: Path) -> None:
    parameters = list(inspect.signature(transformers.Trainer._load_from_checkpoint).parameters)
    assert parameters == ["self", "resume_from_checkpoint", "model"], RESUME
    source = inspect.getsource(transformers.Trainer)
    assert "self._load_from_checkpoint(resume_from_checkpoint)" in source, RESUME
    folder = make_tiny_model(tmp_path / "model")
    model, _ = load_model_and_tokenizer(folder, "float32")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        model.model.norm.weight.mul_(2.0)
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none")
    trainer = transformers.Trainer(model=model, args=arguments)
    load_weights(trainer, str(folder))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters()), RESUME
    assert trainer.state.global_step == 0, RESUME


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_parameters_are_those_of_a_merged_model_and_leave_the_model_as_it_is(tmp_path: Path, dtype: str) -> None:
    model, _ = load_model_and_tokenizer(make_tiny_model(tmp_path / "model"), dtype)
    adapted: Any = get_peft_model(model, lora_config(LoraSettings(rank=4)))
    assert adapted.prefix == "lora_", NAMES
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    below = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    handed = {name: data.clone() for name, data in merged_parameters(adapted)}
    assert all(torch.equal(parameter, below[name]) for name, parameter in adapted.named_parameters()), NAMES
    merged = dict(adapted.merge_and_unload().named_parameters())
    assert handed.keys() == merged.keys(), NAMES
    assert all(torch.equal(handed[name], merged[name]) for name in merged), NAMES
    layers = [name for name in merged if "q_proj" in name]
    unmerged = {name: below[f"base_model.model.{name.replace('.weight', '.base_layer.weight')}"] for name in layers}
    assert any(not torch.equal(merged[name], unmerged[name]) for name in layers), NAMES


def test_the_names_are_used_nowhere_else_in_the_folder() -> None:
    names = ("register_package", "_load_from_checkpoint", "base_layer", ".prefix", "get_delta_weight", "LoraLayer")
    sources = Path(library_internals.__file__).parent.glob("*.py")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sources if path.name != "library_internals.py"}
    assert [(file, name) for file, text in texts.items() for name in names if name in text] == []
