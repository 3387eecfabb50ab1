"""`--show-prompt` and `--show-row`: what a model would be asked, and what SFT would learn, and nothing run."""

import sys
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipeline.cli.printing import out, print_json
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only
from stages.base.settings import MAKE, gguf_file


def print_prompts(path: Path, overrides: list[str], count: int, as_json: bool) -> None:
    """Print the first prompts of each benchmark of a config."""
    config = load_config(path, overrides)
    prompts = shown_prompts(config, count, _with_tokenizer(path, overrides, config.model))
    if as_json:
        print_json(prompts)
        return
    for prompt in prompts:
        name = f"{prompt['benchmark']} {escape(prompt['problem_id'])}"
        if config.served:
            out.print(f"[bold]{name}[/], as it is sent; the server renders it")
            sys.stdout.write(f"{prompt['text']}\n\n")
            continue
        out.print(f"[bold]{name}[/], {len(prompt['token_ids'])} tokens")
        sys.stdout.write(f"{prompt['text']}\n{prompt['token_ids']}\n{prompt['tokens']}\n\n")


def _with_tokenizer(path: Path, overrides: list[str], model: str) -> str:
    """A checkpoint that has the model's tokenizer: `model` itself, or what the base stage made where that makes one.

    Raises `ConfigError` where the base stage has not made it yet.
    """
    if model != MAKE and gguf_file(model) is None:
        return model
    _, _, planned = plan_only(path, overrides, Options())
    base = next((p.artifact for p in planned if p.stage.name == "base"), None)
    if base is None:
        message = "the model has yet to be made, and has no tokenizer"
        raise ConfigError(message, where="model", fix=f"vcore run {path} --until base")
    return str(base.folder / "model")


def shown_prompts(config: PipelineConfig, count: int, model: str) -> list[dict[str, Any]]:
    """The first prompts of each benchmark exactly as the engine gets them: text, token ids and the tokens' own texts.

    Args:
        count: prompts of each benchmark.
        model: the checkpoint or hub id whose tokenizer and chat template are used.

    Raises:
        ConfigError: problems or tokenizer cannot be read, or the tokenizer has no chat template.
    """
    from evaluation.benchmarks import get
    from evaluation.engines.base import load_tokenizer
    from evaluation.loading import load
    from stages.data.own_problems import own_problems
    from stages.generate.plan import plan_prompts
    from stages.harness.context import StageError

    try:
        chat = any(benchmark.prompt == "chat" for benchmark in config.benchmarks)
        tokenizer = None  # of a served model, whose server renders
        if not config.served:
            tokenizer = load_tokenizer(model, chat, config.template_date, config.model_revision)
        problems = {
            b.name: own_problems(b.own, b.name)[:count]
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
                "tokens": [tokenizer.decode([token]) for token in prompt.token_ids] if tokenizer else [],
            }
            for prompt in plan_prompts(settings, problems, tokenizer)
        ]
    except StageError as error:
        raise ConfigError(error.message, fix=error.fix) from error
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error


def print_row(path: Path, overrides: list[str], number: int, as_json: bool) -> None:
    """Row `number` (from 1) of the demonstrations as SFT is given it, the supervised part in brackets and green.

    Raises:
        ConfigError: there is no such row, the data or the model has not been made, or SFT would refuse the row.
    """
    config, _, planned = plan_only(path, overrides, Options())
    settings = next((p.stage.settings for p in planned if p.stage.name == "sft"), None)
    if settings is None:
        raise ConfigError("the config has no `sft:`, and no row of it is trained on", where=str(path))
    made = {p.stage.name: p.artifact.folder for p in planned if p.artifact is not None}
    if "data" not in made:
        raise ConfigError("the data has not been made yet", fix=f"vcore run {path} --until data")
    folder = Path(config.model).expanduser()
    if "base" not in made and not folder.is_dir():
        raise ConfigError("the model has not been made or fetched yet", fix=f"vcore run {path} --until base")
    model = str(made["base"] / "model") if "base" in made else str(folder)
    row = _shown_row(made["data"] / "sft.jsonl", number, model, settings)
    if as_json:
        print_json(row)
        return
    length, supervised = len(row["token_ids"]), sum(row["supervised"])
    cut = f", cut at sft.max_length {row['max_length']}" if row["tokens_cut"] else ""
    weight = "" if row["weight"] is None else f", weight {row['weight']:g}"
    counts = f"{length} tokens, {supervised} of them supervised (in brackets){cut}{weight}"
    out.print(f"[bold]{escape(row['id'])}[/], {counts}\n")
    parts = {False: ("", ""), True: ("[green]", "[/]")}
    for learnt, text in row["text"]:
        before, after = parts[learnt]
        shown = f"[[{text}]]" if learnt else text
        out.print(f"{before}{escape(shown)}{after}", end="", soft_wrap=True)
    pairs = zip(row["tokens"], row["supervised"], strict=True)
    tokens = " ".join(f"[{token!r}]" if learnt else repr(token) for token, learnt in pairs)
    out.print(f"\n\n{escape(tokens)}", soft_wrap=True)


def _shown_row(path: Path, number: int, model: str, settings: Any) -> dict[str, Any]:
    from evaluation.engines.base import load_tokenizer
    from stages.harness.context import StageError
    from stages.sft.encoding import read_demonstrations, rendered_rows, template_origin, tokens_of

    try:
        rows = read_demonstrations(path)
        if not 1 <= number <= len(rows):
            raise ConfigError(f"--show-row {number}: there are the rows 1 to {len(rows)}")
        tokenizer = load_tokenizer(model, date=settings.template_date)
        row = rows[number - 1]
        origin = template_origin(Path(model), settings.trainer)
        (rendered,) = rendered_rows([row], tokenizer, settings, origin)
        tokens = tokens_of([rendered.prompt], [rendered.answer], tokenizer)
    except StageError as error:
        raise ConfigError(error.message, fix=error.fix) from error
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    (ids,), (mask,) = tokens["input_ids"], tokens["completion_mask"]
    ids, cut = ids[: settings.max_length], len(ids) > settings.max_length
    learnt = [bool(bit) or not settings.completion_only_loss for bit in mask[: settings.max_length]]
    asked = learnt.count(False)
    return {
        "id": row.get("id", str(number)),
        "text": [(flag, tokenizer.decode(part)) for flag, part in ((False, ids[:asked]), (True, ids[asked:])) if part],
        "token_ids": ids,
        "tokens": [tokenizer.decode([token]) for token in ids],
        "supervised": learnt,
        "tokens_cut": cut,
        "max_length": settings.max_length,
        "weight": row.get("weight"),
    }
