"""What a run shows in Prefect's UI beside its states: log lines, a bar per stage, and the report."""

import base64
import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.text import Text

from pipeline.prefect_.client import SERVER_ERRORS
from pipeline.run.view import View
from stages.harness.documents import Note, Progress

LOG_EVERY_S = 15.0
BAR_EVERY_S = 3.0
NEW_LINES, LAST_LINES, MOST_BYTES, MOST_CHARACTERS = 10, 30, 65536, 300
MOST_PICTURES = 12
INK = "#808080"
"""Text of the scores' picture: readable on the UI's light and on its dark page."""


class PrefectView(View):
    """Shows a stage in Prefect: lines as log lines, progress as a bar, and what the stage itself prints.

    Of both only so much reaches Prefect's log as one can read there; the complete output is in the file that the first
    line names. The end of it is logged where the stage fails. A bar that the server does not take is left out.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._logger = get_run_logger()
        self._bar: UUID | None = None
        self._output = StageOutput(None)
        self._logged = self._drawn = 0.0

    def line(self, text: str) -> None:
        self._logger.info(Text.from_markup(text).plain.strip())

    def started(self, stage: str, log: str) -> None:
        self._logger.info("%s started; its complete output: %s", stage, log)
        self._output = StageOutput(Path(log))
        with self._bar_is_optional():
            made = create_progress_artifact(0.0, key=f"progress-{slug(stage)}", description=f"{stage}: starting")
            assert isinstance(made, UUID)  # called without an event loop, it is no coroutine
            self._bar = made

    def event(self, stage: str, event: Note | Progress) -> None:
        if isinstance(event, Note):
            self._logger.warning(event.message)
            return
        now = time.monotonic()
        done = event.total and event.step == event.total
        rounded = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in event.metrics.items()}
        metrics = "  ".join(f"{name} {value}" for name, value in rounded.items())
        text = f"{f'{event.phase} {event.count}'.rstrip()}  {metrics}".rstrip()
        if now - self._logged >= LOG_EVERY_S or done:
            self._logged = now
            self._logger.info(text)
            if printed := self._output.new_lines():
                self._logger.info("%s prints:\n%s", stage, printed)
        if event.total and (now - self._drawn >= BAR_EVERY_S or done):
            self._drawn = now
            self._draw(100.0 * event.step / event.total, f"{stage}: {text}")

    def ended(self, stage: str, text: str) -> None:
        plain = Text.from_markup(text).plain.strip()
        self._logger.info("%s %s", stage, plain)
        if plain.startswith("failed") and (printed := self._output.last_lines()):
            self._logger.error("%s printed last:\n%s", stage, printed)
        if plain.startswith("done"):
            self._draw(100.0, f"{stage}: {plain}")

    def _draw(self, percent: float, text: str) -> None:
        with self._bar_is_optional():
            if self._bar is not None:
                update_progress_artifact(self._bar, percent, description=text)

    @contextlib.contextmanager
    def _bar_is_optional(self) -> Iterator[None]:
        try:
            yield
        except SERVER_ERRORS as error:
            self._bar = None
            self._logger.warning("the server takes no bar (%s)", type(error).__name__)


class StageOutput:
    """What a stage's process prints into its log, a few lines at a time, without what an earlier attempt printed."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._offset = log.stat().st_size if log is not None and log.is_file() else 0

    def new_lines(self) -> str:
        """The last lines since the last call, and how many were left out before them."""
        lines, self._offset = self._read(self._offset)
        left_out = [f"({len(lines) - NEW_LINES} lines left out)"] if len(lines) > NEW_LINES else []
        return "\n".join([*left_out, *lines[-NEW_LINES:]])

    def last_lines(self) -> str:
        """The last lines of the whole log."""
        return "\n".join(self._read(-MOST_BYTES)[0][-LAST_LINES:])

    def _read(self, start: int) -> tuple[list[str], int]:
        """At most `MOST_BYTES` from `start`, or from so far before the end, as lines; and where the log ends.

        Empty lines are left out. Of a bar that was drawn again and again the last state counts.
        """
        if self._log is None or not self._log.is_file():
            return [], self._offset
        with open(self._log, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = file.seek(start if start >= 0 else max(0, end + start))
            text = file.read(max(0, min(MOST_BYTES, end - begin))).decode(errors="replace")
        lines = (line.rpartition("\r")[2].rstrip() for line in text.split("\n"))
        return [line[:MOST_CHARACTERS] for line in lines if line], end


def slug(text: str) -> str:
    """An artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def show_report(name: str, report: Path, page: Path) -> None:
    """The report as artifacts: its text, the results as a table, the scores' picture, and where the page is."""
    data = json.loads((report / "report.json").read_text(encoding="utf-8"))
    key = slug(name)
    text = (report / "report.md").read_text(encoding="utf-8")
    create_markdown_artifact(text, key=f"{key}-report", description=data["verdict"])
    rows = [
        {
            "benchmark": r["benchmark"],
            "checkpoint": r["checkpoint"],
            "score": f"{100 * r['value']:.1f} %",
            "95 % interval": f"[{100 * r['low']:.1f}, {100 * r['high']:.1f}]",
            "n": r["n"],
            "k": r["k"],
        }
        for r in data["results"]
    ]
    create_table_artifact(rows, key=f"{key}-results", description=data["verdict"])
    where = "The report, on the machine that made it"
    create_link_artifact(page.resolve().as_uri(), link_text=str(page), key=f"{key}-page", description=where)
    panels = re.findall(r"<svg.*?</svg>", (report / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    for number, panel in enumerate(panels[:MOST_PICTURES]):
        name, what = (f"curves-{number}", f"curves {number}") if number else ("scores", "scores with 95 % intervals")
        create_image_artifact(picture(panel), key=f"{key}-{name}", description=what)


def show_history(home: Path, name: str) -> None:
    """The scores of all runs of a pipeline as artifacts, a chart for each benchmark and checkpoint; none before its
    second run with scores."""
    from pipeline.history.collect import collect
    from pipeline.history.page import chart

    several = [series for series in collect(home, name).series if len(series.points) > 1]
    for series in several[:MOST_PICTURES]:
        key = slug(f"{name} history {series.benchmark} {series.checkpoint}")
        what = f"{series.benchmark}, {series.checkpoint}: scores of {len(series.points)} runs with 95 % intervals"
        create_image_artifact(picture(chart(series)), key=key, description=what)


def picture(svg: str) -> str:
    """A figure of the report as a URL that holds it."""
    drawn = svg.replace("currentColor", INK)
    if "xmlns=" not in drawn:
        drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"
