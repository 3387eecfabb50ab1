"""The GRPO stage: prompts with gold answers and a checkpoint in, a trained checkpoint and its curve out."""

from __future__ import annotations

import functools
import math
import statistics
from typing import Any, cast

import transformers
from datasets import Dataset

from evaluation.engines.base import end_token_ids
from evaluation.engines.chat import messages_of, render
from evaluation.grading import Grader
from evaluation.records import VERDICTS, Problem, RecordError, read_records
from stages.grpo.config import check_trainer_options, trainer_config
from stages.grpo.resampling import FIRST_REWARD, ResamplingTrainer
from stages.grpo.rewards import Rewards
from stages.grpo.rollout import GrpoCallback, check_recorded, chosen_checkpoint, configure_engine
from stages.grpo.settings import GrpoSettings
from stages.grpo.trainer import PARTS, StageTrainer
from stages.harness.context import Context, Result, StageError
from stages.training import distributed
from stages.training.checkpoint import load_model_and_tokenizer, save_checkpoint, whole_model
from stages.training.contract import check_contract, check_files, check_same, check_stops
from stages.training.loop import tensorboard, train
from stages.training.lora import load_adapter, lora_config, merge_adapter
from stages.training.proof import training_proof
from stages.training.setup import prepare_torch

__all__ = ["check_trainer_options", "run", "trainer_config"]


def run(ctx: Context[GrpoSettings]) -> Result:
    """Train `inputs["model"]` on the prompts of `inputs["data"]`, save the checkpoint to `model/`, and prove it."""
    settings = ctx.settings
    check_trainer_options(settings.trainer)
    if settings.rollout == "vllm":
        configure_engine(ctx)
    prepare_torch(ctx)
    problems = read_prompts(ctx)
    continued = settings.lora_start == "sft_adapter"
    base = ctx.inputs["below" if continued else "model"] / "model"
    model, tokenizer = load_model_and_tokenizer(
        base, settings.dtype if settings.lora else "float32"
    )  # what is trained stays float32
    contract = check_contract(base, model, tokenizer)
    positions = model.config.get_text_config().max_position_embeddings
    if continued:  # the merged checkpoint that SFT left is not loaded, and held to the same
        check_same(check_files(ctx.inputs["model"] / "model", tokenizer), contract)
        model = load_adapter(model, ctx.inputs["adapter"] / "adapter")
    problems, longest = _fitting(ctx, problems, "prompts", tokenizer, positions)
    if len(problems) < settings.prompts_per_step:
        raise StageError(
            f"{len(problems)} prompts are fewer than the {settings.prompts_per_step} of one step",
            "Lower grpo.prompts_per_step, or add rows to data.rl.",
        )
    dev: list[Problem] = []
    if settings.dev_every is not None:
        dev, longest_dev = _fitting(ctx, read_prompts(ctx, "dev"), "dev problems", tokenizer, positions)
        longest = max(longest, longest_dev)
    ctx.progress(0, settings.steps, "loading the engine")
    with Grader(
        settings.grader_workers, settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib
    ) as grader:
        if any(problem.kind == "code" for problem in problems):
            _start_sandbox(ctx, grader)
        ends = end_token_ids(tokenizer, model.generation_config)
        prompt_end = render(tokenizer, problems[0].prompt, settings.system_prompt, settings.enable_thinking)[0]
        rewards = Rewards(
            [*problems, *dev],
            grader,
            tokenizer,
            ends,
            settings.max_grader_error_share,
            prompt_end,
            dev_from=len(problems),
        )
        functions, weights = rewards.parts(settings)
        callback = GrpoCallback(ctx, rewards)
        trainer = _build(
            ctx,
            model=model,
            args=trainer_config(ctx, longest + settings.max_completion_length, weights),
            reward_funcs=functions,
            train_dataset=_dataset(problems, 0, settings),
            eval_dataset=_dataset(dev, len(problems), settings) if dev else None,
            processing_class=tokenizer,
            peft_config=None if continued else lora_config(settings.lora),
            callbacks=[callback, *tensorboard(ctx)],
        )
        if settings.stop_check_prompts:
            first = problems[: settings.stop_check_prompts]
            prompts = [
                render(tokenizer, problem.prompt, settings.system_prompt, settings.enable_thinking)[1]
                for problem in first
            ]
            check_stops(trainer.model, tokenizer, prompts, settings.max_completion_length, settings.temperature)
        # Building vLLM's engine seeds this process by its number, whatever the run's seed is. The processes that share one engine sample
        # the same completions and keep a part each; all others have to draw their own.
        transformers.set_seed(distributed.seed(ctx.seed, distributed.rank() // settings.tensor_parallel))
        train(ctx, trainer)
    trained = whole_model(ctx, trainer)
    return _finish(ctx, trainer, trained, tokenizer, callback, problems, contract) if ctx.main else Result({})


def _build(ctx: Context[GrpoSettings], **arguments: Any) -> StageTrainer:
    """The trainer, and with it vLLM's engine. Raises StageError where one of them cannot be built."""
    settings = ctx.settings
    trainer_class: Any = StageTrainer
    if settings.resampling_rounds:
        trainer_class = functools.partial(ResamplingTrainer, rounds=settings.resampling_rounds, seed=ctx.seed)
    try:
        return cast(StageTrainer, trainer_class(**arguments))
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        memory = "cpu_kv_cache_gib" if ctx.machine.device == "cpu" else "gpu_memory_utilization"
        fix = (
            f"See the log. Where memory is short, lower grpo.{memory}."
            if settings.rollout == "vllm"
            else "See the log."
        )
        raise StageError(f"the trainer cannot be built: {error}", fix) from error


def _dataset(problems: list[Problem], first: int, settings: GrpoSettings) -> Dataset:
    """The rows that TRL samples from; `problem` is the index by which the rewards find a row's problem."""
    return Dataset.from_list(
        [
            {"prompt": messages_of(p.prompt, settings.system_prompt), "problem": index}
            for index, p in enumerate(problems, start=first)
        ]
    )


def _finish(
    ctx: Context[GrpoSettings],
    trainer: StageTrainer,
    trained: Any,
    tokenizer: Any,
    callback: GrpoCallback,
    problems: list[Problem],
    contract: dict[str, Any],
) -> Result:
    """Save the checkpoint, check it, and sum up the run."""
    settings = ctx.settings
    extra: dict[str, Any] = {}
    if settings.lora:
        _, token_ids = render(tokenizer, problems[0].prompt, settings.system_prompt, settings.enable_thinking)
        trained, extra["merge_difference"] = merge_adapter(trained, list(token_ids), ctx.output / "adapter")
    save_checkpoint(trained, tokenizer, ctx.output / "model", settings.dtype)
    proof = training_proof(
        trained,
        tokenizer,
        before=ctx.inputs["model"] / "model",
        after=ctx.output / "model",
        dtype=settings.dtype,
        state=trainer.state,
        planned_steps=settings.steps,
    )
    saved = load_model_and_tokenizer(ctx.output / "model", settings.dtype)
    check_same(contract, check_contract(ctx.output / "model", *saved))
    extra["contract"] = contract
    if settings.dev_every is not None:
        extra |= chosen_checkpoint(trainer.state, settings.steps // settings.dev_every)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    if settings.rollout != "transformers":
        extra |= check_recorded(ctx, history)
    sampled = [entry for entry in history if "reward" in entry]
    if not all(math.isfinite(entry["reward"]) for entry in sampled):
        raise StageError("a reward is not finite", "See the curve in record/metrics.jsonl.")
    return Result(
        {**proof, **extra},
        {
            "prompts": len(problems),
            "reward_first": sampled[0].get(FIRST_REWARD, sampled[0]["reward"]),
            "reward_last": sampled[-1].get(FIRST_REWARD, sampled[-1]["reward"]),
            "completion_length_last": sampled[-1]["completions/mean_length"],
            "tokens_per_second": round(callback.tokens_per_second, 1),
            "step_seconds_mean": round(statistics.fmean(entry["step_time"] for entry in history), 3),
            "step_seconds": {
                part: round(statistics.fmean(entry[f"time/{part}"] for entry in history), 4) for part in PARTS
            },
            "verdicts": {
                verdict: round(sum(entry[f"verdicts/{verdict}"] for entry in sampled)) for verdict in VERDICTS
            },
        },
    )


def read_prompts(ctx: Context[GrpoSettings], name: str = "rl") -> list[Problem]:
    """The problems of `rl.jsonl`, or of `dev.jsonl`. Raises StageError where there are none, or one is not a problem."""
    path = ctx.inputs["data" if name == "rl" else "dev"] / f"{name}.jsonl"
    try:
        problems = read_records(path, Problem) if path.is_file() else []
    except RecordError as error:
        raise StageError(str(error), f"Run the data stage again; check the columns in `data.{name}`.") from None
    if not problems:
        raise StageError(f"{path}: no problems in it", f"Check `data.{name}` in the config.")
    return problems


def _start_sandbox(ctx: Context[GrpoSettings], grader: Grader) -> None:
    """Say how sampled programs are isolated. Raises StageError where that is less than the settings require."""
    level = grader.start_sandbox()
    if ctx.settings.require_sandbox == "namespaces" and level != "namespaces":
        raise StageError(
            f"sampled programs could only be run at isolation level {level}: this machine does not let users make namespaces",
            "Train on another machine, allow user namespaces, or set grpo.require_sandbox: rlimits if you trust the model.",
        )
    ctx.note(f"sampled programs run with isolation level {level}")


def _fitting(
    ctx: Context[GrpoSettings], problems: list[Problem], what: str, tokenizer: Any, positions: int
) -> tuple[list[Problem], int]:
    """The problems whose prompt leaves room for a whole completion, and the longest of these prompts in tokens."""
    settings = ctx.settings
    if settings.max_model_len is not None and settings.max_model_len > positions:
        raise StageError(
            f"grpo.max_model_len is {settings.max_model_len}, but the model has {positions} positions",
            f"Set it to {positions} or less.",
        )
    limit = settings.max_model_len or positions
    lengths = [
        len(render(tokenizer, problem.prompt, settings.system_prompt, settings.enable_thinking)[1])
        for problem in problems
    ]
    kept = [index for index, length in enumerate(lengths) if length + settings.max_completion_length <= limit]
    left_out = len(problems) - len(kept)
    where = f"with max_completion_length {settings.max_completion_length} in a context of {limit} tokens"
    if not kept:
        raise StageError(
            f"all {left_out} {what} are too long {where}; the shortest has {min(lengths)} tokens",
            "Lower grpo.max_completion_length.",
        )
    if left_out:
        ctx.note(f"{left_out} of {len(problems)} {what} are left out: too long {where}")
    return [problems[index] for index in kept], max(lengths[index] for index in kept)
