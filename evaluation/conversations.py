"""Conversations as data sets write them: TRL's `messages`, ShareGPT's `conversations`, prompts as lists of messages."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.records import RecordError

Turn = dict[str, str]
"""One message: `role` (system, user or assistant), `content`, and where an assistant thought first
`reasoning_content`."""

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
_FORMS = (("role", "content"), ("from", "value"))
"""Keys of role and text: of messages as templates take them, and as ShareGPT has them."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("weight", "train", "loss_mask", "loss")
_CALLS = ("tool_calls", "function_call", "tool_call_id")


def is_conversation(value: Any) -> bool:
    """Whether a column's value is a list of messages, the JSON text of one, or its columns (`{"role": [...], ...}`),
    also where these are of different lengths, which `turns_of` refuses."""
    if _uneven(value):
        return True
    value = _listed(value)
    return isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and _form(m) for m in value)


def turns_of(value: Any, where: str) -> list[Turn]:
    """The turns of a list of messages, roles by their usual names, contents as text with \\n line ends.

    A system message without text is none. Parts of a content are put together; a part or a field that holds what was
    thought before the answer becomes `reasoning_content`. Fields that only describe a message are left out.

    Raises:
        RecordError: not such a list, columns of different lengths, a role, call or part that training on text has no
            place for, or a message without text.
    """
    if _uneven(value):
        lengths = ", ".join(f"{len(column)} of {name!r}" for name, column in value.items())
        raise RecordError(f"{where} holds messages as columns of different lengths: {lengths}")
    if not is_conversation(value):
        raise RecordError(
            f"{where} is {value!r:.200}, expected a list of messages with role and content (or from and value)"
        )
    turns = [_turn(message, f"{where}: message {number}") for number, message in enumerate(_listed(value), start=1)]
    kept = [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]
    if not kept:
        raise RecordError(f"{where}: no message has text")
    if any(turn["role"] == "system" for turn in kept[1:]):
        raise RecordError(f"{where}: a system message stands after another message; only the first may be one")
    return kept


def request_of(value: Any, where: str) -> tuple[list[Turn], str]:
    """What a list of messages asks: the turns before its last one, and the text of that, a user's.

    Raises:
        RecordError: `turns_of` does, or the last turn is not the user's.
    """
    *context, last = turns_of(value, where)
    if last["role"] != "user":
        raise RecordError(f"{where}: the last message is the {last['role']}'s, and a prompt ends with the user's")
    return context, last["content"]


def _listed(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("[") and ('"role"' in value or '"from"' in value):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    if _by_columns(value):
        return [dict(zip(value, message, strict=True)) for message in zip(*value.values(), strict=True)]
    return value


def _by_columns(value: Any) -> bool:
    """Whether the value is an object of lists, one for each field of the messages."""
    return isinstance(value, Mapping) and bool(_form(value)) and all(isinstance(one, list) for one in value.values())


def _uneven(value: Any) -> bool:
    """Whether the value holds messages by columns that are not equally long."""
    return _by_columns(value) and len(set(map(len, value.values()))) > 1


def _form(message: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((form for form in _FORMS if message.get(form[0]) is not None), None)


def _turn(message: Mapping[str, Any], where: str) -> Turn:
    role_key, text_key = _form(message) or _FORMS[0]
    said = message[role_key]
    role = _ROLES.get(said.lower()) if isinstance(said, str) else None
    calls = [name for name in _CALLS if message.get(name)]
    if role is None or calls:
        what = f"has {', '.join(calls)}" if calls else f"has the role {said!r}"
        raise RecordError(f"{where} {what}: calls of tools are not trained on; there are system, user and assistant")
    if any(message.get(name) not in (None, 1) for name in _WEIGHTS):
        raise RecordError(f"{where} has a weight of its own; remove the turns that are not to be learnt")
    content, thought = _text(message.get(text_key), where)
    said_apart = {name: message[name] for name in _REASONING if message.get(name)}
    for name, value in said_apart.items():
        if not isinstance(value, str | bool):  # `thinking: true` says how the message came about
            raise RecordError(f"{where} has the {name} {value!r:.80}, expected text")
    thoughts = [thought, *said_apart.values()]
    reasoning = list(dict.fromkeys(text for text in thoughts if isinstance(text, str) and text.strip()))
    if len(reasoning) > 1 or (reasoning and role != "assistant"):
        raise RecordError(
            f"{where} of the {role} has {len(reasoning)} texts of reasoning, expected one of an assistant"
        )
    if role != "system" and not content.strip():
        raise RecordError(f"{where} of the {role} has no text")
    turn = {"role": role, "content": content.replace("\r\n", "\n")}
    if reasoning:
        turn["reasoning_content"] = reasoning[0].replace("\r\n", "\n")
    try:
        "".join(turn.values()).encode()
    except UnicodeEncodeError as error:  # half of a pair of escapes, "\ud83d": JSON has it, no file can
        raise RecordError(f"{where} is no valid text: {error.reason}") from None
    return turn


def _text(content: Any, where: str) -> tuple[str, str]:
    """A message's text and what was thought before it."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise RecordError(f"{where} has the content {content!r:.80}, expected text or a list of its parts")
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in content:
        kind = "thinking" if part.get("type") == "reasoning" else part.get("type")
        text = next((part[key] for key in (kind, "text") if isinstance(part.get(key), str)), None)
        if kind not in texts or text is None:
            raise RecordError(f"{where} has a part of the type {part.get('type')!r}; only text is trained on")
        texts[kind].append(text)
    return "".join(texts["text"]), "".join(texts["thinking"])
