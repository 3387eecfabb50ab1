"""The training loop of a stage: to the last step, with progress, the training curve, stop and resume."""

import json
import math
import shutil
import time
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tensorboardX import SummaryWriter
from transformers import TrainerCallback, TrainerState
from transformers.integrations import TensorBoardCallback

from evaluation.harness.pace import in_words
from stages.harness.context import Context, StageError, StageStopped
from stages.training import distributed
from stages.training.library_internals import load_weights
from stages.training.options import record_config

TRAINER_STATE = "trainer_state.json"
"""The file that `transformers.Trainer` writes last into a checkpoint: a checkpoint without it is incomplete."""


SHARDED = ("global_step*", "pytorch_model_fsdp*")
"""Folders of a checkpoint that DeepSpeed or FSDP wrote; weights and optimizer are in them, in formats of their own."""
UNREADABLE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, SafetensorError)
"""What reading a damaged file of a checkpoint raises."""


def find_resumable_checkpoint(folder: Path, note: Callable[[str], None]) -> Path | None:
    """The latest checkpoint in `folder` whose files are whole, or None. Others are removed: without a word where a kill
    left them incomplete, with a note where they are damaged."""
    sound: list[Path] = []
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of):
        damage = _damage(checkpoint, sound)
        if damage is None:
            sound.append(checkpoint)
        else:
            if damage:
                note(f"{checkpoint.name} is damaged and left out: {damage}")
            shutil.rmtree(checkpoint)
    return sound[-1] if sound else None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _damage(checkpoint: Path, sound: list[Path]) -> str | None:
    """What keeps a run from going on from this checkpoint; None where nothing does, empty where it was never complete.

    Args:
        sound: the checkpoints before it that are whole. What the Trainer chose as the best so far has to be among them,
            or it would end with other weights without a word.
    """
    if not (checkpoint / TRAINER_STATE).is_file():
        return ""
    sharded = any(any(checkpoint.glob(pattern)) for pattern in SHARDED)
    for pattern in ("rng_state*.pth", *(() if sharded else ("*model*.safetensors", "optimizer.pt", "scheduler.pt"))):
        if not any(checkpoint.glob(pattern)):
            return f"{pattern} is missing"
    for path in sorted(checkpoint.rglob("*")):
        try:
            _read_through(path)
        except UNREADABLE as error:
            return f"{path.relative_to(checkpoint)}: {error}"
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    if state.global_step != _step_of(checkpoint):
        return f"{TRAINER_STATE}: of step {state.global_step}"
    best = state.best_model_checkpoint
    return None if best is None or Path(best) in (*sound, checkpoint) else f"{best}, the best so far, is gone"


def _read_through(path: Path) -> None:
    """Raise one of UNREADABLE where a file of a checkpoint is cut, empty or not of its kind."""
    if path.name == TRAINER_STATE:
        TrainerState.load_from_json(str(path))
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt"):
            pass
    elif path.suffix in (".pt", ".pth"):  # torch writes archives with a checksum for each part
        with zipfile.ZipFile(path) as archive:
            if part := archive.testzip():
                raise ValueError(f"{part} is not what was written")


def train(ctx: Context[Any], trainer: Any) -> None:
    """Run `trainer` to its last step, resuming from `ctx.state` where an earlier attempt left a checkpoint.

    From here on a stop request no longer interrupts the process: during training it saves a checkpoint, afterwards the
    stage finishes.

    Raises:
        StageError: the checkpoint was left by a run of another number of steps, or a budget of tokens is set beside a
            loss that needs micro-batches of equal size.
        StageStopped: a stop was requested and the checkpoint is saved.
    """
    if ctx.main:
        record_config(ctx, trainer.args)
    parts = trainer.args.gradient_accumulation_steps * distributed.world_size()
    if parts > 1 and getattr(trainer, "aux_loss_enabled", False):
        if getattr(ctx.settings, "max_tokens_per_micro_batch", None):
            raise StageError(
                "the experts' load-balancing loss is a mean over micro-batches of equal size, which a budget of tokens "
                "does not make",
                "Set micro_batch_size in place of max_tokens_per_micro_batch, or `trainer: {router_aux_loss_coef: 0}`.",
            )
        ctx.note(
            "the experts' load-balancing loss is of each micro-batch: unlike all else it changes with micro_batch_size "
            "and the number of processes; `trainer: {router_aux_loss_coef: 0.0}` leaves it out"
        )
    # One process looks, and removes what is damaged; all go on from what it found.
    found = find_resumable_checkpoint(Path(trainer.args.output_dir), ctx.note) if ctx.main else None
    checkpoint = distributed.gather(found)[0]
    ctx.stops_gracefully = True
    if checkpoint is None:
        trainer.train()
    else:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
        step, steps = state.global_step, state.max_steps
        if 0 < trainer.args.max_steps != steps:
            raise StageError(
                f"{checkpoint}: left by a run of {steps} steps, and this one has {trainer.args.max_steps}: it cannot "
                "be continued from there",
                f"Remove {ctx.state}, and the run starts anew.",
            )
        over = ": no step is left to train, its result is saved" if step == steps else ""
        ctx.note(f"resuming from step {step} of {steps}{over}")
        if step < steps:
            trainer.train(resume_from_checkpoint=str(checkpoint))
        else:  # training was over: the Trainer's loop would take one step more, so only its results are loaded
            chosen = state.best_model_checkpoint if trainer.args.load_best_model_at_end else str(checkpoint)
            load_weights(trainer, chosen)
            trainer.state = state
    if trainer.state.global_step < trainer.state.max_steps and ctx.stop_requested:
        raise StageStopped


RECENT = 32
"""Steps that the time left is judged by: more than serve one rollout."""


class StageCallback(TrainerCallback):  # type: ignore[misc]
    """Connects a Trainer to the stage: progress, the training curve, and leaving on request.

    On a resume the curve file is rebuilt from the Trainer's log up to the checkpoint, so no step stands in it twice.
    """

    def __init__(self, ctx: Context[Any], phase: str, shown: tuple[str, ...] = ("loss",)) -> None:
        """`shown` are the logged values that go with the progress report; the curve holds all of them."""
        self.ctx, self.phase, self.shown = ctx, phase, shown
        self.tokens = self.seconds = self._tokens_before = 0.0
        self._last_log = self._last_tokens = time.monotonic()
        self._ends: deque[tuple[float, int]] = deque(maxlen=RECENT)

    @property
    def tokens_per_second(self) -> float:
        """Tokens (padding excluded) processed by this process over the time between its first and last log."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.ctx.main:
            (self.ctx.record / "metrics.jsonl").write_text("", encoding="utf-8")
        for entry in state.log_history:
            if "loss" in entry:
                self.ctx.curve(entry["step"], **{name: value for name, value in entry.items() if name != "step"})
        self._tokens_before = float(state.num_input_tokens_seen)  # after a resume GRPO's goes on, SFT's begins at 0
        self._last_log = self._last_tokens = time.monotonic()
        self.ctx.progress(state.global_step, state.max_steps, self.phase)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ends.append((time.monotonic(), state.global_step))
        if not control.should_log:  # otherwise on_log reports the same step with its metrics
            self.ctx.progress(state.global_step, state.max_steps, self.phase, **self._left(state))
        # Each process asks the others after each step, so that all of them know of a request after the same step.
        if any(distributed.gather(self.ctx.stop_requested)):
            self.ctx.stop_requested = True
            if self.may_stop(state.global_step):
                control.should_save = control.should_training_stop = True

    def may_stop(self, step: int) -> bool:
        """Whether a checkpoint after this step holds all that a resume needs."""
        return True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        values = {name: value for name, value in logs.items() if isinstance(value, int | float)}
        if not math.isfinite(values["loss"]):
            fix = "Lower the learning rate or the gradient clip."
            if state.global_step == 1:
                fix = "It is of the model before any step: check its weights, and weights of rows."
            raise StageError(f"the loss is {values['loss']} at step {state.global_step}", fix)
        self.ctx.curve(state.global_step, **values)
        now = time.monotonic()
        self.seconds += now - self._last_log
        self._last_log = now
        shown = {name: round(values[name], 4) for name in self.shown if name in values}
        if "num_tokens" in values:  # a step that trains on completions sampled before has none of its own
            tokens = values["num_tokens"] - self._tokens_before
            shown["tokens_per_s"] = round(tokens / max(now - self._last_tokens, 1e-9))
            self._tokens_before, self._last_tokens, self.tokens = values["num_tokens"], now, self.tokens + tokens
        self.ctx.progress(state.global_step, state.max_steps, self.phase, **shown, **self._left(state))

    def _left(self, state: Any) -> dict[str, str]:
        """The time that the steps to come will take, as the recent ones did, from the second step on: the first one is
        slow. Nothing at the end."""
        if len(self._ends) < 2:
            return {}
        (begun, first), (now, step) = self._ends[0], self._ends[-1]
        if step == first or step >= state.max_steps:
            return {}
        return {"left": in_words((state.max_steps - step) * (now - begun) / (step - first))}


def tensorboard(ctx: Context[Any]) -> list[TrainerCallback]:
    """The callback that writes the Trainer's log to `record/tensorboard`; none but in the main process.

    A resumed run adds a file, in which the steps that were lost with the interrupted one stand again.
    """
    return [TensorBoardCallback(SummaryWriter(str(ctx.record / "tensorboard")))] if ctx.main else []
