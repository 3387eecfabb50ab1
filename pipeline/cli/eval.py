"""`vcore eval`: a checkpoint evaluated without a pipeline's config, which is made of the arguments."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.options import AsJson, Home, Overrides, ShowPrompt, option
from pipeline.cli.printing import print_run
from pipeline.core.errors import ConfigError
from pipeline.core.signals import stop_on_signals
from stages.generate.settings import is_address, server_url


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id, or a server's address (http://...).")],
    benchmarks: Annotated[str, option("--benchmarks", "Names with commas: aime24,math500.")],
    data: Annotated[
        Path | None, option("--data", "Folder with local copies of the benchmarks.", envvar="VCORE_DATA_DIR")
    ] = None,
    engine: Annotated[
        str | None, option("--engine", "vllm (default) or transformers; a server is asked as it is.")
    ] = None,
    served: Annotated[str | None, option("--model", "Of a server: the name it knows the model by.")] = None,
    key_variable: Annotated[
        str | None, option("--api-key-env", "Of a server: the environment variable that holds its key.")
    ] = None,
    problems: Annotated[int | None, option("--problems", "Only the first so many of each benchmark.")] = None,
    samples: Annotated[int, option("--samples", "Completions per problem; several need a temperature.")] = 1,
    temperature: Annotated[float, option("--temperature", "0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, option("--max-new-tokens", "Limit of each completion.")] = 8192,
    thinking_budget: Annotated[
        int | None, option("--thinking-budget", "Tokens after which a thought is ended for the model (vllm).")
    ] = None,
    seed: Annotated[int, option("--seed", "Every sample's own seed is made from it.")] = 0,
    overrides: Overrides = None,
    show_prompt: ShowPrompt = 0,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint without a pipeline: the same stages, the same store, nothing twice."""
    from pipeline.cli.planning.prompts import print_prompts
    from pipeline.plan.decide import Options
    from pipeline.prefect_.run import run
    from pipeline.run.session import Session
    from pipeline.run.view import View

    sampling = {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
    chosen = [{"name": name.strip(), "problems": problems, **sampling} for name in benchmarks.split(",")]
    values = eval_config(model, chosen, engine or "vllm", seed, home, data, thinking_budget)
    if is_address(model):
        values |= served_config(model, served, key_variable, engine, thinking_budget)
    elif served is not None or key_variable is not None:
        what = "--model" if served is not None else "--api-key-env"
        raise ConfigError(f"{model} is no address of a server (http://HOST:PORT/v1)", where=what)
    path = write_config(values, home)
    with naming_arguments(path):
        if show_prompt:
            print_prompts(path, overrides or [], show_prompt, as_json)
            return
        stop_on_signals()
        with View() as view:
            session = Session.prepare(path, overrides or [], Options(), view)
            run(session)
        print_run(session, as_json)


def eval_config(
    model: str,
    benchmarks: list[dict[str, Any]],
    engine: str,
    seed: int,
    home: Path,
    data: Path | None,
    thinking_budget: int | None = None,
) -> dict[str, Any]:
    """The values of a config that has no training: fetch the checkpoint, sample, score, report."""
    budget = {} if thinking_budget is None else {"thinking_budget": thinking_budget}
    return {
        "name": "eval",
        "seed": seed,
        # A path is named as it is found from anywhere; what is none is a hub id.
        "model": str(Path(model).expanduser().resolve()) if Path(model).expanduser().exists() else model,
        "home": str(home),
        **({"data_dir": str(data)} if data is not None else {}),
        "benchmarks": benchmarks,
        "generate": {"engine": engine, **budget},
    }


def served_config(
    address: str, name: str | None, key_variable: str | None, engine: str | None, thinking_budget: int | None
) -> dict[str, Any]:
    """The values of a config that are different where a server samples.

    Raises:
        ConfigError: the model has no name, the address cannot be one, or something was asked for that only an engine
            of ours can do.
    """
    if name is None:
        raise ConfigError("which of the server's models?", where="--model", fix=f"{address}/models lists them.")
    if engine not in (None, "openai"):
        raise ConfigError(f"a server samples by itself, not with {engine}", where="--engine", fix="Leave it out.")
    if thinking_budget is not None:
        raise ConfigError("a server ends no thought for the model", where="--thinking-budget", fix="Leave it out.")
    try:
        url = server_url(address)
    except ValueError as error:  # before it is written into a file: it may hold a password
        raise ConfigError(str(error), where="MODEL") from error
    key = {} if key_variable is None else {"api_key_env": key_variable}
    return {"model": url, "generate": {"engine": "openai", "server": {"model": name, **key}}}


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
    """The argument of `vcore eval` or `vcore verify` that a setting came from."""
    first, last = setting.partition(".")[0], setting.rpartition(".")[2]
    if first == "benchmarks" and last in ("problems", "samples", "temperature", "max_new_tokens", "prompt"):
        return f"--{last.replace('_', '-')}"
    if ".few_shot" in setting:
        return "--few-shot"
    if last == "thinking_budget":
        return "--thinking-budget"
    if last == "api_key_env":
        return "--api-key-env"
    if setting.startswith("generate.server"):
        return "--model"
    return {"model": "MODEL", "data_dir": "--data", "generate": "--engine"}.get(first, f"--{first or 'benchmarks'}")
