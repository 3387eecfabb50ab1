"""The numbers in words: one sentence on which steps made a difference, and the caveats that follow from the data."""

import dataclasses
from collections.abc import Callable, Iterator

from evaluation import benchmarks
from evaluation.comparison import Comparison
from stages.report.documents import BenchmarkResult, ReportedStage
from stages.report.render.text import by_chance, listed, percent, points, versions

LARGE_SHARE = 0.10  # of truncated or unanswered samples, above which a score says as much about the limit or the format
FEW_PROBLEMS = 100
SATURATED = 0.98
FLOOR = 0.02
RELIABLE = 0.5  # rank correlation of measured utilities with themselves
PHRASES = {
    "higher": "higher than {} on",
    "lower": "lower than {} on",
    "not distinguishable": "not distinguishable from {} on",
    "different protocols": "not comparable with {} (different protocols) on",
}
"""Verdict of a comparison -> how the later checkpoint stands to the earlier one."""


def verdict(results: list[BenchmarkResult], comparisons: list[Comparison]) -> str:
    """One sentence: for each step of the pipeline, on which benchmarks the checkpoint after it is another."""
    if not comparisons:
        names = listed(list(dict.fromkeys(result.checkpoint for result in results)))
        return f"Nothing to compare: no benchmark was measured at two checkpoints (only {names})."
    steps: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        steps.setdefault((comparison.before, comparison.after), []).append(comparison)
    return "; ".join(_step(before, after, of_step) for (before, after), of_step in steps.items()) + "."


def _step(before: str, after: str, comparisons: list[Comparison]) -> str:
    clauses = []
    for outcome, phrase in PHRASES.items():
        differences = [_difference(c) for c in comparisons if c.verdict == outcome]
        if differences:
            clauses.append(f"{phrase.format(before)} {listed(differences)}")
    return f"{after} is " + (", and ".join([", ".join(clauses[:-1]), clauses[-1]]) if len(clauses) > 1 else clauses[0])


def _difference(c: Comparison) -> str:
    d = c.difference
    return f"{c.benchmark} ({points(d.difference, d.low, d.high)} points)" if d is not None else c.benchmark


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Training prompts, of SFT and of RL, that are benchmark problems or hold long parts of one."""

    prompts: int
    stayed: bool
    """Whether they were trained on all the same (`data.on_overlap: note`)."""


def caveats(
    results: list[BenchmarkResult], comparisons: list[Comparison], stages: list[ReportedStage], overlap: Overlap
) -> list[str]:
    """What a careful reader has to know, as far as the data show it."""
    out = [
        "Intervals cover the sampling of test problems, for this one seed; "
        "they do not cover what another training seed would give."
    ]
    if overlap.prompts:
        what = f"{overlap.prompts} training prompts of SFT and RL are benchmark problems, or hold long parts of one"
        if overlap.stayed:
            out.append(f"{what}: the scores after training are not of unseen problems.")
        else:
            out.append(f"{what}, and were left out: with other benchmarks the training data are others.")
    if chance := by_chance(sum(c.difference is not None for c in comparisons)):
        out.append(chance)
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        out += _of_benchmark(benchmark, [result for result in results if result.benchmark == benchmark])
    return [*out, *_of_weights(stages), *_of_origin(stages)]


SEEN = {"aime24": "2024", "aime25": "2025"}
"""Benchmark -> year of a contest whose problems and answers are in the training data of models of 2026."""


def _of_benchmark(benchmark: str, results: list[BenchmarkResult]) -> Iterator[str]:
    first = results[0]
    if benchmark in SEEN:
        seen = f"models of 2026 have seen the problems and answers of AIME {SEEN[benchmark]}"
        yield f"{benchmark}: {seen}; a high score of a newer model may be memory (aime26 and hmmt_feb26 are later)."
    for split in dict.fromkeys(r.split for r in results if r.split not in ("", "test")):
        yield f"{benchmark} was measured on its {split} split, which choices of the recipe may have looked at."
    size = benchmarks.get(benchmark).size if benchmark in benchmarks.names() else None
    if size is not None and first.n < size and first.split == "test":
        few = f"only {first.n} of its {size} problems were measured"
        yield f"{benchmark}: {few}; the score is not comparable with published ones."
    if first.n < FEW_PROBLEMS:
        yield f"{benchmark} has {first.n} problems: one of them is {100 / first.n:.1f} points."
    if len({r.protocol for r in results}) > 1:
        different = "the checkpoints were measured under different protocols"
        yield f"{benchmark}: {different}, so their scores are not compared."
    if truncated := _shares(results, lambda r: r.truncated):
        cut = f"cut at the token limit were {truncated} of the completions"
        yield f"{benchmark}: {cut}; the score is of what fits the limit."
    if forced := _shares(results, lambda r: r.thinking.get("forced", 0)):
        ended = f"the thinking budget ended the thought of {forced} of the completions"
        yield f"{benchmark}: {ended}; the score is of what fits the budget."
    if unanswered := _shares(results, lambda r: r.no_answer):
        none = f"no answer could be found in {unanswered} of the completions"
        yield f"{benchmark}: {none}; the score is of the format as well."
    if first.not_graded:
        refused = f"{len(first.not_graded)} of {first.n} problems are not graded here ({', '.join(first.not_graded)})"
        yield f"{benchmark}: {refused}; their samples count as not right, programs for them as the grader's failures."
    for r in results:
        name, samples = f"{benchmark}, {r.checkpoint}", f"{r.samples} samples"
        if errors := r.verdicts.get("grader_error", 0):
            most = percent(r.value + errors / r.samples)
            failed = f"the grader failed on {errors} of {samples}, which count as not right"
            yield f"{name}: {failed}; were they all right, the value would be {most}."
        if timeouts := r.verdicts.get("timeout", 0):
            yield f"{name}: {timeouts} of {samples} ran out of grading time and count as not right."
        if r.prompt_too_long:
            yield f"{name}: {r.prompt_too_long} prompts did not fit the context and count as not answered."
    if len(results) > 1:
        high, low = [r for r in results if r.value >= SATURATED], [r for r in results if r.value <= FLOOR]
        if len(high) > 1:
            yield f"{benchmark} is saturated ({_values(high)}): it can hardly tell these checkpoints apart."
        if len(low) == len(results):
            yield f"{benchmark} is at the floor ({_values(low)}): it is too hard to tell these checkpoints apart."


def _of_weights(stages: list[ReportedStage]) -> Iterator[str]:
    """Where SFT's token weights were measured at the level of rounding."""
    rows = [row for stage in stages if stage.name == "sft" for row in stage.curve]
    checks = [row["rounding_agreement"] for row in rows if "rounding_agreement" in row]
    noisy = sum(value < RELIABLE for value in checks)
    if noisy:
        agreed = f"the utilities on the two sides of the step agreed only to rank correlation {min(checks):.2f}"
        share = f"In {noisy} of {len(checks)} checks of SFT"
        yield f"{share} {agreed} or little more: weights of those steps may be noise."


def _of_origin(stages: list[ReportedStage]) -> Iterator[str]:
    """Where the stages were not computed by one and the same code on one and the same machine, or by a server."""
    for server in (stage.settings.get("server") for stage in stages):
        if server is not None:
            where = f"The samples are those of a server ({server['model']} at {server['url']})"
            yield f"{where}: its weights are not in this record, and the same name may have others tomorrow."
    for library, different in versions(stage.versions for stage in stages).items():
        if len(different) > 1:
            users = {v: listed([s.name for s in stages if s.versions.get(library) == v]) for v in different}
            where = ", ".join(f"{version} ({names})" for version, names in users.items())
            yield f"The stages ran with different versions of {library}: {where}."
    if len({stage.git.commit for stage in stages}) > 1:
        commits = "The stages were computed at different commits (see the table of stages)"
        yield f"{commits}; each one's key covers the code it ran."
    if any(stage.git.dirty for stage in stages):
        changed = "The work tree had uncommitted changes (+)"
        yield f"{changed}: the commit alone does not give the code back; the stages' keys cover it."
    hardware = (stage.hardware for stage in stages)
    machines = list(dict.fromkeys(f"{h.cpu} x {h.cores} {' '.join(h.gpu)}".strip() for h in hardware))
    if len(machines) > 1:
        yield f"The stages ran on different machines ({listed(machines)}); their times do not compare."


def _shares(results: list[BenchmarkResult], count: Callable[[BenchmarkResult], int]) -> str:
    """`12.0 % (base) and 40.0 % (sft)`, of the checkpoints with a large share."""
    large = [r for r in results if count(r) > LARGE_SHARE * r.samples]
    return listed([f"{percent(count(r) / r.samples)} ({r.checkpoint})" for r in large])


def _values(results: list[BenchmarkResult]) -> str:
    return ", ".join(f"{r.checkpoint} {percent(r.value)}" for r in results)
