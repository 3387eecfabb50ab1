"""An OpenAI-compatible server: who it is, one request to it, and which of its refusals another attempt may not meet."""

import dataclasses
import email.utils
import hashlib
import re
import time
from collections.abc import Callable
from typing import Any

import httpx

from evaluation.engines.base import UNKNOWN
from evaluation.engines.served.answers import Answer, Reading, error_code, error_text, events, lines_of, parsed

SERVERS = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}
"""`owned_by` of a server's list of models -> what it runs."""
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Answers that mean: later."""
TOO_LONG = re.compile(r"context (length|size|window)|maximum (model|input) length|too many (input )?tokens", re.I)
CONNECT_S = 10.0


class ServerError(RuntimeError):
    """A server cannot be used; `fix` says what to do. Samples that were handed over before are valid."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


class PromptTooLong(Exception):
    """A prompt does not fit into the server's context."""


class TryAgain(Exception):
    """A failure that another attempt may not meet.

    Attributes:
        wait_s: how long the server asks to wait; None: it does not say.
        lost: whether the connection was lost, after which another server may answer.
        busy: whether the server is there and has too much to do.
    """

    def __init__(self, message: str, wait_s: float | None = None, *, lost: bool = False, busy: bool = False) -> None:
        super().__init__(message)
        self.wait_s, self.lost, self.busy = wait_s, lost, busy


@dataclasses.dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself.

    Attributes:
        kind: `vLLM`, `SGLang`, `llama.cpp` or UNKNOWN.
        version: of that software, or UNKNOWN.
        root: what it loaded the model from, or UNKNOWN.
        context: prompt and completion together, in tokens, or None.
        template_sha256: of its chat template, or UNKNOWN.
    """

    kind: str = UNKNOWN
    version: str = UNKNOWN
    root: str = UNKNOWN
    context: int | None = None
    template_sha256: str = UNKNOWN

    @property
    def name(self) -> str:
        """`vLLM 0.31.0`, or UNKNOWN."""
        return UNKNOWN if self.kind == UNKNOWN else f"{self.kind} {self.version}"


class Server:
    """One model of one server. Threads may share it."""

    def __init__(self, url: str, model: str, key: str | None, silence_s: float, connections: int) -> None:
        """
        Args:
            url: what `/chat/completions` is appended to.
            key: sent as a bearer token; it is in no message of this class.
            silence_s: seconds without a byte after which an answer is given up.
        """
        self.url, self.model, self._key = url.rstrip("/"), model, key
        self._client = httpx.Client(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self.silence_s = silence_s

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def look(self) -> ServerFacts:
        """Ask the server what it is.

        Raises:
            TryAgain: it does not answer now.
            ServerError: it does not serve the model, or refuses the key.
        """
        listed = self._get("/models")
        entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(entries, list):
            return ServerFacts()  # no list of models: the first request will say whether it has this one
        models = {
            entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        }
        if models and self.model not in models:
            some = ", ".join(list(models)[:8]) + (", ..." if len(models) > 8 else "")
            raise ServerError(f"{self.url} has no model {self.model}; it has {some}", "Name one of these.")
        entry = models.get(self.model, {})
        return self._facts(entry)

    def _facts(self, entry: dict[str, Any]) -> ServerFacts:
        kind = SERVERS.get(str(entry.get("owned_by")), UNKNOWN)
        version, template, context = None, None, entry.get("max_model_len")
        if kind == "vLLM":
            version = _field(self._get("/version", above=True), "version")
            template = _field(self._get("/tokenizer_info", above=True), "chat_template")
        elif kind == "SGLang":
            version = _field(self._get("/get_server_info", above=True), "version")
        elif kind == "llama.cpp":
            told = self._get("/props", above=True)
            version, template = _field(told, "build_info"), _field(told, "chat_template")
            context = _field(_field(told, "default_generation_settings"), "n_ctx")
        return ServerFacts(
            kind=kind,
            version=str(version or UNKNOWN),
            root=str(entry.get("root") or UNKNOWN),
            context=context if isinstance(context, int) and context > 0 else None,
            template_sha256=hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else UNKNOWN,
        )

    def _get(self, path: str, *, above: bool = False) -> Any:
        """The JSON at a path below the address (`above`: beside it); None where the server has no such page."""
        address = (self.url.removesuffix("/v1") if above else self.url) + path
        try:
            answer = self._client.get(address, timeout=httpx.Timeout(min(self.silence_s, 60.0), connect=CONNECT_S))
        except httpx.TransportError as error:
            raise TryAgain(self._lost(error), lost=True) from error
        if answer.status_code in (401, 403) and not above:
            raise self._refused_key(answer.status_code)
        if answer.status_code in TRANSIENT:
            raise TryAgain(f"{self.url} answers {answer.status_code}", _retry_after(answer.headers))
        if answer.status_code != 200:
            return None
        try:
            return answer.json()
        except ValueError:
            return None

    def ask(self, path: str, body: dict[str, Any], reading: Reading, go_on: Callable[[], bool]) -> Answer:
        """One completion.

        Args:
            reading: is filled as the answer comes.
            go_on: asked at each event; where it says no, the answer is given up.

        Raises:
            TryAgain, BrokenAnswer: another attempt may work.
            PromptTooLong: the prompt does not fit.
            ServerError: the request is refused.
        """
        try:
            with self._client.stream("POST", f"{self.url}{path}", json={**body, "model": self.model}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refusal(answer)
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    for event in events(lines_of(answer.iter_bytes())):
                        reading.add(event)
                        if not go_on():
                            raise TryAgain("stopped")
                else:
                    answer.read()
                    reading.add(parsed(answer.text))
        except httpx.TransportError as error:
            raise TryAgain(self._lost(error), lost=True) from error
        except httpx.DecodingError as error:
            raise TryAgain(f"{self.url} sends bytes that cannot be decoded") from error
        return reading.answer()

    def _refusal(self, answer: httpx.Response) -> Exception:
        status = answer.status_code
        try:
            body: Any = answer.json()
        except ValueError:
            body = answer.text
        said, code = self.clean(error_text(body)), error_code(body)
        if code == "insufficient_quota":
            return ServerError(f"{self.url}: the account has no quota left: {said}", "Raise it, then run again.")
        if status in TRANSIENT:
            wait_s = _retry_after(answer.headers)
            return TryAgain(f"{self.url} answers {status}: {said}", wait_s, busy=status in (429, 503))
        if status in (401, 403):
            return self._refused_key(status)
        if status in (400, 413, 422) and (code == "context_length_exceeded" or TOO_LONG.search(said)):
            return PromptTooLong(said)
        fix = "Leave out what this server does not take, or name another one."
        if 300 <= status < 400:
            fix = f"Name the address it points to: {self.clean(answer.headers.get('location', ''))}"
        return ServerError(f"{self.url} refuses the request ({status}): {said}", fix)

    def _refused_key(self, status: int) -> ServerError:
        sent = "no key was sent" if self._key is None else "the key was not accepted"
        fix = "generate.server.api_key_env names the environment variable that holds the key."
        return ServerError(f"{self.url} answers {status}: {sent}", fix)

    def _lost(self, error: httpx.TransportError) -> str:
        if isinstance(error, httpx.ReadTimeout):
            return f"{self.url} was silent for {self.silence_s:g} s (generate.server.silence_s)"
        return f"{self.url} does not answer ({type(error).__name__}: {self.clean(str(error))})"

    def clean(self, text: str) -> str:
        """A server's words as part of one line of ours, without the key, which some servers repeat."""
        text = text.replace(self._key, "***") if self._key else text
        text = re.sub(r"\bsk-[\w*.-]+", "***", " ".join(text.split()))
        return text if len(text) <= 300 else f"{text[:300]}..."


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that a server asks to wait: a number of them, or a date."""
    given = headers.get("retry-after")
    if given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
