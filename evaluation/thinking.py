"""A thought between tags, as tokens: how it ended where a budget limits it."""

from collections.abc import Sequence
from typing import Any

from evaluation.records import ThoughtEnding

TAGS = "<think>", "</think>"
"""What opens and what closes a thought, for the answers that graders read as well."""


def thinking_tokens(tokenizer: Any) -> tuple[int, int]:
    """The token ids of the tags.

    Raises:
        ValueError: a tag is not one token, so that where a thought begins or ends depends on the text around it.
    """
    ids = [tokenizer.encode(tag, add_special_tokens=False) for tag in TAGS]
    if any(len(of_tag) != 1 for of_tag in ids):
        raise ValueError(f"the model's tokenizer has no tokens of their own for {' and '.join(TAGS)}")
    return ids[0][0], ids[1][0]


def how_thinking_ended(
    prompt: Sequence[int], completion: Sequence[int], tokens: tuple[int, int], budget: int
) -> ThoughtEnding:
    """How the thoughts of a completion ended that may each be `budget` tokens long.

    Args:
        prompt: token ids; its template may have opened the thought already.
        completion: token ids.
        tokens: those of the tags.
        budget: tokens of a thought, what the prompt holds of it included, after which its end was forced. A thought
            that the model itself would have ended there counts as forced: the two look the same.
    """
    start, end = tokens
    ending: ThoughtEnding = "none"
    length: int | None = None  # of the thought that is open
    for index, token in enumerate((*prompt, *completion)):
        if token == end and length is not None:
            if index >= len(prompt):
                ending = "forced" if length >= budget or ending == "forced" else "finished"
            length = None
        elif length is not None:
            length += 1
        elif token == start:
            length = 0
    return "cut" if length is not None else ending
