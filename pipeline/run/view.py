"""What a person sees while stages run: one live line per stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich import progress as bars
from rich.console import Console
from rich.markup import escape

from stages.harness.documents import Note, Progress

PLAIN_EVERY_S = 10.0


class View:
    """Shows stages starting, progressing and ending. On a terminal each running stage has a bar with step, metrics and
    time left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._live: bars.Progress | None = None
        if self.console.is_terminal:
            self._live = bars.Progress(
                bars.TextColumn("  {task.description:<15}"),
                bars.BarColumn(bar_width=24),
                bars.TextColumn("{task.fields[text]}"),
                bars.TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
            )
        self._bars: dict[str, bars.TaskID] = {}
        self._last_plain: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def line(self, text: str) -> None:
        """One permanent line. `text` is rich markup."""
        self.console.print(text, soft_wrap=True)

    def started(self, stage: str, log: str) -> None:
        if self._live:
            self._bars[stage] = self._live.add_task(stage, total=None, text="starting")
        else:
            self.line(f"  {stage:<15} started, log {escape(log)}")

    def event(self, stage: str, event: Note | Progress) -> None:
        if isinstance(event, Note):
            self.line(f"  {stage:<15} [yellow]{escape(event.message)}[/]")
            return
        metrics = "  ".join(f"{name} {_number(value)}" for name, value in event.metrics.items())
        text = f"{f'{event.phase} {event.count}'.rstrip()}  {metrics}".rstrip()
        if self._live:
            self._live.update(self._bars[stage], total=event.total, completed=event.step, text=escape(text))
            return
        now = time.monotonic()
        last, phase = self._last_plain.get(stage, (0.0, ""))
        if now - last >= PLAIN_EVERY_S or phase != event.phase:
            self._last_plain[stage] = (now, event.phase)
            self.line(f"  {stage:<15} {escape(text)}")

    def ended(self, stage: str, text: str) -> None:
        if self._live and stage in self._bars:
            self._live.remove_task(self._bars.pop(stage))
        self.line(f"  {stage:<15} {text}")


def _number(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return format(value, "," if isinstance(value, int) else ",.0f" if abs(value) >= 1000 else ".3g")
