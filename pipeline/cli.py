"""The `vcore` command. Parses arguments, prints results; the work is elsewhere."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import cli_eval, cli_rewards
from pipeline.errors import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_OK, EXIT_STAGE_FAILED, ConfigError, Interrupted, UserError
from pipeline.signals import asked_to_stop, stop_on_signals

if TYPE_CHECKING:
    from pipeline.session import Session

app = typer.Typer(
    name="vcore", help="From data to trustworthy numbers: VCORE SFT, GRPO and vLLM evaluation.", no_args_is_help=True, add_completion=False
)
store_app = typer.Typer(help="Look into the artifact store.", no_args_is_help=True)
app.add_typer(store_app, name="store")
# A file or a pipe has no width to fit: tables keep their lines whole there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A pipeline's YAML file, for example configs/demo.yaml.", show_default=False)
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set sft.learning_rate=1e-5")]
Force = Annotated[list[str] | None, typer.Option("--force", metavar="STAGE", help="Compute this stage although it is cached.")]
From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Compute this stage and everything after it.")]
Only = Annotated[str | None, typer.Option("--only", metavar="STAGE", help="Run this stage alone; what it needs must be cached.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Home = Annotated[Path, typer.Option("--home", envvar="VCORE_HOME", help="Folder of the store and the runs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_debug = False


@app.callback()
def _options(debug: Debug = False) -> None:
    global _debug
    _debug = debug


@app.command()
def run(
    config: ConfigFile, overrides: Overrides = None, force: Force = None, start: From = None, only: Only = None, as_json: AsJson = False
) -> None:
    """Run a pipeline: every stage that is not cached, then a table and a report."""
    from pipeline.plan import Options
    from pipeline.progress import View
    from pipeline.session import Session

    stop_on_signals()
    with View() as view:
        session = Session.prepare(config, overrides or [], Options(tuple(force or ()), start, only), view)
        waiting = [planned for planned in session.plan if planned.state != "HIT"]
        view.line(
            f"[bold]{session.config.name}[/]  {len(session.plan)} stages, {len(waiting)} to compute, store {session.store.home / 'store'}"
        )
        session.run()
    _print_run(session, as_json)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint folder or a hub id.", show_default=False)],
    benchmarks: Annotated[str, typer.Option("--benchmarks", help="Names with commas: aime24,math500.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option("--data", envvar="VCORE_DATA_DIR", help="Folder with local copies of the benchmarks.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="vllm or transformers.")] = "vllm",
    problems: Annotated[int | None, typer.Option("--problems", help="Only the first so many of each benchmark.")] = None,
    samples: Annotated[int, typer.Option("--samples", help="Completions per problem; several need a temperature.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Limit of each completion.")] = 8192,
    seed: Annotated[int, typer.Option("--seed", help="Every sample's own seed is made from it.")] = 0,
    overrides: Overrides = None,
    show_prompt: Annotated[int, typer.Option("--show-prompt", metavar="N", help="Print N prompts of each benchmark, and run nothing.")] = 0,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint without a pipeline: the same stages, the same store, nothing twice."""
    from pipeline.config import load_config
    from pipeline.evaluate import eval_config, shown_prompts, write_config
    from pipeline.plan import Options
    from pipeline.progress import View
    from pipeline.session import Session

    sampling = {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
    asked = [{"name": name.strip(), "problems": problems, **sampling} for name in benchmarks.split(",")]
    path = write_config(eval_config(model, asked, engine, seed, home, data), home)
    if show_prompt:
        from evaluation.loading import LoadError
        from evaluation.records import RecordError

        try:
            prompts = shown_prompts(load_config(path, overrides or []), show_prompt)
        except (LoadError, RecordError, OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        if as_json:
            _print_json(prompts)
            return
        for prompt in prompts:
            out.print(f"[bold]{prompt['benchmark']} {escape(prompt['problem_id'])}[/], {len(prompt['token_ids'])} tokens")
            sys.stdout.write(f"{prompt['text']}\n{prompt['token_ids']}\n{prompt['tokens']}\n\n")
        return
    stop_on_signals()
    with View() as view:
        session = Session.prepare(path, overrides or [], Options((), None, None), view)
        session.run()
    _print_run(session, as_json)


@app.command()
def plan(
    config: ConfigFile, overrides: Overrides = None, force: Force = None, start: From = None, only: Only = None, as_json: AsJson = False
) -> None:
    """Say what a run would do and why: HIT, RUN, RESUME or WAIT for every stage."""
    from pipeline.plan import Options
    from pipeline.session import plan_only

    _, store, planned = plan_only(config, overrides or [], Options(tuple(force or ()), start, only))
    if as_json:
        _print_json({"home": str(store.home), "stages": [p.as_json() for p in planned]})
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
        Path | None, typer.Option("--rewards", metavar="CONFIG", help="Try to fool the rewards of this config, instead.")
    ] = None,
) -> None:
    """Check this environment and say what to do about what is wrong."""
    if rewards is not None:
        probes = cli_rewards.probe_rewards(rewards)
        if as_json:
            _print_json(probes)
        else:
            out.print(cli_rewards.table_of(probes))
        if any(found["fooled"] for found in probes):
            raise typer.Exit(EXIT_STAGE_FAILED)
        return
    from pipeline.doctor import diagnose, render

    findings = diagnose(home)
    if as_json:
        _print_json([vars(finding) for finding in findings])
    else:
        render(findings, out)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(EXIT_STAGE_FAILED)


@app.command()
def runs(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """List the runs recorded below HOME."""
    from pipeline.runs import list_runs

    records = list_runs(home)
    if as_json:
        _print_json(records)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "status", "started", "stages"):
        table.add_column(column)
    for record in records:
        states = [stage["state"] for stage in record["stages"]]
        table.add_row(record["id"], record["status"], record["started"], f"{states.count('ran')} ran, {states.count('cached')} cached")
    out.print(table if records else f"no runs in {home / 'runs'}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `latest`.")] = "latest",
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Show one run: its stages, results and report."""
    from pipeline.runs import find_run

    folder = find_run(home, name)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if as_json:
        _print_json(record)
        return
    out.print(f"[bold]{record['id']}[/]  {record['status']}\n{escape(record['command'])}", soft_wrap=True)
    if record["error"]:
        out.print(f"[red]{escape(record['error'])}[/]", soft_wrap=True)
    for stage in record["stages"]:
        out.print(f"  {stage['name']:<15} {stage['state']:<7} {stage['seconds']:>7.1f} s  {stage['folder']}", soft_wrap=True)
    if (folder / "report.json").is_file():
        _print_results(folder)
        out.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True)


app.command()(cli_eval.score)
app.command()(cli_eval.compare)


@store_app.command("ls")
def store_ls(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """List the artifacts."""
    from pipeline.store import Store

    rows: list[dict[str, Any]] = []
    for program, key, folder in Store(home).artifacts():
        row: dict[str, Any] = {"stage": program, "name": program, "key": key, "bytes": 0, "ended": "", "folder": str(folder)}
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            size = sum(entry["size"] for entry in manifest["files"])
            row |= {"name": manifest["name"], "bytes": size, "ended": manifest["ended"]}
        except (OSError, ValueError, KeyError, TypeError):
            row["ended"] = "damaged: its manifest cannot be read"  # `store verify` and the next run deal with it
        rows.append(row)
    if as_json:
        _print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "key", "size", "made", "folder"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(str(row["name"]), str(row["key"])[:12], f"{int(row['bytes']) / 2**20:.1f} MiB", str(row["ended"]), str(row["folder"]))
    out.print(table)


@store_app.command("verify")
def store_verify(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """Read every file of every artifact and compare it with its manifest; exit 1 if one is damaged."""
    from pipeline.store import Store

    store = Store(home)
    found = {f"{program}/{key}": store.find(program, key, reread=True).damage for program, key, _ in store.artifacts()}
    store.memo.save()
    damaged = {name: damage for name, damage in found.items() if damage}
    if as_json:
        _print_json({"artifacts": len(found), "damaged": damaged})
    else:
        for name, damage in damaged.items():
            out.print(f"[red]{name}: {damage}[/]", soft_wrap=True)
        out.print(f"{len(found)} artifacts, {len(damaged)} damaged{'; the next run makes them again' if damaged else ''}")
    if damaged:
        raise typer.Exit(EXIT_STAGE_FAILED)


def main() -> NoReturn:
    """Entry point: every error that a user can act on is one message and an exit code, never a traceback (but with --debug)."""
    try:
        app()
    except UserError as error:
        _fail(error)
    except Exception:
        if asked_to_stop():  # while a library was being imported, which made an error of its own of it
            _fail(Interrupted("interrupted"))
        raise
    raise SystemExit(EXIT_OK)


def _fail(error: UserError) -> NoReturn:
    if _debug:
        traceback.print_exc()
    console = Console(stderr=True, highlight=False)
    word = "[yellow]stopped:[/]" if error.exit_code == EXIT_INTERRUPTED else "[red]error:[/]"
    console.print(f"{word} {escape(str(error))}", soft_wrap=True)
    if error.exit_code != EXIT_CONFIG:
        console.print("What was computed is kept: the same command continues there.")
    raise SystemExit(error.exit_code)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _interval(result: dict[str, Any]) -> str:
    return f"{100 * result['value']:.1f} % [{100 * result['low']:.1f}, {100 * result['high']:.1f}]"


def _print_run(session: Session, as_json: bool) -> None:
    """What a finished run is worth: its results and where the report is."""
    report = session.report_folder
    if as_json:
        results = json.loads((report / "report.json").read_text(encoding="utf-8"))["results"] if report else []
        page = str(session.record.folder / "report.html") if report else None
        _print_json({"run": session.record.data["id"], "stages": session.record.data["stages"], "results": results, "report": page})
        return
    out.print(f"\n{session.summary()}; record {session.record.folder / 'run.json'}", soft_wrap=True)
    if report is not None:
        _print_results(report)
        out.print(f"\nReport: {session.record.folder / 'report.html'}", soft_wrap=True)


def _print_results(folder: Path) -> None:
    """The results table: one row a benchmark, one column a checkpoint, accuracy with its 95 % interval."""
    results = json.loads((folder / "report.json").read_text(encoding="utf-8"))["results"]
    checkpoints = list(dict.fromkeys(result["checkpoint"] for result in results))
    table = Table(title="accuracy with 95 % interval", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("benchmark", "metric", "n", *checkpoints):
        table.add_column(column, justify="right" if column == "n" else "left", no_wrap=True)
    for name in dict.fromkeys(result["benchmark"] for result in results):
        cells = {result["checkpoint"]: result for result in results if result["benchmark"] == name}
        first = next(iter(cells.values()))
        values = (_interval(cells[c]) if c in cells else "" for c in checkpoints)
        table.add_row(name, first["metric"], str(first["n"]), *values)
    out.print()
    out.print(table)
