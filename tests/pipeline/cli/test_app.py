"""How `vcore` ends: every error is a message and an exit code."""

import errno

import pytest

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
