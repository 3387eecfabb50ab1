"""What both kinds of reports are rendered with: colours, tables, and text that nobody can break out of."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.report.render.figures import CHECKPOINTS, COLOURS
from stages.report.render.pages import render_pages
from stages.report.render.tables import Column, Table, booktabs, csv_text, tex
from stages.report.render.text import interval, points


def test_colours_stand_out_on_light_and_dark_paper() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in (*COLOURS, *(colour for colour, _ in CHECKPOINTS)):
        for paper in ("#ffffff", "#0d1117"):
            lighter, darker = sorted((luminance(colour), luminance(paper)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 3, "WCAG 2.1, 1.4.11: graphics"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a_b", r"a\_b"), ("5 %", r"5 \%"), ("x^2~\\y", r"x\textasciicircum{}2\textasciitilde{}\textbackslash{}y")],
)
def test_nothing_in_a_table_is_latex(text: str, escaped: str) -> None:
    assert tex(text) == escaped


def test_one_table_in_every_form(tmp_path: Path) -> None:
    columns = [
        Column("name"),
        Column("score", "score"),
        Column("share", "number", page_only=True),
        Column("", "verdict"),
    ]
    table = Table(
        columns, [["a|b <i>", ("5.0 %", "[1, 9]"), "1", "higher"], ["c", ("6.0 %", ""), "2", ""]], parted=True
    )
    for name in ("report.md", "report.html"):
        (tmp_path / f"{name}.j2").write_text(
            '{% from "macros.' + name.partition(".")[2] + '.j2" import table %}{{ table(shown) }}'
        )
    render_pages(tmp_path, {"shown": table}, tmp_path)
    assert (tmp_path / "report.md").read_text().splitlines() == [
        "| name | score | |",
        "|---|---|---|",
        r"| a\|b &lt;i\> | 5.0 % [1, 9] | higher |",
        "| c | 6.0 %  |  |",
    ]
    page = (tmp_path / "report.html").read_text()
    assert '<td class="text">a|b &lt;i&gt;</td>' in page
    assert '<td class="score"><b>5.0 %</b> <small>[1, 9]</small></td>' in page
    assert '<td class="higher">higher</td>' in page
    assert page.count('<tr class="first">') == 1


def test_tables_for_other_programs() -> None:
    assert csv_text([["a", "b"], [1, "x,y"]]) == 'a,b\n1,"x,y"\n'
    assert booktabs(["note"], "lr", ["", tex("a_b")], [["x", "1"]]).splitlines() == [
        "% note",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & a\_b \\",
        r"\midrule",
        r"x & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_numbers_of_shares() -> None:
    assert interval(-0.1, 1.2) == "[0.0, 100.0]", "an interval of few seeds knows nothing of the bounds of a share"
    assert points(0.04, -0.01, 0.09) == "+4.0 [-1.0, +9.0]"
    assert points(-0.0001, None, None) == "0.0"
