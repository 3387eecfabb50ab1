"""The `vcore` command. Parses arguments, prints results; the work is elsewhere."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.cli import configs, doctor, publish, runs, schedule, scores, store, verify
from pipeline.cli import eval as evaluation
from pipeline.cli import sweep as sweeps
from pipeline.cli.gates import bless, gate
from pipeline.cli.options import option
from pipeline.cli.printing import outlive_readers
from pipeline.cli.results import browse, export, history
from pipeline.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_STAGE_FAILED, GateFailed, Interrupted, UserError
from pipeline.core.signals import asked_to_stop
from pipeline.core.version import own_code

app = typer.Typer(
    name="vcore",
    help="From data to trustworthy numbers: VCORE SFT, GRPO and vLLM evaluation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # `main` says what is wrong
)
app.add_typer(store.app, name="store")
app.add_typer(configs.app, name="config")
_debug = False


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vcore {own_code()}")
        raise typer.Exit()


_VERSION = "Print version and commit: of a checkout those that it has now, whenever it was installed."


@app.callback()
def _options(
    debug: Annotated[bool, option("--debug", "Show the traceback of an error.")] = False,
    version: Annotated[bool, option("--version", _VERSION, callback=_say_version, is_eager=True)] = False,
) -> None:
    global _debug
    _debug = debug
    if os.environ.get("PREFECT_API_URL") == "":  # as `${URL:-}` leaves it: no server is named
        del os.environ["PREFECT_API_URL"]


COMMANDS: dict[str, Callable[..., None]] = {
    "init": configs.init,
    "demo": configs.demo,
    "run": runs.run,
    "plan": runs.plan,
    "doctor": doctor.doctor,
    "runs": runs.list_recorded,
    "show": runs.show_run,
    "eval": evaluation.evaluate,
    "score": scores.score,
    "compare": scores.compare,
    "gate": gate.gate,
    "bless": bless.bless,
    "history": history.history,
    "browse": browse.browse,
    "export": export.export,
    "sweep": sweeps.sweep,
    "report": sweeps.report,
    "push": publish.push,
    "reproduce": publish.reproduce,
    "verify": verify.verify,
    "serve": schedule.serve,
    "deploy": schedule.deploy,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> NoReturn:
    """Entry point: an error that a user can act on is one message and an exit code, with a traceback only for
    --debug."""
    outlive_readers()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here it is an error like any other
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
        problem = UserError(error.strerror, where=str(error.filename or ""), fix="Check the disk and the permissions.")
    else:
        problem = UserError(f"{type(error).__name__}: {error}", fix="This is a bug. `vcore --debug ...` shows where.")
    problem.exit_code = EXIT_STAGE_FAILED
    return problem


def _fail(error: UserError) -> NoReturn:
    if _debug:
        traceback.print_exc()
    console = Console(stderr=True, highlight=False)
    word = "[yellow]stopped:[/]" if error.exit_code == EXIT_INTERRUPTED else "[red]error:[/]"
    console.print(f"{word} {escape(str(error))}", soft_wrap=True)
    if error.continue_with:
        stopped = isinstance(error, Interrupted)
        first = "What was computed is kept" if stopped else "Finished stages are kept. Once that is put right"
        if isinstance(error, GateFailed):
            first = "Finished stages are kept. To go on anyway"
        console.print(f"{first}, continue with: {escape(error.continue_with)}", soft_wrap=True)
    raise SystemExit(error.exit_code)
