"""Settings of the GRPO stage. Every default of TRL that changes the result is named here and so stands in the resolved config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from stages.harness.settings import StageSettings, execution, identity
from stages.sft.settings import LoraSettings


class CustomReward(StageSettings):
    """A reward of your own: a Python file with a function `(problems, completions, finish_reasons, **options)`. See docs/rl.md."""

    file: str = execution()
    """The file; its content enters the stage's key, its path does not."""
    function: str = identity("reward")
    weight: float = identity(1.0)
    """Factor on what the function returns; negative makes a penalty of it."""
    timeout_s: float = execution(300.0, gt=0)
    """Seconds that one call, for all of a process' completions, may take before the run ends with an error."""
    options: dict[str, Any] = identity({})
    """Keyword arguments of the function."""


class RewardSettings(StageSettings):
    """Weights of the reward's parts, which are added. `correct` and `format` are 0 or 1 per completion, the penalties -1 to 0."""

    correct: float = identity(1.0, ge=0)
    """The grader's verdict is `correct`; a timeout counts as 0."""
    format: float = identity(0.1, ge=0)
    """Exactly one complete \\boxed{} (maths) or one fenced block (code), after the thinking, where the grader reads it."""
    overlong: float = identity(0.0, ge=0)
    """Penalty for the last `overlong_buffer` tokens before max_completion_length, growing linearly to -1 (DAPO); -1 where it was cut."""
    overlong_buffer: int = identity(128, gt=0)
    """Tokens."""
    repetition: float = identity(0.0, ge=0)
    """Penalty: the share of n-grams of tokens that occurred before in the same completion."""
    repetition_ngram: int = identity(20, gt=0)
    """Tokens of one n-gram."""
    custom: list[CustomReward] = identity([])
    """Functions of your own."""

    @model_validator(mode="after")
    def _some_reward(self) -> RewardSettings:
        if self.correct == 0 and self.format == 0 and not any(part.weight for part in self.custom):
            raise ValueError("correct: with all weights 0 there is nothing to learn from")
        names = [part.function for part in self.custom]
        if len(set(names)) < len(names) or {"correct", "format", "overlong", "repetition"} & set(names):
            raise ValueError(
                "custom: each function needs a name of its own, not that of a built-in part: rewards are logged by name"
            )
        return self


class GrpoSettings(StageSettings):
    """Settings of the GRPO stage."""

    steps: int = identity(100, gt=0)
    """Optimizer steps."""
    prompts_per_step: int = identity(16, gt=0)
    num_generations: int = identity(8, ge=2)
    """Completions per prompt: the group whose mean reward is the baseline. A rollout is prompts_per_step * num_generations completions."""
    mini_batches: int = identity(1, gt=0)
    """Optimizer steps that a rollout's completions are shared out over, an equal part to each."""
    micro_batch_size: int | None = execution(None, gt=0)
    """Completions per forward and backward pass; must divide the optimizer step's. None: all at once."""
    num_iterations: int = identity(1, gt=0)
    """How often each completion is trained on before new ones are sampled."""
    resampling_rounds: int = identity(0, ge=0)
    """Rounds in which a step may sample other prompts for its groups that are all right or all wrong (DAPO's dynamic sampling); 0: such
    groups stay."""

    max_completion_length: int = identity(512, gt=0)
    max_model_len: int | None = identity(None, gt=1)
    """Context in tokens, prompt and completion together; prompts that leave no room for max_completion_length are left out.
    None: the model's own."""
    temperature: float = identity(1.0, gt=0)
    top_p: float = identity(1.0, gt=0, le=1)
    top_k: int = identity(0, ge=0)
    """Number of candidate tokens; 0 switches it off. Like top_p only for the rollout transformers: vLLM's log-probabilities are those of
    the candidates that are left, the trainer's those of all tokens, so the two could not be compared."""
    system_prompt: str | None = identity(None)
    """Use the same as `generate.system_prompt`, or the evaluation sees prompts that training never had."""
    enable_thinking: bool | None = identity(None)
    """Passed to the chat template where set (Qwen3). None leaves the template's default."""

    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"] = identity("dapo")
    """How token losses are averaged and clipped: over all tokens of the step (dapo), per completion (grpo), and so on (TRL's names).
    GSPO is loss_type grpo with importance_sampling_level sequence."""
    beta: float = identity(0.0, ge=0)
    """Weight of the divergence from the starting model (the low-variance estimate); 0 keeps no reference model."""
    use_bias_correction_kl: bool = identity(True)
    """Multiply the divergence by the probability ratio, through which its gradient flows, too: with importance_sampling_level token the
    expected gradient is then that of the divergence itself (DeepSeek-V3.2, arXiv 2512.02556). It differs where completions are used once,
    too: the ratio is 1 there, and its gradient is not 0."""
    entropy_coef: float = identity(0.0, ge=0)
    """Weight of the entropy bonus."""
    top_entropy_quantile: float = identity(1.0, gt=0, le=1)
    """Share of tokens, those of highest entropy, that enter the loss."""
    epsilon: float = identity(0.2, gt=0, lt=1)
    epsilon_high: float = identity(0.28, gt=0)
    """Upper clip of the probability ratio is 1 + epsilon_high, the lower 1 - epsilon. For cispo it is the largest ratio itself, so more
    than 1 (TRL recommends 5.0), and there is no lower clip."""
    delta: float | None = identity(None, gt=1)
    """Bound of the ratio where the advantage is negative (two-sided clipping); None: no bound."""
    scale_rewards: Literal["group", "batch", "none"] = identity("group")
    """Which standard deviation advantages are divided by."""
    importance_sampling_level: Literal["token", "sequence"] = identity("token")
    mask_truncated_completions: bool = identity(False)
    """Leave completions that hit the length limit out of the loss."""
    rewards: RewardSettings = identity(RewardSettings())

    rollout: Literal["vllm", "vllm_server", "transformers"] = identity("vllm")
    """What samples the completions: vLLM in the trainer's own processes, vLLM on GPUs of its own (`trl vllm-serve`), or transformers, for
    machines without vLLM. Nothing switches from one to another by itself."""
    server_url: str | None = execution(None)
    """Where `trl vllm-serve` answers, for example http://node2:8000 (vllm_server)."""
    sleep: bool = execution(False)
    """Give vLLM's GPU memory back while the trainer computes; its weights are synchronised anew each time (vllm, cuda)."""
    sampling_correction_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = identity(
        "sequence_mask"
    )
    """How the ratio of the trainer's probability to vLLM's enters the loss; it is always measured (TRL's names)."""
    sampling_correction_max: float = identity(3.0, gt=1)
    """Largest ratio of trainer to sampler probability that is kept."""
    max_logprob_difference: float | None = execution(None, gt=0)
    """Stop when a sampled token's log-probability differs by more between vLLM and the trainer, which means that the weights were not
    synchronised. None: 0.001 in float32, where both compute the same; no bound in bfloat16, where single tokens differ by much."""
    mean_logprob_difference: float | None = execution(None, gt=0)
    """The same for the mean over a step's tokens. None: 0.0001 in float32, 0.1 in bfloat16."""

    learning_rate: float = identity(1e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = identity("constant")
    """Learning rate after the warm-up."""
    warmup_steps: int = identity(0, ge=0)
    adam_beta1: float = identity(0.9, ge=0, lt=1)
    adam_beta2: float = identity(0.999, ge=0, lt=1)
    adam_epsilon: float = identity(1e-8, gt=0)
    weight_decay: float = identity(0.0, ge=0)
    max_grad_norm: float = identity(1.0, gt=0)
    dtype: Literal["float32", "bfloat16"] = identity("float32")
    """bfloat16: mixed precision (trained weights stay float32), vLLM and the saved checkpoint in bfloat16."""
    lora: LoraSettings | None = identity(None)
    lora_start: Literal["merged", "sft_adapter"] = identity("merged")
    """What an adapter starts on. merged: a new one on the complete SFT checkpoint. sft_adapter: SFT's own, trained on, on the model below
    it; the reference model of `beta` is the SFT checkpoint either way."""
    gradient_checkpointing: bool = execution(False)
    """Recompute activations in the backward pass: less memory, more time."""

    stop_check_prompts: int = execution(8, ge=0)
    """Prompts of which one sampled completion must end with an end token before RL starts; 0 skips the check."""

    grader_workers: int = execution(2, gt=0)
    maths_timeout_s: float = identity(5.0, gt=0)
    """Seconds on the clock for one answer that needs algebra; the grader's settings are best those of the score stage."""
    code_timeout_s: float = identity(4.0, gt=0)
    memory_mib: int = identity(4096, ge=256)
    """Address space of one program, in MiB."""
    require_sandbox: Literal["rlimits", "namespaces"] = execution("rlimits")
    """The least isolation that sampled programs may run with; the machine's best is used either way."""
    max_grader_error_share: float = execution(0.01, ge=0, le=1)
    """Stop when the grader itself fails on more than this share of a step's completions, of all processes and all rounds of sampling, or of
    those of a look at data.dev."""

    gpu_memory_utilization: float = execution(0.3, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes beside the trainer (cuda)."""
    tensor_parallel: int = execution(1, gt=0)
    """GPUs that share one vLLM model (cuda)."""
    cpu_kv_cache_gib: int = execution(1, gt=0)
    """Memory for vLLM's key-value cache (cpu), in GiB."""
    checkpoint_steps: int = execution(20, gt=0)
    """Optimizer steps between two checkpoints that a stopped run can resume from."""
    dev_every: int | None = identity(None, gt=0)
    """Optimizer steps between two looks at `data.dev`; the checkpoint with the largest share of right answers there is the result, the
    earlier one where two are equal. None: the last checkpoint is."""
    dev_samples: int = identity(4, gt=0)
    """Completions per problem of `data.dev`, sampled as in training."""
    trackers: list[Literal["wandb", "trackio"]] = execution([])
    """Where the curve goes beside `record/metrics.jsonl` and `record/tensorboard`; its own environment variables say which project."""
    trainer: dict[str, Any] = identity({})
    """Further options of `trl.GRPOConfig`, by their names there. Options that have a field above are refused."""

    @property
    def completions_per_step(self) -> int:
        """The effective batch size of one optimizer step, in completions."""
        return self.prompts_per_step * self.num_generations // self.mini_batches

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.mini_batches * self.num_iterations

    @property
    def logprob_bounds(self) -> tuple[float | None, float]:
        """Bounds of the sampling log-probability difference: (largest of a step's tokens or None, mean of them)."""
        exact = self.dtype == "float32"
        largest = self.max_logprob_difference if self.max_logprob_difference is not None else (1e-3 if exact else None)
        mean = self.mean_logprob_difference if self.mean_logprob_difference is not None else (1e-4 if exact else 0.1)
        return largest, mean

    @model_validator(mode="after")
    def _consistent(self) -> GrpoSettings:
        if self.prompts_per_step * self.num_generations % self.mini_batches:
            raise ValueError(
                f"mini_batches: {self.mini_batches} does not divide the {self.prompts_per_step * self.num_generations} completions of a "
                f"rollout ({self.prompts_per_step} prompts_per_step * {self.num_generations} num_generations)"
            )
        if self.micro_batch_size and self.completions_per_step % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: {self.micro_batch_size} does not divide the {self.completions_per_step} completions of a step "
                f"({self.prompts_per_step} prompts_per_step * {self.num_generations} num_generations / {self.mini_batches} mini_batches)"
            )
        if self.loss_type == "cispo" and self.epsilon_high <= 1:
            raise ValueError(
                f"epsilon_high: for the loss cispo it is the largest probability ratio, and {self.epsilon_high} would cut every one; "
                "set more than 1, for example 5.0"
            )
        if self.rollout != "transformers" and (self.top_p < 1 or self.top_k > 0):
            raise ValueError(
                f"{'top_p' if self.top_p < 1 else 'top_k'}: vLLM's log-probabilities are of the tokens this leaves, the trainer's of all: "
                "their ratio, which enters the loss, would be wrong. Leave top_p and top_k out, or set rollout: transformers"
            )
        if self.loss_type == "luspo" and self.importance_sampling_level != "sequence":
            raise ValueError("importance_sampling_level: the loss luspo needs sequence")
        if self.steps % self.steps_per_rollout:
            raise ValueError(
                f"steps: {self.steps} are no whole number of rollouts, each used for {self.steps_per_rollout} steps "
                f"({self.mini_batches} mini_batches * {self.num_iterations} num_iterations)"
            )
        if self.dev_every is not None and (self.steps % self.dev_every or self.dev_every % self.steps_per_rollout):
            raise ValueError(
                f"dev_every: {self.dev_every} must divide the {self.steps} steps, and be a whole number of rollouts, each used for "
                f"{self.steps_per_rollout} steps"
            )
        if self.lora_start == "sft_adapter" and self.lora is None:
            raise ValueError("lora_start: sft_adapter trains an adapter; set lora to what sft.lora is")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} leave nothing of {self.steps} steps")
        if self.max_model_len is not None and self.max_completion_length >= self.max_model_len:
            raise ValueError(
                f"max_completion_length: {self.max_completion_length} leaves no room for a prompt in {self.max_model_len} max_model_len"
            )
        if self.rewards.overlong and self.rewards.overlong_buffer > self.max_completion_length:
            raise ValueError(
                f"rewards.overlong_buffer: {self.rewards.overlong_buffer} is more than max_completion_length {self.max_completion_length}"
            )
        if (self.rollout == "vllm_server") != (self.server_url is not None):
            raise ValueError(
                "server_url: the rollout vllm_server needs the address of `trl vllm-serve`, and no other takes one"
            )
        if self.sleep and self.rollout != "vllm":
            raise ValueError("sleep: only the rollout vllm has an engine beside the trainer that could sleep")
        if self.rollout == "transformers" and self.max_logprob_difference is not None:
            raise ValueError("max_logprob_difference: only the rollout vllm has a sampler to compare the trainer with")
        return self
