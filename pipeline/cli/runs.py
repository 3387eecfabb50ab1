"""Commands of `vcore` about one run: `run` and `plan`, and about those that were: `runs` and `show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape

from pipeline.cli.options import (
    AsJson,
    ConfigFile,
    Force,
    From,
    Home,
    Only,
    Overrides,
    ShowPrompt,
    Triggers,
    Until,
    argument,
    only_one,
    option,
    options,
)
from pipeline.cli.printing import (
    count,
    gib,
    out,
    plain_table,
    print_gate,
    print_json,
    print_results,
    print_run,
    show,
    warn_of_unreadable_runs,
)
from pipeline.core.errors import Interrupted
from pipeline.core.signals import stop_on_signals

if TYPE_CHECKING:
    from pipeline.run.documents import RunRecordDocument

COLOURS = {"HIT": "cyan", "RUN": "green", "RESUME": "yellow", "WAIT": "magenta"}


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
    from pipeline.config.schema import load_config
    from pipeline.launch.by_hand import rendezvous
    from pipeline.launch.peer import take_part
    from pipeline.prefect_.run import run as run_session
    from pipeline.run.session import Session
    from pipeline.run.view import View

    stop_on_signals()
    place = rendezvous()
    if place is not None and place.rank > 0:
        settings = load_config(config, overrides or [])
        try:
            take_part(settings.home_folder, place, settings.execution, show)
        except KeyboardInterrupt as stop:
            raise Interrupted("interrupted", fix="Start the same command again on all nodes to continue.") from stop
        return
    with View() as view:
        session = Session.prepare(config, overrides or [], options(force, start, only, until, triggers), view)
        stages = count(len(session.plan), "stage")
        waiting = sum(planned.state != "HIT" for planned in session.plan)
        view.line(
            f"[bold]{session.config.name}[/]  {stages}, {waiting} to compute, store {session.store.home / 'store'}"
        )
        if left := session.outlook:
            view.line(f"  {left}")
        run_session(session)
    print_run(session, as_json)


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    force: Force = None,
    start: From = None,
    only: Only = None,
    until: Until = None,
    triggers: Triggers = None,
    estimated: Annotated[
        bool, option("--estimate", "Say what time and memory each stage needs, instead; on a CPU it measures first.")
    ] = False,
    show_prompt: ShowPrompt = 0,
    show_row: Annotated[
        int | None, option("--show-row", "Print row N of the demonstrations as SFT gets it, instead.", metavar="N")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do and why: HIT, RUN, RESUME or WAIT for every stage."""
    instead = {"--show-prompt": show_prompt > 0, "--show-row": show_row is not None, "--estimate": estimated}
    only_one([flag for flag, given in instead.items() if given])
    if show_prompt:
        from pipeline.cli.planning.prompts import print_prompts

        print_prompts(config, overrides or [], show_prompt, as_json)
        return
    if show_row is not None:
        from pipeline.cli.planning.prompts import print_row

        print_row(config, overrides or [], show_row, as_json)
        return
    if estimated:
        from pipeline.cli.planning.estimate import print_estimate

        stop_on_signals()  # what measures the machine ends with this command, whoever stops it
        try:
            print_estimate(config, overrides or [], options(force, start, only, until, triggers), as_json)
        except KeyboardInterrupt as stop:
            raise Interrupted("interrupted") from stop
        return
    from pipeline.checks.hints import hints
    from pipeline.launch.machine import leased_gpus
    from pipeline.run.gates.planned import gate_notes
    from pipeline.run.outlook import outlook
    from pipeline.run.session import plan_only

    settings, store, planned = plan_only(config, overrides or [], options(force, start, only, until, triggers))
    notes, cheaper = gate_notes(settings, store), hints(settings, planned)
    gpus = [leased_gpus(settings.execution, p.stage) if p.state != "HIT" else 0 for p in planned]
    if as_json:
        stages = [p.as_json() | {"gpus": held} for p, held in zip(planned, gpus, strict=True)]
        print_json({"home": str(store.home), "stages": stages, "gate": notes, "hints": cheaper})
        return
    table = plain_table("stage", "state", "key", "last time", *(["GPUs"] if any(gpus) else []), "why", fold=True)
    for p, held in zip(planned, gpus, strict=True):
        seconds = f"{p.last_seconds:.1f} s" if p.last_seconds is not None else ""
        about = [(p.key or "")[:12], seconds, *([str(held or "")] if any(gpus) else [])]
        table.add_row(p.stage.name, f"[{COLOURS[p.state]}]{p.state}[/]", *about, escape(p.reason))
    out.print(table)
    if left := outlook(planned, settings.execution):
        show(left)
    for p in planned:
        for note in p.notes:
            show(f"[yellow]{p.stage.name}: {escape(note)}[/]")
    for hint in cheaper:
        show(f"[yellow]{escape(hint)}[/]")
    for note in notes:
        show(f"[yellow]gate: {escape(note)}[/]")


def list_recorded(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """List the runs recorded below HOME."""
    from pipeline.run.record import list_runs

    warn_of_unreadable_runs(home)
    records = list_runs(home)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    table = plain_table("run", "status", "started", "stages")
    for record in records:
        states = [stage.state for stage in record.stages]
        stages = f"{states.count('ran')} ran, {states.count('cached')} cached"
        table.add_row(record.id, record.status, record.started, stages)
    out.print(table if records else f"no runs in {home / 'runs'}")


def show_run(
    name: Annotated[str, argument("RUN", "A run's id, its beginning, or `latest`.")] = "latest",
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
    show(f"[bold]{record.id}[/]  {record.status}\n{escape(record.command)}")
    if record.error:
        show(f"[red]{escape(record.error)}[/]")
    for stage in record.stages:
        memory = gib(stage.peak_memory_gib) if stage.peak_memory_gib else ""
        show(f"  {stage.name:<15} {stage.state:<7} {stage.seconds:>7.1f} s  {memory:>9}  {stage.folder}")
    if record.status != "done":
        _print_left(record)
    print_gate(record)
    if (folder / "report.json").is_file():
        print_results(folder)
        show(f"\nReport: {folder / 'report.html'}")


def _print_left(record: "RunRecordDocument") -> None:
    """The stages that a run is at, or was at when it ended; those it has not reached; and how to go on."""
    from pipeline.run.record import continue_command

    alive = record.status == "running"
    failed = record.status == "failed" and len(record.at) == 1  # of several at once, one has failed
    word = "running" if alive else "failed" if failed else "interrupted"
    for name in record.at:
        show(f"  {name:<15} [yellow]{word}[/]")
    if rest := [name for name in record.left if name not in record.at]:
        show(f"  {'to come' if alive else 'not reached'}: {', '.join(rest)}")
    if not alive:
        show(f"Continue with: {escape(continue_command(record))}")
