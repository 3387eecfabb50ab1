"""`vcore history`: the scores of a pipeline over all its runs."""

from pathlib import Path
from typing import Annotated

from rich.markup import escape

from pipeline.cli.options import AsJson, argument, option
from pipeline.cli.printing import err, out, plain_table, print_json, show
from pipeline.core.errors import ConfigError


def history(
    pipeline: Annotated[str, argument("CONFIG|NAME", "A pipeline's YAML file, or the name that its runs have.")],
    benchmark: Annotated[str | None, option("--benchmark", "Only this benchmark.")] = None,
    folder: Annotated[
        Path | None, option("--out", "Write the history as a page with charts into this folder.", metavar="FOLDER")
    ] = None,
    home: Annotated[
        Path | None,
        option("--home", "Folder of the store and the runs. Default: the config's, or .vcore.", envvar="VCORE_HOME"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the scores of every run of a pipeline over time, each against the first, with changes of protocol marked."""
    from pipeline.history.collect import collect
    from pipeline.history.view import explanation, rows

    name, of_config = _named(pipeline)
    found = collect(home or of_config, name, benchmark)
    page = None
    if folder is not None:
        from pipeline.history.page import write_page

        try:
            page = write_page(found, folder)
        except OSError as error:
            raise ConfigError(f"cannot write to {folder}: {error.strerror or error}", where="--out") from error
    if as_json:
        print_json(found.model_dump() | {"page": str(page) if page else None})
        return
    for line in found.trouble:
        err.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)
    for series in found.series:
        title = f"{series.benchmark}, {series.checkpoint}"
        table = plain_table("run", "seed", "score, 95 % interval", "change", "problems", "note", title=title, fold=True)
        for row in rows(series):
            seed = "" if row.first.seed is None else str(row.first.seed)
            change = f"[yellow]{escape(row.change)}[/]" if row.clear else escape(row.change)
            table.add_row(escape(row.runs), seed, f"{row.score} {row.bounds}", change, row.problems, escape(row.note))
        out.print(table)
        out.print()
    show(explanation(found))
    if page is not None:
        show(f"Page: {escape(str(page))}")


def _named(pipeline: str) -> tuple[str, Path]:
    """The name of a pipeline and the home of its runs, from its config, or as they are given."""
    from pipeline.config.schema import load_config

    path = Path(pipeline)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        config = load_config(path)
        return config.name, config.home_folder
    return pipeline, Path(".vcore")
