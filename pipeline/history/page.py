"""Draws a history as one page: for each benchmark and checkpoint a chart of its scores over the runs, and a table."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from pipeline.history.documents import History, Point, Series
from pipeline.history.view import explanation, rows
from stages.report.render import figures as drawing
from stages.report.render.figures import GREY, INK, Figure
from stages.report.render.pages import render
from stages.report.render.tables import Column, Table

PAGE = "history.html"
MOST_DATES = 8
"""Dates below a chart."""
MOST_BARS = 60
"""Runs whose intervals are drawn one by one; those of more are a band."""
_COLUMNS = (
    Column("run", "free"),
    Column("started"),
    Column("seed", "number"),
    Column("score", "score"),
    Column("change", "interval"),
    Column("problems"),
    Column("note", "free"),
)


def write_page(history: History, folder: Path, name: str = PAGE, back: str = "") -> Path:
    """Write `history.html` into the folder, which is made if it is missing; returns the file. Links lead to the reports
    of the runs.

    Args:
        name: of the file, where it is another.
        back: the page that this one belongs to, where it does, relative to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        "back": back,
        "title": f"{history.name}: scores over {history.runs} runs",
        "explanation": explanation(history),
        "trouble": history.trouble,
        "series": [
            {"name": f"{s.benchmark}, {s.checkpoint}", "figure": _figure(i, s), "table": _table(history, s, folder)}
            for i, s in enumerate(history.series)
        ],
    }
    page = folder / name
    page.write_text(render(Path(__file__).parent, f"{PAGE}.j2", variables), encoding="utf-8")
    return page


def chart(series: Series) -> str:
    """The chart of one series alone, as an `<svg>` element."""
    return _figure(0, series).panels[0]


def _table(history: History, series: Series, folder: Path) -> Table:
    def cells(row: Any) -> list[Any]:
        seed = "" if row.first.seed is None else str(row.first.seed)
        run = _linked(Path(history.home), row.first.run, row.runs, folder)
        return [run, row.first.started[:16], seed, (row.score, row.bounds), row.change, row.problems, row.note]

    return Table(_COLUMNS, [cells(row) for row in reversed(list(rows(series)))])


def _linked(home: Path, run: str, text: str, folder: Path) -> Markup:
    """The text as a link to the run's report, where it has one."""
    report = home / "runs" / run / "report.html"
    if not report.is_file():
        return escape(text)
    target = os.path.relpath(report.resolve(), folder.resolve())
    return Markup('<a href="{}">{}</a>').format(target, text)


def _figure(index: int, series: Series) -> Figure:
    points = series.points
    seeds = list(dict.fromkeys(point.seed for point in points))
    blessed = [place for place, point in enumerate(points) if point.blessed]
    alerts = [place for place, point in enumerate(points) if point.alerts]
    changes = [place for place, point in enumerate(points) if point.protocol_change is not None]

    def draw(axes: Any) -> None:
        for number, seed in enumerate(seeds):
            colour, marker = drawing.CHECKPOINTS[(number + 1) % len(drawing.CHECKPOINTS)]
            for places in _same_protocol(points, seed):
                values, lows, highs = (
                    [100 * getattr(points[place], name) for place in places] for name in ("value", "low", "high")
                )
                if len(points) > MOST_BARS:  # bars would be a wall
                    axes.fill_between(places, lows, highs, color=colour, alpha=0.25, lw=0)
                    axes.plot(places, values, "-", color=colour, lw=1)
                else:
                    spread = [[v - low for v, low in zip(values, lows, strict=True)]]
                    spread += [[high - v for v, high in zip(values, highs, strict=True)]]
                    look = {"fmt": f"{marker}-", "color": colour, "markersize": 5, "lw": 0.8, "elinewidth": 0.8}
                    axes.errorbar(places, values, yerr=spread, capsize=2, **look)
                reference = next((100 * points[place].value for place in places if _is_reference(points[place])), None)
                if reference is not None:
                    axes.hlines(reference, places[0], places[-1], color=GREY, ls=":", lw=1)
            axes.plot([], [], f"{marker}-", color=colour, label=f"seed {seed}")
        for number, place in enumerate(changes):
            label = "protocol changed" if number == 0 else None
            axes.axvline(place - 0.5, color=INK, ls="--", lw=1, label=label)
        axes.plot([], [], color=GREY, ls=":", label="reference")
        for marker, label, marked in (("*", "blessed", blessed), ("X", "alert", alerts)):
            if marked:
                values = [100 * points[place].value for place in marked]
                axes.plot(marked, values, marker, color=INK, markersize=8, label=label, zorder=3)
        step = max(1, -(-len(points) // MOST_DATES))
        shown = range(0, len(points), step)
        axes.set_xticks(list(shown), [points[place].started[:10] for place in shown], rotation=30, ha="right")
        axes.set_xlim(-0.7, len(points) - 0.3)
        axes.set_ylabel("score, %")
        axes.grid(axis="y", alpha=0.25, color=INK)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(5, len(seeds) + 4), fontsize=9)

    first, last = points[0], points[-1]
    alt = (
        f"{series.benchmark}, {series.checkpoint}: scores of {len(points)} runs with 95 % intervals, from "
        f"{100 * first.value:.1f} to {100 * last.value:.1f} per cent; protocol changed {len(changes)} times, "
        f"{len(alerts)} alerts"
    )
    name = re.sub(r"\W+", "-", f"history-{index}-{series.benchmark}-{series.checkpoint}")
    return Figure("", [drawing.svg(draw, 9.0, 3.2, name, alt)])


def _is_reference(point: Point) -> bool:
    return point.change is None and not point.why_no_change


def _same_protocol(points: list[Point], seed: int | None) -> Iterator[list[int]]:
    """Places of the points of one seed, split where the protocol changed."""
    places: list[int] = []
    for place, point in enumerate(points):
        if point.seed != seed:
            continue
        if point.protocol_change is not None and places:
            yield places
            places = []
        places.append(place)
    if places:
        yield places
