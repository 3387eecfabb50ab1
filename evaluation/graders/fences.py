"""Blocks of code in a model's text: between fences (``` or ~~~, of three characters or more), or [PYTHON] tags."""

import re
from collections.abc import Callable

_TAGS = ((re.compile(r"(?<![\w\])])\[PYTHON\]"), "\n```python\n"), (re.compile(r"\[/PYTHON\]"), "\n```\n"))
# A fence of backticks may also end a line that has more on it: "Here it is: ```python", "    return False```".
_FENCE = re.compile(
    r"^(?:(?P<before>[^\n`]*)(?P<ticks>`{3,})|[ \t]*(?P<waves>~{3,})(?!~))(?P<info>[^\n`]*)(?:\n|\Z)", re.MULTILINE
)
_LANGUAGE = re.compile(r"[\w+#.-]*\s*")
MOST_FENCES = 20  # fences among which the end of a block is looked for that does not end at the next
MOST_LOOKS_AHEAD = 100  # blocks of one text whose end is looked for so; a completion may be thousands of fences


def blocks(text: str, is_whole: Callable[[str], bool]) -> tuple[list[str], str | None]:
    """Contents of the complete blocks, and of a last one that never closes, in one pass.

    A fence with a language opens a block also inside one, which then was never closed. But where the next fence stands
    in a docstring, the block ends at the first fence up to which `is_whole` says that it is a complete program with the
    definition that is looked for, if there is one.
    """
    for tag, fence in _TAGS:
        text = tag.sub(fence, text)
    fences = [fence for fence in _FENCE.finditer(text) if not _is_amid(fence) or _LANGUAGE.fullmatch(fence["info"])]
    complete: list[str] = []
    start: int | None = None
    place = looks = 0
    while place < len(fences):
        opening, place = fences[place], place + 1
        start = opening.end()
        inside = range(place, min(place + MOST_FENCES, len(fences)))
        # A fence with text before it and a language after it opens no block inside of one.
        ahead = (n for n in inside if not (_is_amid(fences[n]) and fences[n]["info"].strip()))
        following = next(ahead, None)
        if following is None:
            continue
        end = following if _closes(opening, fences[following]) else None
        before = text[start : _mark(fences[following])]
        in_docstring = any(before.count(quotes) % 2 for quotes in ('"""', "'''"))
        if looks < MOST_LOOKS_AHEAD and in_docstring:
            looks += 1
            ends = (n for n in (following, *ahead) if _closes(opening, fences[n]))
            end = next((n for n in ends if is_whole(text[start : _mark(fences[n])])), end)
        if end is not None:
            complete.append(text[start : _mark(fences[end])])
            start, place = None, end + 1
    return complete, None if start is None else text[start:]


def _is_amid(fence: re.Match[str]) -> bool:
    return bool((fence["before"] or "").strip())


def _mark(fence: re.Match[str]) -> int:
    """Where a block ends that this fence closes: before its white space, or after it where its line has more on it."""
    return fence.start("ticks") if _is_amid(fence) else fence.start()


def _closes(opening: re.Match[str], fence: re.Match[str]) -> bool:
    kind = "ticks" if opening["ticks"] else "waves"
    return not fence["info"].strip() and len(fence[kind] or "") >= len(opening[kind])
