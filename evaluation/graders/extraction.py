"""What of a completion is the answer: the text after the thinking, the last complete box, the last good program."""

import re

from evaluation.graders.boxes import answer_of
from evaluation.graders.fences import blocks
from evaluation.graders.reachable import is_stub, parse, syntax_error_line

VERSION = "4"  # part of every score's protocol; raise it when another part of the same completion may be the answer
THINK = "<think>"
MOST_CUTS = 20  # how often a text that is no program is cut to find one in it
_TAG = re.compile(r"<(?P<closes>/?)think>")
_MARKS = {'"': '"', "'": "'", "`": "`", "(": ")", "[": "]", "“": "”", "‘": "’", "«": "»", "「": "」"}
_BEFORE_QUOTES = ("", *"([{*_=:>,—-")
_QUOTED_PAIR = re.compile(r"[\"'`(\[“‘«「]<think>[^\n<]{0,80}\Z")
_WORD = re.compile(r"(?<=\S[ \t])<think>(?=[ \t.,;:!?)])")
_PRINTS = re.compile(r"\b(?:print|write|writelines|stdout)\b")
_MAIN = re.compile(r"\bmain\s*\(")
_STATEMENT = re.compile(r"(?:from|import|def|class|async|@)\b|@|[A-Za-z_]\w*[ \t]*(?::[^=\n]+)?=(?!=)")


def after_thinking(completion: str) -> str | None:
    """The text after the last </think>; the whole where nothing thinks aloud; None where a <think> is never closed.

    Tags that a text only mentions, in quotes or as a word within a line, do not count.
    """
    for tag in reversed(list(_TAG.finditer(completion))):
        if not _is_mention(completion, tag):
            return completion[tag.end() :] if tag["closes"] else None
    return completion


def _is_mention(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag is a word within a line, or a mark of quotation opens before it; for a closing tag it also has to
    close after it.

    A thought may end in a quotation, a bracket or a block of code: 'I call it "x"</think>', "```</think>".
    """
    start, end = tag.span()
    mark, before, after = text[start - 1 : start], text[max(0, start - 2) : max(0, start - 1)], text[end : end + 1]
    # Quotation marks that close look the same, after another character.
    opens = mark in _MARKS and (mark not in "\"'`" or before in _BEFORE_QUOTES or before.isspace())
    if not tag["closes"]:
        return opens or _WORD.match(text, start) is not None
    quoted_pair = after in _MARKS.values() and _QUOTED_PAIR.search(text, max(0, start - 90), start) is not None
    return (opens and after == _MARKS[mark]) or quoted_pair


def continue_prompt(prompt: str, completion: str) -> str:
    """The completion with the <think> that some chat templates put at the prompt's end, so that it counts as open."""
    return THINK + completion if prompt.rstrip().endswith(THINK) else completion


def boxed_answer(completion: str) -> str | None:
    """The maths answer of a completion; None where there is none."""
    text = after_thinking(completion)
    return None if text is None else answer_of(text)


def program(completion: str, entry_point: str, beginning: str = "") -> str | None:
    """The program of a completion, or None where there is none.

    It is the whole completion where that is a program that defines `entry_point`; else the last complete block that is
    one, and not a mere stub of it; else a last block that is never closed, or the whole text, as far as that is such a
    program, prose before and after it left out; else the last complete block that defines it by its text: one with a
    syntax error is a wrong answer, not a missing one. Blocks indented as a whole are moved to the margin; of a session
    at Python's prompt (>>>) what was typed is read. Where nothing defines the name at the margin, one that is imported,
    or assigned in any other way, will do.

    Args:
        beginning: what of the program the problem gives. Where only this defines `entry_point`, an indented last block
            or text is taken for the function's body.
    """
    completion = completion.replace("\r\n", "\n").replace("\r", "\n")
    found = _program(completion, entry_point, _definition(entry_point), beginning)
    return _program(completion, entry_point, _binding(entry_point), "") if found is None else found


def printing_program(completion: str) -> str | None:
    """The program of a completion that is tested by what it prints, or None: found like that of `program`, with a
    statement that prints in the place of the definition."""
    completion = completion.replace("\r\n", "\n").replace("\r", "\n")
    return _program(completion, "", _PRINTS, "")


def cpp_program(completion: str) -> str | None:
    """The C++ program of a completion, or None: the last complete block that defines `main`, else a last block that is
    never closed, or the whole text, where that does."""
    text = after_thinking(completion.replace("\r\n", "\n").replace("\r", "\n"))
    if text is None:
        return None
    complete, unclosed = blocks(text, lambda source: _MAIN.search(source) is not None)
    candidates = [unclosed, *complete] if unclosed is not None or complete else [text]
    return next((source for source in reversed(candidates) if source and _MAIN.search(source)), None)


def method_program(completion: str, name: str) -> str | None:
    """The program of a completion that defines a class Solution, or else the function `name`; or None."""
    completion = completion.replace("\r\n", "\n").replace("\r", "\n")
    found = _program(completion, "Solution", _definition("Solution"), "")
    return _program(completion, name, _definition(name), "") if found is None else found


def _program(completion: str, entry_point: str, defines: re.Pattern[str], beginning: str) -> str | None:
    def is_good(source: str) -> bool:
        return defines.search(source) is not None and parse(_at_margin(source)) is not None

    if is_good(completion):
        return _at_margin(completion)
    text = after_thinking(completion)
    if text is None:
        return None
    complete, unclosed = blocks(text, is_good)
    sources = [source for block in complete if defines.search(source := _at_margin(_typed(block)))]
    good = [cut for source in sources[-MOST_CUTS:] if (cut := _program_within(source, defines)) is not None]
    for rest in (unclosed, None if sources else text):
        if rest is not None and (cut := _program_within(_at_margin(_typed(rest)), defines)) is not None:
            good.insert(0, cut)
    if not good and not sources:
        body = _body(complete, unclosed, text, beginning) if defines.search(beginning) else None
        return None if body is None else beginning + body
    return next((source for source in reversed(good) if not is_stub(source, entry_point)), (good or sources)[-1])


def whole_program(beginning: str, completion: str) -> str:
    """A program that the prompt began and the model went on with, as the one block that the grader reads. What does not
    parse at its end is left out, from a line at the margin on: another function, cut in its middle."""
    lines = f"{beginning}{completion}".splitlines(keepends=True)
    first = len(beginning.splitlines())  # what the prompt began stays
    margins = [number for number, line in enumerate(lines) if number > first and line[:1].strip()]
    for end in (len(lines), *reversed(margins[-MOST_CUTS:])):
        if parse("".join(lines[:end])) is not None:
            lines = lines[:end]
            break
    return f"```python\n{''.join(lines)}\n```"


def _definition(name: str) -> re.Pattern[str]:
    name = re.escape(name)
    return re.compile(rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{name}\b|^{name}[ \t]*(?::|=(?!=))", re.MULTILINE)


def _binding(name: str) -> re.Pattern[str]:
    """Where a module binds the name otherwise: `from math import gcd as f`, `g, f = ...`, `globals()["f"] = ...`."""
    name = re.escape(name)
    imported = rf"(?:from[ \t]+[\w.]+[ \t]+)?import\b(?:[ \t]*\([^()]*|[^\n()]*)(?<=[\s,(]){name}[ \t]*(?:$|[,;)#])"
    assigned = rf"(?:\w+[ \t]*[,=][ \t]*)*{name}(?:[ \t]*,[ \t]*\w+)*[ \t]*(?::[^=\n]+)?=(?!=)"
    return re.compile(rf"^[ \t]*(?:{imported}|{assigned}|globals\(\)\[[\"']{name}[\"']\][ \t]*=(?!=))", re.MULTILINE)


def _at_margin(block: str) -> str:
    """A block that is indented as a whole moved to the margin, in linear time, unlike `textwrap.dedent`."""
    lines = block.split("\n")
    margins = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines if line.strip()] or [""]
    pairs = zip(min(margins), max(margins), strict=False)  # what these two have in common, all have
    common = next((place for place, (one, other) in enumerate(pairs) if one != other), len(min(margins)))
    return "\n".join(line[common:] for line in lines) if common else block


def _typed(block: str) -> str:
    """What was typed at Python's prompt, where the block is a session at it: results left out."""
    if not block.lstrip().startswith(">>>"):
        return block
    lines = [line.lstrip() for line in block.split("\n")]
    return "\n".join(line[4:] for line in lines if line.startswith((">>>", "..."))) + "\n"


def _program_within(text: str, defines: re.Pattern[str]) -> str | None:
    """The text where it is a program; else the lines of it that are one and have the definition, without prose before
    and after; else None.

    Only whole statements at the margin are left out: a function that does not parse is never cut to one that does.
    """
    lines = text.split("\n")
    first, end = 0, len(lines)
    for _ in range(MOST_CUTS):
        source = "\n".join(lines[first:end]) + "\n" * (end < len(lines))
        if (definition := defines.search(source)) is None:
            return None
        wrong = syntax_error_line(source)
        if wrong is None:
            return source
        defined_at = first + source.count("\n", 0, definition.start())
        wrong += first
        margins = [number for number in range(first, end) if lines[number][:1].strip()]
        if wrong <= defined_at and wrong < end:
            # Prose before the program: it begins at a line that looks like Python.
            first = next((number for number in margins if number > wrong and _STATEMENT.match(lines[number])), end)
        else:
            end = max((number for number in margins if defined_at < number <= wrong), default=first)
    return None


def _body(complete: list[str], unclosed: str | None, text: str, beginning: str) -> str | None:
    """The last block, or else the text, where it is the indented body of the function that the problem began, or
    None."""
    begins = re.compile(re.escape(beginning))
    for source in (complete[-1] if complete else None, unclosed, text):
        body = (source or "").strip("\n")
        if body[:1].isspace() and (whole := _program_within(beginning + body, begins)) is not None:
            return whole[len(beginning) :] + "\n"
    return None
