"""How a checkpoint is meant to be sampled, by its generation_config.json, for benchmarks that ask for it."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.generate.settings import DRAW, BenchmarkSettings, GenerateSettings
from stages.harness.context import StageError

NOT_SAMPLED = {"temperature": 0.0}
"""Where the file does not ask to draw: greedy decoding, whatever temperature it names."""
LIBRARY_DEFAULTS = {"temperature": 1.0, "top_k": 50}
"""What transformers draws with where the file is silent; the rest is switched off."""
REFUSED: dict[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "frequency_penalty": 0.0,
    "guidance_scale": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "penalty_alpha": 0.0,
    "presence_penalty": 0.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "top_h": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}
"""Entries that change which tokens come, and that not every engine here can do, with the values that turn them off."""


def with_generation_config(settings: GenerateSettings, folder: Path) -> GenerateSettings:
    """The settings, with what generation_config.json says in the benchmarks that ask for it.

    Raises:
        StageError: it has no such file, the file asks for what cannot be done here, for impossible values, or for
            several greedy samples.
    """
    if not any(benchmark.from_generation_config for benchmark in settings.benchmarks):
        return settings
    path = folder / "generation_config.json"
    sampling = _declared(path)
    benchmarks = [_sampled_so(b, sampling, path) if b.from_generation_config else b for b in settings.benchmarks]
    return settings.model_copy(update={"benchmarks": benchmarks})


def _declared(path: Path) -> dict[str, Any]:
    """The settings of `settings.DRAW` that the file decides."""
    fix = "Leave out from_generation_config, and say how to sample."
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: cannot be read: {error}", fix) from error
    if not isinstance(declared, dict):
        raise StageError(f"{path}: not a JSON object", fix)
    given = {name: value for name, value in declared.items() if value is not None}
    refused = [f"{name}: {given[name]}" for name, off in REFUSED.items() if given.get(name, off) not in (off, [], {})]
    if refused:
        raise StageError(f"{path}: asks for {', '.join(refused)}, which not every engine here can do", fix)
    if not given.get("do_sample", False):
        return NOT_SAMPLED | {name: given[name] for name in ("repetition_penalty",) if name in given}
    return LIBRARY_DEFAULTS | {name: given[name] for name in DRAW if name in given}


def _sampled_so(benchmark: BenchmarkSettings, sampling: dict[str, Any], path: Path) -> BenchmarkSettings:
    if sampling["temperature"] == 0 and benchmark.samples > 1:
        greedy = f"{benchmark.samples} samples, and generation_config.json decodes greedily: all would be the same"
        raise StageError(f"{benchmark.name}: {greedy}", "Ask for one sample, or say how to sample.")
    try:  # checked as if it stood in the config, where it may not stand beside `from_generation_config`
        checked = BenchmarkSettings.model_validate(
            {**benchmark.model_dump(), **sampling, "from_generation_config": False}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise StageError(
            f"{path}: {where + ': ' if where else ''}{problem['msg']}",
            "Leave out from_generation_config, and say how to sample.",
        ) from error
    return checked.model_copy(update={"from_generation_config": True})
