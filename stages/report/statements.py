"""What the numbers say in words: one sentence on which steps made a difference, and the caveats that follow from the data."""

from __future__ import annotations

from collections.abc import Callable

from evaluation.benchmarks import get, names
from evaluation.comparison import Comparison
from evaluation.statistics import CONFIDENCE
from stages.report.model import Result, Stage, percent, points, versions

LARGE_SHARE = 0.10  # of truncated or unanswered samples, above which a score says as much about the limit or the format
FEW_PROBLEMS = 100
SATURATED = 0.98
FLOOR = 0.02
RELIABLE = 0.5  # rank correlation of measured utilities with themselves


def verdict(results: list[Result], comparisons: list[Comparison]) -> str:
    """One sentence: for each step of the pipeline, on which benchmarks the later checkpoint differs from the earlier one."""
    if not comparisons:
        names = _listed(list(dict.fromkeys(result.checkpoint for result in results)))
        return f"Nothing to compare: no benchmark was measured at two checkpoints (only {names})."
    steps = dict.fromkeys((c.before, c.after) for c in comparisons)
    return (
        "; ".join(
            _step(before, after, [c for c in comparisons if (c.before, c.after) == (before, after)])
            for before, after in steps
        )
        + "."
    )


def _step(before: str, after: str, comparisons: list[Comparison]) -> str:
    phrases = {
        "higher": f"higher than {before} on",
        "lower": f"lower than {before} on",
        "not distinguishable": f"not distinguishable from {before} on",
        "different protocols": f"not comparable with {before} (different protocols) on",
    }
    clauses = []
    for outcome, phrase in phrases.items():
        found = [_difference(c) for c in comparisons if c.verdict == outcome]
        if found:
            clauses.append(f"{phrase} {_listed(found)}")
    return f"{after} is " + (", and ".join([", ".join(clauses[:-1]), clauses[-1]]) if len(clauses) > 1 else clauses[0])


def _difference(c: Comparison) -> str:
    return f"{c.benchmark} ({points(c.difference)} points)" if c.difference is not None else c.benchmark


def caveats(results: list[Result], comparisons: list[Comparison], stages: list[Stage], overlap: int) -> list[str]:
    """What a careful reader has to know, as far as the data show it.

    Args:
        overlap: training prompts that are benchmark problems.
    """
    out = [
        "Intervals cover the sampling of test problems, for this one seed; they do not cover what another training seed would give."
    ]
    if overlap:
        out.append(
            f"{overlap} training prompts are also benchmark problems: the scores after training are not of unseen problems."
        )
    tested = sum(c.difference is not None for c in comparisons)
    if tested >= 3:
        chance = tested * (1 - CONFIDENCE)
        out.append(
            f"{tested} comparisons were made at the 5 % level, uncorrected: "
            f"even if nothing differed, about {chance:.1f} of them would seem to."
        )
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        out += _of_benchmark(benchmark, [result for result in results if result.benchmark == benchmark])
    return out + _of_weights(stages) + _of_origin(stages)


def _of_benchmark(benchmark: str, results: list[Result]) -> list[str]:
    out = []
    first = results[0]
    for split in dict.fromkeys(r.split for r in results if r.split not in ("", "test")):
        out.append(f"{benchmark} was measured on its {split} split, which choices of the recipe may have looked at.")
    size = get(benchmark).size if benchmark in names() else None
    if size is not None and first.n < size and first.split == "test":
        out.append(
            f"{benchmark}: only {first.n} of its {size} problems were measured; the score is not comparable with published ones."
        )
    if first.n < FEW_PROBLEMS:
        out.append(f"{benchmark} has {first.n} problems: one of them is {100 / first.n:.1f} points.")
    if len({r.protocol for r in results}) > 1:
        out.append(
            f"{benchmark}: the checkpoints were measured under different protocols, so their scores are not compared."
        )
    if truncated := _shares(results, lambda r: r.truncated):
        out.append(
            f"{benchmark}: cut at the token limit were {truncated} of the completions; the score is of what fits the limit."
        )
    if unanswered := _shares(results, lambda r: r.no_answer):
        out.append(
            f"{benchmark}: no answer could be found in {unanswered} of the completions; the score is of the format as well."
        )
    for r in results:
        if errors := r.verdicts.get("grader_error", 0):
            most = r.value + errors / r.samples
            out.append(
                f"{benchmark}, {r.checkpoint}: the grader failed on {errors} of {r.samples} samples, which count as not right; "
                f"were they all right, the value would be {percent(most)}."
            )
        if timeouts := r.verdicts.get("timeout", 0):
            out.append(
                f"{benchmark}, {r.checkpoint}: {timeouts} of {r.samples} samples ran out of grading time and count as not right."
            )
        if r.prompt_too_long:
            out.append(
                f"{benchmark}, {r.checkpoint}: {r.prompt_too_long} prompts did not fit the context and count as not answered."
            )
    if len(results) > 1:
        high, low = [r for r in results if r.value >= SATURATED], [r for r in results if r.value <= FLOOR]
        if len(high) > 1:
            out.append(f"{benchmark} is saturated ({_values(high)}): it can hardly tell these checkpoints apart.")
        if len(low) == len(results):
            out.append(f"{benchmark} is at the floor ({_values(low)}): it is too hard to tell these checkpoints apart.")
    return out


def _of_weights(stages: list[Stage]) -> list[str]:
    """Where SFT's token weights were measured at the level of rounding."""
    found = [
        row["rounding_agreement"]
        for stage in stages
        if stage.name == "sft"
        for row in stage.curve
        if "rounding_agreement" in row
    ]
    noisy = sum(value < RELIABLE for value in found)
    if not noisy:
        return []
    return [
        f"In {noisy} of {len(found)} checks of SFT the utilities on the two sides of the step agreed only to rank correlation "
        f"{min(found):.2f} or little more: weights of those steps may be noise."
    ]


def _of_origin(stages: list[Stage]) -> list[str]:
    """Where the stages were not computed by one and the same code on one and the same machine."""
    out = []
    for library, found in versions(stages).items():
        if len(found) > 1:
            where = ", ".join(
                f"{v} ({_listed([s.name for s in stages if s.versions.get(library) == v])})" for v in found
            )
            out.append(f"The stages ran with different versions of {library}: {where}.")
    if len({stage.git["commit"] for stage in stages}) > 1:
        out.append(
            "The stages were computed at different commits (see the table of stages); each one's key covers the code it ran."
        )
    if any(stage.git["dirty"] for stage in stages):
        out.append(
            "The work tree had uncommitted changes (+): the commit alone does not give the code back; the stages' keys cover it."
        )
    machines = dict.fromkeys(
        f"{s.hardware['cpu']} x {s.hardware['cores']} {' '.join(s.hardware['gpu'])}".strip() for s in stages
    )
    if len(machines) > 1:
        out.append(f"The stages ran on different machines ({_listed(list(machines))}); their times do not compare.")
    return out


def _shares(results: list[Result], count: Callable[[Result], int]) -> str:
    """`12.0 % (base) and 40.0 % (sft)`, of the checkpoints with a large share."""
    return _listed(
        [f"{percent(count(r) / r.samples)} ({r.checkpoint})" for r in results if count(r) > LARGE_SHARE * r.samples]
    )


def _values(results: list[Result]) -> str:
    return ", ".join(f"{r.checkpoint} {percent(r.value)}" for r in results)


def _listed(items: list[str]) -> str:
    """`a, b and c`"""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
