"""`vcore eval`: a checkpoint evaluated without a pipeline's config, which is made of the arguments."""

import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipeline.cli.options import AsJson, Home, Overrides, option
from pipeline.cli.printing import out, print_json, print_run
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import ConfigError
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


def eval_config(
    model: str, benchmarks: list[dict[str, Any]], engine: str, seed: int, home: Path, data: Path | None
) -> dict[str, Any]:
    """The values of a config that has no training: fetch the checkpoint, sample, score, report."""
    return {
        "name": "eval",
        "seed": seed,
        # A path is named as it is found from anywhere; what is none is a hub id.
        "model": str(Path(model).expanduser().resolve()) if Path(model).expanduser().exists() else model,
        "home": str(home),
        **({"data_dir": str(data)} if data is not None else {}),
        "benchmarks": benchmarks,
        "generate": {"engine": engine},
    }


def write_config(values: dict[str, Any], home: Path) -> Path:
    """Keep the config below HOME/eval, under a name of its content, so that `vcore run` can repeat and change it."""
    import yaml

    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path = home / "eval" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def naming_arguments(path: Path) -> Iterator[None]:
    """Have errors about the config that was made name the argument a value came from, not its line in that file."""
    try:
        yield
    except ConfigError as error:
        places = re.compile(rf"{re.escape(str(path))}(:\d+)?: (?=([\w.]*))")
        error.message = places.sub(lambda place: f"{_argument(place[2])}: ", error.message)
        raise


def _argument(setting: str) -> str:
    """The argument of `vcore eval` that a setting came from."""
    first, last = setting.partition(".")[0], setting.rpartition(".")[2]
    if first == "benchmarks" and last in ("problems", "samples", "temperature", "max_new_tokens"):
        return f"--{last.replace('_', '-')}"
    return {"model": "MODEL", "data_dir": "--data", "generate": "--engine"}.get(first, f"--{first or 'benchmarks'}")


def shown_prompts(config: PipelineConfig, count: int) -> list[dict[str, Any]]:
    """The first prompts of each benchmark exactly as the engine gets them: text, token ids and the tokens' own texts.

    Raises `ConfigError` where problems or tokenizer cannot be read, or the tokenizer has no chat template.
    """
    from evaluation.benchmarks import get
    from evaluation.custom_problems import read_custom
    from evaluation.engines.base import load_tokenizer
    from evaluation.loading import load
    from stages.generate.plan import plan_prompts

    try:
        chat = any(benchmark.prompt == "chat" for benchmark in config.benchmarks)
        tokenizer = load_tokenizer(config.model, chat, config.template_date)
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
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
