"""Two measurements of the same problems compared: the difference, its interval, and whether there is one at all."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.records import RecordError, Score, read_records
from evaluation.statistics import SIGN_FLIPS_NORMAL, SIGNIFICANCE, PairedDifference, paired_difference

UNKNOWN = "unknown"
"""What stands in a protocol where the server of a model did not say."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """The scores of one checkpoint on one benchmark, with the protocol they were made under, and how many samples were
    cut at the token limit, where that is known."""

    scores: Sequence[Score]
    protocol: str | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    truncated: int | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two checkpoints on the same problems. `difference` is None where their protocols differ, so nothing compares."""

    benchmark: str
    before: str
    after: str
    difference: PairedDifference | None
    protocols: tuple[str, ...] = ()
    """Where the protocols differ, as `sampling.temperature: 0.0 / 0.6`."""
    unknown: tuple[str, ...] = ()
    """What of the protocol a server did not say (`sampling.engine_version`), so that it may differ unseen."""

    @property
    def exact(self) -> bool:
        """Whether the p-value is exact, not a normal approximation; `difference.test` names the test."""
        return self.difference is None or self.difference.test != SIGN_FLIPS_NORMAL

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, `not distinguishable` or `different protocols`.

        A difference is claimed only where its 95 % interval leaves out 0 and the test agrees (p < 0.05): with few
        changed problems the interval alone claims too much (5 of 20 better, none worse: above 0, exact p = 0.06).
        """
        d = self.difference
        if d is None:
            return "different protocols"
        if d.p_value >= SIGNIFICANCE or d.low <= 0 <= d.high:
            return "not distinguishable"
        return "higher" if d.difference > 0 else "lower"


def compare(benchmark: str, before: str, after: str, old: Measured, new: Measured) -> Comparison:
    """`new` against `old`, problem by problem; `before` and `after` are their names.

    Protocols are compared where both are known; they hold the problems' digest.

    Raises:
        ValueError: the problems, their gold answers or the numbers of samples are not the same.
    """
    if old.protocol is not None and new.protocol is not None and old.protocol != new.protocol:
        return Comparison(benchmark, before, after, None, protocols=tuple(differences(old.details, new.details)))
    unknown = tuple(sorted({*_unknown(old.details), *_unknown(new.details)}))
    first, second = right_shares(old.scores), right_shares(new.scores)
    if first.keys() != second.keys():
        apart = sorted(first.keys() ^ second.keys())
        which = f"{len(apart)} are in one only ({apart[0]})"
        raise ValueError(f"{benchmark}: {before} and {after} are not of the same problems: {which}")
    if (other := other_gold(golds(old.scores), golds(new.scores))) is not None:
        raise ValueError(f"{benchmark}: {before} and {after} are not of the same problems: {other}")
    if len(old.scores) != len(new.scores):
        k1, k2 = len(old.scores) // len(first), len(new.scores) // len(first)
        raise ValueError(f"{benchmark}: {before} has {k1} samples a problem, {after} has {k2}")
    difference = paired_difference(list(first.values()), [second[problem] for problem in first])
    return Comparison(benchmark, before, after, difference, unknown=unknown)


def _unknown(details: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in details.items():
        if isinstance(value, Mapping):
            yield from _unknown(value, f"{path}{name}.")
        elif value == UNKNOWN:
            yield f"{path}{name}"


def right_shares(scores: Sequence[Score]) -> dict[str, float]:
    """Problem -> share of its samples that are right."""
    samples: dict[str, list[bool]] = {}
    for score in scores:
        samples.setdefault(score.problem_id, []).append(score.verdict == "correct")
    return {problem: fmean(right) for problem, right in samples.items()}


def golds(scores: Sequence[Score]) -> dict[str, str]:
    """Problem -> its gold answer."""
    return {score.problem_id: score.gold for score in scores}


def other_gold(old: Mapping[str, str], new: Mapping[str, str]) -> str | None:
    """Which problem has another gold answer in the one than in the other, so that the same id means two problems; None
    where there is none."""
    for problem, gold in old.items():
        if problem in new and new[problem].strip() != gold.strip():
            return f"{problem} has the gold answer {gold!r:.60} in one, {new[problem]!r:.60} in the other"
    return None


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """The fields in which two protocols differ, with both values."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        left, right = old.get(name), new.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, f"{path}{name}.")
        elif left != right:
            lines.append(f"{path}{name}: {left} / {right}")
    return lines


def read_measured(path: Path) -> dict[str, Measured]:
    """Benchmark -> scores, of a scores file or of the folder of a score artifact, which has the protocols too.

    Raises:
        OSError, ValueError: no such file, a damaged one (`RecordError` with the line), problems with different numbers
            of samples, or a folder without scores.
    """
    metrics: dict[str, Measured] = {}
    if path.is_dir():
        if not (path / "scores.jsonl").is_file():
            raise RecordError(f"{path}: no scores.jsonl here")
        metrics = _protocols(path / "metrics.json")
        path = path / "scores.jsonl"
    rows: dict[str, list[Score]] = {}
    seen: set[tuple[str, str, int]] = set()
    for score in read_records(path, Score):
        if (sample := (score.benchmark, score.problem_id, score.sample)) in seen:
            raise RecordError(f"{path}: sample {score.sample} of {score.benchmark} {score.problem_id} occurs twice")
        seen.add(sample)
        rows.setdefault(score.benchmark, []).append(score)
    if not rows:
        raise RecordError(f"{path}: no scores")
    for name, scores in rows.items():
        counts = Counter(score.problem_id for score in scores)
        usual = Counter(counts.values()).most_common(1)[0][0]
        if (odd := next((problem for problem, n in counts.items() if n != usual), None)) is not None:
            raise RecordError(f"{path}: {name} {odd} has {counts[odd]} samples, others have {usual}")
    return {name: dataclasses.replace(metrics.get(name, Measured(())), scores=rows[name]) for name in rows}


def _protocols(path: Path) -> dict[str, Measured]:
    """Benchmark -> what the metrics of a score artifact say of its scores. Raises `RecordError` where they are none."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: not JSON: {error}") from error
    if not isinstance(metrics, dict):
        raise RecordError(f"{path}: expected an object, found {type(metrics).__name__}")
    found = {}
    for name, entry in metrics.items():
        told = entry if isinstance(entry, dict) else {}
        protocol, details, truncated = (told.get(key) for key in ("protocol", "protocol_details", "truncated"))
        forms = isinstance(protocol, str | None), isinstance(details, dict | None), isinstance(truncated, int | None)
        if told is not entry or not all(forms):
            raise RecordError(f"{path}: {name}: not the metrics of a score stage")
        found[name] = Measured((), protocol, details or {}, truncated)
    return found
