"""Two measurements paired for a gate: the same problems, as many samples, the same protocol, or a reason why not."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from evaluation.comparison import Measured, golds, other_gold, right_shares
from evaluation.comparison import differences as protocol_differences
from evaluation.gates.margin import Differences, differences

SAMPLES = "sampling.samples:"
"""How a line begins that says that two protocols differ in their samples of each problem."""
MOST_NAMED = 3
"""Differences of two protocols that a message names."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """One checkpoint on one benchmark, as far as a gate looks at it.

    Attributes:
        shares: problem -> share of its samples that are right.
        samples: of each problem.
        protocol, details: under which they were made; None and empty where that is not known.
        truncated, no_answer: share of samples that were cut at the token limit, and that gave no answer; None where
            that is not known.
        golds: problem -> its gold answer; empty where they are not at hand.
    """

    shares: Mapping[str, float]
    samples: int
    protocol: str | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    truncated: float | None = None
    no_answer: float | None = None
    golds: Mapping[str, str] = dataclasses.field(default_factory=dict)


def of_scores(measured: Measured) -> Sampled:
    """Scores as a gate looks at them."""
    scores = measured.scores
    shares = right_shares(scores)
    return Sampled(
        shares,
        len(scores) // len(shares),
        measured.protocol,
        measured.details,
        None if measured.truncated is None else measured.truncated / len(scores),
        Counter(score.verdict for score in scores)["no_answer"] / len(scores),
        golds(scores),
    )


def pair(old: Sampled, new: Sampled, *, any_samples: bool = False) -> Differences:
    """`new` minus `old`, problem by problem.

    Args:
        any_samples: whether one may have more samples of each problem than the other. The mean difference is the same
            then, and `margin_test` takes it; tests that swap old and new do not.

    Raises:
        ValueError: in one line, why they cannot be compared: other protocols, where both are known, other problems,
            other numbers of samples, or too few problems.
    """
    if old.protocol is not None and new.protocol is not None and old.protocol != new.protocol:
        apart = protocol_differences(old.details, new.details)
        others = [line for line in apart if not line.startswith(SAMPLES)]
        if others or not any_samples or not apart:
            more = f" and {len(apart) - MOST_NAMED} more" if len(apart) > MOST_NAMED else ""
            raise ValueError(f"the protocols differ: {', '.join(apart[:MOST_NAMED]) or 'their digests'}{more}")
    if old.shares.keys() != new.shares.keys():
        apart = sorted(old.shares.keys() ^ new.shares.keys())
        raise ValueError(f"they are not of the same problems: {len(apart)} are in one only ({apart[0]})")
    if (other := other_gold(old.golds, new.golds)) is not None:
        raise ValueError(f"they are not of the same problems: {other}")
    if old.samples != new.samples and not any_samples:
        raise ValueError(f"{old.samples} samples a problem before, {new.samples} after")
    return differences([old.shares[problem] for problem in new.shares], list(new.shares.values()))
