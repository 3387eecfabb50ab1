"""Tables: for the pages and for Markdown as rows of text, for other programs as CSV and LaTeX."""

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from typing import Literal

Kind = Literal["text", "number", "strong", "interval", "score", "code", "free", "small", "verdict"]
"""How a column's cells look. `text` may hold anything, and is escaped in Markdown; `number` and `strong` stand to the
right; `free` text breaks into lines; a `score` is the value, its interval and, where a page has more on it, the id of
that place; a `verdict` may be coloured."""
_TEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a `Table`. Markdown leaves those out that are `page_only`."""

    title: str
    kind: Kind = "text"
    page_only: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """What the macro `table` renders, in HTML (macros.html.j2) and in Markdown (macros.md.j2).

    Attributes:
        rows: one cell a column each, in the columns' order.
        style: `small`, `results`, or nothing.
        parted: whether a line stands between rows with different first cells.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | tuple[str, ...]]]
    style: str = "small"
    parted: bool = False


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV, the first of which is the header."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def booktabs(comments: Sequence[str], columns: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A LaTeX table with the rules of booktabs; cells are LaTeX already (see `tex`)."""
    head, *body = [" & ".join(row) + r" \\" for row in (header, *rows)]
    top = [
        *(f"% {comment}" for comment in comments),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
    ]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}", ""])


def tex(text: str) -> str:
    """Text in which nothing is LaTeX."""
    return re.sub(r"[\\^~&%$#_{}]", lambda match: _TEX[match[0]], text)
