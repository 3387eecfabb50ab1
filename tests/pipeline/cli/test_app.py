"""How `vcore` ends: every error is a message and an exit code."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app as cli
from pipeline.core.errors import Interrupted, StageFailed, StoreError, UserError


def ended(monkeypatch: pytest.MonkeyPatch, error: Exception, debug: bool = False) -> int:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(cli, "_debug", debug)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("no such luck"),
            "error: RuntimeError: no such luck\nThis is a bug. `vcore --debug ...` shows where.",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "error: /x: No space left on device\nCheck the disk and the permissions.",
        ),
    ],
)
def test_what_nobody_has_foreseen_is_a_message_and_with_debug_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, message: str, debug: bool
) -> None:
    assert ended(monkeypatch, error, debug) == 1
    told = capsys.readouterr().err
    assert message in told
    assert ("Traceback" in told) == debug


@pytest.mark.parametrize(
    "error", [StoreError("the disk is full"), StageFailed("sft", "it failed"), Interrupted("interrupted")]
)
def test_the_command_that_continues_is_printed_whatever_ended_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: UserError
) -> None:
    ended(monkeypatch, error)
    assert "continue with" not in capsys.readouterr().err, "no run had begun"
    error.continue_with = "vcore run small.yaml"
    ended(monkeypatch, error)
    assert "continue with: vcore run small.yaml" in capsys.readouterr().err


def vcore(folder: Path, *arguments: str, close: str = "") -> tuple[int, str]:
    """Exit code and standard error of a command whose output nobody reads: its reader is gone before it begins."""
    reader, writer = os.pipe()
    os.close(reader)
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    if close:
        command = ["sh", "-c", f'exec "$@" {close}', "sh", *command]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("close", ["", ">&-"])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_reader_that_leaves_takes_no_result_along(tmp_path: Path, as_json: list[str], close: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem_id": "1", "completion": "\\\\boxed{4}", "gold": "4"}\n')
    assert vcore(tmp_path, "score", "maths", str(rows), "--out", "scores.jsonl", *as_json, close=close) == (0, "")
    assert '"verdict": "correct"' in (tmp_path / "scores.jsonl").read_text()


def test_results_that_cannot_be_written_are_one_error(tmp_path: Path) -> None:
    code, error = vcore(tmp_path, "runs", "--json", close=">/dev/full")
    assert (code, error) == (1, "error: No space left on device\nCheck the disk and the permissions.\n")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["runs", "--json"], 0), (["store", "ls"], 2), (["plan", "none.yaml"], 2)]
)
def test_a_reader_that_leaves_changes_no_exit_code(tmp_path: Path, arguments: list[str], code: int) -> None:
    ended, error = vcore(tmp_path, *arguments)
    assert ended == code
    assert "Traceback" not in error


@pytest.mark.parametrize(("given", "left"), [("", None), ("http://127.0.0.1:9/api", "http://127.0.0.1:9/api")])
def test_an_empty_address_names_no_server(monkeypatch: pytest.MonkeyPatch, given: str, left: str | None) -> None:
    monkeypatch.setenv("PREFECT_API_URL", given)
    assert CliRunner().invoke(cli.app, ["config", "ls"]).exit_code == 0
    assert os.environ.get("PREFECT_API_URL") == left
