"""Starting the process that exports a run, and giving it up where a tracker does not answer."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from pipeline.config.export import ExportSettings
from pipeline.core.errors import EXIT_STAGE_FAILED, UserError
from pipeline.core.processes import MARK, kill_all, new_mark
from pipeline.export.documents import Failed, Order, Sent
from pipeline.export.flatten import without_secrets
from pipeline.launch.environment import python_path

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)$")
_SHORTEST_SECRET = 6
"""Characters; a shorter value of such a variable, such as `true`, is no secret that could be told from other text."""


class ExportFailed(UserError):
    """A tracker did not take a run. The run and everything it computed are as they were."""

    exit_code = EXIT_STAGE_FAILED


def export_run(home: Path, run: str, settings: ExportSettings) -> Sent:
    """Export one run in a process of its own, and wait for it.

    Args:
        run: the name of the run's folder.

    Raises:
        ExportFailed: it did not work, or took longer than `time_limit_s`. What the process printed is then in the
            run's `export-TRACKER.log`, without passwords and keys.
    """
    order = Order(home=str(home.resolve()), run=run, settings=settings)
    mark = new_mark()
    env = {**os.environ, "PYTHONPATH": python_path(), MARK: mark, "PYTHONUNBUFFERED": "1"}
    env.setdefault("DO_NOT_TRACK", "1")
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as said:
        asked.write(order.model_dump_json().encode())
        asked.seek(0)
        # Files and no pipes: a helper of a tracker's that outlives the process would keep a pipe open.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.export"],
            stdin=asked,
            stdout=answer,
            stderr=said,
            env=env,
            start_new_session=True,  # a terminal's Ctrl-C is for the command, which then ends this
        )
        try:
            process.wait(settings.time_limit_s)
            result = _result(answer, process.returncode)
        except subprocess.TimeoutExpired:
            result = Failed(error=f"no answer within {settings.time_limit_s:g} s", fix="time_limit_s sets how long.")
        finally:
            kill_all(process.pid, mark)
            process.wait()
        if isinstance(result, Sent):
            return result
        log = _keep_log(home / "runs" / run / f"export-{settings.to}.log", said)
    fix = " ".join(filter(None, [result.fix, f"Log: {log}." if log is not None else ""]))
    raise ExportFailed(redact(result.error), where=settings.to, fix=redact(fix))


def again(home: Path, run: str, settings: ExportSettings) -> str:
    """The command that exports a run once more, with the settings that the run's config has."""
    return shlex.join(["vcore", "export", run, "--to", settings.to, "--home", str(home)])


def redact(text: str) -> str:
    """The text without the passwords of addresses and without the values of environment variables that are named as
    secrets are."""
    secrets = {
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name.upper()) and len(value) >= _SHORTEST_SECRET
    }
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return without_secrets(text)


def _result(answer: IO[bytes], code: int) -> Sent | Failed:
    answer.seek(0)
    text = answer.read()
    for kind in (Sent, Failed):
        try:
            return kind.model_validate_json(text)
        except ValidationError:
            continue
    return Failed(error=f"its process ended with code {code} and no answer")


def _keep_log(file: Path, said: IO[bytes]) -> Path | None:
    """Keep what the process printed; None where it printed nothing, or the run's folder cannot be written."""
    said.seek(0)
    text = redact(said.read().decode(errors="replace"))
    try:
        if text.strip():
            file.write_text(text, encoding="utf-8")
            return file
    except OSError:  # an old run in a home that is only read: its error is in the answer
        pass
    return None
