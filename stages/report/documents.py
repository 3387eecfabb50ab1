"""report.json, typed: what the report of a run says. All its forms are rendered from it, so they cannot disagree."""

from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, ValidationError

from evaluation.records import Generation, Problem, Score
from stages.harness.documents import Document

REPORT_FILES = ("report.html", "report.md", "report.json", "report.csv", "report.tex")
"""What the report of a run or a sweep consists of."""
Outside = dict[str, dict[str, str]]
"""What was read from outside the store -> {sha256} of a file or folder, or {hub, commit} of a repository."""


class DocumentError(ValueError):
    """A file that does not hold the document it should. The message names the file and the first wrong field."""


class ReportDocument(Document):
    """Base of what belongs to a report. A field that this version does not know is left out."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The document in a file.

        Raises:
            OSError: the file cannot be read.
            DocumentError: what is in it is damaged, or another document.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DocumentError(f"{path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a document: `'digest' is missing`, `results.0.n: Input should be ...`."""
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return f"'{place}' is missing" if problem["type"] == "missing" else f"{place}: {problem['msg']}".removeprefix(": ")


def is_none(value: object) -> bool:
    """For `Field(exclude_if=...)`: such a field is left out of the file where it is None."""
    return value is None


class ReportedHardware(ReportDocument):
    """The machine that a stage was computed on."""

    cpu: str
    cores: int  # CPU cores that the process could use
    memory_gib: float
    gpu: list[str]  # name and memory of each GPU of the machine, whether or not the stage used it
    system: str | None = Field(default=None, exclude_if=is_none)  # operating system and architecture

    @property
    def line(self) -> str:
        """`a CPU, 2 cores, 24.0 GiB, a GPU`"""
        return ", ".join([self.cpu, f"{self.cores} cores", f"{self.memory_gib} GiB", *self.gpu])


class ReportedGit(ReportDocument):
    """The checkout that a stage was computed by; without one, both fields are None."""

    commit: str | None
    dirty: bool | None  # whether the work tree had uncommitted changes

    @property
    def short(self) -> str:
        """`0123456789ab`, with a `+` where the work tree had uncommitted changes; empty without a checkout."""
        return f"{self.commit[:12]}{'+' if self.dirty else ''}" if self.commit else ""


class Cost(ReportDocument):
    """What one stage cost, or several together, or their mean."""

    seconds: float = 0.0  # wall time
    gpu_hours: float = 0.0  # GPUs that the stage held x hours; 0 on a CPU
    trained: int | float = 0  # tokens trained on without padding; in RL prompts included
    sampled: int | float = 0  # completion tokens sampled to evaluate, or to choose prompts


class ReportedStage(ReportDocument):
    """One stage of the run, as the manifest of its artifact describes it."""

    name: str
    state: str  # `ran` or `cached` in the run that made this report
    key: str
    digest: str  # of the artifact's content
    started: str
    seconds: float  # wall time of its computation, whenever that was
    peak_memory_gib: float = 0.0  # the most resident memory that its largest process had; 0 where not known
    comes_back: str = ""  # on the same machine: `bit for bit`, `to rounding`; empty where nobody can say
    inputs: dict[str, dict[str, str]]  # input name -> {stage, key, digest}
    outside: Outside = {}  # what it read from outside the store
    settings: dict[str, Any]  # those of its settings that enter its key
    metrics: dict[str, Any]  # numbers that the stage measured of itself
    proof: dict[str, Any]  # what shows that the stage did its work
    versions: dict[str, str]  # library -> installed version
    hardware: ReportedHardware
    git: ReportedGit
    cost: Cost = Cost()
    curve: list[dict[str, Any]] = Field(default=[], exclude=True)  # rows, each with `step`; not in report.json


class Measurement(ReportDocument):
    """A checkpoint on a benchmark, as its score stage measured it."""

    checkpoint: str
    benchmark: str
    metric: str  # what `value` is: `accuracy`, `pass@1`, or `avg@k` over several samples
    value: float  # share of right samples, between 0 and 1
    low: float  # lower end of the 95 % interval over problems
    high: float  # upper end of the 95 % interval over problems
    n: int  # problems
    k: int  # samples of each problem
    protocol: str  # fingerprint of how it was measured; different protocols do not compare
    verdicts: dict[str, int]  # verdict of the grader -> number of samples
    truncated: int  # samples that ended at the token limit
    no_answer: int  # samples in which no answer could be found
    prompt_too_long: int  # samples that were not taken: the prompt did not fit the context

    @property
    def samples(self) -> int:
        """Of all problems together."""
        return self.n * self.k


class BenchmarkResult(Measurement):
    """One cell of the results table."""

    completion_tokens: float  # mean over samples, in tokens of the checkpoint's own tokenizer
    pass_at: dict[str, dict[str, float]] = {}  # k -> {value, low, high} of pass@k; empty for a single sample
    not_graded: dict[str, str] = {}  # problem that is refused by name -> the reason; its samples count as not right
    thinking: dict[str, int] = {}  # how thoughts ended -> number of samples; empty without a thinking budget
    majority: dict[str, float] = {}  # {value, low, high} of the samples' vote; empty for a single sample and for code
    protocol_details: dict[str, Any]  # what `protocol` is the fingerprint of
    split: str = ""  # the split that was sampled; empty where the protocol does not say


class ReportedComparison(ReportDocument):
    """Two checkpoints on the same problems. A plain one has no difference, because their protocols are not the same."""

    benchmark: str
    before: str
    after: str
    verdict: str  # `higher`, `lower`, `not distinguishable` or `different protocols`


class PairedComparison(ReportedComparison):
    """Two checkpoints, compared problem by problem."""

    exact: bool = True  # whether the p-value is exact, not of a normal approximation
    difference: float  # of the shares of right samples, after - before
    low: float  # lower end of the 95 % interval of the difference
    high: float  # upper end of the 95 % interval of the difference
    p_value: float
    n: int  # problems
    improved: int  # problems with a larger share of right samples than before
    worsened: int  # problems with a smaller share of right samples than before
    test: str = ""  # the test that `p_value` is of


class Transcript(ReportDocument):
    """One answer; texts in full, or with their middle left out."""

    checkpoint: str
    problem: Problem
    generation: Generation
    score: Score


class WeightedRow(ReportDocument):
    """One training trajectory with what SFT's method made of its tokens before optimizer step `step` + 1."""

    step: int
    prompt: str
    tokens: list[str]
    weights: list[float]  # factor on each token's loss; 1 is what plain SFT gives it
    losses: list[float]  # in nats, under the model of that time


class Report(ReportDocument):
    """Everything that the report shows. `results` and `stages` of report.json are a contract with scripts."""

    title: str
    verdict: str  # one sentence on which steps of the pipeline made a difference
    seed: int
    command: str  # the command that made the run; empty where that is not known
    results: list[BenchmarkResult]  # by checkpoint in the order of training, then benchmark
    comparisons: list[PairedComparison | ReportedComparison]  # by benchmark, each checkpoint with the one before it
    stages: list[ReportedStage]  # in the order of the pipeline
    caveats: list[str]  # what a careful reader has to know
    versions: dict[str, str]  # library -> the versions that the stages ran with; usually one
    git: ReportedGit  # of the stage that was computed last
    hardware: ReportedHardware  # of the stage that was computed last
    config: dict[str, Any]  # the run's resolved config
    outside: Outside | None = Field(
        default=None, exclude_if=is_none
    )  # of all stages, in the copy beside a run's record
    transcripts: list[Transcript] = Field(default=[], exclude=True)  # sample answers; not in report.json
    weighted_rows: list[WeightedRow] = Field(default=[], exclude=True)  # by trajectory, then step; not in report.json

    def stage(self, name: str) -> ReportedStage | None:
        """The stage of that name; None where the run had none."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def result(self, checkpoint: str, benchmark: str) -> BenchmarkResult | None:
        """The result of a checkpoint on a benchmark; None where that was not measured."""
        return next((r for r in self.results if (r.checkpoint, r.benchmark) == (checkpoint, benchmark)), None)

    @property
    def checkpoints(self) -> list[str]:
        """Those with a result, in the order of training."""
        return list(dict.fromkeys(result.checkpoint for result in self.results))

    @property
    def benchmarks(self) -> list[str]:
        """Those with a result."""
        return list(dict.fromkeys(result.benchmark for result in self.results))
