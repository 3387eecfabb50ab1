"""What stages/training/library_internals.py relies on, tried on the installed versions; a failure says what to read."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from peft import get_peft_model
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer import utils

from stages.harness.context import StageError
from stages.training import library_internals
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.library_internals import (
    load_onto_numbered_cpus,
    load_weights,
    merged_parameters,
    score_labelled_positions_only,
)
from stages.training.lora import lora_config
from stages.training.settings import LoraSettings
from tests.tiny import make_tiny_model

HEAD = "read trl.trainer.utils.add_fused_lm_head again, then score_labelled_positions_only"
RESUME = "read how transformers.Trainer.train begins a resume again, then load_weights and stages/training/loop.py"
DEVICES = "read torch.serialization.register_package again, then load_onto_numbered_cpus"
NAMES = "read how peft names and merges LoRA layers again (peft.tuners.lora.layer), then merged_parameters"


def test_the_output_layer_computes_labelled_positions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "_use_triton", lambda device: False)
    model, _ = load_model_and_tokenizer(make_tiny_model(tmp_path / "model"), "float32")
    utils.add_fused_lm_head(model)
    computed: list[int] = []
    apply = ChunkedLogProbFunction.apply
    counted = SimpleNamespace(apply=lambda hidden, *rest: computed.append(len(hidden)) or apply(hidden, *rest))
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", counted)
    ids = torch.arange(10, 30).reshape(2, 10)
    labels = ids.masked_fill(torch.arange(10) < torch.tensor([[6], [9]]), -100)

    def gradient() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=labels, fused_lm_head=True).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    everywhere = gradient()
    score_labelled_positions_only()
    labelled = gradient()
    assert computed == [2 * 9, 4 + 1], HEAD
    for name, expected in everywhere.items():
        torch.testing.assert_close(labelled[name], expected, rtol=1e-5, atol=1e-7)


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


SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1}
EXPERTS = {"moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}
MIXTURES: dict[str, Any] = {
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**SIZES, **EXPERTS, decoder_sparse_step=1, head_dim=8),
    "qwen3_moe, one dense layer": lambda: transformers.Qwen3MoeConfig(**SIZES, **EXPERTS, mlp_only_layers=[0]),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=8),
    "olmoe": lambda: transformers.OlmoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2),
    "gpt_oss": lambda: transformers.GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, head_dim=8),
}


def adapted_mixture(name: str, **options: Any) -> Any:
    """A mixture of experts without tied embeddings, with an adapter all of whose matrices are random."""
    torch.manual_seed(0)
    config = MIXTURES[name]()
    config.tie_word_embeddings = False
    model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    base = lora_config(LoraSettings(rank=4, targets=options.pop("targets", "all-linear")))
    adapted: Any = get_peft_model(model, dataclasses.replace(base, **options))
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name or "modules_to_save" in parameter_name:
                parameter.normal_(std=0.1)
    return adapted


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in MIXTURES),
        ("qwen3_moe", {"use_rslora": True}),
        ("qwen3_moe", {"targets": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"]}),
        ("mixtral", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"experts": 3}}),
        ("mixtral", {"targets": ["embed_tokens", "lm_head", "v_proj"]}),
        ("qwen3_moe", {"targets": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
    ],
)
def test_merged_parameters_hold_every_adapter_of_a_mixture_of_experts(name: str, options: dict[str, Any]) -> None:
    adapted = adapted_mixture(name, **options)
    handed = {part: data.clone() for part, data in merged_parameters(adapted)}
    below = {part: data.clone() for part, data in adapted.get_base_model().named_parameters()}
    merged = dict(adapted.merge_and_unload().named_parameters())
    assert handed.keys() == merged.keys(), NAMES
    for part, expected in merged.items():
        assert (handed[part] - expected).abs().max() <= 1e-6, (part, NAMES)
    if name in ("mixtral", "qwen3_moe") and not options:
        [down, *_] = [part for part in merged if part.endswith("experts.down_proj")]
        assert not torch.equal(merged[down], below[down.replace("experts.", "experts.base_layer.base_layer.")]), NAMES


def test_an_adapter_that_the_sampler_would_not_get_is_named() -> None:
    adapted = adapted_mixture("mixtral", targets=["q_proj"], use_dora=True)
    with pytest.raises(StageError, match=r"q_proj \(.*\) cannot be added to its weights"):
        next(iter(merged_parameters(adapted)))


def test_the_names_are_used_nowhere_else_in_the_folder() -> None:
    names = ("register_package", "_load_from_checkpoint", "base_layer", ".prefix", "get_delta_weight", "LoraLayer")
    sources = Path(library_internals.__file__).parent.glob("*.py")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sources if path.name != "library_internals.py"}
    assert [(file, name) for file, text in texts.items() for name in names if name in text] == []
