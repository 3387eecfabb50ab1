"""GRPO: prompts with gold answers and a checkpoint in, a trained checkpoint and its curve out.

`train` is the stage, read top to bottom. A step is TRL's: it samples a group of completions for each prompt, rewards
them, and takes each reward's distance from its group's mean as the advantage. Where the rest is:

- the reward: rewards.py, with functions of a user's own in custom.py;
- what is checked before the first step: checks.py, and in every step: rollout.py;
- TRL's trainer, where a step's seconds go, and its private names: trl_internals/; its options: config.py;
- which groups are replaced: resampling.py.
"""

import functools
import math
import statistics
from typing import Any, cast

import transformers
from datasets import Dataset
from transformers.integrations.fsdp import is_fsdp_enabled
from trl import GRPOConfig

from evaluation.chat import messages_of
from evaluation.records import VERDICTS, Problem
from stages.grpo import checks, config, rollout
from stages.grpo.resampling import FIRST_REWARD, ResamplingTrainer
from stages.grpo.rewards import Rewards, make_grader, make_reader
from stages.grpo.settings import GrpoSettings
from stages.grpo.trl_internals import PARTS, StageTrainer, configure_engine
from stages.harness.context import Context, Result, StageError
from stages.training import checkpoint, contract, distributed, loop, lora, options, proof, setup
from stages.training.library_internals import load_reference_on_the_cpu


def train(ctx: Context[GrpoSettings]) -> Result:
    """Train `inputs["model"]` on the prompts of `inputs["data"]`, save the checkpoint to `model/`, and prove it."""
    settings = ctx.settings
    options.check_options(settings.trainer, GRPOConfig, config.OWNED_OPTIONS)
    if settings.rollout == "vllm":
        configure_engine(ctx)
    setup.prepare_torch(ctx)
    start = checks.checked_start(ctx)
    ctx.progress(0, settings.steps, "loading the engine")
    with make_grader(settings) as grader:
        checks.check_sandbox(ctx, grader, start)
        reader = make_reader(start.tokenizer, start.eos_token_ids, prompt_end=start.render(start.problems[0])[0])
        rewards = Rewards(start.problems, grader, reader, start.dev)
        callback = rollout.GrpoCallback(ctx, rewards)
        trainer = _make_trainer(ctx, start, rewards, callback)
        checks.check_model_stops(start, trainer.model)
        # Building vLLM's engine seeds this process by its number, whatever the run's seed is. The processes that share
        # one engine sample the same completions and keep a part each; all others have to draw their own.
        transformers.set_seed(distributed.seed(ctx.seed, distributed.rank() // settings.tensor_parallel))
        loop.train(ctx, trainer)
    trained = checkpoint.whole_model(ctx, trainer, start.base, start.dtype)
    return _finish(ctx, start, trainer, trained, callback.tokens_per_second) if ctx.main else Result({})


def _make_trainer(
    ctx: Context[GrpoSettings], start: checks.Start, rewards: Rewards, callback: rollout.GrpoCallback
) -> StageTrainer:
    """The trainer, and with it vLLM's engine. Raises StageError where one of them cannot be built."""
    settings = ctx.settings
    functions, weights = rewards.parts(settings, ctx.code_digests)
    if is_fsdp_enabled():
        load_reference_on_the_cpu()
    trainer_class: Any = StageTrainer
    if settings.resampling_rounds:
        trainer_class = functools.partial(ResamplingTrainer, rounds=settings.resampling_rounds, seed=ctx.seed)
    arguments = {
        "model": start.model,
        "args": config.trainer_config(ctx, start.longest_prompt + settings.max_completion_length, weights),
        "reward_funcs": functions,
        "train_dataset": _dataset(start.problems, 0, settings),
        "eval_dataset": _dataset(start.dev, len(start.problems), settings) if start.dev else None,
        "processing_class": start.tokenizer,
        "peft_config": None if settings.lora_start == "sft_adapter" else lora.lora_config(settings.lora),
        "callbacks": [callback, *loop.tensorboard(ctx)],
        "max_tokens": settings.max_tokens_per_micro_batch,
        "share_prompts": settings.share_prompts,
    }
    try:
        return cast(StageTrainer, trainer_class(**arguments))
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        memory = "cpu_kv_cache_gib" if ctx.machine.device == "cpu" else "gpu_memory_utilization"
        fix = f" Where memory is short, lower grpo.{memory}." if settings.rollout == "vllm" else ""
        raise StageError(f"the trainer cannot be built: {error}", f"See the log.{fix}") from error


def _dataset(problems: list[Problem], first: int, settings: GrpoSettings) -> Dataset:
    """The rows that TRL samples from; `problem` is the index by which the rewards find a row's problem."""
    prompts = [messages_of(problem.prompt, settings.system_prompt, context=problem.context) for problem in problems]
    return Dataset.from_list(
        [{"prompt": prompt, "problem": index} for index, prompt in enumerate(prompts, start=first)]
    )


def _finish(
    ctx: Context[GrpoSettings], start: checks.Start, trainer: StageTrainer, trained: Any, tokens_per_second: float
) -> Result:
    """Save the checkpoint, check it, and sum up the run."""
    settings, state, folder = ctx.settings, trainer.state, ctx.output / "model"
    rollout.check_signal(rollout.rollouts_of(state))
    extra: dict[str, Any] = {}
    if settings.lora:
        _, token_ids = start.render(start.problems[0])
        trained, extra["merge_difference"] = lora.merge_adapter(trained, token_ids, ctx.output / "adapter")
    checkpoint.save_checkpoint(trained, start.tokenizer, folder, settings.dtype)
    before, dtype, steps = ctx.inputs["model"] / "model", settings.dtype, settings.steps
    proved = proof.training_proof(
        trained, start.tokenizer, before=before, after=folder, dtype=dtype, state=state, planned_steps=steps
    )
    saved = checkpoint.load_model_and_tokenizer(folder, settings.dtype)
    contract.check_same(start.contract, contract.check_contract(folder, *saved))
    extra["contract"] = start.contract
    if start.left_out:
        extra["generation_config_left_out"] = start.left_out
    if settings.dev_every is not None:
        extra |= rollout.chosen_checkpoint(state, settings.steps // settings.dev_every)
    history = [entry for entry in state.log_history if "loss" in entry]
    if settings.rollout != "transformers":
        extra |= rollout.check_recorded(settings, history)
    sampled = rollout.rollouts_of(state)
    if not all(math.isfinite(entry["reward"]) for entry in sampled):
        raise StageError("a reward is not finite", "See the curve in record/metrics.jsonl.")
    seconds = {part: round(statistics.fmean(entry[f"time/{part}"] for entry in history), 4) for part in PARTS}
    metrics = {
        "prompts": len(start.problems),
        "reward_first": sampled[0].get(FIRST_REWARD, sampled[0]["reward"]),
        "reward_last": sampled[-1].get(FIRST_REWARD, sampled[-1]["reward"]),
        "completion_length_last": sampled[-1]["completions/mean_length"],
        "tokens_per_second": round(tokens_per_second, 1),
        "step_seconds_mean": round(statistics.fmean(entry["step_time"] for entry in history), 3),
        "step_seconds": seconds,
        "verdicts": {verdict: round(sum(entry[f"verdicts/{verdict}"] for entry in sampled)) for verdict in VERDICTS},
    }
    return Result({**proved, **extra}, metrics)
