"""A served model as an `Engine`: many requests in flight, each asked again until it has a whole answer.

Threads carry the requests, and `generate` hands over in the thread that called it, so a stage is stopped there as with
any other engine.
"""

import dataclasses
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from evaluation.engines.base import UNKNOWN, InFlight, OnDone, Sampled, SamplingRequest
from evaluation.engines.served.answers import Answer, BrokenAnswer, NoAnswer, Reading
from evaluation.engines.served.question import question
from evaluation.engines.served.server import PromptTooLong, Server, ServerError, ServerFacts, TryAgain

PROMPT_TOO_LONG = "prompt_too_long"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between two attempts; each pause is about twice the one before."""
MOST_ANSWERS_THAT_ARE_NONE = 3
"""In a row, of one request: a page of a proxy goes away, another protocol does not."""
LEAVE_WITHIN_S = 30.0
"""After an error, what is in flight has this long to end, and is kept."""
TOLD = ("prompt_tokens", "reasoning_tokens", "prompt_token_ids", "token_ids", "logprobs", "fingerprint")
"""What is kept of an answer beside its text, where the server gives it."""


@dataclasses.dataclass(frozen=True)
class ServedOptions:
    """How a server is asked. Only `logprobs` changes what comes.

    Attributes:
        api_key: of the server; it goes into no message.
        max_concurrent: requests in flight at once.
        patience_s: how long one request is tried again without a whole answer.
        silence_s: seconds without a byte after which an attempt is given up.
        logprobs: ask for the log-probability of each token.
        max_model_len: context in tokens, where the server does not say.
    """

    api_key: str | None = None
    max_concurrent: int = 256
    patience_s: float = 600.0
    silence_s: float = 600.0
    logprobs: bool = False
    max_model_len: int | None = None


class ServedEngine:
    """A model behind an OpenAI-compatible address.

    Raises:
        ServerError: nobody answers there, or not with this model.
    """

    name = "openai"
    tokenizer: Any = None

    def __init__(self, url: str, model: str, options: ServedOptions) -> None:
        self._options = options
        self._server = Server(url, model, options.api_key, options.silence_s, options.max_concurrent + 1)
        try:
            self.facts: ServerFacts = self._server.look()
        except TryAgain as error:
            self._server.close()
            raise ServerError(str(error), "Start the server, or correct the address.") from error
        except ServerError:
            self._server.close()
            raise
        self.version = self.facts.name
        said, context = options.max_model_len, self.facts.context
        if said is not None and context not in (None, said):
            self._server.close()
            raise ServerError(
                f"{url} has a context of {context} tokens, not {said}", "Leave generate.max_model_len out."
            )
        self.context = context or said
        """Tokens of prompt and completion together; None where nobody says."""
        self.max_model_len = self.context or sys.maxsize
        self._random = random.Random()  # of pauses, which must differ between clients
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._not_before = self._last_answer = 0.0
        """When the next request may be sent, where the server asked to wait; when a whole answer came last."""
        self._doubted = False
        """Whether the connection was lost since the server was last looked at."""
        self._readings: dict[int, Reading] = {}
        self._stop, self._abandoned, self._accepted = threading.Event(), threading.Event(), threading.Event()
        """No further requests; give up those in flight; the server has begun to answer one."""
        self._limit_field = "max_tokens"

    def generate(self, requests: Sequence[SamplingRequest], on_done: OnDone | None = None) -> list[Sampled]:
        """See `Engine.generate`. The first request is sent alone until its answer begins: what the server does not take
        is known before anything else is paid for.

        Raises:
            ServerError: it refuses, answers as another model, cuts below what was asked, or is gone for longer than
                `patience_s`. What `on_done` got before is valid.
        """
        self._stop.clear()
        self._accepted.clear()
        waiting, ended = iter(range(len(requests))), queue.SimpleQueue[tuple[int, Sampled | BaseException]]()
        threads = [
            threading.Thread(target=self._work, args=(requests, waiting, ended, number > 0), daemon=True)
            for number in range(min(self._options.max_concurrent, len(requests)))
        ]
        for thread in threads:
            thread.start()
        done: dict[int, Sampled] = {}
        failed: BaseException | None = None
        deadline = 0.0
        try:
            while len(done) < len(requests):
                try:
                    index, result = ended.get(timeout=None if failed is None else 0.1)
                except queue.Empty:
                    if time.monotonic() > deadline or not any(thread.is_alive() for thread in threads):
                        break
                    continue
                if not isinstance(result, BaseException):
                    done[index] = result
                    if on_done is not None:
                        on_done(index, result)
                elif failed is None:
                    failed, deadline = result, time.monotonic() + LEAVE_WITHIN_S
        finally:  # also where the stage is stopped
            self._stop.set()
            self._abandoned.set()
        if failed is not None:
            raise failed
        self._abandoned.clear()
        return [done[index] for index in range(len(requests))]

    def in_flight(self) -> InFlight:
        """See `Engine.in_flight`. Tokens are counted as parts of streams, of which a server sends about one a token."""
        with self._lock:
            readings = list(self._readings.values())
        return InFlight(len(readings), sum(reading.tokens for reading in readings))

    def close(self) -> None:
        """Give up what is in flight, and close the connections."""
        self._stop.set()
        self._abandoned.set()
        self._server.close()

    def _work(self, requests: Sequence[SamplingRequest], waiting: Iterator[int], ended: Any, later: bool) -> None:
        while later and not self._accepted.wait(0.1):
            if self._stop.is_set():
                return
        while not self._stop.is_set():
            with self._lock:
                index = next(waiting, None)
            if index is None:
                return
            try:
                ended.put((index, self._sampled(requests[index])))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that called
                ended.put((index, error))
                self._stop.set()
            self._accepted.set()

    def _sampled(self, request: SamplingRequest) -> Sampled:
        answer = self._answer(request)
        if answer is None:
            return Sampled("", 0, PROMPT_TOO_LONG)
        self._check_cut(request, answer)
        told = {
            name: getattr(answer, name)
            for name in (
                "prompt_tokens",
                "reasoning_tokens",
                "prompt_token_ids",
                "token_ids",
                "logprobs",
                "fingerprint",
            )
        }
        served = {name: value for name, value in told.items() if value is not None}
        return Sampled(answer.text, answer.completion_tokens, answer.finish_reason, served=served)

    def _check_cut(self, request: SamplingRequest, answer: Answer) -> None:
        asked, got = request.max_new_tokens, answer.completion_tokens
        if got > asked:
            raise ServerError(
                f"{self._server.url} sent {got} tokens where at most {asked} were asked for",
                "Nothing keeps its completions to a length; use another server.",
            )
        full = self.context is not None and answer.prompt_tokens + got >= self.context - 1
        if answer.finish_reason == "length" and got < asked and not full:
            raise ServerError(
                f"{self._server.url} cut a completion at {got} tokens where {asked} were asked for (prompt: "
                f"{answer.prompt_tokens})",
                f"That is a limit of the server's. Raise it, or lower max_new_tokens to {got}; if its context is full "
                f"there, say so with generate.max_model_len.",
            )

    def _answer(self, request: SamplingRequest) -> Answer | None:
        """A whole answer, after as many attempts as it takes; None where the prompt does not fit."""
        failing_since: float | None = None
        pause, none_in_a_row = FIRST_PAUSE_S, 0
        while True:
            self._wait()
            try:
                return self._attempt(request)
            except PromptTooLong:
                return None
            except (TryAgain, BrokenAnswer) as error:
                if self._stop.is_set():
                    raise ServerError(f"stopped: {error}") from error
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                if isinstance(error, TryAgain) and error.busy:  # a server that serves others is not lost
                    failing_since = max(failing_since, self._last_answer)
                none_in_a_row = none_in_a_row + 1 if isinstance(error, NoAnswer) else 0
                asked = error.wait_s if isinstance(error, TryAgain) else None
                if isinstance(error, TryAgain) and error.lost:
                    self._doubted = True
                wait = pause * (0.5 + self._random.random()) if asked is None else asked
                self._give_up(error, none_in_a_row, now + wait - failing_since)
                if asked is not None:
                    with self._lock:
                        self._not_before = max(self._not_before, now + asked)
                self._stop.wait(wait)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _give_up(self, error: Exception, none_in_a_row: int, tried_s: float) -> None:
        """Raise ServerError where another attempt is not worth it."""
        said = self._server.clean(str(error))
        if none_in_a_row >= MOST_ANSWERS_THAT_ARE_NONE:
            what = f"{self._server.url} does not answer as an OpenAI-compatible server: {said}"
            raise ServerError(what, "Check the address: it usually ends in /v1.") from error
        if tried_s > self._options.patience_s:
            patience = f"generate.server.patience_s is {self._options.patience_s:g}"
            raise ServerError(
                f"{said}; given up ({patience})", "Run again when it answers: samples that were drawn are kept."
            ) from error

    def _attempt(self, request: SamplingRequest) -> Answer:
        if self._doubted:
            with self._looking:
                if self._doubted:
                    self._check_same(self._server.look())
                    self._doubted = False
        reading = Reading()
        with self._lock:
            self._readings[id(reading)] = reading
        asked = question(request, self.facts.kind, self._limit_field, logprobs=self._options.logprobs)
        try:
            answer = self._server.ask(*asked, reading, lambda: self._begun(reading))
        except ServerError as error:
            if "max_completion_tokens" in error.message and self._limit_field == "max_tokens":
                self._limit_field = "max_completion_tokens"  # hosted reasoning models refuse the older name
                return self._attempt(request)
            raise
        finally:
            with self._lock:
                del self._readings[id(reading)]
        if answer.model is not None and answer.model != self._server.model:
            other = self._server.clean(answer.model)
            raise ServerError(
                f"{self._server.url} was asked for {self._server.model} and answers as {other}",
                "Ask for the model by the name it answers with, so that the record names what was measured.",
            )
        self._last_answer = time.monotonic()
        return answer

    def _begun(self, reading: Reading) -> bool:
        """Note that an answer has begun; whether it is still wanted."""
        if self._options.logprobs and reading.tokens and not reading.has_logprobs:
            raise ServerError(f"{self._server.url} gives no log-probabilities", "Leave generate.server.logprobs out.")
        self._accepted.set()
        return not self._abandoned.is_set()

    def _check_same(self, now: ServerFacts) -> None:
        if now != self.facts:
            raise ServerError(
                f"{self._server.url} is another server than before: {differences(self.facts, now)}",
                "Start the former one and run again: samples that were drawn are kept.",
            )

    def _wait(self) -> None:
        while not self._stop.is_set() and (left := self._not_before - time.monotonic()) > 0:
            self._stop.wait(left)


def differences(before: ServerFacts, now: ServerFacts) -> str:
    """What two looks at a server differ in, in words."""
    pairs = zip(dataclasses.fields(ServerFacts), dataclasses.astuple(before), dataclasses.astuple(now), strict=True)
    return ", ".join(f"{field.name} {old or UNKNOWN}, now {new or UNKNOWN}" for field, old, new in pairs if old != new)
