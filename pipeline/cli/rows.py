"""`vcore plan CONFIG --show-row N`: what SFT would make of a row, before anything trains."""

from pathlib import Path
from typing import Any

from rich.markup import escape

from pipeline.cli.printing import out, print_json
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only


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
    row = _shown(made["data"] / "sft.jsonl", number, model, settings)
    if as_json:
        print_json(row)
        return
    length, supervised = len(row["token_ids"]), sum(row["supervised"])
    cut = f", cut at sft.max_length {row['max_length']}" if row["tokens_cut"] else ""
    out.print(f"[bold]{escape(row['id'])}[/], {length} tokens, {supervised} of them supervised (in brackets){cut}\n")
    parts = {False: ("", ""), True: ("[green]", "[/]")}
    for learnt, text in row["text"]:
        before, after = parts[learnt]
        shown = f"[[{text}]]" if learnt else text
        out.print(f"{before}{escape(shown)}{after}", end="", soft_wrap=True)
    pairs = zip(row["tokens"], row["supervised"], strict=True)
    tokens = " ".join(f"[{token!r}]" if learnt else repr(token) for token, learnt in pairs)
    out.print(f"\n\n{escape(tokens)}", soft_wrap=True)


def _shown(path: Path, number: int, model: str, settings: Any) -> dict[str, Any]:
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
    }
