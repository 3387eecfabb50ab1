"""`vcore push` and `vcore reproduce`: a result on its way out, and back."""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.cli.options import AsJson, Home, Overrides, argument, option
from pipeline.cli.printing import count, interval, out, plain_table, print_json, show
from pipeline.core.errors import EXIT_STAGE_FAILED, UserError
from pipeline.core.signals import stop_on_signals


def push(
    run: Annotated[
        str, argument("RUN[:CHECKPOINT]", "A run by id or `latest`; its last checkpoint, or base, sft, grpo.")
    ],
    repo: Annotated[str, argument("OWNER/NAME", "The repository on the hub.")],
    home: Home = Path(".vcore"),
    folder: Annotated[Path | None, option("--out", "Keep the repository's files in this new folder.")] = None,
    license: Annotated[str | None, option("--license", "The card's licence, for example apache-2.0.")] = None,
    private: Annotated[bool, option("--private", "Make the repository a private one.")] = False,
    yes: Annotated[bool, option("--yes", "Upload. Without it, nothing leaves this machine.")] = False,
) -> None:
    """Put a checkpoint on the hub with a model card and the record of its results; without --yes, only say so."""
    from pipeline.share.publish import assemble, upload

    name, _, checkpoint = run.partition(":")
    with tempfile.TemporaryDirectory(prefix="vcore-push-") as temporary:
        target = folder or Path(temporary) / "repository"
        files = assemble(home, name, checkpoint or None, repo, license, target, linked=folder is None)
        sizes = {file: (target / file).stat().st_size for file in files}
        for file, size in sizes.items():
            out.print(f"{size:>14,}  {escape(str(file))}")
        out.print(f"{count(len(files), 'file')}, {sum(sizes.values()):,} bytes for {escape(repo)}")
        out.print(
            "vcore/ names paths and hardware of this machine; README.md is the card. Look at them before they leave."
        )
        if yes:
            out.print(f"uploaded to {upload(target, repo, private)}")
            return
        out.print((target / "README.md").read_text(encoding="utf-8"), markup=False)
        out.print("Nothing was uploaded. With --yes it will be.")


def reproduce(
    record: Annotated[
        str, argument("RECORD", "A run's id, a report.json, a manifest.json, or a folder with one of them.")
    ],
    home: Home = Path(".vcore"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a recorded result again in a store of its own: bit for bit, within the intervals, or not reproduced."""
    from pipeline.run.record import report_of
    from pipeline.run.view import View
    from pipeline.share.reproduce import compare, read_record, read_report, rerun

    first, name = read_record(home, record)
    stop_on_signals()
    try:
        with View() as view:
            session = rerun(first, home / "reproduce" / name, overrides or [], view)
    except UserError as error:
        if error.continue_with:  # `vcore run` would go on as well, and compare nothing
            sets = [word for override in overrides or [] for word in ("--set", override)]
            error.continue_with = shlex.join(["vcore", "reproduce", record, "--home", str(home), *sets])
        raise
    comparison = compare(first, read_report(report_of(session.record.folder)))
    if as_json:
        print_json(comparison)
    else:
        table = plain_table("checkpoint", "benchmark", "recorded", "again", "")
        for row in comparison["results"]:
            again = "" if row["again"] is None else f"{100 * row['again']:.1f} %"
            table.add_row(row["checkpoint"], row["benchmark"], interval(row), again, row["came_back"])
        out.print(table)
        changed = [stage["stage"] for stage in comparison["stages"] if not stage["same_bytes"]]
        out.print(f"other bytes: {', '.join(changed)}" if changed else "every artifact has the same bytes")
        for difference in comparison["differences"]:
            show(f"  {escape(difference)}")
        if (broken := comparison["broken"]) is not None:
            show(f"  {broken} was to come back bit for bit, and nothing that is recorded differs: ")
            show("  a retry with less memory, the environment, a library that no list names, or a fault of vcore's")
        out.print(f"[bold]{comparison['verdict']}[/]")
    if comparison["verdict"] == "not reproduced":
        raise typer.Exit(EXIT_STAGE_FAILED)
