"""What is written about a run: its record, `run.json`."""

from pydantic import ConfigDict

from evaluation.gates.verdict import Verdict
from pipeline.store.documents import OutsideInput
from stages.harness.documents import Document


class PlannedEntry(Document):
    """One stage of a run's plan, as `vcore plan --json` shows it."""

    stage: str = ""
    state: str = ""  # HIT, RUN, RESUME or WAIT
    reason: str = ""
    key: str | None  # None while it waits for an input
    last_seconds: float | None = None
    folder: str | None = None  # of the artifact that the plan names for the stage


class StageEntry(Document):
    """One stage of a run that has its artifact."""

    name: str
    key: str
    state: str  # `ran` or `cached`
    seconds: float = 0.0  # of its computation, whenever that was
    peak_memory_gib: float = 0.0  # the most resident memory that its largest process had; 0 where not known
    accepted: str = ""  # what differs from what was asked for, where `--rerun-triggers` let it pass
    folder: str = ""  # of its artifact


class MovedScore(Document):
    """A score that differs from a yardstick beyond chance, or that could not be held against the anchor."""

    benchmark: str
    checkpoint: str
    against: str = ""  # `anchor` or `window`; empty in records of older versions, which held against the run before
    reference: str = ""  # the anchor's run or file, or the runs of the window
    before: float = 0.0  # share of right samples of the yardstick
    after: float = 0.0  # of this run, on the same problems
    low: float = 0.0  # bounds of the 95 % interval of after - before
    high: float = 0.0
    p_value: float = 1.0  # two-sided, by Holm's method over all tests of the run
    level: float = 0.0  # that it was held against: what this look may spend
    reason: str = ""  # why it was not compared; empty where it was


class GateVerdict(Document):
    """What the gate says of one check. Shares, differences and margins are in -1..1."""

    benchmark: str
    checkpoint: str
    tier: str  # `critical` or `advisory`
    asked: str  # in words
    against: str  # what it was compared with; empty for a bound on a rate
    verdict: Verdict
    reason: str = ""  # why it could not be compared, or which rate is above its bound
    difference: float | None = None  # after - before; None, as all below, where nothing was compared
    low: float | None = None  # bounds of the 95 % interval of the difference
    high: float | None = None
    n: int | None = None  # problems
    samples: int | None = None  # of each problem, of the checkpoint
    samples_before: int | None = None  # of what it was compared with
    looks: int | None = None  # that there may be, with more samples each time; the p-values are times as much
    p_pass: float | None = None  # PASS where at most `level`
    p_fail: float | None = None  # by Holm's method; FAIL where at most `level_fail`
    level: float | None = None
    level_fail: float | None = None
    detectable: float | None = None  # minimum detectable effect at 80 % power
    problems_needed: int | None = None  # that would decide, of an UNDECIDED one


class FurtherSamples(Document):
    """More samples of one checkpoint on one benchmark than the config asks for, since a check was undecided."""

    checkpoint: str  # of a baseline `RUN:sft`
    benchmark: str
    samples: int  # of each problem, those of the run among them
    generations: str  # key of the artifact
    scores: str | None = None  # likewise; None until they are graded


class RunRecordDocument(Document):
    """`run.json`: what a run was asked for, and what came of it. Times are ISO 8601 in UTC."""

    model_config = ConfigDict(frozen=False)

    id: str  # name of the run's folder: time of its start, and the pipeline
    name: str  # of the pipeline
    command: str
    pid: int = 0
    host: str = ""
    started: str
    ended: str | None = None
    status: str  # `running`, `done`, `failed` or `interrupted`; read back also `killed`
    error: str | None = None
    plan: list[PlannedEntry]
    stages: list[StageEntry]
    under_way: list[str] | None = None  # stages that began and have no artifact yet; None in records of older versions
    outside: dict[str, OutsideInput] = {}  # what the stages read from outside the store, by its label
    anchor: str | None = None  # the run or file that this one's scores were held against
    anchor_blessed: bool = False  # whether somebody chose it; otherwise it is the first run of its kind
    look: int | None = None  # the how manieth different result this is at that anchor, from 1
    moved: list[MovedScore] | None = None  # the result of that comparison; None before it
    gate: list[GateVerdict] | None = None  # verdicts on the checks of the config; None where none was judged
    further: list[FurtherSamples] = []  # with which undecided checks were judged again

    @property
    def left(self) -> list[str]:
        """The stages of the plan that have no artifact, in order: those under way, and those not reached."""
        made = {stage.name for stage in self.stages}
        return [planned.stage for planned in self.plan if planned.stage and planned.stage not in made]

    @property
    def at(self) -> list[str]:
        """The stages that the run is at, or was at when it ended. A record that does not say ran one after the
        other."""
        return self.left[:1] if self.under_way is None else [name for name in self.left if name in self.under_way]
