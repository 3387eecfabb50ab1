"""Settings of the GRPO stage. Each default of TRL that changes the result has a field here, and so enters the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import model_validator

from stages.harness.settings import StageSettings, TemplateDate, execution, identity, identity_where_set
from stages.training.settings import LoraSettings, OptimizerSettings

CorrectionMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


class CustomReward(StageSettings):
    """A reward of your own: a function `(problems, completions, finish_reasons, **options)` in a file (docs/rl.md)."""

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
    """Weights of the reward's parts, which are added. `correct` and `format` are 0 or 1, the penalties -1 to 0."""

    correct: float = identity(1.0, ge=0)
    """The grader's verdict is `correct`; a timeout counts as 0."""
    partial: bool = identity_where_set(False)
    """A program that is tested by cases earns the share of them that it passes, rather than nothing unless it passes
    all. None counts behind one that took too long. What is reported as correct stays as it is."""
    format: float = identity(0.1, ge=0)
    """Exactly one complete \\boxed{} (maths) or one fenced block (code), after the thinking, where it is graded."""
    overlong: float = identity(0.0, ge=0)
    """Penalty growing linearly to -1 over the last `overlong_buffer` tokens before max_completion_length (DAPO), -1 for
    a completion that was cut."""
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
            wrong = "custom: each function needs a name of its own, not that of a built-in part"
            raise ValueError(f"{wrong}: rewards are logged by name")
        return self


class GrpoSettings(OptimizerSettings):
    """Settings of the GRPO stage."""

    steps: int = identity(100, gt=0)
    """Optimizer steps."""
    prompts_per_step: int = identity(16, gt=0)
    num_generations: int = identity(8, ge=2)
    """Completions per prompt: the group whose mean reward is the baseline. All groups of a step are a rollout."""
    mini_batches: int = identity(1, gt=0)
    """Optimizer steps that a rollout's completions are shared out over, an equal part to each."""
    micro_batch_size: int | None = execution(None, gt=0)
    """Completions per forward and backward pass; must divide the optimizer step's. None: all at once."""
    max_tokens_per_micro_batch: int | None = execution(None, gt=0)
    """Instead of it: positions per forward and backward pass, prompts and padding included. A longer row goes alone."""
    share_prompts: bool = execution(False)
    """Put completions of one prompt through the model as one row, in which the prompt stands once: the same step up to
    rounding, and fewer positions where prompts are long beside completions. For attention that takes a mask (sdpa);
    memory for the mask is rows x positions squared."""
    num_iterations: int = identity(1, gt=0)
    """How often each completion is trained on before new ones are sampled."""
    resampling_rounds: int = identity(0, ge=0)
    """Rounds in which a step may replace groups that are all right or all wrong (DAPO); 0: such groups stay."""

    max_completion_length: int = identity(512, gt=0)
    max_model_len: int | None = identity(None, gt=1)
    """Tokens of prompt and completion together; prompts that leave no room for max_completion_length are left out.
    None: as many as the model has positions."""
    temperature: float = identity(1.0, gt=0)
    top_p: float = identity(1.0, gt=0, le=1)
    """Like top_k only for the rollout transformers: vLLM's log-probabilities are of the candidates left, the trainer's
    of all tokens, so the two could not be compared."""
    top_k: int = identity(0, ge=0)
    """Number of candidate tokens; 0 switches it off. See top_p."""
    system_prompt: str | None = identity(None)
    """Use the same as `generate.system_prompt`, or the evaluation sees prompts that training never had."""
    enable_thinking: bool | None = identity(None)
    """Passed to the chat template where set (Qwen3). None leaves the template's default."""
    template_date: TemplateDate = identity(None)
    """Filled from the pipeline's top-level `template_date`; write it there."""

    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"] = identity("dapo")
    """How token losses are averaged and clipped: over all tokens of the rollout (dapo) or of the optimizer step (bnpo),
    per completion (grpo), and so on (TRL's names). GSPO is loss_type grpo with importance_sampling_level sequence."""
    beta: float = identity(0.0, ge=0)
    """Weight of the divergence from the starting model (the low-variance estimate); 0 keeps no reference model."""
    use_bias_correction_kl: bool = identity(True)
    """Multiply the divergence by the probability ratio, through which its gradient flows, too: with ratios by token the
    expected gradient is then the divergence's own (DeepSeek-V3.2, arXiv 2512.02556), also where completions are used
    once: the ratio is 1 there, and its gradient is not 0."""
    entropy_coef: float = identity(0.0, ge=0)
    """Weight of the entropy bonus."""
    top_entropy_quantile: float = identity(1.0, gt=0, le=1)
    """Share of tokens, those of highest entropy, that enter the loss."""
    epsilon: float = identity(0.2, gt=0, lt=1)
    epsilon_high: float = identity(0.28, gt=0)
    """The probability ratio is clipped to [1 - epsilon, 1 + epsilon_high]. For cispo it is the largest ratio itself, so
    more than 1 (TRL recommends 5.0), and there is no lower clip."""
    delta: float | None = identity(None, gt=1)
    """Bound of the ratio where the advantage is negative (two-sided clipping); None: no bound."""
    scale_rewards: Literal["group", "batch", "none"] = identity("group")
    """Which standard deviation advantages are divided by."""
    importance_sampling_level: Literal["token", "sequence"] = identity("token")
    mask_truncated_completions: bool = identity(False)
    """Leave completions that hit the length limit out of the loss."""
    rewards: RewardSettings = identity(RewardSettings())

    rollout: Literal["vllm", "vllm_server", "transformers"] = identity("vllm")
    """What samples the completions: vLLM in the trainer's own processes, vLLM on GPUs of its own (`trl vllm-serve`), or
    transformers, for machines without vLLM. Nothing switches from one to another by itself."""
    server_url: str | None = execution(None)
    """Where `trl vllm-serve` answers, for example http://node2:8000 (vllm_server)."""
    sleep: bool = execution(False)
    """Give vLLM's GPU memory back while the trainer computes; its weights are synchronised each time (vllm, cuda)."""
    sampling_correction_mode: CorrectionMode = identity("sequence_mask")
    """How the ratio of the trainer's probability to vLLM's enters the loss; it is always measured (TRL's names)."""
    sampling_correction_max: float = identity(3.0, gt=1)
    """Largest ratio of trainer to sampler probability that is kept."""
    max_logprob_difference: float | None = execution(None, gt=0)
    """Stop when a sampled token's log-probability differs by more between vLLM and the trainer: their weights are not
    the same. None: 0.001 in float32, where both compute the same; no bound in bfloat16, where tokens differ by much."""
    mean_logprob_difference: float | None = execution(None, gt=0)
    """Stop when the mean of that difference over a step's tokens is more. None: 0.0001 in float32, 0.1 in bfloat16."""

    learning_rate: float = identity(1e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = identity("constant")
    """Learning rate after the warm-up."""
    dtype: Literal["float32", "bfloat16"] = identity("float32")
    """bfloat16: mixed precision (trained weights stay float32), vLLM and the saved checkpoint in bfloat16."""
    lora: LoraSettings | None = identity(None)
    lora_start: Literal["merged", "sft_adapter"] = identity("merged")
    """What an adapter starts on. merged: a new one on the complete SFT checkpoint. sft_adapter: SFT's own, trained on,
    on the model below it; the reference model of `beta` is the SFT checkpoint either way."""
    gradient_checkpointing: bool = execution(False)
    """Recompute activations in the backward pass: less memory, more time."""

    stop_check_prompts: int = execution(8, ge=0)
    """Prompts of which one sampled completion must end with an end token before RL starts; 0 skips the check."""

    grader_workers: int = execution(2, gt=0)
    maths_timeout_s: float = identity(5.0, gt=0)
    """Seconds for one answer that needs algebra; the grader's settings are best those of the score stage."""
    code_timeout_s: float = identity(4.0, gt=0)
    memory_mib: int = identity(4096, ge=256)
    """Address space of one program, in MiB."""
    packages: list[str] = identity_where_set([])
    """Filled from the pipeline's top-level `sandbox.packages`; write it there."""
    require_sandbox: Literal["rlimits", "namespaces"] = execution("rlimits")
    """The least isolation that sampled programs may run with; the machine's best is used either way."""
    max_grader_error_share: float = execution(0.01, ge=0, le=1)
    """Stop when the grader itself fails on more of a step's completions, of all processes and rounds, or of a look at
    data.dev."""

    max_rollouts_without_signal: int = execution(10, gt=0)
    """Stop when none of this many first rollouts has a group whose rewards differ: there is no gradient then, and more
    rollouts of the same weights would hardly differ."""

    gpu_memory_utilization: float = execution(0.3, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes beside the trainer (cuda)."""
    tensor_parallel: int = execution(1, gt=0)
    """GPUs that share one vLLM model (cuda)."""
    cpu_kv_cache_gib: int = execution(1, gt=0)
    """Memory for vLLM's key-value cache (cpu), in GiB."""
    checkpoint_steps: int = execution(20, gt=0)
    """Optimizer steps between two checkpoints that a stopped run can resume from."""
    dev_every: int | None = identity(None, gt=0)
    """Optimizer steps between two looks at `data.dev`; the checkpoint with most right answers there is the result, of
    equal ones the first. None: the last checkpoint is."""
    dev_samples: int = identity(4, gt=0)
    """Completions per problem of `data.dev`, sampled as in training."""
    trackers: list[Literal["wandb", "trackio"]] = execution([])
    """Where the curve goes besides `record/`; each reads its project from environment variables of its own."""
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
        largest, mean = (1e-3, 1e-4) if self.dtype == "float32" else (None, 0.1)
        return (
            largest if self.max_logprob_difference is None else self.max_logprob_difference,
            mean if self.mean_logprob_difference is None else self.mean_logprob_difference,
        )

    @model_validator(mode="after")
    def _consistent(self) -> GrpoSettings:
        if contradiction := next(self._contradictions(), None):
            raise ValueError(contradiction)
        return self

    def _contradictions(self) -> Iterator[str]:
        size, step, length = self.steps_per_rollout, self.completions_per_step, self.max_completion_length
        rollout, mini = self.prompts_per_step * self.num_generations, self.mini_batches
        product = f"{self.prompts_per_step} prompts_per_step * {self.num_generations} num_generations"
        if rollout % mini:
            yield f"mini_batches: {mini} does not divide the {rollout} completions of a rollout ({product})"
        if self.micro_batch_size and self.max_tokens_per_micro_batch:
            yield "max_tokens_per_micro_batch: it takes the place of micro_batch_size; leave one of the two out"
        if self.share_prompts and self.max_tokens_per_micro_batch:
            yield "share_prompts: its micro-batches are of micro_batch_size; leave max_tokens_per_micro_batch out"
        if self.share_prompts and self.lora is not None and self.lora.dropout:
            yield "share_prompts: lora.dropout drops other activations of each completion's prompt; leave one out"
        if self.micro_batch_size and step % self.micro_batch_size:
            wrong = f"micro_batch_size: {self.micro_batch_size} does not divide the {step} completions of a step"
            yield f"{wrong} ({product} / {mini} mini_batches)"
        if self.loss_type == "cispo" and self.epsilon_high <= 1:
            wrong = f"epsilon_high: for the loss cispo it is the largest probability ratio, and {self.epsilon_high}"
            yield f"{wrong} would cut every one; set more than 1, for example 5.0"
        if self.rollout != "transformers" and (self.top_p < 1 or self.top_k > 0):
            name = "top_p" if self.top_p < 1 else "top_k"
            wrong = (
                f"{name}: vLLM's log-probabilities are of the tokens this leaves, the trainer's of all: their ratio,"
            )
            fix = "Leave top_p and top_k out, or set rollout: transformers"
            yield f"{wrong} which enters the loss, would be wrong. {fix}"
        if self.loss_type == "luspo" and self.importance_sampling_level != "sequence":
            yield "importance_sampling_level: the loss luspo needs sequence"
        if self.steps % size:
            wrong = f"steps: {self.steps} are no whole number of rollouts, each used for {size} steps"
            yield f"{wrong} ({mini} mini_batches * {self.num_iterations} num_iterations)"
        if self.dev_every is not None and (self.steps % self.dev_every or self.dev_every % size):
            wrong = f"dev_every: {self.dev_every} must divide the {self.steps} steps, and be a whole number of rollouts"
            yield f"{wrong}, each used for {size} steps"
        if self.lora_start == "sft_adapter" and self.lora is None:
            yield "lora_start: sft_adapter trains an adapter; set lora to what sft.lora is"
        if self.warmup_steps >= self.steps:
            yield f"warmup_steps: {self.warmup_steps} leave nothing of {self.steps} steps"
        if self.max_model_len is not None and length >= self.max_model_len:
            yield f"max_completion_length: {length} leaves no room for a prompt in {self.max_model_len} max_model_len"
        if self.rewards.overlong and (buffer := self.rewards.overlong_buffer) > length:
            yield f"rewards.overlong_buffer: {buffer} is more than max_completion_length {length}"
        if (self.rollout == "vllm_server") != (self.server_url is not None):
            yield "server_url: the rollout vllm_server needs the address of `trl vllm-serve`, and no other takes one"
        if self.sleep and self.rollout != "vllm":
            yield "sleep: only the rollout vllm has an engine beside the trainer that could sleep"
        if self.rollout == "transformers" and self.max_logprob_difference is not None:
            yield "max_logprob_difference: only the rollout vllm has a sampler to compare the trainer with"
