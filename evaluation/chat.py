"""How a problem's prompt becomes the tokens that a model is asked with: the same for evaluation, SFT and RL."""

import datetime
import functools
import itertools
from collections.abc import Sequence
from typing import Any

TEMPLATE_DATE = "2024-07-26"
"""The day on which chat templates are rendered where nothing else is said: the one that Llama's write without a clock,
and so no prompt depends on the day of the run."""


def messages_of(
    prompt: str,
    system_prompt: str | None,
    few_shot: Sequence[tuple[str, str]] = (),
    context: Sequence[dict[str, str]] = (),
) -> list[dict[str, str]]:
    """The conversation that asks one problem, after worked examples (question, answer) and the problem's own `context`.

    Raises:
        ValueError: the context begins with a system message, and there is a `system_prompt` as well.
    """
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    if context and context[0]["role"] == "system":
        if system:
            raise ValueError("the problem brings a system message of its own: leave out system_prompt")
        system, context = [context[0]], context[1:]
    turns = [
        turn
        for question, answer in few_shot
        for turn in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    ]
    return [*system, *turns, *context, {"role": "user", "content": prompt}]


def template_options(enable_thinking: bool | None) -> dict[str, Any]:
    """Extra variables of the chat template; None leaves the template's own default."""
    return {} if enable_thinking is None else {"enable_thinking": enable_thinking}


def chat_template(tokenizer: Any) -> str | None:
    """The template that conversations are rendered with, `default` of several named ones; None where there is none.

    Line breaks are those that rendering and saving give it.

    Raises:
        ValueError: several, and none of them is named default.
    """
    named = tokenizer.chat_template
    if isinstance(named, dict) and "default" not in named:
        names = ", ".join(sorted(named))
        raise ValueError(f"the tokenizer has the chat templates {names}, and none that is named default")
    template = tokenizer.get_chat_template() if named else ""
    return template.replace("\r\n", "\n") or None


def date_in_template(tokenizer: Any) -> bool:
    """Whether the chat template asks for the date."""
    template = chat_template(tokenizer) or ""
    return "strftime_now" in template or "date_string" in template


def pin_date(tokenizer: Any, date: str | None) -> None:
    """Render this tokenizer's conversations as of one moment, whoever renders them (TRL does, too).

    The template's clock, `strftime_now`, stands still at `date` (ISO 8601, by default `TEMPLATE_DATE`). A date that is
    given is also the variable `date_string`, by which Llama's templates take one.
    """
    moment = datetime.datetime.fromisoformat(date or TEMPLATE_DATE)
    variables: dict[str, Any] = {"strftime_now": moment.strftime}
    if date is not None:
        variables["date_string"] = moment.strftime("%d %b %Y")
    tokenizer.apply_chat_template = functools.partial(tokenizer.apply_chat_template, **variables)


def check_chat_template(tokenizer: Any) -> None:
    """Check that a conversation rendered up to where the assistant speaks is one that an answer follows.

    Raises:
        ValueError: there is no template, none that is the default, it fails on a question, leaves the question out,
            ends before what it writes between a question and its answer, which the model would have to guess, or opens
            another answer behind a finished one, which training would teach.
    """
    if not chat_template(tokenizer):
        raise ValueError("the tokenizer has no chat template")
    question, answer = "What is 1+1?", "It is 2."
    asked = messages_of(question, None)
    prompt = rendered(tokenizer, asked, add_generation_prompt=True)
    _check_content(asked, prompt)
    try:
        whole = rendered(tokenizer, [*asked, {"role": "assistant", "content": answer}])
        closed = rendered(tokenizer, asked)
    except ValueError:  # a template for asking alone
        return
    start = common(closed, whole)
    header = whole[start : max(whole.rfind(answer), 0)]
    if header.strip() and common(prompt, whole) <= start:
        raise ValueError(
            f"the chat template ignores add_generation_prompt: a prompt ends without the {header!r} that it writes "
            "before each answer. In a local copy of the checkpoint, have it end with that, between "
            "{% if add_generation_prompt %} and {% endif %}"
        )
    _check_end(tokenizer, [*asked, {"role": "assistant", "content": answer}], whole)


def _check_end(tokenizer: Any, messages: Sequence[dict[str, str]], whole: str) -> None:
    """Check that a question and its answer, rendered as `whole`, end where the answer's turn does. Raises `ValueError`
    where what opens an answer follows: the template writes it whatever add_generation_prompt is."""
    question, answer = (message["content"] for message in messages)
    more = "And 2+2?"
    try:
        longer = rendered(tokenizer, [*messages, {"role": "user", "content": more}])
    except ValueError:  # a template for one question
        return
    before, found, ending = whole.rpartition(answer)
    between = longer.rpartition(more)[0].rpartition(answer)[2]
    opened = ending[common(ending, between) :].strip()
    if found and opened and before.partition(question)[2].rstrip().endswith(opened):
        raise ValueError(
            f"the chat template does not heed add_generation_prompt: behind a finished answer it writes {ending!r}, "
            "which opens another one, and training would teach that. In a local copy of the checkpoint, put what opens "
            "an answer between {% if add_generation_prompt %} and {% endif %}"
        )


def render(
    tokenizer: Any,
    prompt: str,
    system_prompt: str | None,
    enable_thinking: bool | None,
    few_shot: Sequence[tuple[str, str]] = (),
    context: Sequence[dict[str, str]] = (),
) -> tuple[str, tuple[int, ...]]:
    """The rendered text of a prompt, up to where the assistant speaks, and its token ids.

    Raises:
        ValueError: the chat template refuses such a conversation, or leaves the system prompt or the problem out.
    """
    text = rendered_prompt(tokenizer, messages_of(prompt, system_prompt, few_shot, context), enable_thinking)
    return text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def rendered_prompt(tokenizer: Any, messages: Sequence[dict[str, str]], enable_thinking: bool | None) -> str:
    """The text of a conversation up to where the assistant speaks. Raises `ValueError` as `render` does."""
    text = rendered(tokenizer, messages, add_generation_prompt=True, **template_options(enable_thinking))
    _check_content(messages, text)
    return text


def common(first: str, second: str) -> int:
    """Characters that two texts begin with alike."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def rendered(tokenizer: Any, messages: Sequence[dict[str, str]], **options: Any) -> str:
    """A conversation as text. Raises `ValueError` where the chat template refuses it."""
    import jinja2  # 20 ms, which every command would pay

    try:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
        turns = ", ".join(message["role"] for message in messages)
        raise ValueError(f"the chat template refuses a conversation of {turns}: {error}") from error
    return text


def _check_content(messages: Sequence[dict[str, str]], text: str) -> None:
    """Of answers that are shown as examples, templates may leave out the thinking."""
    for message in messages:
        if message["role"] != "assistant" and message["content"].strip() not in text:
            what = f"the {message['role']} message {message['content'].strip()[:80]!r}"
            raise ValueError(f"the chat template leaves out {what}")
