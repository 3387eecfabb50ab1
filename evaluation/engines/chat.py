"""How a problem's prompt becomes the tokens that a model is asked with: the same for evaluation and for RL."""

from collections.abc import Sequence
from typing import Any


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


def render(
    tokenizer: Any,
    prompt: str,
    system_prompt: str | None,
    enable_thinking: bool | None,
    few_shot: Sequence[tuple[str, str]] = (),
    context: Sequence[dict[str, str]] = (),
) -> tuple[str, tuple[int, ...]]:
    """The rendered text of a prompt, up to where the assistant speaks, and its token ids."""
    text: str = tokenizer.apply_chat_template(
        messages_of(prompt, system_prompt, few_shot, context),
        tokenize=False,
        add_generation_prompt=True,
        **template_options(enable_thinking),
    )
    return text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
