"""What a server sends as an answer: what is taken of it, and what is none."""

from typing import Any

import pytest

from evaluation.engines.served.answers import Answer, BrokenAnswer, NoAnswer, Reading

USAGE = {"prompt_tokens": 1, "completion_tokens": 2}


def answer(choice: dict[str, Any], **more: Any) -> Answer:
    reading = Reading()
    reading.add({"choices": [choice], "usage": USAGE, **more})
    return reading.answer()


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("", ""), ([{"type": "text", "text": "4"}, {"type": "text", "text": "2"}], "42"), ([], "")],
)
def test_content_may_be_text_nothing_or_parts(content: Any, text: str) -> None:
    assert answer({"message": {"content": content}, "finish_reason": "stop"}).text == text


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": 5}, "finish_reason": "stop"},
        {"message": {"content": {"text": "4"}}, "finish_reason": "stop"},
        {"message": {"content": [{"type": "image_url"}]}, "finish_reason": "stop"},
        {"message": {"content": "4", "reasoning": [1]}, "finish_reason": "stop"},
        {"message": "4", "finish_reason": "stop"},
        {"message": {"content": "4"}, "finish_reason": ["stop"]},
        {"message": {"content": "4"}, "finish_reason": "stop", "index": 1},
        {"message": {"content": "4"}, "finish_reason": "stop", "token_ids": ["a"]},
        {"message": {"content": "4"}, "finish_reason": "stop", "logprobs": {"content": [{"logprob": None}]}},
        {"message": {"content": "4"}, "finish_reason": None},
        {"message": {"content": "4"}},
    ],
)
def test_what_has_another_form_is_no_answer(choice: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer):
        answer(choice)


def test_counts_of_another_form_are_none() -> None:
    choice = {"message": {"content": "4"}, "finish_reason": "stop"}
    for usage in ("many", [1], {"prompt_tokens": 1, "completion_tokens": float("inf")}, {"prompt_tokens": 1}):
        with pytest.raises(NoAnswer, match="a count of tokens of another form"):
            answer(choice, usage=usage)
    assert answer(choice, usage={**USAGE, "completion_tokens_details": "none"}).reasoning_tokens is None


@pytest.mark.parametrize(("said", "meant"), [("max_tokens", "length"), ("eos", "stop"), ("content_filter",) * 2])
def test_reasons_to_finish_have_one_word_each(said: str, meant: str) -> None:
    assert answer({"text": "4", "finish_reason": said}).finish_reason == meant


def test_an_answer_that_the_server_interrupted_is_asked_for_again() -> None:
    with pytest.raises(BrokenAnswer, match="abort") as broken:
        answer({"text": "half of", "finish_reason": "abort"})
    assert not isinstance(broken.value, NoAnswer), "the next attempt may be whole"


def test_a_model_whose_name_is_no_text_is_another_one() -> None:
    assert answer({"text": "4", "finish_reason": "stop"}, model=5).model == "5"


def test_a_stream_that_ends_in_the_middle_is_half_an_answer() -> None:
    """Neither a reason to finish nor a count, as where a proxy ends it; the next attempt may be whole."""
    reading = Reading()
    reading.add({"choices": [{"index": 0, "delta": {"content": "half"}}]})
    with pytest.raises(BrokenAnswer, match="broke off") as caught:
        reading.answer()
    assert not isinstance(caught.value, NoAnswer)
