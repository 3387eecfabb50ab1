"""What is checked before the first step: the prompts, the checkpoint, the sandbox, and that the model ends at all."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from evaluation.chat import render
from evaluation.engines.base import end_token_ids
from evaluation.grading import Grader
from evaluation.records import Problem, RecordError, read_records
from stages.grading.grade import start_sandbox
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, StageError
from stages.training.checkpoint import load_model_and_tokenizer, make_saveable
from stages.training.contract import check_contract, check_files, check_same, check_stops
from stages.training.lora import load_adapter


@dataclasses.dataclass
class Start:
    """What a run starts from."""

    settings: GrpoSettings
    base: Path
    """The checkpoint that was loaded, below the adapter where there is one, and in which type."""
    dtype: str
    model: Any
    tokenizer: Any
    contract: dict[str, Any]
    """What the trained checkpoint must hand on unchanged (stages/training/contract.py)."""
    left_out: dict[str, Any]
    """What its checkpoint leaves out of the generation config."""
    problems: list[Problem] = dataclasses.field(default_factory=list)
    dev: list[Problem] = dataclasses.field(default_factory=list)
    """Problems that are sampled to choose a checkpoint, and not trained on."""
    longest_prompt: int = 0
    """Tokens."""

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end a completion."""
        return end_token_ids(self.tokenizer, self.model.generation_config)

    def render(self, problem: Problem) -> tuple[str, list[int]]:
        """The prompt of a problem up to where the assistant speaks, as text and as token ids."""
        system, thinking = self.settings.system_prompt, self.settings.enable_thinking
        try:
            text, ids = render(self.tokenizer, problem.prompt, system, thinking, context=problem.context)
        except ValueError as error:
            fix = "Leave out what the model's chat template does not take (grpo.system_prompt), or correct it."
            raise StageError(f"{problem.id}: {error}", fix) from error
        return text, list(ids)


def checked_start(ctx: Context[GrpoSettings]) -> Start:
    """Read the prompts, load the checkpoint, hold it to its contract, and leave out prompts that are too long.

    Raises:
        StageError: no problems, a checkpoint that contradicts itself, or prompts of which too few fit.
    """
    settings = ctx.settings
    problems = _read_problems(ctx, "data", "rl")
    dev = [] if settings.dev_every is None else _read_problems(ctx, "dev", "dev")
    start = _load(ctx)
    start.problems = _fitting(ctx, start, problems, "prompts")
    if len(start.problems) < settings.prompts_per_step:
        shortage = f"{len(start.problems)} prompts are fewer than the {settings.prompts_per_step} of one step"
        raise StageError(shortage, "Lower grpo.prompts_per_step, or add rows to data.rl.")
    if dev:
        start.dev = _fitting(ctx, start, dev, "dev problems")
    return start


def _read_problems(ctx: Context[GrpoSettings], folder: str, name: str) -> list[Problem]:
    path = ctx.inputs[folder] / f"{name}.jsonl"
    try:
        problems = read_records(path, Problem) if path.is_file() else []
    except RecordError as error:
        raise StageError(str(error), f"Run the data stage again; check the columns in `data.{name}`.") from None
    if not problems:
        raise StageError(f"{path}: no problems in it", f"Check `data.{name}` in the config.")
    return problems


def _load(ctx: Context[GrpoSettings]) -> Start:
    settings = ctx.settings
    continued = settings.lora_start == "sft_adapter"
    base = ctx.inputs["below" if continued else "model"] / "model"
    # What is trained stays float32.
    dtype = settings.dtype if settings.lora else "float32"
    model, tokenizer = load_model_and_tokenizer(base, dtype, settings.template_date)
    left_out = make_saveable(ctx, model, tokenizer)
    contract = check_contract(base, model, tokenizer)
    if continued:  # the merged checkpoint that SFT left is not loaded, and held to the same
        check_same(check_files(ctx.inputs["model"] / "model", tokenizer), contract)
        model = load_adapter(model, ctx.inputs["adapter"] / "adapter")
    return Start(settings, base, dtype, model, tokenizer, contract, left_out)


def _fitting(ctx: Context[GrpoSettings], start: Start, problems: list[Problem], what: str) -> list[Problem]:
    """The problems whose prompt leaves room for a whole completion; keeps account of `longest_prompt`."""
    new, context = ctx.settings.max_completion_length, ctx.settings.max_model_len
    positions = start.model.config.get_text_config().max_position_embeddings
    if context is not None and context > positions:
        excess = f"grpo.max_model_len is {context}, but the model has {positions} positions"
        raise StageError(excess, f"Set it to {positions} or less.")
    limit = context or positions
    lengths = [len(start.render(problem)[1]) for problem in problems]
    fits = [length + new <= limit for length in lengths]
    where = f"with max_completion_length {new} in a context of {limit} tokens"
    if not any(fits):
        excess = f"all {len(problems)} {what} are too long {where}; the shortest has {min(lengths)} tokens"
        raise StageError(excess, "Lower grpo.max_completion_length.")
    if not all(fits):
        ctx.note(f"{fits.count(False)} of {len(problems)} {what} are left out: too long {where}")
    start.longest_prompt = max(start.longest_prompt, *itertools.compress(lengths, fits))
    return list(itertools.compress(problems, fits))


def check_sandbox(ctx: Context[GrpoSettings], grader: Grader, start: Start) -> None:
    """Say how sampled programs are isolated, where any are. Raises StageError where that is less than is required."""
    if all(problem.kind != "code" for problem in start.problems):
        return
    level = start_sandbox(grader)
    if ctx.settings.require_sandbox == "namespaces" and level != "namespaces":
        raise StageError(
            f"sampled programs could only be run at isolation level {level}: this machine does not let users make "
            "namespaces",
            "Train on another machine, allow user namespaces, or set grpo.require_sandbox: rlimits if you trust the "
            "model.",
        )
    ctx.note(f"sampled programs run with isolation level {level}")


def check_model_stops(start: Start, model: Any) -> None:
    """Check that the model ends one of a few completions by itself: one that never does has nothing to be rewarded."""
    settings = start.settings
    prompts = [start.render(problem)[1] for problem in start.problems[: settings.stop_check_prompts]]
    if prompts:
        check_stops(model, start.tokenizer, prompts, settings.max_completion_length, settings.temperature)
