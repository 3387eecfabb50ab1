"""Thoughts beside and within the answers of a row, and what is no conversation although it looks like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.sft.rendering import render
from tests.stages.data.test_data import jsonl, made, refused
from tests.tiny import CHAT_TEMPLATE, make_tiny_tokenizer

ASKED, ANSWERED, THOUGHT = "What is 2 + 3?", "It is \\boxed{5}.", "Two\nand three."
USER, ASSISTANT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}
BESIDE = {"prompt": "q", "completion": "a", "reasoning": "r"}
PLACE_FOR_THOUGHTS = CHAT_TEMPLATE.replace(
    "{{ message.content }}",
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ message.content }}",
)


def source(folder: Path, row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    return {"file": jsonl(folder / "mine.jsonl", [row]), "columns": columns}


def answer(folder: Path, row: dict[str, Any], columns: dict[str, str]) -> dict[str, str]:
    """The answer that is trained on."""
    output = made(folder, sft=[source(folder, row, columns)])
    [turn] = json.loads((output / "sft.jsonl").read_text())["completion"]
    return dict(turn)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PLACE_FOR_THOUGHTS], ids=["plain", "a place for thoughts"])
@pytest.mark.parametrize("thought", [f"<think>\n{THOUGHT}\n</think>", f" <think>{THOUGHT}</think>\n", THOUGHT])
@pytest.mark.parametrize("form", ["column", "field"])
def test_a_thought_that_brings_its_tags_is_trained_with_one_pair(
    tmp_path: Path, template: str, thought: str, form: str
) -> None:
    if form == "column":
        turn = answer(tmp_path, {"q": ASKED, "a": ANSWERED, "r": thought}, BESIDE)
    else:
        turn = answer(tmp_path, {"messages": [USER, {**ASSISTANT, "reasoning_content": thought}]}, {})
    assert turn == {**ASSISTANT, "reasoning_content": THOUGHT}
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    written = render(tokenizer, [USER], turn, None).answer
    assert written == f"<think>\n{THOUGHT}\n</think>\n\n{ANSWERED}<|im_end|>\n"


def test_a_pair_of_tags_around_nothing_is_no_thought(tmp_path: Path) -> None:
    assert answer(tmp_path, {"q": ASKED, "a": ANSWERED, "r": "<think>\n\n</think>"}, BESIDE) == ASSISTANT


@pytest.mark.parametrize(
    ("thought", "tag"),
    [
        (f"{THOUGHT}\n</think>", "</think>"),
        (f"<think>{THOUGHT}", "<think>"),
        ("<think>a</think><think>b</think>", "</think>"),
        ("<think>a</think> b", "<think>"),
    ],
)
def test_a_thought_with_a_tag_left_in_it_is_refused(tmp_path: Path, thought: str, tag: str) -> None:
    error = refused(tmp_path, sft=[source(tmp_path, {"q": ASKED, "a": ANSWERED, "r": thought}, BESIDE)])
    assert error.message == f"data.sft.0: row 1: the thought that has a place of its own holds {tag} as well"


@pytest.mark.parametrize("text", ["<think>x</think>", "<think>x</think>\n\n", "x</think> "])
def test_a_thought_alone_answers_nothing(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, sft=[source(tmp_path, {"q": ASKED, "a": text}, {"prompt": "q", "completion": "a"})])
    assert error.message.endswith("row 1: an answer has a thought and nothing after it, so it answers nothing")


def test_columns_of_messages_are_equally_long(tmp_path: Path) -> None:
    columns = {"role": ["user", "assistant"], "content": [ASKED]}
    error = refused(tmp_path, sft=[source(tmp_path, {"messages": columns}, {})])
    what = "messages as columns of different lengths: 2 of 'role', 1 of 'content'"
    assert error.message == f"data.sft.0: row 1: column 'messages' holds {what}"
    error = refused(tmp_path, rl=[source(tmp_path, {"q": columns, "a": "5"}, {"prompt": "q", "answer": "a"})])
    assert f"row 1: column 'q' holds {what}" in error.message


@pytest.mark.parametrize("tools", [None, "", " ", "null", "[]", "[ ]", "{}", []])
def test_a_column_of_tools_that_holds_none_offers_none(tmp_path: Path, tools: Any) -> None:
    assert answer(tmp_path, {"messages": [USER, ASSISTANT], "tools": tools}, {}) == ASSISTANT


@pytest.mark.parametrize("tools", ['[{"name": "add"}]', [{"name": "add"}], "add"])
def test_a_column_of_tools_that_holds_some_is_refused(tmp_path: Path, tools: Any) -> None:
    error = refused(tmp_path, sft=[source(tmp_path, {"messages": [USER, ASSISTANT], "tools": tools}, {})])
    assert "row 1 offers tools" in error.message
