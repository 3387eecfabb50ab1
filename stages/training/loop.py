"""The training loop of a stage: to the last step, with progress, the training curve, stop and resume."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from transformers import TrainerCallback, TrainerState
from transformers.integrations import TensorBoardCallback

from stages.harness.context import Context, StageError, StageStopped
from stages.training import distributed
from stages.training.library_internals import load_weights
from stages.training.options import record_config

TRAINER_STATE = "trainer_state.json"
"""The file that `transformers.Trainer` writes last into a checkpoint: a checkpoint without it is incomplete."""


def find_resumable_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint in `folder`, or None. Incomplete ones are removed."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / TRAINER_STATE).is_file():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def train(ctx: Context[Any], trainer: Any) -> None:
    """Run `trainer` to its last step, resuming from `ctx.state` where an earlier attempt left a checkpoint.

    From here on a stop request no longer interrupts the process: during training it saves a checkpoint, afterwards the
    stage finishes.

    Raises:
        StageError: the checkpoint was left by a run of another number of steps.
        StageStopped: a stop was requested and the checkpoint is saved.
    """
    if ctx.main:
        record_config(ctx, trainer.args)
    if trainer.aux_loss_enabled and trainer.args.gradient_accumulation_steps * distributed.world_size() > 1:
        ctx.note(
            "the experts' load-balancing loss is of each micro-batch: unlike all else it changes with micro_batch_size "
            "and the number of processes; `trainer: {router_aux_loss_coef: 0.0}` leaves it out"
        )
    checkpoint = find_resumable_checkpoint(Path(trainer.args.output_dir))
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


class StageCallback(TrainerCallback):  # type: ignore[misc]
    """Connects a Trainer to the stage: progress, the training curve, and leaving on request.

    On a resume the curve file is rebuilt from the Trainer's log up to the checkpoint, so no step stands in it twice.
    """

    def __init__(self, ctx: Context[Any], phase: str, shown: tuple[str, ...] = ("loss",)) -> None:
        """`shown` are the logged values that go with the progress report; the curve holds all of them."""
        self.ctx, self.phase, self.shown = ctx, phase, shown
        self.tokens = self.seconds = self._tokens_before = 0.0
        self._last_log = self._last_tokens = time.monotonic()

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
        if not control.should_log:  # otherwise on_log reports the same step with its metrics
            self.ctx.progress(state.global_step, state.max_steps, self.phase)
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
        self.ctx.progress(state.global_step, state.max_steps, self.phase, **shown)


def tensorboard(ctx: Context[Any]) -> list[TrainerCallback]:
    """The callback that writes the Trainer's log to `record/tensorboard`; none but in the main process.

    A resumed run adds a file, in which the steps that were lost with the interrupted one stand again.
    """
    return [TensorBoardCallback(SummaryWriter(str(ctx.record / "tensorboard")))] if ctx.main else []
