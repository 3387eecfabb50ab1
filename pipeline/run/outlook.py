"""When a run will end, and what it will cost in GPU hours, by what its stages took when they were last computed."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

from evaluation.harness.pace import in_words
from pipeline.config.execution import ExecutionSettings
from pipeline.launch.machine import leased_gpus
from pipeline.plan.planning import Planned

WORTH_SAYING_S = 30.0
"""What takes less is over before it is read."""


def outlook(
    plan: Sequence[Planned],
    execution: ExecutionSettings,
    done: Collection[str] = (),
    now: datetime.datetime | None = None,
) -> str:
    """One line on what is left of a plan: how long that took last time, when it will have ended, GPU hours, and of
    which stages no time is known. Empty where that is little, or nothing. It is no bound: a stage that waits may turn
    out to be there, and one that continued, or took samples over, was computed in less than it takes as a whole.

    Args:
        done: stages that have their artifact by now, beside those that the plan found.
        now: for the time of day, which is local; None takes the clock.
    """
    left = [one for one in plan if one.state != "HIT" and one.stage.name not in done]
    known = {one.stage.name: one.last_seconds for one in left if one.last_seconds is not None}
    untimed = [one.stage.name for one in left if one.stage.name not in known]
    seconds = sum(known.values())
    if seconds < WORTH_SAYING_S:
        return ""
    end = (now or datetime.datetime.now().astimezone()) + datetime.timedelta(seconds=seconds)
    text = f"about {in_words(seconds)} left, judging by the last time these stages ran"
    if not untimed:
        text += f"; done at about {end:%H:%M}" + (f" on {end:%A}" if seconds > 12 * 3600 else "")
    hours = sum(leased_gpus(execution, one.stage) * known.get(one.stage.name, 0.0) for one in left) / 3600
    text += f"; {hours:.1f} GPU hours" if hours else ""
    return text + (f"; not known of {', '.join(untimed)}" if untimed else "")
