"""Writes the samples of a score artifact as a log of inspect_ai, through its own API, under a Python that has it:
`PYTHON inspect_log.py GENERATIONS.jsonl SCORES.jsonl OUT.eval`. Nothing of vcore is imported."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path

from inspect_ai.log import (  # type: ignore[import-not-found]
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    write_eval_log,
)
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput  # type: ignore[import-not-found]
from inspect_ai.scorer import CORRECT, INCORRECT, Score  # type: ignore[import-not-found]

MODEL = "vcore/grpo"


def sample(generation: dict[str, str], score: dict[str, str]) -> EvalSample:
    """What an evaluation of one turn logs: the prompt, the completion, the gold answer and the verdict. Epochs count
    from 1."""
    assert (generation["problem_id"], generation["sample"]) == (score["problem_id"], score["sample"])
    prompt, completion = generation["prompt"], generation["completion"]
    value = CORRECT if score["verdict"] == "correct" else INCORRECT
    return EvalSample(
        id=score["problem_id"],
        epoch=int(score["sample"]) + 1,
        input=prompt,
        target=score["gold"],
        messages=[ChatMessageUser(content=prompt), ChatMessageAssistant(content=completion)],
        output=ModelOutput.from_content(MODEL, completion),
        scores={"grader": Score(value=value, answer=score["extracted"])},
    )


def main(generations: str, scores: str, out: str) -> None:
    """Write the log; prints the version and how many seconds of processor time writing took."""
    rows = [[json.loads(line) for line in Path(file).read_text().splitlines()] for file in (generations, scores)]
    samples = [sample(generation, score) for generation, score in zip(*rows, strict=True)]
    right = sum(one.scores["grader"].value == CORRECT for one in samples)
    accuracy = EvalMetric(name="accuracy", value=right / len(samples))
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            created="2026-01-01T02:00:00+00:00",
            task="gsm8k",
            dataset=EvalDataset(name="gsm8k", samples=len({one.id for one in samples})),
            model=MODEL,
            config=EvalConfig(epochs=max(one.epoch for one in samples)),
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[EvalScore(name="grader", scorer="grader", metrics={"accuracy": accuracy})],
        ),
        samples=samples,
    )
    started = time.process_time()
    write_eval_log(log, out)
    took = time.process_time() - started
    print(json.dumps({"version": importlib.metadata.version("inspect_ai"), "seconds": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
