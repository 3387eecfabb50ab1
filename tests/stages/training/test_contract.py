"""The contract between checkpoints: each way to break it is named before anything trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.generate.run import _open_files
from stages.generate.settings import GenerateSettings
from stages.harness.context import StageError
from stages.training.checkpoint import load_model_and_tokenizer, save_checkpoint
from stages.training.contract import check_contract, check_files, check_same, check_stops, stored_dtype
from tests.tiny import make_tiny_model


def loaded(folder: Path) -> tuple[Any, Any]:
    return load_model_and_tokenizer(folder, "float32")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | values), encoding="utf-8")


def test_saving_and_loading_keep_the_contract(checkpoint: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(checkpoint)
    contract = check_contract(checkpoint, model, tokenizer)
    tokenizer(
        ["a", "a longer text"], padding=True, truncation=True, max_length=4
    )  # leaves its mark in the tokenizer's own state
    save_checkpoint(model, tokenizer, tmp_path / "again", "bfloat16")
    again = check_contract(tmp_path / "again", *load_model_and_tokenizer(tmp_path / "again", "bfloat16"))
    check_same(contract, again)
    assert (contract["dtype"], again["dtype"]) == ("float32", "bfloat16")
    assert contract["max_length"] == 256


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: edit(folder / "generation_config.json", eos_token_id=7),
            "generation_config.json ends on 7, the tokenizer on 2",
        ),
        (
            lambda folder: edit(folder / "generation_config.json", eos_token_id="2"),
            r"ends on '2', the tokenizer on 2.*\['2'\] of end or padding lie outside",
        ),
        (lambda folder: edit(folder / "generation_config.json", pad_token_id=7), "generation_config.json pads with 7"),
        (
            lambda folder: edit(folder / "generation_config.json", eos_token_id=[2, 9999]),
            r"\[9999\] of end or padding lie outside",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "not known whether the adapter is merged"),
    ],
)
def test_parts_that_contradict_each_other_are_named(
    checkpoint: Path, spoil: Callable[[Path], None], message: str
) -> None:
    model, tokenizer = loaded(checkpoint)
    spoil(checkpoint)
    if not (checkpoint / "adapter_config.json").exists():  # transformers would try to load an adapter
        model, tokenizer = loaded(checkpoint)
    with pytest.raises(StageError, match=message):
        check_contract(checkpoint, model, tokenizer)


def test_a_checkpoint_is_held_to_the_contract_before_it_is_sampled(checkpoint: Path) -> None:
    """By its files: evaluation records of a checkpoint what training recorded, and one with a wrong end is refused."""
    model, tokenizer = loaded(checkpoint)
    settings = GenerateSettings.model_validate({"benchmarks": [{"name": "sums", "max_new_tokens": 8}]})
    _, limit, proof = _open_files(checkpoint, settings)
    contract = proof["contract"]
    assert limit == 256
    assert {**contract, "embeddings": model.config.vocab_size} == check_contract(checkpoint, model, tokenizer)
    edit(checkpoint / "generation_config.json", pad_token_id=8)  # of no consequence for what is sampled
    assert _open_files(checkpoint, settings)[2] == proof
    edit(checkpoint / "generation_config.json", eos_token_id=7)
    with pytest.raises(StageError, match=r"ends on 7, the tokenizer on 2"):
        _open_files(checkpoint, settings)
    tokenizer.add_tokens(["new"])
    with pytest.raises(StageError, match=r"the tokenizer has 313 tokens, config.json 312"):
        check_files(checkpoint, tokenizer)


def test_a_model_that_leaves_its_end_to_the_tokenizer_can_be_sampled_and_not_trained_on(checkpoint: Path) -> None:
    (checkpoint / "generation_config.json").unlink()
    edit(checkpoint / "config.json", eos_token_id=None)
    model, tokenizer = loaded(checkpoint)
    assert check_files(checkpoint, tokenizer)["end_token_ids"] == [tokenizer.eos_token_id]
    with pytest.raises(StageError, match="names no end token"):
        check_contract(checkpoint, model, tokenizer)


def test_the_recorded_type_is_that_of_the_files(checkpoint: Path, tmp_path: Path) -> None:
    """RL loads a bfloat16 checkpoint in float32 to train it."""
    save_checkpoint(*loaded(checkpoint), tmp_path / "half", "bfloat16")
    assert check_contract(tmp_path / "half", *loaded(tmp_path / "half"))["dtype"] == "bfloat16"
    assert stored_dtype(tmp_path) is None


def test_another_template_or_tokenizer_breaks_the_contract(checkpoint: Path) -> None:
    model, tokenizer = loaded(checkpoint)
    before = check_contract(checkpoint, model, tokenizer)
    tokenizer.chat_template += " "
    with pytest.raises(StageError, match="chat_template_sha256"):
        check_same(before, check_contract(checkpoint, model, tokenizer))
    model, tokenizer = loaded(checkpoint)
    tokenizer.add_tokens(["new"])
    with pytest.raises(StageError, match="tokenizer_sha256"):
        check_same(before, check_contract(checkpoint, model, tokenizer))


def test_a_model_that_never_ends_is_refused_and_one_that_does_passes(checkpoint: Path) -> None:
    """A hook on the head decides how likely the end token is."""
    model, tokenizer = loaded(checkpoint)
    bias = torch.zeros(model.config.vocab_size)
    hook = model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    prompts = [[5, 6, 7], [5]]
    bias[tokenizer.eos_token_id] = -1e4
    with pytest.raises(
        StageError, match=r"none of 2 sampled completions stopped on an end token \(\[2\]\) within 6 tokens"
    ):
        check_stops(model, tokenizer, prompts, 6, 1.0)
    bias[tokenizer.eos_token_id] = 1e4
    assert check_stops(model, tokenizer, prompts, 6, 1.0) == 1
    hook.remove()
