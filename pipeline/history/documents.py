"""What a history holds: for each benchmark and checkpoint, a score of every run that measured it."""

from pydantic import Field

from stages.harness.documents import Document


class RecordedMeasurement(Document):
    """One benchmark's entry in the metrics.json of a score artifact, or a result of a report.json."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    k: int
    protocol: str
    protocol_details: dict[str, object] = {}


class Change(Document):
    """A run's score against that of its reference on the same problems, after - before."""

    reference: str  # id of the run it is compared with
    difference: float
    low: float  # bounds of the 95 % interval of the difference
    high: float
    improved: int  # problems with a larger share of right samples
    worsened: int  # problems with a smaller share of right samples

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0. Of many runs one in twenty does so by chance."""
        return self.low > 0 or self.high < 0


class Point(Document):
    """The score of one run."""

    run: str
    started: str  # ISO 8601, UTC
    status: str  # of the run
    seed: int | None  # None where the run's config cannot be read
    key: str  # of the score artifact
    metric: str
    value: float
    low: float  # bounds of the 95 % interval over problems
    high: float
    n: int  # problems
    k: int  # samples of each
    protocol: str
    blessed: bool = False  # whether the run is the one that was blessed for its seed
    alerts: list[str] = []  # the yardsticks that it had moved from beyond chance: `anchor`, `window`
    protocol_change: list[str] | None = None  # where it differs from the run before of this seed; None: nowhere
    change: Change | None = None  # None of the reference itself, and where the two cannot be compared
    why_no_change: str = ""  # why they cannot; empty for the reference


class Series(Document):
    """One checkpoint on one benchmark over the runs, oldest first."""

    benchmark: str
    checkpoint: str
    points: list[Point]


class History(Document):
    """Every score of one pipeline's runs."""

    name: str
    home: str
    runs: int  # records of this pipeline, with scores or without
    series: list[Series]
    trouble: list[str] = Field(default=[])  # what could not be read, a line each
