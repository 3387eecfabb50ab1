"""What is said of a schedule at changes of the clocks, and that it is what Prefect's scheduler does."""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas import schedules

from pipeline.prefect_.clock import at_clock_changes, clock_changes
from pipeline.prefect_.schedule import cron_schedule

START = datetime(2026, 11, 29, tzinfo=UTC)
BERLIN_SPRING = "On Sun 28 Mar 2027, when the clocks go from 02:00 to 03:00, "
BERLIN_AUTUMN = "On Sun 31 Oct 2027, when the clocks go from 03:00 to 02:00, "


@pytest.mark.parametrize(
    ("cron", "timezone", "said"),
    [
        ("0 2 * * *", "UTC", []),
        ("0 2 * * *", "Asia/Kolkata", []),
        ("0 4 * * *", "Europe/Berlin", []),
        ("30 2 * * mon", "Europe/Berlin", []),
        (
            "30 2 * * *",
            "Europe/Berlin",
            [
                f"{BERLIN_SPRING}02:30 is left out; instead, a run starts at 03:30",
                f"{BERLIN_AUTUMN}02:30 comes twice, and a run starts the first time only",
            ],
        ),
        (
            "*/20 * * * *",
            "Europe/Berlin",
            [
                f"{BERLIN_SPRING}02:00 to 02:40 are left out, and no run starts instead",
                f"{BERLIN_AUTUMN}02:00 to 02:40 come twice, and a run starts the first time only",
            ],
        ),
        (
            "10 2 * * *",
            "Australia/Lord_Howe",  # by half an hour, and in the other half of the year
            [
                "On Sun 03 Oct 2027, when the clocks go from 02:00 to 02:30, 02:10 is left out; "
                "instead, a run starts at 02:40"
            ],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            [
                "On Sun 07 Nov 2027, when the clocks go from 02:00 to 01:00, 01:30 comes twice, "
                "and a run starts the first time only"
            ],
        ),
    ],
)
def test_what_a_schedule_does_at_changes_of_the_clocks_is_said(cron: str, timezone: str, said: list[str]) -> None:
    assert at_clock_changes(cron_schedule(cron, timezone), START) == said


@pytest.mark.parametrize("hours_before", [1, 5, 30, 24 * 90])
@pytest.mark.parametrize(
    ("spring", "runs"), [(True, ["28 03:30+0200"]), (False, ["31 02:30+0200"])], ids=["spring", "autumn"]
)
def test_the_scheduler_does_what_is_said_whenever_it_plans_the_day(
    spring: bool, runs: list[str], hours_before: int
) -> None:
    change = next(c for c in clock_changes("Europe/Berlin", START) if c.forward == spring)
    schedule = schedules.CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin")
    start = change.at - timedelta(hours=hours_before)
    dates = asyncio.run(schedule.get_dates(n=200, start=start, end=change.at + timedelta(hours=12)))
    near = [date.astimezone(ZoneInfo("Europe/Berlin")) for date in dates if date > change.at - timedelta(hours=12)]
    assert [f"{date:%d %H:%M%z}" for date in near] == runs
