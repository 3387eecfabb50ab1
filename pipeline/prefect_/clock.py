"""When a schedule starts runs: its next times, and what happens when the clocks change.

All of it is asked of Prefect's own schedule and nothing computed beside it: this is what its server does.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from prefect.client.schemas.schedules import CronSchedule
from prefect.server.schemas import schedules

AHEAD = timedelta(days=366)
AROUND = timedelta(hours=4)
"""How far from a change of the clocks a run may be moved: the largest there have been are of two hours."""
MOST_CHANGES = 2
SAMPLE = 600
"""At most so many times are asked for: Prefect gives up after 1,000."""


def next_times(schedule: CronSchedule, count: int = 3) -> list[datetime]:
    """When a schedule starts runs next, in its own time zone. Raises `ValueError` where it never does."""
    return _plain(schedules.CronSchedule(cron=schedule.cron, timezone=schedule.timezone), n=count)


@dataclasses.dataclass(frozen=True)
class ClockChange:
    """One change of a zone's clocks: the moment, and what they show just before and from then on."""

    at: datetime
    before: datetime
    after: datetime

    @property
    def forward(self) -> bool:
        """Whether they go forward, so that times are left out; else times come twice."""
        return self.after > self.before


def clock_changes(timezone: str, start: datetime) -> Iterator[ClockChange]:
    """The changes of a zone's clocks in the year after `start`, which has a zone."""
    zone, end = ZoneInfo(timezone), start + AHEAD
    low = start
    while low < end:
        high = low + timedelta(days=1)
        if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
            early, late = low, high
            while late - early > timedelta(seconds=1):
                middle = early + (late - early) / 2
                if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
                    early = middle
                else:
                    late = middle
            at = late.replace(microsecond=0).astimezone(UTC)
            offset = low.astimezone(zone).utcoffset()
            assert offset is not None
            before = (at + offset).replace(tzinfo=None)
            yield ClockChange(at, before, at.astimezone(zone).replace(tzinfo=None))
        low = high


def at_clock_changes(schedule: CronSchedule, start: datetime) -> list[str]:
    """What a schedule does at the next changes of its zone's clocks that touch it, a sentence each; at most two.

    A change touches a schedule if the cron line names a time that is left out on that day, or comes twice.
    """
    timezone = schedule.timezone or "UTC"
    said = (_at_change(schedule.cron, timezone, change) for change in clock_changes(timezone, start))
    return list(itertools.islice(filter(None, said), MOST_CHANGES))


def _at_change(cron: str, timezone: str, change: ClockChange) -> str | None:
    first, end = sorted((change.before, change.after))
    named = _dates(cron, "UTC", first.replace(tzinfo=UTC), end.replace(tzinfo=UTC))
    if not named:
        return None
    zone = ZoneInfo(timezone)
    starts = [date.astimezone(zone) for date in _dates(cron, timezone, change.at - AROUND, change.at + AROUND)]
    change_of = f"when the clocks go from {change.before:%H:%M} to {change.after:%H:%M}"
    clocks = f"On {change.at.astimezone(zone):%a %d %b %Y}, {change_of}, {_times(named)}"
    if change.forward:
        beside = (change.before - AROUND, change.before), (change.after, change.after + AROUND)
        usual = {d.replace(tzinfo=None) for a, b in beside for d in _dates(cron, "UTC", _utc(a), _utc(b))}
        moved = [date for date in starts if date.replace(tzinfo=None) not in usual]
        left_out = f"{clocks} {'is' if len(named) == 1 else 'are'} left out"
        if not moved:
            return f"{left_out}, and no run starts instead"
        return f"{left_out}; instead, {'a run starts' if len(moved) == 1 else 'runs start'} at {_times(moved)}"
    twice = [date for date in starts if first <= date.replace(tzinfo=None) < end]
    comes = f"{clocks} {'comes' if len(named) == 1 else 'come'} twice"
    if len(twice) > len(named):
        return f"{comes}, and a run starts each time"
    which = {date < change.at for date in twice}
    return f"{comes}, and a run starts {'the first' if which == {True} else 'the second'} time only"


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC)


def _dates(cron: str, timezone: str, start: datetime, end: datetime) -> list[datetime]:
    """The times of a cron line from `start` up to, not including, `end`."""
    schedule = schedules.CronSchedule(cron=cron, timezone=timezone)
    return _plain(schedule, n=SAMPLE, start=start, end=end - timedelta(seconds=1))


def _plain(schedule: schedules.CronSchedule, **asked: Any) -> list[datetime]:
    """The schedule's times in its zone, as Python's own datetimes: those of Prefect warn of some of their methods."""
    zone = ZoneInfo(schedule.timezone or "UTC")
    return [datetime.fromtimestamp(date.timestamp(), zone) for date in asyncio.run(schedule.get_dates(**asked))]


def _times(dates: list[datetime]) -> str:
    """`02:30`, or the first and the last of several."""
    times = [f"{date:%H:%M}" for date in dates]
    return times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"
