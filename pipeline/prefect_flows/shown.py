"""What a run shows in Prefect's UI beside its states: log lines, a bar per stage, the report, and alerts."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any
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
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from rich.text import Text

from pipeline.config import PipelineConfig
from pipeline.execute import Executor
from pipeline.progress import View
from pipeline.runs import RunRecord
from pipeline.watch import alert_text

LOG_EVERY_S = 15.0
BAR_EVERY_S = 3.0
INK = "#808080"
"""Text of the scores' picture: readable on the UI's light and on its dark page."""


class PrefectView(View):
    """Shows a stage where `inner` shows it, and in Prefect: lines as log lines (progress at most every quarter of a minute; the complete
    output is in the log file that the first line names), and progress as a bar."""

    def __init__(self, inner: View, stage: str) -> None:
        self.inner, self.stage = inner, stage
        self._logger = get_run_logger()
        self._bar: UUID | None = None
        self._logged = self._drawn = 0.0

    @classmethod
    def around(cls, executor: Executor, stage: str) -> Executor:
        """The executor that shows this stage here too."""
        return executor.seen_by(cls(executor.view, stage))

    def line(self, text: str) -> None:
        self.inner.line(text)
        self._logger.info(Text.from_markup(text).plain.strip())

    def started(self, stage: str, log: str) -> None:
        self.inner.started(stage, log)
        self._logger.info("%s started; its complete output: %s", stage, log)
        made = create_progress_artifact(0.0, key=f"progress-{slug(stage)}", description=f"{stage}: starting")
        assert isinstance(made, UUID)  # called without an event loop, it is no coroutine
        self._bar = made

    def event(self, stage: str, event: dict[str, Any]) -> None:
        self.inner.event(stage, event)
        if event["event"] == "note":
            self._logger.warning(event["message"])
            return
        now = time.monotonic()
        done = event["total"] and event["step"] == event["total"]
        of = f"/{event['total']}" if event["total"] else ""
        text = f"{event['phase']} {event['step']}{of}"
        if now - self._logged >= LOG_EVERY_S or done:
            self._logged = now
            metrics = "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in event["metrics"].items()
            )
            self._logger.info(f"{text}  {metrics}".rstrip())
        if self._bar is not None and event["total"] and (now - self._drawn >= BAR_EVERY_S or done):
            self._drawn = now
            update_progress_artifact(self._bar, 100.0 * event["step"] / event["total"], description=f"{stage}: {text}")

    def ended(self, stage: str, text: str) -> None:
        self.inner.ended(stage, text)
        plain = Text.from_markup(text).plain.strip()
        self._logger.info("%s %s", stage, plain)
        if self._bar is not None and plain.startswith("done"):
            update_progress_artifact(self._bar, 100.0, description=f"{stage}: {plain}")


def slug(text: str) -> str:
    """An artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def show_report(name: str, report: Path, page: Path) -> None:
    """The report as artifacts: its text, the results as a table, the scores' picture, and where the page is."""
    data = json.loads((report / "report.json").read_text(encoding="utf-8"))
    key = slug(name)
    create_markdown_artifact((report / "report.md").read_text(encoding="utf-8"), key=f"{key}-report", description=data["verdict"])
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
    create_link_artifact(
        page.resolve().as_uri(), link_text=str(page), key=f"{key}-page", description="The report, on the machine that made it"
    )
    drawn = re.search(r"<svg.*?</svg>", (report / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    if drawn is not None:
        picture = (
            drawn[0]
            .replace("currentColor", INK)
            .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1 if "xmlns=" not in drawn[0] else 0)
        )
        encoded = base64.b64encode(picture.encode()).decode()
        create_image_artifact(f"data:image/svg+xml;base64,{encoded}", key=f"{key}-scores", description="Scores with 95 % intervals")


def show_alerts(config: PipelineConfig, record: RunRecord) -> None:
    """Where a score has left its predecessor's interval: a flagged artifact, a warning in the log, and a notification, if one is set up."""
    moved = record.data.get("moved") or []
    if not moved:
        return
    text = alert_text(config.name, record.data)
    create_markdown_artifact(
        text, key=f"{slug(config.name)}-alert", description=f"FLAGGED: {len(moved)} scores left their predecessor's interval"
    )
    get_run_logger().warning(text)
    if config.execution.notify is not None:
        block = Block.load(config.execution.notify)
        assert isinstance(block, NotificationBlock), f"{config.execution.notify} is a {type(block).__name__}, which cannot notify"
        send: Any = block.notify  # a coroutine only inside an event loop
        send(text, subject=f"vcore: scores of {config.name} moved")
