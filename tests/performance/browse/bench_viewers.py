"""The same samples in the page of `vcore browse` and in inspect_ai's log viewer, both in the same browser.

`make bench PYTEST_ARGS="-k viewers" VCORE_BENCH_INSPECT=PYTHON`, where PYTHON is an interpreter of an environment of
its own in which `pip install inspect_ai` was run. VCORE_BENCH_SAMPLES says how many samples (10000,100000),
VCORE_BENCH_ROUNDS how many rounds (3). One benchmark with four samples a problem is a score of our store, and a log in
inspect_ai's own format, written and served by its own commands.

Each round opens both, each in a new browser with an empty cache, and times in the page from navigation to the first
row, from entering a filter until the list says how many are left, and from a click on a row until the page has the
completion. A busy machine stretches these times, so processor time stands beside them: of all processes of the browser,
and of inspect_ai's server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.performance.bench_history import measured
from tests.performance.browse.tab import PATIENCE, Tab, opened
from tests.pipeline.history.nights import Night, make_nights
from tests.stages.report.test_browser import CHROME

INSPECT = os.environ.get("VCORE_BENCH_INSPECT", "")
SAMPLES = [int(number) for number in os.environ.get("VCORE_BENCH_SAMPLES", "10000,100000").split(",")]
ROUNDS = int(os.environ.get("VCORE_BENCH_ROUNDS", "3"))
A_PROBLEM, WORDS = 4, 150
SOUGHT = "234"
"""Part of a problem's number, and so of its id, question and answers."""
LOG = "2026-01-01T02-00-00+00-00_gsm8k_vcore.eval"
pytestmark = [
    pytest.mark.skipif(
        not INSPECT,
        reason="NOT MEASURED: VCORE_BENCH_INSPECT names no Python that has inspect_ai "
        "(python3 -m venv FOLDER && FOLDER/bin/pip install inspect_ai; VCORE_BENCH_INSPECT=FOLDER/bin/python)",
    ),
    pytest.mark.skipif(CHROME is None, reason="NOT MEASURED: no browser here"),
    pytest.mark.timeout(0),
]


@dataclasses.dataclass(frozen=True)
class Viewer:
    """How a page is driven."""

    name: str
    address: str
    row: str
    """Selector of a row's link."""
    focus: str
    """Selector of the field that a filter is typed into."""
    text: str
    """What is typed to look for a text."""
    wrong: str
    """What is typed to see wrong answers only; or JavaScript that chooses it, where a list is for that."""
    chosen: bool
    left: str
    """JavaScript: what the list says of how many samples are left, as a text."""
    server: int | None = None
    """Its process."""


@dataclasses.dataclass(frozen=True)
class Made:
    """The samples, once in our store and once for a log."""

    home: Path
    log: Path
    wrong: int
    sought: int


def make(folder: Path, number: int) -> Made:
    """A run with one score of so many samples, and its log."""
    draw, problems = random.Random(0), number // A_PROBLEM
    words = [str(draw.randrange(10**6)) for _ in range(1000)]
    verdicts = [["correct" if draw.random() < 0.6 else "wrong" for _ in range(A_PROBLEM)] for _ in range(problems)]
    places = [("grpo", problem, sample) for problem in range(problems) for sample in range(A_PROBLEM)]
    answers = {place: " ".join(draw.choices(words, k=WORDS)) for place in places}
    home = folder / "home"
    make_nights(home, [Night({"grpo": verdicts}, answers=answers)], samples=True)
    files = [next(home.glob(f"store/{file}")) for file in ("generate/*/generations.jsonl", "score/*/scores.jsonl")]
    log = folder / "logs" / LOG
    log.parent.mkdir()
    line = [INSPECT, str(Path(__file__).with_name("inspect_log.py")), *map(str, files), str(log)]
    said = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    print(f"\n  {number:,} samples, inspect_ai {said['version']}; its log took {said['seconds']:.1f} s of CPU to write")
    wrong = sum(verdict == "wrong" for of_problem in verdicts for verdict in of_problem)
    return Made(home, log, wrong, A_PROBLEM * sum(SOUGHT in str(problem) for problem in range(problems)))


@pytest.mark.parametrize("number", SAMPLES)
def test_the_same_samples_in_both_viewers(number: int, tmp_path: Path) -> None:
    compare(make(tmp_path, number), tmp_path)


def compare(made: Made, folder: Path) -> None:
    site, bundle = folder / "site", folder / "bundle"
    ours = ["-m", "pipeline", "browse", "--home", str(made.home), "--out", str(site)]
    print(f"  vcore browse           {measured(ours, repeats=ROUNDS)}, {size(site)}")
    theirs = [INSPECT, *INSPECT_VIEW, "bundle", "--log-dir", str(made.log.parent), "--output-dir", str(bundle)]
    line = ["-c", "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)", *theirs, "--overwrite"]
    print(f"  inspect view bundle    {measured(line, repeats=ROUNDS)}, {size(bundle)}, of it the log {size(made.log)}")
    seen: dict[str, list[dict[str, float]]] = {}
    with serving(made.log.parent) as (address, server):
        viewers = [our_page(site), their_viewer(address, server)]
        for number in range(ROUNDS):
            for viewer in viewers[:: 1 if number % 2 == 0 else -1]:  # neither always comes first
                own = folder / f"{number}-{viewer.name.replace(' ', '-')}"
                own.mkdir()
                seen.setdefault(viewer.name, []).append(use(viewer, made, own))
                print(f"  round {number}, {viewer.name}: {seen[viewer.name][-1]}", flush=True)
    for name, rounds in seen.items():
        print(f"  {name}, {len(rounds)} rounds:")
        for what in rounds[0]:
            values = sorted(one[what] for one in rounds)
            print(f"    {what:<30} {median(values):.2f} ({values[0]:.2f}-{values[-1]:.2f})")


def our_page(site: Path) -> Viewer:
    choose = """const list = document.querySelector("select[aria-label=verdict]");
      list.value = "w"; list.dispatchEvent(new Event("change"))"""
    left = """[...document.querySelectorAll("#view form small")].map((one) => one.textContent).join("")
      .replace(/.* of /, "").replaceAll(",", "")"""
    address = f"{(site / 'index.html').as_uri()}#samples?score=0"
    return Viewer("vcore browse", address, "#view td a", "input[type=search]", SOUGHT, choose, True, left)


def their_viewer(address: str, server: int) -> Viewer:
    left = 'String(document.querySelector("[aria-rowcount]").getAttribute("aria-rowcount") - 1)'
    text, wrong = f'input_contains("{SOUGHT}")', 'grader == "I"'
    page = f"{address}/#/logs/{LOG}"
    return Viewer("inspect view", page, "a[role=row]", ".cm-content", text, wrong, False, left, server)


INSPECT_VIEW = ("-c", "from inspect_ai._cli.main import main; main()", "view")


@contextlib.contextmanager
def serving(logs: Path) -> Iterator[tuple[str, int]]:
    """inspect_ai's viewer over a folder of logs: its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [INSPECT, *INSPECT_VIEW, "start", "--log-dir", str(logs), "--port", str(port)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, ends = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=PATIENCE).close()
                break
            except OSError:
                assert process.poll() is None, f"inspect view ended with {process.returncode}"
                assert time.monotonic() < ends, "inspect view did not start"
                time.sleep(0.5)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=120)


def use(viewer: Viewer, made: Made, folder: Path) -> dict[str, float]:
    """Open the list, filter it twice, open a sample: seconds of wall and of processor time, MiB."""
    seen: dict[str, float] = {}
    servers = [] if viewer.server is None else [viewer.server]
    with opened(folder, "about:blank", "--proxy-bypass-list=127.0.0.1", "--window-size=1400,1000") as tab:
        tab.call("Page.enable")
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH % json.dumps(viewer.row))
        before = tab.processor(*servers)
        tab.call("Page.navigate", url=viewer.address)

        def spent(what: str, seconds: float) -> None:
            nonlocal before
            now = tab.processor(*servers)
            seen[f"{what}, s"], seen[f"{what}, s of CPU"] = seconds, now - before
            before = now

        while not tab.evaluate("'firstRow' in window"):
            time.sleep(0.05)
        first = tab.evaluate("firstRow")
        seen["first paint, s"] = (
            tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1e3
        )
        spent("first row", first)
        seen["heap of the list, MiB"], seen["resident with the list, MiB"] = tab.heap(), tab.resident()
        for what, text, chosen, left in (
            ("text filter", viewer.text, False, made.sought),
            ("verdict filter", viewer.wrong, viewer.chosen, made.wrong),
        ):
            before = tab.processor(*servers)
            started = tab.evaluate("performance.now() / 1e3")
            enter(tab, viewer.focus, text, chosen)
            spent(what, waited(tab, f"({viewer.left}) === '{left}'") - started)
            if what == "text filter":
                enter(tab, viewer.focus, "", False)
                waited(tab, f"({viewer.left}) !== '{left}'")
        seen["resident after filters, MiB"] = tab.resident()
        before = tab.processor(*servers)
        started = tab.evaluate(f"document.querySelector({json.dumps(viewer.row)}).click(), performance.now() / 1e3")
        spent("one sample", waited(tab, SHOWS_COMPLETION) - started)
        seen["resident with the sample, MiB"] = tab.resident()
    return seen


WATCH = """
window.waitFor = (holds) => new Promise((resolve) => {
  const look = () => {
    let held = false;
    try { held = holds(); } catch (error) { if (!(error instanceof TypeError)) throw error; }  // not there yet
    if (held) { watcher.disconnect(); resolve(performance.now() / 1e3); }
  };
  const watcher = new MutationObserver(look);
  watcher.observe(document, { attributes: true, characterData: true, childList: true, subtree: true });
  look();
});
window.firstRow = waitFor(() => document.querySelector(%s) !== null);
"""
"""Waits for changes of the document rather than frame by frame: frames cost processor time, more of them where waiting
is longer."""
SHOWS_COMPLETION = r"/(\d+ ){100}/.test(document.body.textContent)"
"""Nothing but a completion is numbers in a row."""


def waited(tab: Tab, holds: str) -> float:
    """Seconds from the page's navigation until an expression holds, from now on, of the document."""
    late = f"new Promise((_, no) => setTimeout(() => no(new Error('not seen')), {PATIENCE * 900}))"
    return float(tab.evaluate(f"Promise.race([waitFor(() => {holds}), {late}])"))


def enter(tab: Tab, field: str, text: str, chosen: bool) -> None:
    """Put a text into a field in place of what it has, as a paste does; or run what chooses from a list."""
    if chosen:
        tab.evaluate(f"(() => {{ {text} }})()")
        return
    tab.evaluate(f"document.querySelector({json.dumps(field)}).focus()")
    tab.call("Input.dispatchKeyEvent", type="rawKeyDown", key="a", code="KeyA", modifiers=2, commands=["selectAll"])
    tab.call("Input.dispatchKeyEvent", type="keyUp", key="a", code="KeyA", modifiers=2)
    if text:
        tab.call("Input.insertText", text=text)
    else:
        tab.call(
            "Input.dispatchKeyEvent", type="rawKeyDown", key="Backspace", code="Backspace", windowsVirtualKeyCode=8
        )
        tab.call("Input.dispatchKeyEvent", type="keyUp", key="Backspace", code="Backspace")


def size(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB in {len(files)} files"
