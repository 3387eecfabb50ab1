"""A step on tensors without content takes what a real one takes: the stage's own trainer, counted in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, Qwen3Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl.kernels import chunked_logprob

from stages.harness.process import peak_memory_gib
from stages.sft.encoding import read_demonstrations
from stages.sft.footprint.live import LiveBytes
from stages.sft.footprint.step import Peaks, Step, fused_attention, peaks_of
from stages.sft.run import make_trainer
from stages.sft.settings import SftSettings
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.setup import prepare_torch
from tests.tiny import make_tiny_model, open_stage, tiny_demonstrations, write_jsonl, write_spec

SIZES = {"batch_size": 16, "micro_batch_size": 8, "max_length": 200, "max_steps": 2, "learning_rate": 1e-4}
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of which a step's gradients and activations are both much, and rows of one length."""
    folder = tmp_path_factory.mktemp("footprint")
    make_tiny_model(folder / "base" / "model", hidden_size=192, layers=4)
    write_jsonl(folder / "data" / "sft.jsonl", tiny_demonstrations(1) * 32)
    return {"data": folder / "data", "model": folder / "base"}


def real_and_computed(inputs: dict[str, Path], folder: Path, settings: dict[str, Any]) -> tuple[LiveBytes, Peaks]:
    """A run of the stage's trainer under the counter, and the peaks that its shape promises."""
    context: Any = open_stage(SftSettings, write_spec(folder, "sft", {**SIZES, **settings}, inputs))
    given = context.settings
    prepare_torch(context)
    frozen = given.dtype if given.lora else "float32"
    model, tokenizer = load_model_and_tokenizer(inputs["model"] / "model", frozen)
    described = model.config
    rows = read_demonstrations(inputs["data"] / "sft.jsonl")
    trainer = make_trainer(context, model, tokenizer, rows)
    row = trainer.train_dataset[0]
    length, labels = len(row["input_ids"]), row["labels"]
    live = LiveBytes()
    with live:
        live.begin(trainer.model.parameters())
        trainer.train()
    scored = sum(label != -100 for label in labels[1:]) / (length - 1)
    names = ("method", "dtype", "lora", "gradient_checkpointing")
    step = Step(
        rows=8,
        length=length,
        batch_size=16,
        scored=scored,
        on_gpu=False,
        **{name: getattr(given, name) for name in names},
    )
    return live, peaks_of(step, described)


CASES: dict[str, dict[str, Any]] = {
    "uniform": {"method": {"name": "uniform"}},
    "dft, checkpointing": {"method": {"name": "dft"}, "gradient_checkpointing": True},
    "vcore": {"method": {"name": "vcore", "diagnostics_steps": 1}},
    "vcore, bfloat16, checkpointing": {
        "method": {"name": "vcore", "utility": "central_difference", "diagnostics_steps": 1},
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
    },
    "vcore, exact": {"method": {"name": "vcore", "utility": "jvp"}, "gradient_checkpointing": True},
    "uniform, bfloat16": {"method": {"name": "uniform"}, "dtype": "bfloat16"},
    "vcore, adapter, bfloat16": {
        "method": {"name": "vcore", "utility": "central_difference"},
        "dtype": "bfloat16",
        "lora": LORA,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_without_content_takes_what_a_real_one_takes(inputs: dict[str, Path], tmp_path: Path, case: str) -> None:
    live, computed = real_and_computed(inputs, tmp_path, CASES[case])
    [real] = live.peaks.values()
    assert max(computed.phases.values()) == pytest.approx(real, rel=0.05)


def kept(attention: Any, heads: int) -> int:
    """Bytes that attention over 64 positions with 8 heads of queries and `heads` of keys keeps for its backward."""
    torch.manual_seed(0)
    sizes: dict[int, int] = {}
    states = [torch.randn(2, number, 64, 32).bfloat16().requires_grad_() for number in (8, heads, heads)]

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 8 // heads, True
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out, _ = attention(module, *states, None)
    assert out.shape == (2, 64, 8, 32)
    return sum(sizes.values())


@pytest.mark.parametrize("heads", [2, 8])
def test_attention_keeps_what_a_fused_kernel_keeps(heads: int) -> None:
    assert kept(fused_attention, heads) == kept(sdpa_attention_forward, heads)


def test_a_step_on_a_gpu_needs_the_names_of_the_output_layer(inputs: dict[str, Path]) -> None:
    """Tiles are worked on in place there, so that they take less; and afterwards all is as before."""
    described = AutoConfig.from_pretrained(inputs["model"] / "model")
    method = SftSettings.model_validate({"method": {"name": "uniform"}}).method
    here, there = (
        peaks_of(Step(method, 2, 64, 2, "bfloat16", gradient_checkpointing=True, on_gpu=on_gpu), described)
        for on_gpu in (False, True)
    )
    assert there.rest == here.rest
    assert there.others < here.others
    for name in ("_forward_tile", "_backward_tile", "_addmm_fp32"):
        assert getattr(chunked_logprob, name).__module__ == chunked_logprob.__name__
    masked, plain = (
        peaks_of(Step(method, 2, 1024, 2, "bfloat16", scored=0.01, padded=padded), described)
        for padded in (True, False)
    )
    assert masked.others > plain.others, "keys and values of every head, and the mask"


def test_processes_have_a_share_of_what_is_as_large_as_the_model(inputs: dict[str, Path]) -> None:
    described = AutoConfig.from_pretrained(inputs["model"] / "model")
    method = SftSettings.model_validate({"method": {"name": "uniform"}}).method
    one, half = (peaks_of(Step(method, 2, 64, 2, "float32", share=share), described) for share in (1.0, 0.5))
    assert half.rest == pytest.approx(one.rest / 2, rel=0.02)
    assert half.others == one.others


SHAPES = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}
"""Of Qwen3."""


@pytest.mark.slow
@pytest.mark.parametrize("size", SHAPES)
def test_full_fine_tuning_with_vcore_takes_hardly_more_than_plain_sft(tmp_path: Path, size: str) -> None:
    """Of models of which nothing is allocated, on a GPU, in bfloat16."""
    common = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}
    Qwen3Config(**common, **SHAPES[size]).save_pretrained(tmp_path)
    described = AutoConfig.from_pretrained(tmp_path)
    before, peaks = peak_memory_gib(), []
    for method in ({"name": "uniform"}, {"name": "vcore", "utility": "central_difference"}):
        settings = SftSettings.model_validate({"method": method, "dtype": "bfloat16"})
        step = Step(settings.method, 1, 4096, 32, "bfloat16", gradient_checkpointing=True)
        peaks.append(max(peaks_of(step, described).phases.values()))
    assert peaks[0] > 16 * 0.59e9, "weights, gradients and Adam's state"
    assert peaks[1] <= 1.01 * peaks[0]
    assert peak_memory_gib() - before < 1
