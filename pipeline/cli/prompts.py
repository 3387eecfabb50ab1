"""`--show-prompt`: what a model would be asked, and nothing run."""

import sys
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipeline.cli.printing import out, print_json
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from stages.base.settings import MAKE


def print_prompts(config: PipelineConfig, count: int, as_json: bool) -> None:
    """Print the first prompts of each benchmark of a config."""
    prompts = shown_prompts(config, count)
    if as_json:
        print_json(prompts)
        return
    for prompt in prompts:
        name = f"{prompt['benchmark']} {escape(prompt['problem_id'])}"
        out.print(f"[bold]{name}[/], {len(prompt['token_ids'])} tokens")
        sys.stdout.write(f"{prompt['text']}\n{prompt['token_ids']}\n{prompt['tokens']}\n\n")


def shown_prompts(config: PipelineConfig, count: int) -> list[dict[str, Any]]:
    """The first prompts of each benchmark exactly as the engine gets them: text, token ids and the tokens' own texts.

    Raises `ConfigError` where problems or tokenizer cannot be read, or the tokenizer has no chat template.
    """
    if config.model == MAKE:
        raise ConfigError("the model has yet to be made, and has no tokenizer", where="model", fix="Run --until base.")
    from evaluation.benchmarks import get
    from evaluation.custom_problems import read_custom
    from evaluation.engines.base import load_tokenizer
    from evaluation.loading import load
    from stages.generate.plan import plan_prompts

    try:
        chat = any(benchmark.prompt == "chat" for benchmark in config.benchmarks)
        tokenizer = load_tokenizer(config.model, chat, config.template_date, config.model_revision)
        problems = {
            b.name: read_custom(Path(b.own.file).expanduser(), b.name, b.own.kind, b.own.template)[:count]
            if b.own is not None
            else load(get(b.name), b.split, config.data_folder, b.problems, b.problem_seed, where=b.where)[:count]
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
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
