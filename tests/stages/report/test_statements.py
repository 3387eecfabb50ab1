"""The sentence that the numbers allow, and the caveats that they demand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from evaluation.comparison import Comparison
from evaluation.metrics.estimates import mean_estimate
from evaluation.statistics import paired_difference
from stages.report.documents import BenchmarkResult, ReportedGit, ReportedHardware, ReportedStage
from stages.report.statements import Overlap, caveats, verdict

NONE = Overlap(0, stayed=False)


def result(
    checkpoint: str, right: int = 50, n: int = 200, benchmark: str = "toy", split: str = "test", **changes: Any
) -> BenchmarkResult:
    estimate = mean_estimate([[1.0]] * right + [[0.0]] * (n - right))
    made = BenchmarkResult(
        checkpoint=checkpoint,
        benchmark=benchmark,
        metric="accuracy",
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=n,
        k=1,
        protocol="abc",
        verdicts={"correct": right, "wrong": n - right},
        truncated=0,
        no_answer=0,
        prompt_too_long=0,
        completion_tokens=9.0,
        pass_at={},
        majority={},
        protocol_details={"sampling": {"split": split}},
        split=split,
    )
    return made.model_copy(update=changes)


def stage(name: str, **changes: Any) -> ReportedStage:
    made = ReportedStage(
        name=name,
        state="ran",
        key="00" * 32,
        digest="11" * 32,
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        inputs={},
        outside={},
        settings={},
        metrics={},
        proof={},
        versions={"torch": "2.13.0"},
        hardware=ReportedHardware(cpu="a CPU", cores=2, memory_gib=24.0, gpu=[]),
        git=ReportedGit(commit="0123456789abcdef", dirty=False),
        curve=[],
    )
    return made.model_copy(update=changes)


def compared(
    improved: int, worsened: int, n: int = 200, benchmark: str = "toy", before: str = "base", after: str = "sft"
) -> Comparison:
    """`improved` problems become right, `worsened` wrong, and of the rest every second is right both times."""
    same = [float(i % 2) for i in range(n - improved - worsened)]
    old, new = [0.0] * improved + [1.0] * worsened + same, [1.0] * improved + [0.0] * worsened + same
    return Comparison(benchmark, before, after, paired_difference(old, new))


@pytest.mark.parametrize(
    ("improved", "worsened", "outcome"),
    [
        (40, 5, "higher"),
        (5, 40, "lower"),
        (20, 20, "not distinguishable"),
        (0, 0, "not distinguishable"),
        (7, 0, "higher"),
    ],
)
def test_outcome_of_a_comparison(improved: int, worsened: int, outcome: str) -> None:
    assert compared(improved, worsened).verdict == outcome


def test_interval_alone_claims_no_difference() -> None:
    comparison = Comparison("toy", "base", "sft", paired_difference([0.0] * 20, [1.0] * 5 + [0.0] * 15))
    assert comparison.difference is not None
    assert comparison.difference.low > 0, "the score interval leaves out 0 ..."
    assert comparison.difference.p_value == 2 * 0.5**5, "... which the exact test does not bear out"
    assert comparison.verdict == "not distinguishable"


def test_all_outcomes_in_one_sentence() -> None:
    comparisons = [
        compared(40, 0, benchmark="a"),
        compared(30, 0, benchmark="b"),
        compared(0, 40, benchmark="c"),
        compared(2, 1, benchmark="d"),
        Comparison("e", "base", "sft", None),
        compared(0, 0, benchmark="a", before="sft", after="grpo"),
    ]
    sentence = verdict([result("base"), result("sft"), result("grpo")], comparisons)
    assert re.sub(r" \([^()]* points\)", "", sentence) == (
        "sft is higher than base on a and b, lower than base on c, not distinguishable from base on d, "
        "and not comparable with base (different protocols) on e; grpo is not distinguishable from sft on a."
    )
    assert "on a (+20.0 [" in sentence
    assert "on c (-20.0 [" in sentence


def test_one_checkpoint_has_nothing_to_compare() -> None:
    assert (
        verdict([result("base")], []) == "Nothing to compare: no benchmark was measured at two checkpoints (only base)."
    )


def test_caveats_follow_from_the_data() -> None:
    def said(*results: BenchmarkResult, overlap: int = 0, stayed: bool = True) -> str:
        return "\n".join(caveats(list(results), [], [], Overlap(overlap, stayed)))

    assert said(result("base")).count("\n") == 0, "only that one seed is one seed"
    assert "3 training prompts of SFT and RL are benchmark problems" in said(result("base"), overlap=3)
    assert "not of unseen problems" in said(result("base"), overlap=3)
    left_out = said(result("base"), overlap=3, stayed=False)
    assert "and were left out: with other benchmarks the training data are others" in left_out
    assert "not of unseen problems" not in left_out
    assert "toy was measured on its dev split" in said(result("base", split="dev"))
    assert "toy has 20 problems: one of them is 5.0 points." in said(result("base", right=5, n=20))
    assert "cut at the token limit were 12.0 % (sft) of the completions" in said(
        result("base"), result("sft", truncated=24)
    )
    assert "no answer could be found in 50.0 % (base)" in said(result("base", no_answer=100))
    failed = said(result("base", verdicts={"correct": 50, "wrong": 140, "grader_error": 10}))
    assert "the grader failed on 10 of 200 samples" in failed
    assert "the value would be 30.0 %" in failed
    refused = said(result("base", not_graded={"x": "it talks"}))
    assert "toy: 1 of 200 problems are not graded here (x); their samples count as not right" in refused
    assert "toy is saturated (sft 99.0 %, grpo 99.5 %)" in said(
        result("base"), result("sft", right=198), result("grpo", right=199)
    )
    assert "toy is at the floor (base 0.0 %, sft 1.0 %)" in said(result("base", right=0), result("sft", right=2))
    assert "measured under different protocols" in said(result("base"), result("sft", protocol="def"))


def test_stages_of_several_environments_are_a_caveat() -> None:
    assert caveats([], [], [stage("base"), stage("sft")], NONE) == caveats([], [], [], NONE)
    several = "\n".join(
        caveats(
            [],
            [],
            [stage("base"), stage("sft", versions={"torch": "2.14.0"}, git=ReportedGit(commit="f" * 40, dirty=True))],
            NONE,
        )
    )
    assert "different versions of torch: 2.13.0 (base), 2.14.0 (sft)" in several
    assert "computed at different commits" in several
    assert "uncommitted changes" in several


def test_utilities_at_the_level_of_rounding_are_a_caveat() -> None:
    good, poor = {"step": 1, "rounding_agreement": 0.97}, {"step": 51, "rounding_agreement": 0.12}
    assert caveats([], [], [stage("sft", curve=[good])], NONE) == caveats([], [], [], NONE)
    assert "In 1 of 2 checks of SFT" in caveats([], [], [stage("sft", curve=[good, {"step": 2}, poor])], NONE)[1]
