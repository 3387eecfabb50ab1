"""`vcore push` and `vcore reproduce`: a result on its way out, and back."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.common import AsJson, Home, Overrides, count, out, print_json
from pipeline.core.errors import EXIT_STAGE_FAILED, UserError


def push(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN[:CHECKPOINT]", help="A run by id or `latest`; its last checkpoint, or base, sft, grpo."
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.")],
    home: Home = Path(".vcore"),
    folder: Annotated[
        Path | None, typer.Option("--out", help="Keep the repository's files in this new folder.")
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="The card's licence, for example apache-2.0.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload. Without it, nothing leaves this machine.")] = False,
) -> None:
    """Put a checkpoint on the hub with a model card and the record of its results; says what it would do unless --yes."""
    from pipeline.share.publish import assemble, upload

    name, _, checkpoint = run.partition(":")
    with tempfile.TemporaryDirectory(prefix="vcore-push-") as temporary:
        target = folder or Path(temporary) / "repository"
        files = assemble(home, name, checkpoint or None, repo, license, target, linked=folder is None)
        for file in files:
            out.print(f"{(target / file).stat().st_size:>14,}  {escape(str(file))}")
        out.print(
            f"{count(len(files), 'file')}, {sum((target / f).stat().st_size for f in files):,} bytes for {escape(repo)}"
        )
        out.print(
            "vcore/ names paths and hardware of this machine; README.md is the card. Look at them before they leave."
        )
        if not yes:
            out.print((target / "README.md").read_text(encoding="utf-8"), markup=False)
            out.print("Nothing was uploaded. With --yes it will be.")
            return
        out.print(f"uploaded to {upload(target, repo, private)}")


def reproduce(
    record: Annotated[
        str,
        typer.Argument(
            metavar="RECORD", help="A run's id, a report.json, a manifest.json, or a folder with one of them."
        ),
    ],
    home: Home = Path(".vcore"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a recorded result again in a store of its own, and say whether it came back: bit for bit, within the intervals, or not."""
    from pipeline.core.signals import stop_on_signals
    from pipeline.run.record import report_of
    from pipeline.run.view import View
    from pipeline.share.reproduce import compare, read_record, rerun

    first, name = read_record(home, record)
    stop_on_signals()
    try:
        with View() as view:
            session = rerun(first, home / "reproduce" / name, overrides or [], view)
    except UserError as error:
        if error.continue_with:  # `vcore run` would go on as well, and compare nothing
            words = ["vcore", "reproduce", record, "--home", str(home)]
            error.continue_with = shlex.join(
                [*words, *(word for override in overrides or [] for word in ("--set", override))]
            )
        raise
    found = compare(first, json.loads(report_of(session.record.folder).read_text(encoding="utf-8")))
    if as_json:
        print_json(found)
    else:
        table = Table(box=None, pad_edge=False)
        for column in ("checkpoint", "benchmark", "recorded", "again", ""):
            table.add_column(column)
        for r in found["results"]:
            recorded = f"{100 * r['value']:.1f} % [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
            again = "" if r["again"] is None else f"{100 * r['again']:.1f} %"
            table.add_row(r["checkpoint"], r["benchmark"], recorded, again, r["came_back"])
        out.print(table)
        changed = [stage["stage"] for stage in found["stages"] if not stage["same_bytes"]]
        out.print(f"other bytes: {', '.join(changed)}" if changed else "every artifact has the same bytes")
        for difference in found["differences"]:
            out.print(f"  {escape(difference)}", soft_wrap=True)
        out.print(f"[bold]{found['verdict']}[/]")
    if found["verdict"] == "not reproduced":
        raise typer.Exit(EXIT_STAGE_FAILED)
