"""A served model against a server that fails in every way a server can: tried again, or one clear line."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from evaluation.engines import Sampled, SamplingRequest
from evaluation.engines.served import ServedEngine, ServedOptions, ServerError, ServerFacts
from evaluation.engines.served.answers import NoAnswer, Reading
from evaluation.engines.served.question import question
from tests.evaluation.engines.served.server import MODEL, Behaviour, Handler, TestServer, half, serving, silent, times

KEY = "secret-key-1234"


def requests(count: int = 6, **options: Any) -> list[SamplingRequest]:
    values = {"max_new_tokens": 20, "seed": 3, "temperature": 0.7} | options
    return [SamplingRequest((), messages=(("user", f"question {n}"),), **values) for n in range(count)]


def options(**values: Any) -> ServedOptions:
    return ServedOptions(**{"max_concurrent": 4, "patience_s": 5.0, "silence_s": 5.0} | values)


def sample(server: TestServer, asked: list[SamplingRequest] | None = None, **values: Any) -> list[Sampled]:
    engine = ServedEngine(server.url, MODEL, options(**values))
    try:
        return engine.generate(asked or requests())
    finally:
        engine.close()


def test_a_whole_answer_has_its_text_its_count_and_its_tokens() -> None:
    with serving(TestServer()) as server:
        engine = ServedEngine(server.url, MODEL, options(logprobs=True, api_key=KEY))
        done: list[int] = []
        sampled = engine.generate(requests(), lambda index, _: done.append(index))
        facts, context = engine.facts, engine.max_model_len
        engine.close()
    assert facts == ServerFacts("vLLM", "0.31.0", "/models/a", 4096)
    assert (engine.version, context) == ("vLLM 0.31.0", 4096)
    assert sorted(done) == list(range(6))
    told = {"prompt_tokens": 7, "token_ids": [0, 1, 2, 3, 4], "logprobs": [-0.5] * 5}
    assert sampled == [Sampled("w0 w1 w2 w3 w4 ", 5, "stop", served=told)] * 6
    path, body, authorization = server.asked[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    expected = {"max_tokens": 20, "temperature": 0.7, "top_p": 1.0, "seed": 3, "top_k": 0, "min_p": 0.0}
    assert expected.items() <= body.items()
    assert [message["content"] for message in body["messages"]] == ["question 0"]


def too_many(handler: Handler, body: dict[str, Any]) -> bool:
    return handler.send_json(429, {"error": {"message": "slow down"}}, {"retry-after": "0.3"})


def broken_json(handler: Handler, body: dict[str, Any]) -> bool:
    return handler.send_text(200, "data: {not json}\n\n", "text/event-stream")


def error_in_stream(handler: Handler, body: dict[str, Any]) -> bool:
    return handler.send_text(200, 'data: {"error": {"message": "engine died"}}\n\n', "text/event-stream")


def unavailable(handler: Handler, body: dict[str, Any]) -> bool:
    return handler.send_text(503, "<html>later</html>")


@pytest.mark.parametrize("fault", [half, broken_json, error_in_stream, unavailable, silent])
def test_what_goes_away_is_tried_again_and_nothing_of_it_is_kept(fault: Behaviour) -> None:
    with serving(TestServer(behaviour=times(2, fault))) as server:
        sampled = sample(server, silence_s=0.3)
    assert [one.text for one in sampled] == ["w0 w1 w2 w3 w4 "] * 6
    assert len(server.asked) == 8


def test_a_server_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_asks() -> None:
    with serving(TestServer(behaviour=times(1, too_many))) as server:
        began = time.monotonic()
        sample(server)
    assert time.monotonic() - began >= 0.3
    assert len(server.asked) == 7


def test_a_wait_longer_than_the_patience_is_an_error_at_once() -> None:
    def for_an_hour(handler: Handler, body: dict[str, Any]) -> bool:
        return handler.send_json(429, {"error": {"message": "quota of today"}}, {"retry-after": "3600"})

    with serving(TestServer(behaviour=for_an_hour)) as server:
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"429: quota of today; given up .*patience_s is 5"):
            sample(server)
    assert time.monotonic() - began < 3


def refusing(status: int, body: Any) -> Behaviour:
    return lambda handler, _: handler.send_json(status, body)


def another_model(handler: Handler, body: dict[str, Any]) -> bool:
    handler.answer(body, model="other")
    return True


def own_limit(handler: Handler, body: dict[str, Any]) -> bool:
    handler.answer(body, most=3)
    return True


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (refusing(400, {"error": {"message": "top_k is not supported"}}), r"refuses the request \(400\): top_k is not"),
        (refusing(401, {"error": {"message": f"bad key {KEY}"}}), "401: the key was not accepted"),
        (refusing(422, {"error": {"message": f"you sent {KEY} and sk-abcdef"}}), r"you sent \*\*\* and \*\*\*$"),
        (refusing(429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "no quota left: pay"),
        (another_model, "was asked for tiny and answers as other"),
        (own_limit, r"cut a completion at 3 tokens where 20 were asked for \(prompt: 7\)"),
        (lambda handler, _: handler.send_text(200, "<html>hello</html>"), "does not answer as an OpenAI-compatible"),
        (lambda handler, _: handler.send_json(200, {"choices": [{"text": "x", "finish_reason": "stop"}]}), "usage"),
    ],
)
def test_what_stays_is_one_clear_line_without_the_key_and_before_other_requests(fault: Behaviour, message: str) -> None:
    with serving(TestServer(behaviour=fault)) as server, pytest.raises(ServerError, match=message) as failed:
        sample(server, api_key=KEY)
    assert KEY not in f"{failed.value.message}{failed.value.fix}"
    assert "\n" not in failed.value.message


def test_what_a_server_does_not_take_is_known_after_one_request() -> None:
    with serving(TestServer(behaviour=refusing(400, {"message": "no seed"}))) as server:
        with pytest.raises(ServerError, match="no seed"):
            sample(server, requests(50))
        assert len(server.asked) == 1
    server = TestServer()
    server.has_logprobs = False
    with serving(server):
        with pytest.raises(ServerError, match="gives no log-probabilities"):
            sample(server, requests(50), logprobs=True)
        assert len(server.asked) == 1


def test_nobody_there_and_another_model_there_are_errors_before_any_request() -> None:
    with serving(TestServer()) as server:
        with pytest.raises(ServerError, match="has no model large; it has tiny"):
            ServedEngine(server.url, "large", options())
        url = server.url
    with pytest.raises(ServerError, match=r"does not answer \(ConnectError") as down:
        ServedEngine(url, MODEL, options())
    assert down.value.fix == "Start the server, or correct the address."
    with serving(TestServer()) as server, pytest.raises(ServerError, match="context of 4096 tokens, not 8192"):
        ServedEngine(server.url, MODEL, options(max_model_len=8192))


def test_a_prompt_that_does_not_fit_is_said_to_and_the_others_are_sampled() -> None:
    long = "This model's maximum context length is 4096 tokens. However, your prompt has 5000."

    def refuse_long(handler: Handler, body: dict[str, Any]) -> bool:
        too_long = body["messages"][0]["content"] == "question 2"
        return too_long and handler.send_json(400, {"error": {"message": long}})

    with serving(TestServer(behaviour=refuse_long)) as server:
        sampled = sample(server)
    assert [one.finish_reason for one in sampled] == ["stop", "stop", "prompt_too_long", "stop", "stop", "stop"]
    assert sampled[2].tokens == 0


def test_a_completion_that_fills_the_context_is_cut_there_as_by_any_engine() -> None:
    server = TestServer(behaviour=own_limit)
    server.context = 10
    with serving(server):
        sampled = sample(server)
    assert {(one.finish_reason, one.tokens) for one in sampled} == {("length", 3)}


def late(handler: Handler, body: dict[str, Any]) -> bool:
    time.sleep(0.1)
    return False


def restarted(change: Any) -> tuple[list[int], BaseException | None]:
    """Sample while the server goes away and comes back at its port, changed; the samples that came, and the error."""
    first = TestServer(behaviour=late)
    done: list[int] = []
    failed: BaseException | None = None
    second: list[TestServer] = []

    def restart() -> None:
        while len(done) < 5:
            time.sleep(0.01)
        first.shutdown()
        first.server_close()
        time.sleep(0.4)
        back = TestServer(port=first.server_port)
        change(back)
        second.append(back)
        back.serve_forever(poll_interval=0.02)

    thread = threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    engine = ServedEngine(first.url, MODEL, options(patience_s=20.0))
    other = threading.Thread(target=restart)
    other.start()
    try:
        engine.generate(requests(40), lambda index, _: done.append(index))
    except ServerError as error:
        failed = error
    finally:
        engine.close()
        for server in second:
            server.shutdown()
            server.server_close()
        thread.join()
        other.join()
    return done, failed


def test_a_server_that_comes_back_goes_on_and_one_that_comes_back_another_is_refused() -> None:
    done, failed = restarted(lambda server: None)
    assert failed is None
    assert sorted(done) == list(range(40))

    def newer(server: TestServer) -> None:
        server.version = "0.32.0"

    done, failed = restarted(newer)
    assert "is another server than before: version 0.31.0, now 0.32.0" in str(failed)
    assert 5 <= len(done) < 40


def test_samples_that_were_whole_when_another_failed_are_handed_over() -> None:
    def fail_one(handler: Handler, body: dict[str, Any]) -> bool:
        if body["messages"][0]["content"] == "question 3":
            return handler.send_json(400, {"error": {"message": "no"}})
        return late(handler, body)

    done: list[int] = []
    with serving(TestServer(behaviour=fail_one)) as server:
        engine = ServedEngine(server.url, MODEL, options())
        with pytest.raises(ServerError, match="no"):
            engine.generate(requests(8), lambda index, _: done.append(index))
        engine.close()
    assert {0, 1, 2} <= set(done)


def test_characters_that_end_lines_elsewhere_are_part_of_an_answer() -> None:
    strange = "a\u2028b\x85c\x0bd\x1ce"

    def answer(handler: Handler, body: dict[str, Any]) -> bool:
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        event = {"choices": [{"delta": {"content": strange}, "finish_reason": "stop"}], "usage": usage}
        text = f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n"
        size = {"content-length": str(len(text.encode()))}
        return handler.send_text(200, text, "text/event-stream; charset=utf-8", size)

    with serving(TestServer(behaviour=answer)) as server:
        assert {one.text for one in sample(server)} == {strange}


def test_hosted_models_that_know_only_the_newer_limit_get_it() -> None:
    def newer_name(handler: Handler, body: dict[str, Any]) -> bool:
        said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return "max_tokens" in body and handler.send_json(400, {"error": {"message": said}})

    with serving(TestServer(kind="", behaviour=newer_name)) as server:
        assert len(sample(server)) == 6
    assert server.asked[-1][1]["max_completion_tokens"] == 20
    assert "top_k" not in server.asked[-1][1]


def test_a_negative_count_of_tokens_is_no_answer() -> None:
    reading = Reading()
    reading.add({"choices": [{"delta": {"content": "4"}, "finish_reason": "stop"}]})
    reading.add({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": -2}})
    with pytest.raises(NoAnswer, match="below 0"):
        reading.answer()


def test_a_thought_that_the_server_keeps_apart_stands_before_the_answer() -> None:
    def read(*parts: dict[str, Any], finish: str = "stop") -> str:
        reading = Reading()
        for part in parts:
            reading.add({"choices": [{"delta": part}]})
        reading.add({"choices": [{"delta": {}, "finish_reason": finish}]})
        reading.add({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
        return reading.answer().text

    assert read({"reasoning_content": "so"}, {"content": "4"}) == "<think>so</think>4"
    assert read({"reasoning": "so"}, finish="length") == "<think>so"
    assert read({"content": "4"}) == "4"


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("vLLM", {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}),
        ("SGLang", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("llama.cpp", {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}),
        ("unknown", {}),
    ],
)
def test_a_server_with_defaults_of_its_own_is_told_what_is_off(kind: str, sent: dict[str, Any]) -> None:
    request = SamplingRequest((), 8, messages=(("user", "hello"),), template_options=(("enable_thinking", False),))
    path, body = question(request, kind, "max_tokens", logprobs=False)
    usual = {"max_tokens", "temperature", "top_p", "stream", "stream_options", "messages", "chat_template_kwargs"}
    assert path == "/chat/completions"
    assert {name: value for name, value in body.items() if name not in usual} == sent
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    path, body = question(SamplingRequest((), 8, text="def f():", stop=("\n",)), kind, "max_tokens", logprobs=True)
    assert (path, body["prompt"], body["stop"], body["logprobs"]) == ("/completions", "def f():", ["\n"], 0)
    assert json.dumps(body)
