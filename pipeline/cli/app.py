"""The `vcore` command. Parses arguments, prints results; the work is elsewhere."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.cli import eval as cli_eval
from pipeline.cli import publish as cli_publish
from pipeline.cli import rewards as cli_rewards
from pipeline.cli import schedule as cli_schedule
from pipeline.cli import store as cli_store
from pipeline.cli import sweep as cli_sweep
from pipeline.cli.common import (
    AsJson,
    ConfigFile,
    Force,
    From,
    Home,
    Only,
    Overrides,
    Triggers,
    Until,
    count,
    options,
    out,
    print_json,
    print_results,
    print_run,
    warn_of_unreadable_runs,
)
from pipeline.cli.estimate import print_estimate
from pipeline.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_STAGE_FAILED, Interrupted, UserError
from pipeline.core.signals import asked_to_stop, stop_on_signals

app = typer.Typer(
    name="vcore",
    help="From data to trustworthy numbers: VCORE SFT, GRPO and vLLM evaluation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # `main` says what is wrong
)
app.add_typer(cli_store.app, name="store")
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_debug = False


@app.callback()
def _options(debug: Debug = False) -> None:
    global _debug
    _debug = debug


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    force: Force = None,
    start: From = None,
    only: Only = None,
    until: Until = None,
    triggers: Triggers = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline: every stage that is not cached, then a table and a report."""
    from pipeline.prefect_.run import run as run_session
    from pipeline.run.session import Session
    from pipeline.run.view import View

    stop_on_signals()
    with View() as view:
        session = Session.prepare(config, overrides or [], options(force, start, only, until, triggers), view)
        waiting = [planned for planned in session.plan if planned.state != "HIT"]
        stages = count(len(session.plan), "stage")
        view.line(
            f"[bold]{session.config.name}[/]  {stages}, {len(waiting)} to compute, store {session.store.home / 'store'}"
        )
        run_session(session)
    print_run(session, as_json)


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    force: Force = None,
    start: From = None,
    only: Only = None,
    until: Until = None,
    triggers: Triggers = None,
    estimated: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Say what memory each GPU stage needs, from the model's config alone, instead."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do and why: HIT, RUN, RESUME or WAIT for every stage."""
    if estimated:
        print_estimate(config, overrides or [], as_json)
        return
    from pipeline.run.session import plan_only

    _, store, planned = plan_only(config, overrides or [], options(force, start, only, until, triggers))
    if as_json:
        print_json({"home": str(store.home), "stages": [p.as_json() for p in planned]})
        return
    colours = {"HIT": "cyan", "RUN": "green", "RESUME": "yellow", "WAIT": "magenta"}
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "key", "last time", "why"):
        table.add_column(column, overflow="fold")
    for p in planned:
        seconds = f"{p.last_seconds:.1f} s" if p.last_seconds is not None else ""
        table.add_row(p.stage.name, f"[{colours[p.state]}]{p.state}[/]", (p.key or "")[:12], seconds, escape(p.reason))
    out.print(table)


@app.command()
def doctor(
    as_json: AsJson = False,
    home: Home = Path(".vcore"),
    rewards: Annotated[
        Path | None,
        typer.Option("--rewards", metavar="CONFIG", help="Try to fool the rewards of this config, instead."),
    ] = None,
) -> None:
    """Check this environment and say what to do about what is wrong."""
    if rewards is not None:
        probes = cli_rewards.probe_rewards(rewards)
        if as_json:
            print_json(probes)
        else:
            out.print(cli_rewards.table_of(probes))
        if any(found["fooled"] for found in probes):
            raise typer.Exit(EXIT_STAGE_FAILED)
        return
    from pipeline.cli.doctor import diagnose, render

    findings = diagnose(home)
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        render(findings, out)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(EXIT_STAGE_FAILED)


@app.command()
def runs(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """List the runs recorded below HOME."""
    from pipeline.run.record import list_runs

    warn_of_unreadable_runs(home)
    records = list_runs(home)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "status", "started", "stages"):
        table.add_column(column)
    for record in records:
        states = [stage.state for stage in record.stages]
        table.add_row(
            record.id,
            record.status,
            record.started,
            f"{states.count('ran')} ran, {states.count('cached')} cached",
        )
    out.print(table if records else f"no runs in {home / 'runs'}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `latest`.")] = "latest",
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Show one run: its stages, results and report."""
    from pipeline.run.record import find_run, load_run

    folder = find_run(home, name)
    record = load_run(folder)
    if as_json:
        print_json(record.to_json())
        return
    out.print(f"[bold]{record.id}[/]  {record.status}\n{escape(record.command)}", soft_wrap=True)
    if record.error:
        out.print(f"[red]{escape(record.error)}[/]", soft_wrap=True)
    for stage in record.stages:
        out.print(f"  {stage.name:<15} {stage.state:<7} {stage.seconds:>7.1f} s  {stage.folder}", soft_wrap=True)
    if (folder / "report.json").is_file():
        print_results(folder)
        out.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True)


app.command("eval")(cli_eval.evaluate)
app.command()(cli_eval.score)
app.command()(cli_eval.compare)
app.command()(cli_sweep.sweep)
app.command()(cli_sweep.report)
app.command()(cli_publish.push)
app.command()(cli_publish.reproduce)
app.command()(cli_schedule.serve)
app.command()(cli_schedule.deploy)


def main() -> NoReturn:
    """Entry point: every error that a user can act on is one message and an exit code, never a traceback (but with --debug)."""
    try:
        app()
    except UserError as error:
        _fail(error)
    except Exception as error:  # noqa: BLE001 - the last resort, which has --debug
        if asked_to_stop():  # while a library was being imported, which made an error of its own of it
            _fail(Interrupted("interrupted"))
        _fail(_unforeseen(error))
    raise SystemExit(EXIT_OK)


def _unforeseen(error: Exception) -> UserError:
    """What no part of the project has answered, as one message: the system refused something, or there is a bug."""
    if isinstance(error, OSError) and error.strerror:
        told = UserError(error.strerror, where=str(error.filename or ""), fix="Check the disk and the permissions.")
    else:
        told = UserError(f"{type(error).__name__}: {error}", fix="This is a bug. `vcore --debug ...` shows where.")
    told.exit_code = EXIT_STAGE_FAILED
    return told


def _fail(error: UserError) -> NoReturn:
    if _debug:
        traceback.print_exc()
    console = Console(stderr=True, highlight=False)
    word = "[yellow]stopped:[/]" if error.exit_code == EXIT_INTERRUPTED else "[red]error:[/]"
    console.print(f"{word} {escape(str(error))}", soft_wrap=True)
    if error.continue_with:
        stopped = isinstance(error, Interrupted)
        first = "What was computed is kept" if stopped else "Finished stages are kept. Once that is mended"
        console.print(f"{first}, continue with: {escape(error.continue_with)}", soft_wrap=True)
    raise SystemExit(error.exit_code)
