"""What two benchmarks ask alike is sampled once, under a seed that follows what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.engines import Sampled
from evaluation.engines.transformers_engine import TransformersEngine
from evaluation.records import Generation, Problem, read_records
from stages.generate import run as sample
from stages.generate.plan import SampleId, drawn_as, plan_prompts, sample_seed
from stages.generate.settings import GenerateSettings
from tests.tiny import make_tiny_tokenizer, open_stage, read_stage_run, write_spec


def test_a_seed_belongs_to_what_is_asked_alone() -> None:
    prompts = [(), (1,), (2,), (1, 2), (12,), (2, 1)]
    seeds = {sample_seed(seed, prompt, draw) for seed in (0, 1) for prompt in prompts for draw in range(10)}
    assert len(seeds) == 120
    assert sample_seed(0, (1, 2), 0) == 888408205
    assert all(0 <= seed < 2**32 for seed in seeds)


def planned(texts: dict[str, list[str]], seed: int = 0, **settings: dict[str, Any]) -> dict[SampleId, SampleId]:
    """What `drawn_as` says of benchmarks with these user messages; `settings` are those of a benchmark by its name."""
    benchmarks = [{"name": name, **settings.get(name, {})} for name in texts]
    problems = {name: [Problem(f"p{i}", name, "maths", t, "") for i, t in enumerate(of)] for name, of in texts.items()}
    asked = GenerateSettings.model_validate({"benchmarks": benchmarks})
    return drawn_as(plan_prompts(asked, problems, make_tiny_tokenizer()), seed)


SAMPLED: dict[str, Any] = {"temperature": 1.0, "samples": 2}


def test_what_two_benchmarks_ask_alike_is_drawn_once() -> None:
    texts = {"one": ["a", "b", "c"], "other": ["c", "d", "a"]}
    first = {("other", "p0"): ("one", "p2"), ("other", "p2"): ("one", "p0")}
    for settings in ({}, SAMPLED):
        source = planned(texts, one=settings, other=settings)
        expected = {(*id_, k): (*first.get(id_, id_), k) for *id_, k in source for id_ in [tuple(id_)]}
        assert source == expected, settings
    more = planned({"one": ["a"], "other": ["a"]}, one=SAMPLED, other={**SAMPLED, "samples": 4})
    assert [more["other", "p0", k][0] for k in range(4)] == ["one", "one", "other", "other"]


@pytest.mark.parametrize(
    "other",
    [
        {"max_new_tokens": 8},
        {"stop": ["x"]},
        {"repetition_penalty": 1.1},
        {"system_prompt": "Be brief."},
        {"few_shot": [{"question": "a", "answer": "b"}]},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.9},
    ],
)
def test_what_is_asked_otherwise_is_drawn_for_itself(other: dict[str, Any]) -> None:
    source = planned({"one": ["a", "b"], "other": ["a", "b"]}, other=other)
    assert all(sample == drawn for sample, drawn in source.items())


def test_a_prompt_that_a_benchmark_holds_twice_is_drawn_twice_unless_greedy() -> None:
    """Problems are what an interval counts: two that share their draws would count as two and be one."""
    texts = {"one": ["a", "b", "a"], "other": ["a", "a"]}
    drawn = planned(texts, one=SAMPLED, other=SAMPLED)
    assert all(drawn["one", problem, k] == ("one", problem, k) for problem in ("p0", "p1", "p2") for k in range(2))
    assert [drawn["other", f"p{i}", k][:2] for i in range(2) for k in range(2)] == [("one", "p0")] * 2 + [
        ("one", "p2")
    ] * 2
    greedy = planned(texts)
    assert greedy["one", "p2", 0] == greedy["other", "p1", 0] == ("one", "p0", 0)


def test_shared_prompts_are_sampled_once_and_written_for_both(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each benchmark has the rows that it has alone; a resume after a kill asks for what is missing."""
    asked: list[int] = []

    class Counting(TransformersEngine):
        def generate(self, requests: Any, on_done: Any = None) -> list[Sampled]:
            asked.append(len(requests))
            return super().generate(requests, on_done)

    monkeypatch.setattr(sample, "open_engine", lambda name, folder, options: Counting(str(folder), options))

    def run(*names: str, kept: bytes = b"") -> tuple[list[Generation], dict[str, Any], bytes, list[str]]:
        folder = tmp_path / "-".join((*names, str(len(kept))))
        benchmarks = [{"name": name, "max_new_tokens": 8, **SAMPLED} for name in names]
        spec = write_spec(folder, "generate", {"engine": "transformers", "benchmarks": benchmarks}, inputs)
        context = open_stage(GenerateSettings, spec)
        state = context.state / "samples.jsonl"
        if kept:
            state.write_bytes(kept)
        metrics = sample.run(context).metrics
        return (
            read_records(context.output / "generations.jsonl", Generation),
            metrics,
            state.read_bytes(),
            read_stage_run(folder, 0, "").notes,
        )

    alone, of_one, _, _ = run("second")
    both, metrics, state, notes = run("first", "second")
    assert [row for row in both if row.benchmark == "second"] == alone
    as_first = [(row.problem_id.replace("second", "first"), row.sample, row.completion, row.seed) for row in alone]
    firsts = [row for row in both if row.benchmark == "first"]
    assert [(row.problem_id, row.sample, row.completion, row.seed) for row in firsts] == as_first
    assert asked == [14, 14]  # one of the eight prompts is too long
    assert metrics["output_tokens"] == of_one["output_tokens"]
    assert metrics["samples"] == 2 * of_one["samples"] == 32
    assert "14 of 28 samples ask for just what an earlier one asks, and share its completion" in notes
    lines = state.splitlines(keepends=True)
    resumed, again, after, notes = run("first", "second", kept=b"".join(lines[:3]))
    assert (resumed, sorted(after.splitlines())) == (both, sorted(state.splitlines()))
    assert (again["resumed_samples"], asked[2]) == (3, 11)
    assert "resuming: 3 samples are kept, 11 are missing" in notes
