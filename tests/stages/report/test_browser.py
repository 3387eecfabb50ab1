"""The pages in a real browser: they show what they hold, light, dark and in print, without errors and the network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tests.pipeline.sweep.report.fakes import FakeCell, pages_of, right, scores
from tests.stages.report.artifacts import complete, report_of

CHROME = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROME is None, reason="no chromium, chromium-browser or google-chrome here: NO PAGE WAS OPENED IN A BROWSER"
    ),
]
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A port that nobody listens on: neither a page nor the browser itself reaches anything outside.
    "--proxy-server=127.0.0.1:9",
)
DARK, LIGHT = "0", "1"
"""Blink's numbers of the colour scheme that a user prefers."""
PAPER = {DARK: (0x0D, 0x11, 0x17), LIGHT: (0xFF, 0xFF, 0xFF)}


@pytest.fixture(scope="module", params=["run", "sweep"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's page, and a sweep's."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "run":
        report_of(folder, complete(folder))
        return folder / "out" / "report.html"
    cells = [
        FakeCell(m, s, scores(right(40 + int(s)), right(60))) for m in ("sft", "dft", "vcore") for s in ("0", "7", "12")
    ]
    return pages_of(folder, cells) / "report.html"


def browse(
    page: Path, folder: Path, *options: str, scheme: str = LIGHT, view: str = ""
) -> subprocess.CompletedProcess[str]:
    """Open a page, at one of its views if it has any, with a profile of its own; what its console says is on stderr."""
    assert CHROME is not None
    own = [
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--enable-logging=stderr",
    ]
    command = [CHROME, *QUIET, *own, "--window-size=1150,1800", *options, page.as_uri() + (f"#{view}" if view else "")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return answer


def opened(page: Path, folder: Path) -> tuple[str, list[str], list[str]]:
    """The document as the browser understood it, what its console said, and the addresses that the page asked for."""
    log = folder / "net.json"
    answer = browse(page, folder, f"--log-net-log={log}", "--dump-dom")
    events = json.loads(log.read_text())["events"]
    # Of what the browser asks on its own account (time, updates) the initiator is "not an origin".
    requests = [
        e["params"]["url"] for e in events if e.get("params", {}).get("initiator", "not an origin") != "not an origin"
    ]
    return answer.stdout, [line for line in answer.stderr.splitlines() if "CONSOLE" in line], requests


def test_the_page_shows_its_tables_and_asks_nobody(page: Path, tmp_path: Path) -> None:
    document, said, requests = opened(page, tmp_path)
    assert said == [], "neither errors nor warnings"
    assert requests == [], "the page loads nothing"
    tables = re.findall(r"<table.*?</table>", document, flags=re.DOTALL)
    assert len(tables) == page.read_text().count("<table")
    assert any("higher" in table for table in tables)
    assert document.count("<svg") == page.read_text().count("<svg") > 3


def test_an_error_and_a_request_would_be_seen(page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(
        page.read_text().replace(
            "<body>", '<body><img src="http://images.example.invalid/x.png"><script>nope()</script>'
        )
    )
    _, said, requests = opened(broken, tmp_path)
    assert any("nope is not defined" in line for line in said)
    assert requests == ["http://images.example.invalid/x.png"]


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_the_page_can_be_read_on_light_and_on_dark_paper(page: Path, tmp_path: Path, scheme: str) -> None:
    browse(page, tmp_path, f"--screenshot={tmp_path / 'page.png'}", scheme=scheme)
    drawn = np.round(matplotlib.image.imread(tmp_path / "page.png")[..., :3] * 255).astype(int)
    assert drawn.shape == (1800, 1150, 3)
    paper = np.array(PAPER[scheme])
    blank = (drawn == paper).all(axis=-1)
    assert 0.5 < blank.mean() < 0.99, "paper, and something on it"
    # Text, and the axes of drawings, take the page's ink, which is far from the paper; unreadable ink would be near it.
    assert (np.abs(drawn - paper).sum(axis=-1) > 450).sum() > 5000
    assert blank[:, 1140:].all(), "nothing runs off the paper"


def test_the_page_can_be_printed(page: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.pdf"
    browse(page, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={target}", scheme=DARK)
    printed = target.read_bytes()
    assert printed.startswith(b"%PDF-")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12
    assert len(printed) > 30_000, "more than blank paper"
