"""The conversation in a row: what is asked and what is answered, from columns of text or of messages."""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from evaluation.conversations import Turn, is_conversation, turns_of
from evaluation.records import RecordError
from stages.data.settings import Columns, SourceSettings
from stages.data.values import text_of, value_of
from stages.harness.context import StageError
from stages.harness.own_files import AskedColumns

_TAGS = re.compile(r"</?think>")
_BETWEEN_TAGS = re.compile(r"\s*<think>(.*)</think>\s*", re.DOTALL)
WHOLE = ("messages", "conversations", "conversation")
"""Columns that hold whole conversations in the data sets of most people."""


def answers_of(
    row: Mapping[str, Any], source: SourceSettings, label: str, number: int
) -> list[tuple[list[Turn], Turn]]:
    """For each answer that an SFT row demonstrates, the turns before it and the answer itself.

    Raises:
        StageError: a column is not there or holds something else, or a thought beside an answer is not one text without
            tags or within one pair of them; the message names the column or the thought, and the row.
    """
    columns = source.columns
    column = _whole(columns, row, ("prompt", "completion"), label, number)
    if column is not None:
        turns, asked = _messages(row, column, label, number), 0
    else:
        turns = _asked(row, columns, label, number)
        asked = len(turns)
        turns += _answer(row, columns, label, number)
    turns = [*_system(row, turns, columns, label, number), *(_untagged(turn, label, number) for turn in turns)]
    roles = [turn["role"] for turn in turns]
    answers = [at for at, role in enumerate(roles) if role == "assistant" and at >= asked and "user" in roles[:at]]
    if not answers:
        raise StageError(
            f"{label}: row {number}: no assistant answers a user in it, there is {' '.join(roles)}",
            "Correct or remove that row.",
        )
    if any("reasoning_content" in turns[at] and "</think>" in turns[at]["content"] for at in answers):
        raise StageError(
            f"{label}: row {number}: an answer has a thought before </think> and another one in a place of its own",
            "Keep one of the two.",
        )
    return [(turns[:at], turns[at]) for at in (answers if source.turns == "all" else answers[-1:])]


def _untagged(turn: Turn, label: str, number: int) -> Turn:
    """The turn, with a thought in a place of its own freed of the pair of tags around it, which what writes the thought
    puts there (a chat template, or `stages.sft.rendering`). Raises `StageError` where a tag is left in it."""
    thought = turn.get("reasoning_content", "")
    if not _TAGS.search(thought):
        return turn
    around = _BETWEEN_TAGS.fullmatch(thought)
    inner = thought if around is None else around[1].strip()
    if tag := _TAGS.search(inner):
        raise StageError(
            f"{label}: row {number}: the thought that has a place of its own holds {tag[0]} as well",
            "Leave the tags out there, or write one pair around the whole thought.",
        )
    rest = {name: value for name, value in turn.items() if name != "reasoning_content"}
    return rest | ({"reasoning_content": inner} if inner else {})


def request_in(row: Mapping[str, Any], columns: AskedColumns, label: str, number: int) -> list[Turn]:
    """What a row of RL or of a benchmark asks: turns that end with the user's. Of a whole conversation, its last answer
    is left out.

    Raises:
        StageError: a column is not there or holds something else; the message names it and the row.
    """
    column = _whole(columns, row, ("prompt",), label, number)
    if column is None:
        turns = _asked(row, columns, label, number)
    else:
        turns = _messages(row, column, label, number)
        turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        if not turns or turns[-1]["role"] != "user":
            raise StageError(f"{label}: row {number}: column {column!r} asks nothing", "Correct or remove that row.")
    return [*_system(row, turns, columns, label, number), *turns]


def gold_of(row: Mapping[str, Any], column: str, label: str, number: int) -> str:
    """A row's gold answer as text, also where it is the only item of a list, or of a list as JSON text (`["5"]`)."""
    text = text_of(row, column, label, number)
    if text.startswith('["') and text.endswith('"]'):
        try:
            items = json.loads(text)
        except ValueError:
            return text
        return text_of({column: items}, column, label, number)
    return text


def _whole(
    columns: AskedColumns, row: Mapping[str, Any], needed: tuple[str, ...], label: str, number: int
) -> str | None:
    """The column with whole conversations, if there is one: as the settings say, or else the one column with such a
    name where the usual columns are not there; `StageError` where several have one."""
    completion = columns.completion if isinstance(columns, Columns) else "completion"
    if columns.messages is not None or (isinstance(columns, Columns) and columns.prompt == completion):
        return columns.messages or columns.prompt
    usual = (columns.prompt, completion) == ("prompt", "completion")
    found = [name for name in WHOLE if name in row]
    if not found or not usual or all(name in row for name in needed):
        return None
    if len(found) > 1:
        raise StageError(
            f"{label}: row {number} may hold its conversation in {' or '.join(found)}",
            f"Say which: {label}.columns.messages: {found[0]}.",
        )
    return found[0]


def _messages(row: Mapping[str, Any], column: str, label: str, number: int) -> list[Turn]:
    try:
        turns = turns_of(value_of(row, column, label, number), f"{label}: row {number}: column {column!r}")
        if _offered(row.get("tools")):
            raise RecordError(f"{label}: row {number} offers tools to the model; calls of tools are not trained on")
    except RecordError as error:
        raise StageError(str(error), "Correct or remove that row, or set columns (docs/data.md).") from None
    return turns


def _offered(tools: Any) -> bool:
    """Whether a column of tools holds any, itself or as JSON text (`"[]"`, `"null"`)."""
    if isinstance(tools, str):
        with contextlib.suppress(ValueError):
            return bool(json.loads(tools))
        return bool(tools.strip())
    return bool(tools)


def _asked(row: Mapping[str, Any], columns: AskedColumns, label: str, number: int) -> list[Turn]:
    value = value_of(row, columns.prompt, label, number)
    if not is_conversation(value):
        return [{"role": "user", "content": text_of(row, columns.prompt, label, number)}]
    turns = _messages(row, columns.prompt, label, number)
    if turns[-1]["role"] != "user":
        raise StageError(
            f"{label}: row {number}: the last message of {columns.prompt!r} is the {turns[-1]['role']}'s, and a prompt "
            "ends with the user's",
            f"Where every row is so, it holds whole conversations: set columns.messages: {columns.prompt}.",
        )
    return turns


def _answer(row: Mapping[str, Any], columns: Columns, label: str, number: int) -> list[Turn]:
    if columns.completion is None:
        raise StageError(f"{label}: columns.completion is not set", "Name the column with the demonstration.")
    if is_conversation(value_of(row, columns.completion, label, number)):
        if columns.reasoning is not None:
            raise StageError(
                f"{label}: row {number}: columns.reasoning is for text, {columns.completion!r} is a list of messages",
                f"Leave out {label}.columns.reasoning.",
            )
        turns = _messages(row, columns.completion, label, number)
        if turns[0]["role"] != "assistant":
            raise StageError(
                f"{label}: row {number}: the first message of {columns.completion!r} is the {turns[0]['role']}'s, and "
                "a completion begins with the assistant's",
                f"Where every row is so, it holds whole conversations: set columns.messages: {columns.completion}.",
            )
        return turns
    turn = {"role": "assistant", "content": text_of(row, columns.completion, label, number)}
    if columns.reasoning is not None:
        turn["reasoning_content"] = text_of(row, columns.reasoning, label, number)
    return [turn]


def _system(row: Mapping[str, Any], turns: list[Turn], columns: AskedColumns, label: str, number: int) -> list[Turn]:
    if columns.system is None or not value_of(row, columns.system, label, number):
        return []
    if turns[0]["role"] == "system":
        raise StageError(
            f"{label}: row {number} has a system message in the conversation and one in {columns.system!r}",
            f"Leave out {label}.columns.system.",
        )
    return [{"role": "system", "content": text_of(row, columns.system, label, number)}]
