"""Samples of earlier artifacts that are just what is asked for now: they are taken over and not drawn again."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluation.engines import Sampled
from evaluation.records import Generation, RecordError, read_records
from stages.generate.finished import Finished
from stages.generate.plan import PlannedPrompt
from stages.generate.settings import BenchmarkSettings

DRAWN = ("stop", "length")
"""Reasons to finish of completions that an engine has drawn."""
CHOOSES = ("name", "own", "split", "where", "problems", "problem_seed", "samples")
"""Settings of a benchmark that choose its problems and how often they are sampled, and not how."""

Asked = tuple[str, str, int | None]


def take_over(
    earlier: Iterable[Mapping[str, Any]],
    prompts: Iterable[PlannedPrompt],
    settings: Iterable[BenchmarkSettings],
    finished: Finished,
    seed: int,
) -> int:
    """Add to `finished` whatever earlier artifacts have of its missing samples: in memory alone, since the store has
    them. Returns how many they had.

    Model, engine, versions and all settings but the benchmarks are equal, as whoever names the artifacts has seen to.
    A sample is the same where the benchmark is sampled in the same way, and its prompt and its seed are equal.

    Args:
        earlier: artifacts, each with its `folder` and the identity settings of its `benchmarks`.
        prompts: those that are sampled.
        settings: of the benchmarks, as in the config.
        seed: the pipeline's.
    """
    ways = {benchmark.name: _way(benchmark.identity_settings()) for benchmark in settings}
    left = finished.planned - finished.samples.keys()
    asked = {
        sample: (ways[prompt.benchmark.name], prompt.text, prompt.seed(sample[2], seed))
        for prompt in prompts
        for sample in prompt.samples()
        if sample in left
    }
    wanted, found = set(asked.values()), dict[Asked, Sampled]()
    for artifact in earlier:
        if wanted <= found.keys():
            break
        theirs = {benchmark["name"]: _way(benchmark) for benchmark in artifact["benchmarks"]}
        for row in _rows(Path(artifact["folder"]) / "generations.jsonl"):
            same = (theirs.get(row.benchmark, ""), row.prompt, row.seed)
            if same in wanted and same not in found and row.finish_reason in DRAWN:
                found[same] = Sampled(row.completion, row.completion_tokens, row.finish_reason, row.thinking)
    taken = {sample: found[same] for sample, same in asked.items() if same in found}
    finished.samples |= taken
    return len(taken)


def depends_on_length(model: Path) -> bool:
    """Whether the longest request of a run decides how a model computes the others: with LongRoPE vLLM takes factors
    for the length that the engine is made for."""
    config = (model / "config.json").read_text(encoding="utf-8")
    return '"longrope"' in config or '"su"' in config  # its older name


def _way(benchmark: Mapping[str, Any]) -> str:
    """How a benchmark is sampled, as a text."""
    return json.dumps({name: value for name, value in benchmark.items() if name not in CHOOSES}, sort_keys=True)


def _rows(file: Path) -> list[Generation]:
    """Those of an artifact; none where it has been removed meanwhile."""
    try:
        return read_records(file, Generation)
    except (OSError, RecordError):
        return []
