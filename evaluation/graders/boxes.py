"""The answer in the boxes of a text: of the last one, or of all that its sentence lists; phrases and placeholders."""

import dataclasses
import re
from fractions import Fraction

from evaluation.graders.latex import COMMAND
from evaluation.graders.notation import as_text, clean, value

_TOKENS = re.compile(
    r"(?P<box>(?<!\\)(?P<slashes>\\+)(?:boxed|fbox)\s*\{)"
    r"|(?P<bare>(?<!\\)\\+(?:boxed|fbox)\s+(?P<token>[-+]?\d[\d.,/]*|[A-Z](?=[.,]?\s*(?:$|[$\n]))))"
    r"|(?P<escaped>\\[\\{}])|(?P<open>\{)|(?P<close>\})"
)
_FIRST = re.compile(r"(?<!\\)\\+(?:boxed|fbox)")
# Around words and numbers alike: delimiters of maths, spacing, fonts, braces.
_MARKUP = re.compile(
    r"\\(?:[hv]?phantom|hspace\*?)\s*\{[^{}]*\}|\$+|\\[()\[\]]|(?<!\\)\\[,;:!_ ]|"
    rf"{COMMAND}|[{{}}~&]|\*\*"
)
_PLACEHOLDER = re.compile(
    r"(?:\\(?:[lc]?dots\w?|q?quad|square|Box)\b|[\s._…⋯?？])*"
    r"|[\s<\[(]*(?:(?:insert|put|your|the|my|a|an|final|correct|numerical|exact)[\s_]+)*"
    r"(?:ans(?:wer)?|result|solution|value|number|letter|choice|option|答案)(?:[\s_]+(?:here|goes|letter|value))*[\s>\])]*",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    rf"\s*(?P<font>(?:{COMMAND})?\{{\s*(?:{COMMAND})?|\*\*)?(?:(?:so|thus|hence|therefore)\b,?\s*)?"
    r"(?:(?:the|my|our|your)\s+)?(?:(?:final|correct|right)\s+)*(?:ans(?:wer)?|result|solution|value|答案)s?"
    r"(?:[ \t]+(?:is|are)\b|是|为)?\s*(?:[:=：]|(?<=is)|(?<=are)|(?<=[是为])|(?=\s*\}))\s*"
    r"(?(font)(?P<end>\}|\*\*)?)(?:[\s~:=]|\\[,;:! ]|\\q?quad(?![a-z]))*",
    re.IGNORECASE,
)
# What lists: commas, words, and the wide space of display maths.
_LISTING = re.compile(r"[,;，；、]|\\q?quad(?![a-z])|\b(?:and|or)\b|[和或及与]", re.IGNORECASE)
# Between two boxes nothing but the mark of a list, and what the second one is the value of.
_ITEM = re.compile(
    r"\s*(?:[,\s]*,[,\s]*|(?:\n|\\\\)\s*(?:[-*•]|\\item|\(?(?:[a-z]|[ivx]+|\d+)[.)])\s*)(?:\w{1,4}\s*=\s*)?"
)
_LISTED_LINE = re.compile(r",\s*(?:\n|\\\\)|(?:\n|\\\\)\s*,")
_SENTENCE_END = re.compile(r"(?<!resp)[.!?](?!\S)|[。！？]|\n\s*\n")
# After these a box corrects, concludes from or rewrites the one before it.
_INFERENCE = re.compile(
    r"\A\s*[-+*:^_<>]|\A[^,]*[=≈→⇒]|\\(?:approx|cdot|times|div|to|implies|iff|(?:long)?(?:right|leftright)arrow|dots)"
    r"|[lc]?dots\b|\.\.|…|≈|→|⇒|所以|因此|从而|故|即|不是"
    r"|\b(?:so|thus|hence|therefore|then|wait|no|not|but|wrong|incorrect|mistake|error|rather|instead|ie|which|gives?|"
    r"giving|gave|actually|however|correct\w*|final\w*|answer is|simplif\w+|equals?|equal to|equivalent\w*|namely|"
    r"meaning|means|implies|implying|yields?|yielding|approximate\w*|about|roughly|because|since|becomes?|reduces?|"
    r"rounded|rounds|sorry|oops|hmm|that is|in other words|(?:in|a) total|altogether|from|substitut\w*)\b",
    re.IGNORECASE,
)
# After these, alone between two boxes, the second one is named only to be ruled out.
_REJECTION = re.compile(r"[\s,;(—–-]*(?:and |but )?(?:not|rather than|instead of|as opposed to)\s*", re.IGNORECASE)
LONGEST_GAP = 200
"""Characters between two boxes of one list."""
MOST_LISTED = 50
"""Boxes of one list; no reference answer has as many values."""


@dataclasses.dataclass(frozen=True)
class _Box:
    """A complete box: where it stands, and what is in it."""

    start: int
    end: int
    content: str


def answer_of(text: str) -> str | None:
    """The answer in the last complete \\boxed{} or \\fbox{} of a text (of nested ones in the innermost), or None.

    A box that is empty or holds a placeholder ("...", "your answer"), which comes from repeating the instruction, does
    not count. Boxes that one sentence lists ("\\boxed{3}, \\boxed{5} and \\boxed{7}") are one answer, "3, 5, 7", each
    value once; a box before words that infer or correct (so, wait, =) is not one of them,
    and one after "not" or "rather than" does not count. Phrases such as "The answer
    is" are left out. Also read are \\boxed 5, which TeX allows, and a text whose backslashes are all doubled,
    \\\\boxed{\\\\frac12}, which is then undone. Linear in the length.
    """
    boxes = _boxes(text)
    while boxes and _is_placeholder(boxes[-1].content):
        boxes.pop()
    while len(boxes) > 1 and _is_rejected(text, boxes[-2], boxes[-1]):
        boxes.pop()
    if not boxes:
        return None
    listed = [boxes.pop()]
    while boxes and len(listed) < MOST_LISTED and _lists(text, boxes[-1], listed[-1]):
        listed.append(boxes.pop())
    answers = [_without_phrase(box.content) for box in reversed(listed)]
    if len(answers) == 1:
        return answers[0]
    # The last of equal ones: "\\boxed{\\frac12} or \\boxed{0.5}" is one number.
    distinct: dict[Fraction | str, str] = {}
    for answer in answers:
        number = value(clean(answer))
        distinct[as_text(answer) if number is None else number] = answer
    return ", ".join(distinct.values())


def _boxes(text: str) -> list[_Box]:
    """The complete boxes without a box in them, in their order."""
    open_braces: list[tuple[int, int, int]] = []  # start, start of the content, backslashes; 0 for a mere brace
    found: list[_Box] = []
    last = -1
    first = _FIRST.search(text)  # braces before it close nothing that counts
    for token in _TOKENS.finditer(text, len(text) if first is None else first.start()):
        kind = token.lastgroup
        if kind in ("box", "open"):
            open_braces.append((token.start(), token.end(), len(token["slashes"] or "")))
        elif kind == "bare":
            last = token.start()
            found.append(_Box(last, token.end(), token["token"]))
        elif kind == "close" and open_braces:
            start, content_start, slashes = open_braces.pop()
            if slashes and start > last:
                last, content = start, text[content_start : token.start()]
                # Doubled where they are even; three are the end of a row and one.
                found.append(_Box(start, token.end(), content if slashes % 2 else content.replace("\\\\", "\\")))
    return found


def _is_placeholder(content: str) -> bool:
    return len(content) < LONGEST_GAP and _PLACEHOLDER.fullmatch(_MARKUP.sub(" ", content)) is not None


def _without_phrase(content: str) -> str:
    """What follows "The answer is", in the font of these words where that goes on after them; else the whole."""
    if (phrase := _PHRASE.match(content)) is None:
        return content.strip()
    font = "" if phrase["end"] else phrase["font"] or ""
    return (font + content[phrase.end() :]).strip() or content.strip()


def _is_rejected(text: str, one: _Box, other: _Box) -> bool:
    """Whether the second of two boxes is what the first one is said not to be: \\boxed{3}, not \\boxed{4}."""
    between = text[one.end : other.start] if other.start - one.end <= LONGEST_GAP else ""
    return not _is_placeholder(one.content) and _REJECTION.fullmatch(_MARKUP.sub(" ", between)) is not None


def _lists(text: str, one: _Box, other: _Box) -> bool:
    """Whether what stands between two boxes lists them as one answer."""
    if other.start - one.end > LONGEST_GAP or _is_placeholder(one.content):
        return False
    between = _LISTING.sub(",", _MARKUP.sub(" ", text[one.end : other.start]))
    if _ITEM.fullmatch(between):
        return True
    if _SENTENCE_END.search(between) or _INFERENCE.search(between):
        return False
    return not re.search(r"\n|\\\\", _LISTED_LINE.sub(",", between))
