"""One benchmark's numbers: the metric with its interval, counts of verdicts, and the protocol they compare under."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from evaluation.grading import Grader, fingerprint, grader_version
from evaluation.metrics import load_metric
from evaluation.records import VERDICTS, Generation, Kind, Problem, Score, ThoughtEnding
from evaluation.sandbox import find_compiler, find_packages
from evaluation.voting import pool_votes
from stages.score.settings import ScoreSettings


def benchmark_metrics(
    generations: Sequence[Generation],
    scores: Sequence[Score],
    kind: Kind,
    sampling: dict[str, Any],
    settings: ScoreSettings,
    grader: Grader,
    compiler: str | None = None,
    not_graded: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The entry of one benchmark in `metrics.json`.

    `value`, `low` and `high` are shares with a 95 % interval over `n` problems of `k` samples each: `accuracy` (maths)
    or `pass@1` (code) of a single sample, `avg@k` of several. Everything but `correct` counts as not right. With
    several samples, `pass_at` holds the unbiased pass@k for the powers of two below the number of samples and for that
    number, and `majority` the accuracy of their vote (not for code). Under a thinking budget, `thinking` counts the
    samples by how their thought ended. Where problems are refused by name, `not_graded` holds them with the reasons,
    and the protocol how many they are: they count, as not right.

    Args:
        generations: of one benchmark.
        scores: in the same order.
        sampling: the protocol under which they were sampled, from the generations' summary.
        grader: decides which answers are one vote.
        compiler: what programs are compiled with, where any are.
        not_graded: problem -> why it cannot be graded; only those with scores are reported.
    """
    right = [int(score.verdict == "correct") for score in scores]
    ids = [score.problem_id for score in scores]
    accuracy = load_metric("accuracy_ci").compute(predictions=right, references=ids)
    verdicts = Counter(score.verdict for score in scores)
    k = accuracy["k"]
    protocol = {"sampling": sampling, "scoring": scoring_protocol(kind, settings, grader.sandbox_level)}
    if compiler is not None:
        protocol["scoring"]["compiler"] = compiler
    scored = set(ids)
    refused = {name: reason for name, reason in (not_graded or {}).items() if name in scored}
    if refused:
        protocol["scoring"]["not_graded"] = len(refused)
    entry: dict[str, Any] = {
        "metric": f"avg@{k}" if k > 1 else "pass@1" if kind == "code" else "accuracy",
        "value": accuracy["accuracy"],
        "low": accuracy["low"],
        "high": accuracy["high"],
        "n": accuracy["n"],
        "k": k,
        "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS},
        "truncated": sum(generation.finish_reason == "length" for generation in generations),
        "prompt_too_long": sum(generation.finish_reason == "prompt_too_long" for generation in generations),
        "no_answer": verdicts["no_answer"],
        "protocol": fingerprint(protocol),
        "protocol_details": protocol,
    }
    if refused:
        entry["not_graded"] = refused
    if thoughts := Counter(generation.thinking for generation in generations if generation.thinking is not None):
        entry["thinking"] = {ending: thoughts[ending] for ending in get_args(ThoughtEnding)}
    if k > 1:
        metric = load_metric("pass_at_k")
        entry["pass_at"] = {}
        for tries in sorted({k, *(2**power for power in range(k.bit_length()))}):
            rate = metric.compute(predictions=right, references=ids, k=tries)
            entry["pass_at"][str(tries)] = {"value": rate["pass_at_k"], "low": rate["low"], "high": rate["high"]}
        if kind != "code":
            rate = load_metric("maj_at_k").compute(predictions=right, references=ids, votes=pool_votes(scores, grader))
            entry["majority"] = {"value": rate["maj_at_k"], "low": rate["low"], "high": rate["high"]}
    return entry


def compiler_of(problems: Iterable[Problem]) -> str | None:
    """What the programs of these problems are compiled with; None where they are Python."""
    return find_compiler().name if any(problem.tests.get("language") == "cpp" for problem in problems) else None


def scoring_protocol(kind: Kind, settings: ScoreSettings, sandbox_level: str | None) -> dict[str, Any]:
    """What of the grading can change a verdict; for programs also their isolation: it decides what they could read."""
    if kind == "code":
        limits: dict[str, Any] = {"timeout_s": settings.code_timeout_s, "memory_mib": settings.memory_mib}
        if settings.packages:
            limits["packages"] = find_packages(settings.packages).versions
        return {**grader_version(kind), **limits, "sandbox_level": sandbox_level}
    if kind == "choice":
        return dict(grader_version(kind))
    return {**grader_version(kind), "timeout_s": settings.maths_timeout_s}
