"""Samples that an earlier artifact of the model has are taken over, and only the others are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.engines import Sampled
from evaluation.engines.transformers_engine import TransformersEngine
from evaluation.records import Generation, read_records
from stages.generate import run as sample
from stages.generate.settings import BenchmarkSettings, GenerateSettings
from tests.tiny import open_stage, read_stage_run, write_spec

FITTING = 7
"""Problems of each benchmark whose prompt is no longer than the context."""


class Runs:
    """Runs the stage, and keeps how many samples its engine was asked for."""

    def __init__(self, inputs: dict[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs, self.folder, self.asked = inputs, folder, list[int]()
        asked = self.asked

        class Counting(TransformersEngine):
            def generate(self, requests: Any, on_done: Any = None) -> list[Sampled]:
                asked.append(len(requests))
                return super().generate(requests, on_done)

        monkeypatch.setattr(sample, "open_engine", lambda name, folder, options: Counting(str(folder), options))

    def run(self, name: str, *benchmarks: dict[str, Any], earlier: Any = ()) -> tuple[list[Generation], Any]:
        """The rows of a run under a name, and its metrics. `earlier`: (name, benchmarks) of runs before it."""
        folder, listed = self.folder / name, [{"max_new_tokens": 8, **benchmark} for benchmark in benchmarks]
        found = [
            {
                "folder": str(self.folder / before / "output"),
                "benchmarks": [
                    BenchmarkSettings.model_validate({"max_new_tokens": 8, **one}).identity_settings() for one in theirs
                ],
            }
            for before, theirs in earlier
        ]
        settings = {"engine": "transformers", "benchmarks": listed}
        spec = write_spec(folder, "generate", settings, self.inputs, earlier_samples=found)
        context = open_stage(GenerateSettings, spec)
        metrics = sample.run(context).metrics
        return read_records(context.output / "generations.jsonl", Generation), metrics


@pytest.fixture
def runs(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(inputs, tmp_path, monkeypatch)


def test_more_samples_of_more_benchmarks_draw_what_is_missing(runs: Runs) -> None:
    two, four = ({"name": "first", "temperature": 1.0, "samples": samples} for samples in (2, 4))
    greedy = {"name": "second"}
    runs.run("two", two)
    fresh, _ = runs.run("fresh", four, greedy)
    more, metrics = runs.run("more", four, greedy, earlier=[("two", [two])])
    assert more == fresh
    assert runs.asked == [2 * FITTING, 5 * FITTING, 3 * FITTING]
    assert (metrics["earlier_samples"], metrics["resumed_samples"]) == (2 * FITTING, 0)
    note = f"{2 * FITTING} samples are those of earlier artifacts of this model, {3 * FITTING} are missing"
    assert note in read_stage_run(runs.folder / "more", 0, "").notes
    fewer, _ = runs.run("fewer", two, earlier=[("more", [four, greedy])])  # nothing is missing
    assert [row for row in fresh if row.benchmark == "first" and row.sample < 2] == fewer
    assert runs.asked[3:] == [0]


@pytest.mark.parametrize(
    "other",
    [
        {"max_new_tokens": 7},
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"stop": ["x"]},
        {"repetition_penalty": 1.1},
        {"system_prompt": "Be brief."},
    ],
)
def test_samples_that_were_asked_for_otherwise_are_drawn_anew(runs: Runs, other: dict[str, Any]) -> None:
    before = {"name": "first", "temperature": 1.0}
    runs.run("before", before)
    _, metrics = runs.run("now", before | other, earlier=[("before", [before])])
    assert (metrics["earlier_samples"], runs.asked[1]) == (0, FITTING)


def test_an_artifact_that_is_gone_is_passed_over(runs: Runs) -> None:
    greedy = {"name": "first"}
    _, metrics = runs.run("now", greedy, earlier=[("never", [greedy])])
    assert (metrics["earlier_samples"], runs.asked) == (0, [FITTING])
