"""The base stage as a program: a made model is complete, reproducible and proven; a given one is checked and not mended
in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.base.make import corpus
from stages.base.make.tokenizer import END, MARKS, train_tokenizer
from tests.tiny import CHAT_TEMPLATE, make_tiny_model, run_stage_program

SMALL = {"steps": 25, "warmup_steps": 5, "batch_size": 8, "min_accuracy": 0.0}


def run(
    folder: Path, settings: dict[str, Any], inputs: dict[str, Path] | None = None, seed: int = 0
) -> tuple[int, Path, dict[str, Any]]:
    done = run_stage_program(folder, "base", settings, inputs or {}, seed)
    return done.code, done.output, done.error or {}


def test_the_corpus_shows_no_worked_solution_in_the_chat_format_and_only_train_computations() -> None:
    for document in corpus.word_problem_documents(400, 0):
        text = corpus.text_of(document)
        if "<|im_start|>" in text:
            assert "<think>" not in text
            assert text.count(END) == 2


def test_the_tokenizer_keeps_small_numbers_and_marks_whole() -> None:
    texts = [corpus.text_of(document) for document in corpus.word_problem_documents(400, 0)]
    tokenizer = train_tokenizer(texts, 600, 512)
    for number in range(2, 31):
        assert len(tokenizer.tokenize(f" {number}")) == 1
    for mark in MARKS:
        assert tokenizer.tokenize(mark) == [mark]
        assert tokenizer.decode(tokenizer.encode(mark), skip_special_tokens=True) == mark
    text = "Mia has 15 coins.\n```python\ndef f(x):\n    return x * 7\n```<|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_a_made_model_is_complete_and_the_same_bytes_again(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    code, output, error = run(tmp_path / "a", SMALL)
    assert code == 0, error
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(output / "model"),
        AutoTokenizer.from_pretrained(output / "model"),
    )
    assert tokenizer.eos_token == END
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
    assert tokenizer.pad_token_id == model.config.pad_token_id == model.generation_config.pad_token_id
    assert "generation" in tokenizer.chat_template
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    _, again, _ = run(tmp_path / "b", SMALL)
    for file in sorted((output / "model").iterdir()):
        assert file.read_bytes() == (again / "model" / file.name).read_bytes(), file.name
    _, other, _ = run(tmp_path / "c", SMALL, seed=1)
    assert (output / "model" / "model.safetensors").read_bytes() != (other / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_model_that_has_not_learnt_fails_its_own_check(tmp_path: Path) -> None:
    code, _, error = run(tmp_path / "a", {**SMALL, "min_accuracy": 0.99})
    assert code == 1
    assert "below 99.0%" in error["message"]
    assert error["fix"] == "Raise base.steps, or try another seed; `base.min_accuracy` sets the bound."


def name_templates(*names: str) -> Callable[[Path], None]:
    """Puts the checkpoint's template into a folder of named ones."""

    def move(folder: Path) -> None:
        (folder / "additional_chat_templates").mkdir()
        for name in names:
            (folder / "additional_chat_templates" / f"{name}.jinja").write_text(CHAT_TEMPLATE)
        (folder / "chat_template.jinja").unlink()

    return move


@pytest.mark.slow
def test_a_given_checkpoint_is_taken_whole(tmp_path: Path) -> None:
    """With templates beside the default, and a generation config that transformers would not save."""
    source = make_tiny_model(tmp_path / "source")
    name_templates("default", "tool_use")(source)
    (source / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.6}')
    code, output, error = run(tmp_path / "a", {"source": str(source)})
    assert code == 0, error
    for name in ("generation_config.json", "additional_chat_templates/tool_use.jinja"):
        assert (output / "model" / name).read_bytes() == (source / name).read_bytes()
    assert (output / "model" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no *.safetensors weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors"), "does not load"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "chat template"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "no_such_model"}'), "does not load"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "does not load"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "qwen3", "vocab_size": ""}'),
            "vocab_size",
        ),
        (name_templates("tool_use"), "chat templates tool_use, and none that is named default"),
    ],
    ids=[
        *("weights missing", "weights damaged", "no chat template", "unknown architecture", "no tokenizer"),
        *("no generation config", "text for a number", "no default template"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_clear_error(tmp_path: Path, damage: Any, message: str) -> None:
    source = make_tiny_model(tmp_path / "source")
    damage(source)
    code, _, error = run(tmp_path / "a", {"source": str(source)})
    assert code == 1
    assert message in error["message"].lower()
    assert error["fix"]
    shutil.rmtree(source)
