"""How long a stopped stage has to save its state before it is killed."""

import collections

from stages.harness.documents import Note, Progress

LEAST_S = 60.0
MARGIN = 2.0
"""A step may take longer than the one before it: a rollout ends with its longest completion."""
BYTES_PER_S = 200e6
"""What a network disk takes at least while a state is written."""


class Grace:
    """Seconds by what a stage has shown of its pace: it may stop after whole steps only, and then writes its state."""

    def __init__(self, fixed: float | None, steps: int = 1, saved_bytes: int = 0) -> None:
        """
        Args:
            fixed: what the config says, instead of all else.
            steps: how many may pass between two at which the stage can stop; those of a rollout in RL.
            saved_bytes: of one saved state; 0 where that is not known.
        """
        self.fixed, self.saved_bytes = fixed, saved_bytes
        self._durations: collections.deque[float] = collections.deque(maxlen=steps)
        self._last: Progress | None = None

    def see(self, event: Note | Progress) -> None:
        """Take account of an event of the stage."""
        if not isinstance(event, Progress):
            return
        last, self._last = self._last, event
        if last is None or last.phase != event.phase or event.step < last.step:
            self._durations.clear()
        elif event.step > last.step:
            steps = event.step - last.step
            each = max(0.0, event.time - last.time) / steps
            self._durations.extend([each] * min(steps, self._durations.maxlen or 1))
        else:
            self._last = last  # nothing was done meanwhile: the step goes on

    @property
    def seconds(self) -> float:
        """Where nothing is known of its steps, it has none to lose but those it is at."""
        if self.fixed is not None:
            return self.fixed
        return max(LEAST_S, MARGIN * sum(self._durations) + self.saved_bytes / BYTES_PER_S)
