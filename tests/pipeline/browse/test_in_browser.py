"""The site in a real browser, opened as a file: its views show what the store holds, and a model's text stays text."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from pipeline.browse.site import build_site
from tests.pipeline.browse.test_site import HOSTILE, score_of
from tests.pipeline.history.nights import Night, make_nights, right
from tests.stages.report.test_browser import CHROME, browse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROME is None, reason="no chromium, chromium-browser or google-chrome here: NO SITE WAS OPENED IN A BROWSER"
    ),
]
THOUGHT = f"<think>\n{'step by step ' * 20}\n</think>\nSo it is \\boxed{{4}}."


def _shown(site: Path, view: str, folder: Path) -> str:
    """The markup of a view, whose scripts have run."""
    answer = browse(site / "index.html", folder, "--virtual-time-budget=5000", "--dump-dom", view=view)
    assert [line for line in answer.stderr.splitlines() if "CONSOLE" in line] == []
    return answer.stdout[answer.stdout.index("<main") :]


def test_a_sample_leads_to_the_others_of_its_problem(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"grpo": [["correct", "wrong", "wrong"]] * 2})], samples=True)
    site = tmp_path / "site"
    build_site(tmp_path, site)
    others = ['<a href="#sample?score=0&amp;row=3">0</a> correct', "<b>1</b> wrong"]
    others += ['<a href="#sample?score=0&amp;row=5">2</a> wrong']
    assert f"Samples of this problem: {', '.join(others)}</p>" in _shown(site, "sample?score=0&row=4", tmp_path)


def test_every_view_shows_its_part_without_errors(tmp_path: Path) -> None:
    answers = {("sft", 3, 0): HOSTILE, ("sft", 4, 0): THOUGHT}
    night = Night({"base": right(10), "sft": right(50), "grpo": right(48, first=6)}, answers=answers)
    make_nights(tmp_path, [night], samples=True)
    site = tmp_path / "site"
    build_site(tmp_path, site)
    base, sft, grpo = (score_of(site, "20260101", name) for name in ("base", "sft", "grpo"))

    def shown(view: str) -> str:
        return _shown(site, view, tmp_path)

    assert re.search(r"<div>\w+ 10\.0 → 50\.0 → 48\.0 %</div>", shown("runs"))
    run = shown("run?id=20260101-020000-nightly")
    assert run.count("<rect") == 10
    assert f'href="#flips?before={sft}&amp;after={grpo}"' in run
    found = shown(f"samples?score={base}&text=question+9&verdict=w")
    assert "1 to 18 of 18" in found, "every number with a 9 in it but 9 itself, which is right"
    hostile = shown(f"sample?score={sft}&row=3")
    assert html.escape(HOSTILE, quote=False) in hostile
    assert "<img" not in hostile
    folded = shown(f"sample?score={sft}&row=4")
    assert re.search(r'<details class="thought"><summary>reasoning, \d+ characters</summary>', folded)
    assert "<pre>So it is \\boxed{4}.</pre>" in folded
    flips = shown(f"flips?before={sft}&after={grpo}")
    assert "4 problems better, 6 worse" in flips
    assert flips.count('class="lower"') == 6
    for view in (
        "artifact?n=999",
        "protocol?score=999",
        "sample?score=999",
        "pair?before=9",
        "run?id=x",
        "flips?before=9",
    ):
        assert "in this site" in shown(view), "an address that leads nowhere says so"
