"""The GRPOConfig of a run: the stage's settings under TRL's names, TRL's defaults that change results, and the user's further options."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from trl import GRPOConfig

from evaluation.engines.chat import template_options
from stages.grpo.rollout import DEV_PASS_RATE
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, StageError
from stages.training.options import check_options, shared_trainer_options

_SAME_NAME = (
    *("learning_rate", "warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm"),
    *("num_generations", "num_iterations", "max_completion_length", "temperature", "top_p", "top_k"),
    *(
        "loss_type",
        "beta",
        "epsilon",
        "epsilon_high",
        "scale_rewards",
        "importance_sampling_level",
        "mask_truncated_completions",
    ),
    *("entropy_coef", "top_entropy_quantile", "use_bias_correction_kl", "delta", "gradient_checkpointing"),
)
"""Settings that GRPOConfig knows under the same name."""

_WHOLE = "no option: a sampler that leaves tokens out draws from another distribution than the one the trainer's log-probabilities are of"

OWNED_OPTIONS: dict[str, str] = {
    **{name: f"grpo.{name}" for name in _SAME_NAME},
    **dict.fromkeys(("max_steps", "num_train_epochs"), "grpo.steps"),
    **dict.fromkeys(("bf16", "fp16", "model_init_kwargs", "bf16_full_eval", "fp16_full_eval"), "grpo.dtype"),
    **dict.fromkeys(("generation_batch_size", "steps_per_generation"), "grpo.prompts_per_step and grpo.mini_batches"),
    **dict.fromkeys(
        ("per_device_train_batch_size", "gradient_accumulation_steps", "auto_find_batch_size"), "grpo.micro_batch_size"
    ),
    **dict.fromkeys(("save_steps", "save_strategy", "save_total_limit", "save_only_model"), "grpo.checkpoint_steps"),
    **dict.fromkeys(
        ("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter"),
        "no option: every step is logged",
    ),
    **dict.fromkeys(("seed", "data_seed", "full_determinism"), "seed"),
    **dict.fromkeys(("use_cpu", "local_rank", "dataloader_pin_memory"), "execution.device"),
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end"), "grpo.dev_every"),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better", "per_device_eval_batch_size"), "grpo.dev_every"),
    "num_generations_eval": "grpo.dev_samples",
    **dict.fromkeys(
        ("use_vllm", "vllm_mode", "use_transformers_continuous_batching", "use_transformers_paged"), "grpo.rollout"
    ),
    **dict.fromkeys(("vllm_server_base_url", "vllm_server_host", "vllm_server_port"), "grpo.server_url"),
    **dict.fromkeys(
        ("vllm_importance_sampling_clip_max", "vllm_importance_sampling_cap"), "grpo.sampling_correction_max"
    ),
    "vllm_importance_sampling_correction": "no option: the correction is always on, its size is what proves the weights are in step",
    "vllm_importance_sampling_mode": "grpo.sampling_correction_mode",
    **dict.fromkeys(("min_p", "repetition_penalty", "generation_kwargs", "vllm_structured_outputs_regex"), _WHOLE),
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


PINNED: dict[str, Any] = {
    **{
        "optim": "adamw_torch",
        "optim_args": None,
        "optim_target_modules": None,
        "lr_scheduler_kwargs": None,
        "label_smoothing_factor": 0.0,
    },
    **{"fp16": False, "tf32": None, "torch_compile": False, "use_liger_kernel": False, "cast_lm_head_to_fp32": False},
    **{"neftune_noise_alpha": None, "disable_dropout": False, "shuffle_dataset": True, "dataloader_drop_last": False},
    **{
        "train_sampling_strategy": "random",
        "ignore_data_skip": False,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    **{
        "repetition_penalty": 1.0,
        "min_p": None,
        "generation_kwargs": None,
        "cache_implementation": None,
        "pad_to_multiple_of": None,
    },
    **{"vllm_model_impl": "vllm", "vllm_structured_outputs_regex": None, "trust_remote_code": False},
    **{"vllm_importance_sampling_correction": True, "vllm_importance_sampling_clip_min": None},
    **{
        "multi_objective_aggregation": "sum_then_normalize",
        "off_policy_mask_threshold": None,
        "router_aux_loss_coef": None,
    },
    **{"sapo_temperature_neg": 1.05, "sapo_temperature_pos": 1.0},
    **{"vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0},
    **{"sync_ref_model": False, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 512},
    **{
        "use_adaptive_entropy": False,
        "entropy_coef_min": 0.0,
        "entropy_coef_max": 1.0,
        "entropy_coef_delta": 0.005,
        "entropy_target": 0.2,
    },
    "log_completions": False,
}
"""Options that change results and have no setting of their own: another version's defaults change nothing here. `grpo.trainer` does."""


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check `grpo.trainer` against `trl.GRPOConfig`, for a process that trains nothing: what the options bring about stays in it.

    Raises:
        StageError: for the first option that cannot be used, or for what GRPOConfig itself says of their values.
    """
    check_options(options, GRPOConfig, OWNED_OPTIONS)
    make_config({"output_dir": ".", "use_cpu": True, "bf16": False, "report_to": "none", **PINNED, **options})


def make_config(options: Mapping[str, Any]) -> GRPOConfig:
    """The GRPOConfig of these options. Raises StageError where TRL refuses one of them, or some of them together."""
    try:
        return GRPOConfig(**options)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise StageError(f"TRL refuses these options: {error}", "Check `grpo.trainer` and `grpo.dtype`.") from error


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
        raise StageError(
            f"grpo.micro_batch_size {micro_batch} does not divide the {here} completions of one process", "Lower it."
        )
    options = {
        **shared_trainer_options(ctx, logging_steps=1, checkpoint_steps=_checkpoint_steps(settings)),
        **{name: getattr(settings, name) for name in _SAME_NAME},
        **PINNED,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "max_steps": settings.steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": here // micro_batch,
        "steps_per_generation": here // micro_batch * settings.mini_batches,
        "bf16": settings.dtype == "bfloat16",
        "reward_weights": reward_weights,
        "chat_template_kwargs": template_options(settings.enable_thinking),
        **_dev_options(settings),
        "use_vllm": settings.rollout != "transformers",
        "vllm_mode": "server" if settings.rollout == "vllm_server" else "colocate",
        "vllm_server_base_url": settings.server_url,
        "vllm_enable_sleep_mode": settings.sleep,
        "vllm_gpu_memory_utilization": settings.gpu_memory_utilization,
        "vllm_tensor_parallel_size": settings.tensor_parallel,
        "vllm_max_model_length": max_model_length,
        "vllm_importance_sampling_mode": settings.sampling_correction_mode,
        "vllm_importance_sampling_clip_max": settings.sampling_correction_max,
        **settings.trainer,
    }
    return make_config(options)


def _dev_options(settings: GrpoSettings) -> dict[str, Any]:
    """The Trainer's own choice of the best checkpoint, by the share that `GrpoCallback` measures."""
    if settings.dev_every is None:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.dev_every,
        "num_generations_eval": settings.dev_samples,
        "per_device_eval_batch_size": settings.dev_samples,  # TRL wants a multiple; batches are StageTrainer.evaluate's
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{DEV_PASS_RATE}",
        "greater_is_better": True,
    }


def _checkpoint_steps(settings: GrpoSettings) -> int:
    """Checkpoints only where the completions in use are used up: they are not part of a checkpoint. A choice needs one at each look."""
    if settings.dev_every is not None:
        return settings.dev_every
    return math.ceil(settings.checkpoint_steps / settings.steps_per_rollout) * settings.steps_per_rollout
