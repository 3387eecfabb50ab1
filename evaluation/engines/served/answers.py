"""A server's answer to one request, read from a stream of events or from one JSON object, and checked to be whole."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from evaluation.thinking import TAGS

DONE = "[DONE]"
INTERRUPTED = ("abort", "error", "insufficient_system_resource")
"""Reasons to finish (vLLM's, DeepSeek's) that are none: what came is half an answer."""
REASONS = dict.fromkeys(("max_tokens", "max_length", "model_length"), "length")
REASONS |= dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop")
"""What some servers say, in the words of the others."""


class BrokenAnswer(Exception):
    """What a server sent is no whole completion: it ended early, or is something else. Another attempt may be."""


class NoAnswer(BrokenAnswer):
    """What a server sent is no completion at all, which will hardly change: not JSON, or without what one has."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One completion as a server tells it.

    Attributes:
        text: of the completion; a thought that the server keeps apart stands before it, between its tags.
        finish_reason: `stop` or `length`, or in the server's own words.
        model: that the server says it asked; None where it does not say.
        prompt_tokens, completion_tokens: by the server's count. The latter has the thought in it.
        reasoning_tokens: of these, where the server says.
        prompt_token_ids, token_ids: where the server gives them.
        logprobs: of each completion token, natural logarithm, where the server gives them.
        fingerprint: by which a server names its own set-up.
    """

    text: str
    finish_reason: str
    model: str | None
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    fingerprint: str | None = None


class Reading:
    """Puts an answer together from its parts. `tokens` counts the parts that have text, as they come."""

    def __init__(self) -> None:
        self.tokens = 0
        self._text: list[str] = []
        self._thought: list[str] = []
        self._ids: list[int] = []
        self._prompt_ids: list[int] | None = None
        self._logprobs: list[float] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._model: str | None = None
        self._fingerprint: str | None = None

    @property
    def has_logprobs(self) -> bool:
        """Whether a log-probability has come."""
        return bool(self._logprobs)

    def add(self, part: Any) -> None:
        """Add one JSON object: an event of a stream, or a whole answer."""
        if not isinstance(part, dict):
            raise NoAnswer(f"JSON that is no object: {part!r:.120}")
        if part.get("error") is not None:
            raise BrokenAnswer(f"an error in the middle of an answer: {error_text(part)}")
        self._model = part.get("model") or self._model
        self._fingerprint = part.get("system_fingerprint") or self._fingerprint
        self._usage = part.get("usage") or self._usage
        self._prompt_ids = part.get("prompt_token_ids") or self._prompt_ids
        try:
            for choice in part.get("choices") or []:
                self._add_choice(choice)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise NoAnswer(f"a choice of another form: {part.get('choices')!r:.120}") from error

    def _add_choice(self, choice: dict[str, Any]) -> None:
        if choice.get("index"):
            raise ValueError("a second choice")
        said = choice.get("delta") or choice.get("message") or choice
        text = _text(said.get("content") or choice.get("text"))
        thought = _text(said.get("reasoning_content") or said.get("reasoning"))
        self._text.append(text)
        self._thought.append(thought)
        self.tokens += bool(text or thought)
        self._ids += [int(token) for token in choice.get("token_ids") or []]
        self._prompt_ids = choice.get("prompt_token_ids") or self._prompt_ids
        given = choice.get("logprobs") or {}
        if given.get("content"):
            self._logprobs += [float(token["logprob"]) for token in given["content"]]
        elif given.get("token_logprobs"):
            self._logprobs += [float(value) for value in given["token_logprobs"]]
        self._finish = _text(choice.get("finish_reason")) or self._finish

    def answer(self) -> Answer:
        """The whole answer, once all of it has been added.

        Raises:
            BrokenAnswer: it has no end, or the server ended it for a reason of its own.
            NoAnswer: it has a count of its tokens and no reason to finish, or the other way round; without either a cut
                completion cannot be told from a whole one.
        """
        if self._finish is None and self._usage is None:
            raise BrokenAnswer("the answer broke off before its end")
        if self._finish is None:
            raise NoAnswer("no `finish_reason` comes with an answer")
        if self._finish in INTERRUPTED:
            raise BrokenAnswer(f"the answer was interrupted (finish_reason {self._finish})")
        if self._usage is None:
            raise NoAnswer("no count of tokens (`usage`) comes with an answer")
        try:
            prompt, completion = int(self._usage["prompt_tokens"]), int(self._usage["completion_tokens"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise NoAnswer(f"a count of tokens of another form: {self._usage!r:.120}") from error
        if min(prompt, completion) < 0:
            raise NoAnswer(f"a count of tokens below 0: {self._usage!r:.120}")
        text, thought = "".join(self._text), "".join(self._thought)
        if thought:
            closed = TAGS[1] if text or self._finish != "length" else ""
            text = f"{TAGS[0]}{thought}{closed}{text}"
        details = self._usage.get("completion_tokens_details")
        reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
        return Answer(
            text=text,
            finish_reason=REASONS.get(self._finish, self._finish),
            model=None if self._model is None else str(self._model),
            prompt_tokens=prompt,
            completion_tokens=completion,
            reasoning_tokens=reasoning if isinstance(reasoning, int) else None,
            prompt_token_ids=self._prompt_ids,
            token_ids=self._ids or None,
            logprobs=self._logprobs or None,
            fingerprint=self._fingerprint,
        )


def _text(value: Any) -> str:
    """The text of a message: text, nothing, or a list of parts that are text. Raises `TypeError` for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    return "".join(part["text"] for part in value)


def events(lines: Iterable[str]) -> Iterator[Any]:
    """The JSON objects of a stream of server-sent events, up to its end.

    Raises:
        BrokenAnswer: it breaks off.
        NoAnswer: it is not one.
    """
    for line in lines:
        if not line.strip() or line.startswith((":", "event:", "id:", "retry:")):
            continue
        if not line.startswith("data:"):
            raise NoAnswer(f"{line.strip()!r:.120}, which is no event of a stream")
        data = line[len("data:") :].strip()
        if data == DONE:
            return
        yield parsed(data)
    raise BrokenAnswer("the answer broke off before its end")


def lines_of(parts: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream of events. Only a line feed ends one: httpx would split JSON at U+2028 or U+0085 in it."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", errors="replace").removesuffix("\r")
    if rest:
        yield rest.decode("utf-8", errors="replace")


def parsed(text: str) -> Any:
    """Text as JSON. Raises NoAnswer."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"{text.strip()!r:.120}, which is no JSON") from error


def error_text(body: Any) -> str:
    """What an error object says, in the forms that servers give it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)


def error_code(body: Any) -> str:
    """The code of an error object, such as `context_length_exceeded`; empty where it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""
