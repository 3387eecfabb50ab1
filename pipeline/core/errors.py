"""The errors a user sees, and the exit codes they end in. Anything else is a bug; `--debug` shows its traceback."""

import errno
from pathlib import Path

EXIT_OK = 0
EXIT_STAGE_FAILED = 1
EXIT_CONFIG = 2
EXIT_UNDECIDED = 3
"""Of `vcore verify`."""
EXIT_GATE_FAILED, EXIT_GATE_UNDECIDED = 3, 4
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something a user can act on: what is wrong, where (file:line or setting), and what to do."""

    exit_code = EXIT_CONFIG
    continue_with = ""
    """The command that goes on from here, where a run had begun."""

    def __init__(self, message: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message, self.where, self.fix = message, where, fix

    def __str__(self) -> str:
        return "\n".join(
            part for part in (f"{self.where}: {self.message}" if self.where else self.message, self.fix) if part
        )


class ConfigError(UserError):
    """The configuration or the arguments are wrong; nothing has been started."""


class StoreError(UserError):
    """The artifact store cannot be used (not writable, disk full, a folder in the way)."""


class StageFailed(UserError):
    """A stage's process ended without a result.

    Attributes:
        log: file with its complete output.
        cause: `memory`, `network`, `engine` or `node` (one of several is lost) for a transient failure.
    """

    exit_code = EXIT_STAGE_FAILED

    def __init__(self, stage: str, message: str, *, fix: str = "", log: str = "", cause: str = "") -> None:
        super().__init__(message, where=f"stage {stage}", fix=fix)
        self.stage, self.log, self.cause = stage, log, cause


class GateFailed(UserError):
    """A critical check of the gate before a training has failed; what was computed is kept."""

    exit_code = EXIT_GATE_FAILED


class Interrupted(UserError):
    """The run was stopped (SIGINT or SIGTERM); what was computed is kept and the next run continues."""

    exit_code = EXIT_INTERRUPTED


def disk_trouble(error: OSError, home: Path, where: str = "") -> StoreError:
    """A read or write that the system refused, as an error that says which and what to do."""
    what = f"{error.strerror or error}{f' ({error.filename})' if error.filename is not None else ''}"
    fix = "Check that file, its disk and the permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what, fix = f"cannot write below {home}: {what}", "Free some disk space or choose another `home:`"
    return StoreError(what, where=where, fix=f"{fix}; earlier artifacts are whole.")
