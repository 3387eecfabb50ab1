"""`vcore eval`: a checkpoint evaluated without a pipeline's config, which is made of the arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipeline.cli.common import AsJson, Home, Overrides, option, out, print_json, print_run
from pipeline.core.signals import stop_on_signals


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint folder or a hub id.")],
    benchmarks: Annotated[str, option("--benchmarks", "Names with commas: aime24,math500.")],
    data: Annotated[
        Path | None, option("--data", "Folder with local copies of the benchmarks.", envvar="VCORE_DATA_DIR")
    ] = None,
    engine: Annotated[str, option("--engine", "vllm or transformers.")] = "vllm",
    problems: Annotated[int | None, option("--problems", "Only the first so many of each benchmark.")] = None,
    samples: Annotated[int, option("--samples", "Completions per problem; several need a temperature.")] = 1,
    temperature: Annotated[float, option("--temperature", "0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, option("--max-new-tokens", "Limit of each completion.")] = 8192,
    seed: Annotated[int, option("--seed", "Every sample's own seed is made from it.")] = 0,
    overrides: Overrides = None,
    show_prompt: Annotated[
        int, option("--show-prompt", "Print N prompts of each benchmark, and run nothing.", metavar="N")
    ] = 0,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint without a pipeline: the same stages, the same store, nothing twice."""
    from pipeline.cli.eval_config import eval_config, naming_arguments, shown_prompts, write_config
    from pipeline.config.schema import load_config
    from pipeline.plan.decide import Options
    from pipeline.prefect_.run import run
    from pipeline.run.session import Session
    from pipeline.run.view import View

    sampling = {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
    chosen = [{"name": name.strip(), "problems": problems, **sampling} for name in benchmarks.split(",")]
    path = write_config(eval_config(model, chosen, engine, seed, home, data), home)
    with naming_arguments(path):
        if show_prompt:
            _print_prompts(shown_prompts(load_config(path, overrides or []), show_prompt), as_json)
            return
        stop_on_signals()
        with View() as view:
            session = Session.prepare(path, overrides or [], Options(), view)
            run(session)
        print_run(session, as_json)


def _print_prompts(prompts: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(prompts)
        return
    for prompt in prompts:
        name = f"{prompt['benchmark']} {escape(prompt['problem_id'])}"
        out.print(f"[bold]{name}[/], {len(prompt['token_ids'])} tokens")
        sys.stdout.write(f"{prompt['text']}\n{prompt['token_ids']}\n{prompt['tokens']}\n\n")
