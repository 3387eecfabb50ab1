"""The GRPO stage: prompts with gold answers and a checkpoint in, a trained checkpoint and its curve out."""

from __future__ import annotations

import functools
import math
import os
import statistics
from collections.abc import Mapping
from typing import Any

import transformers
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from evaluation.engines.base import end_token_ids
from evaluation.engines.chat import messages_of, render, template_options
from evaluation.grading import Grader
from evaluation.records import VERDICTS, Problem, RecordError, read_records
from stages import training
from stages.grpo.resampling import FIRST_REWARD, ResamplingTrainer
from stages.grpo.rewards import Rewards
from stages.grpo.rollout import DEV_PASS_RATE, GrpoCallback, check_recorded, chosen_checkpoint, configure_engine
from stages.grpo.settings import GrpoSettings
from stages.handoff import check_contract, check_same, check_stops
from stages.lora import load_adapter, lora_config, merge_adapter
from stages.runtime import Context, Result, StageError

_SAME_NAME = (
    *("learning_rate", "warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm"),
    *("num_generations", "num_iterations", "max_completion_length", "temperature", "top_p", "top_k"),
    *("loss_type", "beta", "epsilon", "epsilon_high", "scale_rewards", "importance_sampling_level", "mask_truncated_completions"),
    *("entropy_coef", "top_entropy_quantile", "use_bias_correction_kl", "delta", "gradient_checkpointing"),
)
"""Settings that GRPOConfig knows under the same name."""

OWNED_OPTIONS: dict[str, str] = {
    **{name: f"grpo.{name}" for name in _SAME_NAME},
    **dict.fromkeys(("max_steps", "num_train_epochs"), "grpo.steps"),
    **dict.fromkeys(("bf16", "fp16", "model_init_kwargs", "bf16_full_eval", "fp16_full_eval"), "grpo.dtype"),
    **dict.fromkeys(("generation_batch_size", "steps_per_generation"), "grpo.prompts_per_step and grpo.mini_batches"),
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps", "auto_find_batch_size"), "grpo.micro_batch_size"),
    **dict.fromkeys(("save_steps", "save_strategy", "save_total_limit", "save_only_model"), "grpo.checkpoint_steps"),
    **dict.fromkeys(
        ("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter"), "no option: every step is logged"
    ),
    **dict.fromkeys(("seed", "data_seed", "full_determinism"), "seed"),
    **dict.fromkeys(("use_cpu", "local_rank", "dataloader_pin_memory"), "execution.device"),
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end"), "grpo.dev_every"),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better", "per_device_eval_batch_size"), "grpo.dev_every"),
    "num_generations_eval": "grpo.dev_samples",
    **dict.fromkeys(("use_vllm", "vllm_mode", "use_transformers_continuous_batching", "use_transformers_paged"), "grpo.rollout"),
    **dict.fromkeys(("vllm_server_base_url", "vllm_server_host", "vllm_server_port"), "grpo.server_url"),
    **dict.fromkeys(("vllm_importance_sampling_clip_max", "vllm_importance_sampling_cap"), "grpo.sampling_correction_max"),
    "vllm_importance_sampling_correction": "no option: the correction is always on, its size is what proves the weights are in step",
    "vllm_importance_sampling_mode": "grpo.sampling_correction_mode",
    "vllm_gpu_memory_utilization": "grpo.gpu_memory_utilization",
    "vllm_tensor_parallel_size": "grpo.tensor_parallel",
    "vllm_max_model_length": "grpo.max_model_len",
    "vllm_enable_sleep_mode": "grpo.sleep",
    "chat_template_kwargs": "grpo.enable_thinking",
    "reward_weights": "grpo.rewards",
    "lr_scheduler_type": "grpo.schedule",
    "output_dir": "home",
    "push_to_hub": "the checkpoint folder and your own upload",
    "report_to": "grpo.trackers",
    "disable_tqdm": "the pipeline's own progress line",
}
"""Options of GRPOConfig that the pipeline sets itself -> where a user sets them."""


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check `grpo.trainer` against `trl.GRPOConfig`; raises StageError for the first option that cannot be used."""
    training.check_trainer_options(options, GRPOConfig, OWNED_OPTIONS)


def run(ctx: Context[GrpoSettings]) -> Result:
    """Train `inputs["model"]` on the prompts of `inputs["data"]`, save the checkpoint to `model/`, and prove it."""
    settings = ctx.settings
    check_trainer_options(settings.trainer)
    if settings.rollout == "vllm":
        configure_engine(ctx)
    training.prepare_torch(ctx)
    problems = read_prompts(ctx)
    continued = settings.lora_start == "sft_adapter"
    base = ctx.inputs["below" if continued else "model"] / "model"
    model, tokenizer = training.load_model_and_tokenizer(
        base, settings.dtype if settings.lora else "float32"
    )  # what is trained stays float32
    contract = check_contract(base, model, tokenizer)
    positions = model.config.get_text_config().max_position_embeddings
    if continued:
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
    with Grader(settings.grader_workers, settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib) as grader:
        if any(problem.kind == "code" for problem in problems):
            _start_sandbox(ctx, grader)
        ends = end_token_ids(tokenizer, model.generation_config)
        prompt_end = render(tokenizer, problems[0].prompt, settings.system_prompt, settings.enable_thinking)[0]
        rewards = Rewards([*problems, *dev], grader, tokenizer, ends, settings.max_grader_error_share, prompt_end, dev_from=len(problems))
        functions, weights = rewards.parts(settings)
        callback = GrpoCallback(ctx, rewards)
        trainer_class = GRPOTrainer
        if settings.resampling_rounds:
            trainer_class = functools.partial(ResamplingTrainer, rounds=settings.resampling_rounds, seed=ctx.seed)
        trainer = trainer_class(
            model=model,
            args=trainer_config(ctx, longest + settings.max_completion_length, weights),
            reward_funcs=functions,
            train_dataset=_dataset(problems, 0, settings),
            eval_dataset=_dataset(dev, len(problems), settings) if dev else None,
            processing_class=tokenizer,
            peft_config=None if continued else lora_config(settings.lora),
            callbacks=[callback, *training.tensorboard(ctx)],
        )
        if settings.stop_check_prompts:
            first = problems[: settings.stop_check_prompts]
            prompts = [render(tokenizer, problem.prompt, settings.system_prompt, settings.enable_thinking)[1] for problem in first]
            check_stops(trainer.model, tokenizer, prompts, settings.max_completion_length, settings.temperature)
        transformers.set_seed(ctx.seed)  # building vLLM's engine seeds this process with 0, whatever the run's seed is
        training.train(ctx, trainer)
    trained = training.whole_model(ctx, trainer)
    return _finish(ctx, trainer, trained, tokenizer, callback, problems, contract) if ctx.main else Result({})


def _dataset(problems: list[Problem], first: int, settings: GrpoSettings) -> Dataset:
    """The rows that TRL samples from; `problem` is the index by which the rewards find a row's problem."""
    return Dataset.from_list(
        [{"prompt": messages_of(p.prompt, settings.system_prompt), "problem": index} for index, p in enumerate(problems, start=first)]
    )


def _finish(
    ctx: Context[GrpoSettings],
    trainer: GRPOTrainer,
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
    training.save_checkpoint(trained, tokenizer, ctx.output / "model", settings.dtype)
    proof = training.training_proof(
        trained,
        tokenizer,
        before=ctx.inputs["model"] / "model",
        after=ctx.output / "model",
        dtype=settings.dtype,
        state=trainer.state,
        planned_steps=settings.steps,
    )
    saved = training.load_model_and_tokenizer(ctx.output / "model", settings.dtype)
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
            "verdicts": {verdict: round(sum(entry[f"verdicts/{verdict}"] for entry in sampled)) for verdict in VERDICTS},
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


def _fitting(ctx: Context[GrpoSettings], problems: list[Problem], what: str, tokenizer: Any, positions: int) -> tuple[list[Problem], int]:
    """The problems whose prompt leaves room for a whole completion, and the longest of these prompts in tokens."""
    settings = ctx.settings
    if settings.max_model_len is not None and settings.max_model_len > positions:
        raise StageError(
            f"grpo.max_model_len is {settings.max_model_len}, but the model has {positions} positions", f"Set it to {positions} or less."
        )
    limit = settings.max_model_len or positions
    lengths = [len(render(tokenizer, problem.prompt, settings.system_prompt, settings.enable_thinking)[1]) for problem in problems]
    kept = [index for index, length in enumerate(lengths) if length + settings.max_completion_length <= limit]
    left_out = len(problems) - len(kept)
    where = f"with max_completion_length {settings.max_completion_length} in a context of {limit} tokens"
    if not kept:
        raise StageError(
            f"all {left_out} {what} are too long {where}; the shortest has {min(lengths)} tokens", "Lower grpo.max_completion_length."
        )
    if left_out:
        ctx.note(f"{left_out} of {len(problems)} {what} are left out: too long {where}")
    return [problems[index] for index in kept], max(lengths[index] for index in kept)


def trainer_config(ctx: Context[GrpoSettings], max_model_length: int, reward_weights: list[float]) -> GRPOConfig:
    """The GRPOConfig of a run: everything that matters written out, then the user's further options."""
    settings = ctx.settings
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.completions_per_step % processes:
        raise StageError(
            f"{settings.completions_per_step} completions per step cannot be shared by {processes} processes",
            "Change grpo.prompts_per_step.",
        )
    here = settings.completions_per_step // processes
    micro_batch = settings.micro_batch_size or here
    if here % micro_batch:
        raise StageError(f"grpo.micro_batch_size {micro_batch} does not divide the {here} completions of one process", "Lower it.")
    options = {
        **training.shared_trainer_options(ctx, logging_steps=1, checkpoint_steps=_checkpoint_steps(settings)),
        **{name: getattr(settings, name) for name in _SAME_NAME},
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "optim": "adamw_torch",
        "max_steps": settings.steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": here // micro_batch,
        "steps_per_generation": here // micro_batch * settings.mini_batches,
        "bf16": settings.dtype == "bfloat16",
        "fp16": False,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "disable_dropout": False,
        "shuffle_dataset": True,
        "reward_weights": reward_weights,
        "multi_objective_aggregation": "sum_then_normalize",
        "chat_template_kwargs": template_options(settings.enable_thinking),
        "repetition_penalty": 1.0,
        "min_p": None,
        **_dev_options(settings, micro_batch),
        "use_vllm": settings.rollout != "transformers",
        "vllm_mode": "server" if settings.rollout == "vllm_server" else "colocate",
        "vllm_server_base_url": settings.server_url,
        "vllm_enable_sleep_mode": settings.sleep,
        "vllm_gpu_memory_utilization": settings.gpu_memory_utilization,
        "vllm_tensor_parallel_size": settings.tensor_parallel,
        "vllm_max_model_length": max_model_length,
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": settings.sampling_correction_mode,
        "vllm_importance_sampling_clip_max": settings.sampling_correction_max,
        "vllm_importance_sampling_clip_min": None,
        "use_adaptive_entropy": False,
        "sync_ref_model": False,
        "off_policy_mask_threshold": None,
        "log_completions": False,
        **settings.trainer,
    }
    try:
        return GRPOConfig(**options)
    except (ValueError, TypeError) as error:
        raise StageError(f"TRL refuses these options: {error}", "Check `grpo.trainer` and `grpo.dtype`.") from error


def _dev_options(settings: GrpoSettings, micro_batch: int) -> dict[str, Any]:
    """The Trainer's own choice of the best checkpoint, by the share that `GrpoCallback` measures."""
    if settings.dev_every is None:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.dev_every,
        "num_generations_eval": settings.dev_samples,
        "per_device_eval_batch_size": max(1, micro_batch // settings.dev_samples) * settings.dev_samples,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{DEV_PASS_RATE}",
        "greater_is_better": True,
    }


def _checkpoint_steps(settings: GrpoSettings) -> int:
    """Checkpoints only where the completions in use are used up: they are not part of a checkpoint. A choice needs one at each look."""
    if settings.dev_every is not None:
        return settings.dev_every
    return math.ceil(settings.checkpoint_steps / settings.steps_per_rollout) * settings.steps_per_rollout
