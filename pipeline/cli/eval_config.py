"""`vcore eval`: a pipeline config for one given checkpoint and some benchmarks, run through the same stages and store as any other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.schema import PipelineConfig


def eval_config(
    model: str, benchmarks: list[dict[str, Any]], engine: str, seed: int, home: Path, data: Path | None
) -> dict[str, Any]:
    """The values of a config that has no training: fetch the checkpoint, sample, score, report."""
    return {
        "name": "eval",
        "seed": seed,
        # A folder is named as it is found from anywhere; what is no folder is a hub id.
        "model": str(Path(model).expanduser().resolve()) if Path(model).expanduser().is_dir() else model,
        "home": str(home),
        **({"data_dir": str(data)} if data is not None else {}),
        "benchmarks": benchmarks,
        "generate": {"engine": engine},
    }


def write_config(values: dict[str, Any], home: Path) -> Path:
    """Keep the config below HOME/eval, under a name of its content, so that `vcore run` can repeat and change it."""
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path = home / "eval" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def shown_prompts(config: PipelineConfig, count: int) -> list[dict[str, Any]]:
    """The first prompts of each benchmark exactly as the engine gets them: text, token ids and the tokens' own texts.

    Raises:
        evaluation.loading.LoadError, RecordError: the problems cannot be read.
        OSError, ValueError: the tokenizer cannot be had, or has no chat template.
    """
    from evaluation.benchmarks import get
    from evaluation.custom_problems import read_custom
    from evaluation.engines.base import load_tokenizer
    from evaluation.loading import load
    from stages.generate.plan import plan_prompts

    tokenizer = load_tokenizer(config.model, chat=any(benchmark.prompt == "chat" for benchmark in config.benchmarks))
    problems = {
        b.name: read_custom(Path(b.own.file).expanduser(), b.name, b.own.kind, b.own.template)[:count]
        if b.own is not None
        else load(get(b.name), b.split, config.data_folder, b.problems, b.problem_seed)[:count]
        for b in config.benchmarks
    }
    settings = config.generate.model_copy(update={"benchmarks": config.benchmarks})
    return [
        {
            "benchmark": prompt.benchmark.name,
            "problem_id": prompt.problem.id,
            "text": prompt.text,
            "token_ids": list(prompt.token_ids),
            "tokens": [tokenizer.decode([token]) for token in prompt.token_ids],
        }
        for prompt in plan_prompts(settings, problems, tokenizer)
    ]
