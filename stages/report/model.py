"""What a report says, as plain values. Its three forms are rendered from this one structure, so they cannot disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from evaluation.comparison import Comparison
from evaluation.statistics import PairedDifference

CHECKPOINTS = ("base", "sft", "grpo")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage as its manifest tells it.

    Attributes:
        state: `ran` or `cached` in the run that made this report.
        seconds: wall time of its computation, whenever that was.
        inputs: input name -> {stage, key, digest}.
        outside: what it read from outside the store -> {sha256} of a file or folder, or {hub, commit} of a repository.
        curve: rows of its training curve, each with `step`; empty where it recorded none.
    """

    name: str
    state: str
    key: str
    digest: str
    started: str
    seconds: float
    inputs: dict[str, dict[str, str]]
    outside: dict[str, dict[str, str]]
    settings: dict[str, Any]
    metrics: dict[str, Any]
    proof: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    git: dict[str, Any]
    curve: list[dict[str, Any]]

    @property
    def commit(self) -> str:
        return commit_of(self.git)


@dataclasses.dataclass(frozen=True)
class Result:
    """One cell of the results table: a checkpoint on a benchmark, `n` problems of `k` samples, with its 95 % interval."""

    checkpoint: str
    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    k: int
    protocol: str
    verdicts: dict[str, int]
    truncated: int
    no_answer: int
    prompt_too_long: int
    completion_tokens: float
    """Mean over samples, in tokens of the checkpoint's own tokenizer."""
    pass_at: dict[str, dict[str, float]]
    """k -> {value, low, high} of the unbiased pass@k; empty for a single sample."""
    majority: dict[str, float]
    """{value, low, high} of the vote over the samples; empty for a single sample and for code."""
    protocol_details: dict[str, Any]

    @property
    def samples(self) -> int:
        return self.n * self.k

    @property
    def split(self) -> str:
        """The split that was sampled; empty where the protocol does not say."""
        return str(self.protocol_details.get("sampling", {}).get("split", ""))


@dataclasses.dataclass(frozen=True)
class Transcript:
    """One answer, in full or with its middle left out."""

    checkpoint: str
    benchmark: str
    problem_id: str
    sample: int
    verdict: str
    prompt: str
    completion: str
    finish_reason: str
    tokens: int
    extracted: str | None
    gold: str
    detail: str


@dataclasses.dataclass(frozen=True)
class WeightedRow:
    """One training trajectory with what SFT's method made of its tokens before optimizer step `step` + 1.

    Attributes:
        weights: factor on each token's loss; 1 is what plain SFT gives it.
        losses: in nats, under the model of that time.
    """

    step: int
    prompt: str
    tokens: list[str]
    weights: list[float]
    losses: list[float]


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything the report shows. Results are ordered by checkpoint, then benchmark."""

    title: str
    verdict: str
    command: str
    seed: int
    stages: list[Stage]
    results: list[Result]
    comparisons: list[Comparison]
    transcripts: list[Transcript]
    weighted_rows: list[WeightedRow]
    """The same trajectories at the start, in the middle and at the end of SFT; by trajectory, then step."""
    caveats: list[str]
    config: dict[str, Any]

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def result(self, checkpoint: str, benchmark: str) -> Result | None:
        return next((r for r in self.results if (r.checkpoint, r.benchmark) == (checkpoint, benchmark)), None)

    @property
    def checkpoints(self) -> list[str]:
        return list(dict.fromkeys(result.checkpoint for result in self.results))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(result.benchmark for result in self.results))

    @property
    def versions(self) -> dict[str, list[str]]:
        """Library -> the versions that the stages ran with: one, unless stages of different environments were joined."""
        return versions(self.stages)


def versions(stages: list[Stage]) -> dict[str, list[str]]:
    """Library -> the different versions among the stages, in order of the stages."""
    return joined(stage.versions for stage in stages)


def joined(environments: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """Library -> the different versions that the environments have of it, in their order; libraries sorted."""
    found: dict[str, list[str]] = {}
    for environment in environments:
        for library, version in environment.items():
            known = found.setdefault(library, [])
            if version not in known:
                known.append(version)
    return dict(sorted(found.items()))


def commit_of(git: dict[str, Any]) -> str:
    """`0123456789ab`, with a `+` where the work tree differed from it; empty outside a git checkout."""
    return f"{git['commit'][:12]}{'+' if git['dirty'] else ''}" if git["commit"] else ""


def origin(entry: dict[str, str]) -> str:
    """What a stage read from outside: `Qwen/Qwen3-0.6B at commit 0123456789ab`, or `sha256 0123456789ab` of a file or folder."""
    return f"{entry['hub']} at commit {entry['commit'][:12]}" if "hub" in entry else f"sha256 {entry['sha256'][:12]}"


def machine(hardware: dict[str, Any]) -> str:
    """`a CPU, 2 cores, 24.0 GiB, a GPU`"""
    return f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB" + "".join(
        f", {gpu}" for gpu in hardware["gpu"]
    )


def percent(value: float) -> str:
    """`43.0 %`"""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """`[38.7, 47.4]`, in percent."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(d: PairedDifference) -> str:
    """`+45.8 [+41.0, +50.4]`, in percentage points."""
    return f"{_signed(d.difference)} [{_signed(d.low)}, {_signed(d.high)}]"


def _signed(value: float) -> str:
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown
