"""What of a completion is the answer: the text after the thinking, the last complete box, the last program."""

from __future__ import annotations

import ast
import re
import textwrap

THINK, END_THINK = "<think>", "</think>"
_BOX_TOKENS = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|(?P<escaped>\\[\\{}])|(?P<open>\{)|(?P<close>\})")
_FENCE = re.compile(r"^[ \t]*```([^\n`]*)(?:\n|\Z)", re.MULTILINE)


def after_thinking(completion: str) -> str | None:
    """The text after the last </think>; the whole where nothing thinks aloud; None where a <think> is never closed."""
    _, closed, answer = completion.rpartition(END_THINK)
    if THINK in answer:
        return None
    return answer if closed else completion


MOST_CUTS = 20
"""How many lines at the margin `whole_program` tries to cut from, the last ones."""


def whole_program(beginning: str, completion: str) -> str:
    """A program that the prompt began and the model went on with, as the one block that the grader reads.

    A model that is not told to stop begins another function and is cut in the middle of it: what then does not parse at the end, from a
    line at the margin on, is left out.
    """
    lines = f"{beginning}{completion}".splitlines(keepends=True)
    first = len(beginning.splitlines())  # what the prompt began stays
    margins = [number for number, line in enumerate(lines) if number > first and line[:1].strip()]
    for end in (len(lines), *reversed(margins[-MOST_CUTS:])):
        if _parses("".join(lines[:end])):
            lines = lines[:end]
            break
    return f"```python\n{''.join(lines)}\n```"


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def continue_prompt(prompt: str, completion: str) -> str:
    """The completion with the <think> that some chat templates already put at the end of the prompt, so that it counts as open."""
    return THINK + completion if prompt.rstrip().endswith(THINK) else completion


def last_box(text: str) -> str | None:
    """Content of the last complete \\boxed{} or \\fbox{} (of nested ones the innermost), or None. Linear in the length of the text."""
    open_braces: list[tuple[bool, int, int]] = []
    last: tuple[int, int, int] | None = None
    for token in _BOX_TOKENS.finditer(text):
        if token.lastgroup == "box":
            open_braces.append((True, token.start(), token.end()))
        elif token.lastgroup == "open":
            open_braces.append((False, token.start(), token.end()))
        elif token.lastgroup == "close" and open_braces:
            is_box, start, content = open_braces.pop()
            if is_box and (last is None or start > last[0]):
                last = start, content, token.start()
    return None if last is None else text[last[1] : last[2]]


def boxed_answer(completion: str) -> str | None:
    """The maths answer of a completion; None where there is none, also where the box is empty."""
    text = after_thinking(completion)
    box = None if text is None else last_box(text)
    return box.strip() or None if box is not None else None


def program(completion: str, entry_point: str) -> str | None:
    """The last complete fenced block that defines `entry_point`; else a last block that is never closed, or the whole text, where that
    is a program which does, prose after it left out; else None.

    The definition is looked for in the text, not in the syntax tree: a complete block with a syntax error is a wrong answer, not a
    missing one. A block indented as a whole, as in a list, is moved to the margin.
    """
    text = after_thinking(completion)
    if text is None:
        return None
    text = text.replace("\r\n", "\n")
    defines = re.compile(
        rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{re.escape(entry_point)}\b|^{re.escape(entry_point)}[ \t]*[:=]", re.MULTILINE
    )
    blocks, unclosed = _fenced_blocks(text)
    complete = [block for block in blocks if defines.search(block)]
    if complete:
        return textwrap.dedent(complete[-1])
    for rest in (unclosed, text):
        if rest is not None and defines.search(rest):
            source = _leading_program(textwrap.dedent(rest))
            if source is not None and defines.search(source):
                return source
    return None


def _leading_program(text: str) -> str | None:
    """The text where it is a program, else what stands before the line that is none of Python, where that is one; None otherwise."""
    for _ in range(2):
        try:
            ast.parse(text)
        except SyntaxError as error:
            lines = text.splitlines(keepends=True)
            if error.lineno is None or not 1 < error.lineno <= len(lines):
                return None
            text = "".join(lines[: error.lineno - 1])
        except (ValueError, RecursionError, MemoryError):
            return None
        else:
            return text
    return None


def _fenced_blocks(text: str) -> tuple[list[str], str | None]:
    """Contents of the complete fenced blocks, and of a last one that never closes, in one pass: a completion may be thousands of these.

    A fence with a language opens a block also inside one, which then was never closed.
    """
    blocks: list[str] = []
    start: int | None = None
    for fence in _FENCE.finditer(text):
        if start is None or fence[1].strip():
            start = fence.end()
        else:
            blocks.append(text[start : fence.start()])
            start = None
    return blocks, None if start is None else text[start:]
