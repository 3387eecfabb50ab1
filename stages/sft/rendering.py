"""How a demonstration becomes text: exactly what the evaluation asks, and after it the whole answer."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from evaluation.chat import chat_template, common, rendered, rendered_prompt, template_options
from evaluation.conversations import Turn

OPENED, CLOSED = "<think>", "</think>"
PROBE = "a6f1c0"
"""An answer that a template has no reason to change, to see what it writes after one."""
_THOUGHT = re.compile(rf"\s*(?:{OPENED})?(.*?){CLOSED}(.*)", re.DOTALL)


class LostText(ValueError):
    """The chat template does not write a whole answer after the evaluation's prompt, and it is not clear what should
    stand there. The message is the same for all rows of one kind.

    Attributes:
        fix: what to do.
        lost: the share of the demonstration's characters, white space aside, that would not be trained on.
    """

    def __init__(self, message: str, fix: str, lost: float = 0.0) -> None:
        super().__init__(message)
        self.fix, self.lost = fix, lost


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A demonstration as text: `prompt` up to where the assistant speaks, as the evaluation has it, and the `answer`
    with the end of its turn.

    `own` says whether the chat template renders the two together so. Else the answer is written after the prompt, as
    the template by itself would lose the share `lost` of it, or put it after another prompt.
    """

    prompt: str
    answer: str
    own: bool = True
    lost: float = 0.0


def render(tokenizer: Any, turns: Sequence[Turn], answer: Turn, enable_thinking: bool | None) -> Rendered:
    """One demonstration as text.

    Args:
        turns: the conversation before the answer.
        answer: the assistant's turn. What was thought before it is in `reasoning_content`, or in its content before
            `</think>`.
        enable_thinking: passed to the chat template, as in evaluation.

    Raises:
        LostText: the template leaves out part of the answer, or asks for something else than the demonstration has,
            such as a thought.
        ValueError: the template refuses the conversation, or leaves out what the system or the user says.
    """
    asked = rendered_prompt(tokenizer, turns, enable_thinking)
    options = template_options(enable_thinking)
    thought, rest = split(answer)
    if thought and asked.rstrip().endswith(CLOSED):
        raise LostText(
            "ends its prompt with a thought that is over, and demonstrations have one",
            "Set enable_thinking: true in sft, grpo and generate, or leave the thoughts out.",
        )
    lost = 1.0
    for message in _forms(answer, thought, rest):
        whole = rendered(tokenizer, [*turns, message], **options)
        written = whole.removeprefix(asked)
        missing = _missing(written, thought, CLOSED if CLOSED in message["content"] else "", rest)
        lost = min(lost, missing)
        begun = asked.rstrip()[-len(CLOSED) :] + written
        more = any(begun.count(tag) > max(1, answer["content"].count(tag)) for tag in (OPENED, CLOSED))
        if whole != written and not missing and not more:
            return Rendered(asked, written)
    plain = rendered(tokenizer, [*turns, {"role": "assistant", "content": PROBE}], **options)
    if PROBE not in plain:
        raise LostText("changes or leaves out what the assistant says", "Use one that writes it as it is.", lost)
    body = _body(tokenizer, asked, asked[common(asked, plain) :], answer, lost)
    return Rendered(asked, body + plain.partition(PROBE)[2], own=False, lost=lost)


def split(answer: Turn) -> tuple[str, str]:
    """What was thought, empty where nothing was, and what was answered."""
    content = answer["content"]
    if "reasoning_content" in answer:
        return answer["reasoning_content"], content
    thought = _THOUGHT.fullmatch(content)
    return (thought[1].strip(), thought[2]) if thought else ("", content)


def _forms(answer: Turn, thought: str, rest: str) -> list[Turn]:
    """The answer in the forms that templates take, that of the data first."""
    apart = {"role": "assistant", "content": rest.strip()}
    if thought:
        apart |= {"reasoning_content": thought, "thinking": thought}
    if "reasoning_content" in answer:
        return [apart]
    return [answer, apart] if apart["content"] not in ("", answer["content"].strip()) else [answer]


def _body(tokenizer: Any, asked: str, opened: str, answer: Turn, lost: float) -> str:
    """The answer as it is to be written after the prompt, which by itself has `opened` what no plain answer has."""
    (thought, rest), content, ending = split(answer), answer["content"], asked.rstrip()
    if ending.endswith(CLOSED):
        return rest.lstrip()
    begun = opened.strip() or (OPENED if ending.endswith(OPENED) else "")
    if begun:
        if content.lstrip().startswith(begun):
            tail = asked[ending.rindex(begun) :]
            return content[len(tail) :] if content.startswith(tail) else content.lstrip().removeprefix(begun).lstrip()
        if begun != OPENED or not thought:
            raise LostText(
                f"ends its prompt with {begun}, and demonstrations do not begin so",
                "Train on demonstrations that have their thoughts; or, if the template knows it, set enable_thinking: "
                "false in sft, grpo and generate.",
                lost,
            )
        return content if "reasoning_content" not in answer else f"{thought}\n{CLOSED}\n\n{content}"
    if "reasoning_content" not in answer:
        return content
    template = chat_template(tokenizer) or ""
    if "reasoning" in template or "thinking" in template:
        raise LostText(
            "leaves out reasoning_content, though it has a place for thoughts",
            f"Write them into the content in its own form ({OPENED}...{CLOSED} is the most common).",
            lost,
        )
    return f"{OPENED}\n{thought}\n{CLOSED}\n\n{content}"


def _missing(written: str, *parts: str) -> float:
    """The share of the parts that is not in what is written, white space aside."""
    sizes = {part: len(part) for part in map(_squashed, parts)}
    found = _squashed(written)
    return sum(size for part, size in sizes.items() if part not in found) / max(sum(sizes.values()), 1)


def _squashed(text: str) -> str:
    return "".join(text.split())
