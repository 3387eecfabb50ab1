"""What every stage program shares: its spec, its progress, its errors, and the result it has to write.

A stage is started as `python -m stages.NAME SPEC.json` and knows nothing of the orchestrator. It reads its inputs from folders,
writes its payload into `spec.output`, keeps what it needs to resume in `spec.state`, and ends in one of three ways:

- exit 0 with `record/result.json` in the output folder, holding a completion proof;
- exit 75: stopped on request (SIGTERM or SIGINT) with its state saved; the next start with the same spec resumes;
- exit 1 with `error.json` beside the spec: one `StageError`, or the last line of an unforeseen traceback (the whole is in the log).

Started by torchrun, each of its processes runs the same program. Only the first of them reports and writes the result; the error is that of
whichever failed first, and torchrun then stops the others.
"""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import json
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar

from stages.causes import passing_cause
from stages.settings import StageSettings

EXIT_FAILED = 1
EXIT_STOPPED = 75  # BSD's EX_TEMPFAIL: stopped on request, can be resumed
STOPPED = "stopped"
"""`stopped.RANK` beside the spec: each process that was stopped on request says so, for a launcher between it and the orchestrator that
changes exit codes. It tells a stop, which all heed, from one process killed and the others stopped for it."""

S = TypeVar("S", bound=StageSettings)


class StageError(Exception):
    """A failure a user can act on. `message` says what and where; `fix` says what to do."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class StageStopped(BaseException):
    """Raised where a stage leaves early on request, after its state is saved. Not an `Exception`: nothing may swallow it."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """How this process should run. Never changes the result; comes from the pipeline's `execution:` section."""

    device: str
    """`cpu` or `cuda`; resolved by the orchestrator, never `auto` here."""
    threads: int
    """CPU threads for one process; None in the spec where the orchestrator does not know the machine, which then says it itself."""
    data_dir: str | None = None
    """Folder with local copies of datasets, or None for the hub."""

    @classmethod
    def of_spec(cls, values: dict[str, Any]) -> Machine:
        """As the spec says, with what the job's script has counted on its node in OMP_NUM_THREADS."""
        return cls(**{**values, "threads": values["threads"] or int(os.environ["OMP_NUM_THREADS"])})


@dataclasses.dataclass(frozen=True)
class Result:
    """What a stage returns. `proof` must show that the work was done; `metrics` go to the manifest and the report."""

    proof: dict[str, Any]
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)


class Context(Generic[S]):
    """A stage's view of its own run.

    Attributes:
        settings: the stage's validated settings.
        inputs: name -> folder of an upstream artifact.
        output: folder for the payload. Everything in it except `record/` is content and enters the artifact's digest.
        record: `output/record`: logs, curves, anything that may differ between two equal results.
        state: folder that survives a stop or a crash and holds what a resume needs; removed after success.
        seed: the pipeline's seed.
        machine: device, threads and data folder.
        details: extra facts from the orchestrator that are not settings (for example which checkpoint is being sampled).
    """

    def __init__(self, spec: dict[str, Any], settings: S, spec_path: Path) -> None:
        self.stage: str = spec["stage"]
        self.settings = settings
        self.inputs = {name: Path(folder) for name, folder in spec["inputs"].items()}
        self.output = Path(spec["output"])
        self.state = Path(spec["state"])
        self.seed: int = spec["seed"]
        self.machine = Machine.of_spec(spec["machine"])
        self.details: dict[str, Any] = spec.get("details", {})
        self.spec_path = spec_path
        self.record = self.output / "record"
        self.stop_requested = False
        self.stops_gracefully = False
        """Set by a stage that polls `stop_requested` and saves its state; others are interrupted where they are."""
        self._events = spec_path.parent / "events.jsonl"
        self._last_progress = 0.0

    @property
    def main(self) -> bool:
        """Whether this is the only process of the stage, or the first of several: the one that reports and writes."""
        return is_main_process()

    @property
    def resuming(self) -> bool:
        """Whether an earlier, unfinished attempt left state behind."""
        return any(self.state.iterdir())

    def progress(self, step: int, total: int | None, phase: str, **metrics: float | int | str) -> None:
        """Report progress: `step` of `total` units of `phase`. Cheap: at most ten a second reach the file, and always the last."""
        now = time.monotonic()
        if now - self._last_progress < 0.1 and step != total:
            return
        self._last_progress = now
        self._event({"event": "progress", "phase": phase, "step": step, "total": total, "metrics": metrics})

    def note(self, message: str) -> None:
        """One line for the person who watches the run (a warning, a resume, a count worth knowing)."""
        self._event({"event": "note", "message": message})

    def curve(self, step: int, **values: float | int) -> None:
        """Append one point to `record/metrics.jsonl`, the stage's training curve, which the report draws."""
        if not self.main:
            return
        with open(self.record / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def _event(self, event: dict[str, Any]) -> None:
        if not self.main:
            return
        with open(self._events, "a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **event}) + "\n")


def run_stage(settings_type: type[S], run: Callable[[Context[S]], Result]) -> None:
    """Entry point of every `stages/NAME/__main__.py`: read the spec named on the command line, run, write the result, exit."""
    try:
        _run_stage(settings_type, run)
        code = 0
    except SystemExit as end:
        if "RANK" not in os.environ:
            raise
        code = end.code if isinstance(end.code, int) else EXIT_FAILED
    if "RANK" in os.environ:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End one of several processes without taking Python's interpreter apart.

    A thread of gloo lets go of its last collective's tensors a moment after everybody has got them. If that moment falls into the
    interpreter's end, C++ aborts the process, whose work is done (pytorch/pytorch#190489); destroying the group first can deadlock on
    the same moment, because its destructor waits for that thread while it holds the interpreter's lock.
    """
    atexit._run_exitfuncs()  # what libraries want done, such as closing a tracker's run
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_stage(settings_type: type[S], run: Callable[[Context[S]], Result]) -> None:
    if len(sys.argv) != 2:
        print(f"usage: python -m {_module_name()} SPEC.json", file=sys.stderr)
        raise SystemExit(2)
    spec_path = Path(sys.argv[1]).resolve()
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    die_with_parent(spec.get("parent"))
    context = Context(spec, settings_type.model_validate(spec["settings"]), spec_path)
    context.record.mkdir(parents=True, exist_ok=True)
    context.state.mkdir(parents=True, exist_ok=True)
    _install_stop_handler(context)
    try:
        result = run(context)
    except StageStopped:
        context.note("stopped on request; state is saved")
        (spec_path.parent / f"{STOPPED}.{os.environ.get('RANK', '0')}").touch()
        raise SystemExit(EXIT_STOPPED) from None
    except StageError as error:
        _write_error(spec_path, error.message, error.fix, passing_cause(error))
        print(f"error: {error.message}\n{error.fix}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None
    except Exception as error:
        traceback.print_exc()
        _write_error(spec_path, f"{type(error).__name__}: {error}".strip(), "", passing_cause(error))
        raise SystemExit(EXIT_FAILED) from error
    if is_main_process():
        write_json(context.output / "record" / "result.json", dataclasses.asdict(result))


def is_main_process() -> bool:
    """Whether this is the only process of its stage, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def read_json(path: str | Path) -> Any:
    """Read one JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON through a temporary name and a rename, so that a reader sees the old file or the new one, never half of it.

    The temporary name is drawn, because process ids are not enough: machines share a folder, and threads write at once. A write that
    fails leaves none behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_error(spec_path: Path, message: str, fix: str, cause: str) -> None:
    """Say why the stage failed, unless another of its processes has: what follows in the others (a peer is gone) is no cause."""
    file = spec_path.parent / "error.json"
    if "RANK" not in os.environ:  # the only process: what is there is an earlier attempt's
        file.unlink(missing_ok=True)
    try:
        with open(file, "x", encoding="utf-8") as error:
            error.write(json.dumps({"message": message, "fix": fix, "cause": cause}, ensure_ascii=False, indent=2) + "\n")
    except FileExistsError:
        return
    except OSError:  # a full disk: half an error is none
        file.unlink(missing_ok=True)
        raise


def _install_stop_handler(context: Context[Any]) -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        if context.stop_requested or not context.stops_gracefully:
            raise StageStopped
        context.stop_requested = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def die_with_parent(parent: int | None) -> None:
    """Ask Linux to send SIGTERM when the orchestrator dies, so that even its SIGKILL lets the stage save and leave."""
    if parent is None or not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if "RANK" not in os.environ and os.getppid() != parent:  # it died before the request was made; under torchrun that is the parent
        raise SystemExit(EXIT_STOPPED)


def _module_name() -> str:
    return sys.modules["__main__"].__spec__.parent if sys.modules["__main__"].__spec__ else "stages.NAME"  # type: ignore[return-value]
