"""The GRPOConfig of a run: the stage's settings under TRL's names, TRL's defaults that change results, and the user's
further options."""

import importlib.util
import math
import os
from collections.abc import Mapping
from typing import Any

from trl import GRPOConfig

from evaluation.chat import template_options
from stages.grpo.rollout import DEV_PASS_RATE
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, StageError
from stages.training.options import check_options, shared_trainer_options

NAMES = (
    "learning_rate warmup_steps adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm gradient_checkpointing "
    "num_generations num_iterations max_completion_length temperature top_p top_k loss_type beta epsilon epsilon_high "
    "delta scale_rewards importance_sampling_level mask_truncated_completions entropy_coef top_entropy_quantile "
    "use_bias_correction_kl"
)
SETTINGS = {name: name for name in NAMES.split()} | {
    "max_steps": "steps",
    "vllm_server_base_url": "server_url",
    "vllm_enable_sleep_mode": "sleep",
    "vllm_gpu_memory_utilization": "gpu_memory_utilization",
    "vllm_tensor_parallel_size": "tensor_parallel",
    "vllm_importance_sampling_mode": "sampling_correction_mode",
    "vllm_importance_sampling_clip_max": "sampling_correction_max",
}
"""Options of GRPOConfig that are settings of the stage -> the setting."""
OWNERS = {
    "grpo.steps": "num_train_epochs",
    "grpo.dtype": "bf16 fp16 model_init_kwargs bf16_full_eval fp16_full_eval",
    "grpo.prompts_per_step and grpo.mini_batches": "generation_batch_size steps_per_generation",
    "grpo.micro_batch_size": "per_device_train_batch_size gradient_accumulation_steps auto_find_batch_size",
    "grpo.checkpoint_steps": "save_steps save_strategy save_total_limit save_only_model",
    "grpo.dev_every": "eval_strategy eval_steps eval_on_start load_best_model_at_end metric_for_best_model "
    "greater_is_better per_device_eval_batch_size",
    "grpo.dev_samples": "num_generations_eval",
    "grpo.rollout": "use_vllm vllm_mode use_transformers_continuous_batching use_transformers_paged",
    "grpo.server_url": "vllm_server_host vllm_server_port",
    "grpo.sampling_correction_max": "vllm_importance_sampling_cap",
    "grpo.max_model_len": "vllm_max_model_length",
    "grpo.enable_thinking": "chat_template_kwargs",
    "grpo.rewards": "reward_weights",
    "grpo.schedule": "lr_scheduler_type",
    "grpo.trackers": "report_to",
    "seed": "seed data_seed full_determinism",
    "home": "output_dir",
    "execution.device": "use_cpu local_rank dataloader_pin_memory",
    "the checkpoint folder and your own upload": "push_to_hub",
    "the pipeline's own progress line": "disable_tqdm",
    "no option: every step is logged": "logging_strategy logging_steps logging_first_step logging_nan_inf_filter",
    "no option: the correction is always on, its size is what proves the weights are in step": (
        "vllm_importance_sampling_correction"
    ),
    "no option: a sampler that leaves tokens out draws from another distribution than the one the trainer's "
    "log-probabilities are of": "min_p repetition_penalty generation_kwargs vllm_structured_outputs_regex",
}
OWNED_OPTIONS = {option: f"grpo.{setting}" for option, setting in SETTINGS.items()}
OWNED_OPTIONS |= {option: owner for owner, options in OWNERS.items() for option in options.split()}
"""Options of GRPOConfig that the pipeline sets itself -> where a user sets them."""
UNSET = (
    "optim_args optim_target_modules lr_scheduler_kwargs tf32 neftune_noise_alpha min_p generation_kwargs "
    "cache_implementation pad_to_multiple_of vllm_structured_outputs_regex vllm_importance_sampling_clip_min "
    "off_policy_mask_threshold router_aux_loss_coef"
)
OFF = (
    "fp16 torch_compile use_liger_kernel cast_lm_head_to_fp32 disable_dropout dataloader_drop_last ignore_data_skip "
    "trust_remote_code sync_ref_model use_adaptive_entropy log_completions"
)
PINNED: dict[str, Any] = {
    **dict.fromkeys(UNSET.split()),
    **dict.fromkeys(OFF.split(), False),
    "optim": "adamw_torch_fused",
    "label_smoothing_factor": 0.0,
    "shuffle_dataset": True,
    "train_sampling_strategy": "random",
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "repetition_penalty": 1.0,
    "vllm_model_impl": "vllm",
    "vllm_importance_sampling_correction": True,
    "multi_objective_aggregation": "sum_then_normalize",
    "sapo_temperature_neg": 1.05,
    "sapo_temperature_pos": 1.0,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
    "ref_model_mixup_alpha": 0.6,
    "ref_model_sync_steps": 512,
    "entropy_coef_min": 0.0,
    "entropy_coef_max": 1.0,
    "entropy_coef_delta": 0.005,
    "entropy_target": 0.2,
}
"""Options that change results and have no setting: `grpo.trainer` changes them, another version's defaults do not."""


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check `grpo.trainer` against `trl.GRPOConfig`, in a process that trains nothing: making one sets up devices.

    Raises:
        StageError: for the first option that cannot be used, for a package that one of them needs and that is missing,
            or for what GRPOConfig itself says of their values.
    """
    check_options(options, GRPOConfig, OWNED_OPTIONS)
    if options.get("use_liger_kernel") and importlib.util.find_spec("liger_kernel") is None:
        raise StageError(
            "use_liger_kernel needs a package that is missing", "pip install liger-kernel, or leave it out."
        )
    _make_config({"output_dir": ".", "use_cpu": True, "bf16": False, "report_to": "none", **PINNED, **options})


def _make_config(options: Mapping[str, Any]) -> GRPOConfig:
    try:
        return GRPOConfig(**options)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise StageError(f"TRL refuses these options: {error}", "Check `grpo.trainer` and `grpo.dtype`.") from error


def trainer_config(ctx: Context[GrpoSettings], max_model_length: int, reward_weights: list[float]) -> GRPOConfig:
    """The GRPOConfig of a run: everything that matters written out, then the user's further options.

    Raises:
        StageError: the completions of a step do not divide by processes and micro-batches, or TRL refuses an option.
    """
    settings = ctx.settings
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(settings.completions_per_step, processes)
    if rest:
        problem = f"{settings.completions_per_step} completions per step cannot be shared by {processes} processes"
        raise StageError(problem, "Change grpo.prompts_per_step.")
    micro_batch = 1 if settings.max_tokens_per_micro_batch else settings.micro_batch_size or share
    if share % micro_batch:
        problem = f"grpo.micro_batch_size {micro_batch} does not divide the {share} completions of one process"
        raise StageError(problem, "Lower it.")
    options = {
        **shared_trainer_options(ctx, logging_steps=1, checkpoint_steps=_checkpoint_steps(settings)),
        **{option: getattr(settings, setting) for option, setting in SETTINGS.items()},
        **PINNED,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": share // micro_batch,
        "steps_per_generation": share // micro_batch * settings.mini_batches,
        "bf16": settings.dtype == "bfloat16",
        "reward_weights": reward_weights,
        "chat_template_kwargs": template_options(settings.enable_thinking),
        "use_vllm": settings.rollout != "transformers",
        "vllm_mode": "server" if settings.rollout == "vllm_server" else "colocate",
        "vllm_max_model_length": max_model_length,
    }
    if settings.dev_every is not None:  # the Trainer chooses a checkpoint, by the share that GrpoCallback measures
        options |= {
            "eval_strategy": "steps",
            "eval_steps": settings.dev_every,
            "num_generations_eval": settings.dev_samples,
            "per_device_eval_batch_size": settings.dev_samples,  # TRL wants a multiple; StageTrainer.evaluate decides
            "load_best_model_at_end": True,
            "metric_for_best_model": f"eval_{DEV_PASS_RATE}",
            "greater_is_better": True,
        }
    return _make_config({**options, **settings.trainer})


def _checkpoint_steps(settings: GrpoSettings) -> int:
    """Steps between two checkpoints: whole rollouts, as none holds completions in use; or a look at dev problems."""
    whole = math.ceil(settings.checkpoint_steps / settings.steps_per_rollout) * settings.steps_per_rollout
    return settings.dev_every or whole
