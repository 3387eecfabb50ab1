"""The process of a stage: it reads its spec, runs, and ends in a way that says how it went.

A stage is started as `python -m stages.NAME SPEC.json` and knows nothing of the orchestrator. It reads its inputs from
folders, writes its payload into `spec.output`, keeps what it needs to resume in `spec.state`, and ends in one of three
ways:

- exit 0 with `record/result.json` in the output folder, holding a completion proof;
- exit 75: stopped on request (SIGTERM or SIGINT) with its state saved; the next start with the same spec resumes;
- exit 1 with `error.json` beside the spec: one `StageError`, or the last line of an unforeseen traceback (the whole is
  in the log).

Started by torchrun, each of its processes runs the same program. Only the first of them reports and writes the result;
the error is that of whichever failed first, and torchrun then stops the others.
"""

import atexit
import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from evaluation.harness import child_processes
from stages.harness.context import Context, Result, S, StageError, StageStopped, is_main_process
from stages.harness.disk import full_disk, release, reserve
from stages.harness.documents import ErrorDocument, Spec, StageResult
from stages.harness.transient import transient_cause
from stages.harness.versions import library_versions

EXIT_FAILED = 1
EXIT_STOPPED = 75  # BSD's EX_TEMPFAIL: stopped on request, can be resumed
STOPPED = "stopped"
"""`stopped.RANK` beside the spec: each process that was stopped on request says so, since a launcher between it and the
orchestrator changes exit codes. It tells a stop, which all heed, from one process killed and the others stopped for
it."""


def run_stage(settings_type: type[S], run: Callable[[Context[S]], Result]) -> None:
    """Entry point of every `stages/NAME/__main__.py`: run the spec named on the command line and exit."""
    try:
        _run_stage(settings_type, run)
        code = 0
    except SystemExit as end:
        if "RANK" not in os.environ:
            raise
        code = end.code if isinstance(end.code, int) else EXIT_FAILED
    if "RANK" in os.environ:
        leave(code)


def leave(code: int) -> NoReturn:
    """End one of several processes without taking Python's interpreter apart.

    A thread of gloo lets go of its last collective's tensors a moment after everybody has got them. If that moment
    falls into the interpreter's end, C++ aborts the process, whose work is done (pytorch/pytorch#190489); destroying
    the group first can deadlock on the same moment, because its destructor waits for that thread while it holds the
    interpreter's lock.
    """
    atexit._run_exitfuncs()  # what libraries want done, such as closing a tracker's run
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_stage(settings_type: type[S], run: Callable[[Context[S]], Result]) -> None:
    if len(sys.argv) != 2:
        main = sys.modules["__main__"].__spec__
        print(f"usage: python -m {main.parent if main else 'stages.NAME'} SPEC.json", file=sys.stderr)
        raise SystemExit(2)
    spec_path = Path(sys.argv[1]).resolve()
    spec = Spec.model_validate_json(spec_path.read_bytes())
    die_with_parent(spec.parent)
    context = Context(spec, settings_type.model_validate(spec.settings), spec_path)
    context.record.mkdir(parents=True, exist_ok=True)
    context.state.mkdir(parents=True, exist_ok=True)
    _install_stop_handler(context)
    versions = library_versions(spec.libraries, exact=True)
    try:
        reserve(spec_path.parent)
        result = run(context)
        release(spec_path.parent)
        if is_main_process():
            ended = StageResult(
                proof=result.proof,
                metrics=result.metrics,
                python=sys.executable,
                versions=versions,
                peak_memory_gib=peak_memory_gib(),
            )
            ended.write(context.output / "record" / "result.json")
    except StageStopped:
        context.note("stopped on request; state is saved")
        (spec_path.parent / f"{STOPPED}.{os.environ.get('RANK', '0')}").touch()
        raise SystemExit(EXIT_STOPPED) from None
    except Exception as error:
        release(spec_path.parent)
        known = full_disk(error, spec_path.parent) or _not_deterministic(error)
        known = known or (error if isinstance(error, StageError) else None)
        shown = known or StageError(f"{type(error).__name__}: {error}".strip())
        _write_error(spec_path, shown.message, shown.fix, transient_cause(error))  # before the log, which may be full
        if known is None:
            traceback.print_exc()
        else:
            print(f"error: {known.message}\n{known.fix}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from error


def _not_deterministic(error: Exception) -> StageError | None:
    """Torch's refusal of an operation without a deterministic kernel, in the words of the setting that asked for it."""
    if not isinstance(error, RuntimeError) or "use_deterministic_algorithms" not in str(error):
        return None
    what = str(error).partition(", but you set")[0]
    fix = "Set `execution.deterministic: false`: the result then comes back to rounding, and what was computed is kept."
    return StageError(f"execution.deterministic: {what}", fix)


def peak_memory_gib() -> float:
    """The most resident memory so far of this process, or of the largest of those it started that have ended, in GiB.

    Of itself a process knows it from /proc: `ru_maxrss` begins with what the process that started it had.
    """
    own = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text("ascii"))
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(max(int(own[1]) if own else 0, started) / 2**20, 3)


def _write_error(spec_path: Path, message: str, fix: str, cause: str) -> None:
    """Say why the stage failed, unless another of its processes has: what follows in the others (a peer is gone) is no
    cause."""
    file = spec_path.parent / "error.json"
    if "RANK" not in os.environ:  # the only process: what is there is an earlier attempt's
        file.unlink(missing_ok=True)
    try:
        with open(file, "x", encoding="utf-8") as error:
            document = ErrorDocument(message=message, fix=fix, cause=cause)
            error.write(json.dumps(document.to_json(), ensure_ascii=False, indent=2) + "\n")
    except FileExistsError:
        return
    except OSError:  # a full disk: half an error is none
        file.unlink(missing_ok=True)
        raise


def _install_stop_handler(context: Context[Any]) -> None:
    """A second request ends the process where it is. The first may come when it has long heard of it from another
    process of its stage, and is saving its state."""
    asked = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked or not context.stops_gracefully:
            raise StageStopped
        asked = context.stop_requested = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def die_with_parent(parent: int | None) -> None:
    """Ask Linux to send SIGTERM when the orchestrator dies, so that even its SIGKILL lets the stage save and leave."""
    if parent is None or child_processes.die_with_parent(parent):
        return
    if "RANK" not in os.environ:  # under torchrun, torchrun is the parent
        raise SystemExit(EXIT_STOPPED)
