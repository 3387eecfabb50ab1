"""Settings of the SFT stage. Every default of TRL that changes the result is named here and so stands in the resolved config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.settings import StageSettings, execution, identity


def _instead(values: Any, given: str, default: str) -> Any:
    """Where `given` is set and `default` is not mentioned, let `given` replace it."""
    if isinstance(values, dict) and values.get(given) is not None and default not in values:
        return {**values, default: None}
    return values


def _require_one(settings: StageSettings, first: str, second: str) -> None:
    if (getattr(settings, first) is None) == (getattr(settings, second) is None):
        raise ValueError(f"set exactly one of {first} and {second} (the other to null)")


class UniformSettings(StageSettings):
    """Plain SFT: every supervised token has the same weight."""

    name: Literal["uniform"] = identity("uniform")


class DftSettings(StageSettings):
    """Dynamic fine-tuning (arXiv 2508.05629): each token's loss times the model's own probability of that token."""

    name: Literal["dft"] = identity("dft")


class VcoreSettings(StageSettings):
    """VCORE (arXiv 2510.27462): more weight on tokens whose loss falls along the gradient of an independent probe batch.

    Where the paper and its code differ, or leave something open, the choice is a field here.
    """

    name: Literal["vcore"] = identity("vcore")
    kl: float | None = identity(0.05, ge=0)
    """Sharpness as the divergence KL(weights || uniform) in nats that each trajectory may use; 0 is uniform. None: use `temperature`."""
    temperature: float | None = identity(None, gt=0)
    """Sharpness as a fixed temperature: weights = softmax(utility / temperature). The paper's tau divides, as in its code."""
    probe_fraction: float = identity(0.25, gt=0)
    """Size of the probe batch as a share of `batch_size` (the paper: 1)."""
    probe_clip: float | None = identity(1.0, gt=0)
    """Norm that the probe gradient is clipped to, or None. It matters only with `epsilon` or `temperature`."""
    differences: Literal["one_sided", "central"] = identity("one_sided")
    """l(theta) - l(theta - eps g) as in the paper, or the more exact l(theta + eps g) - l(theta - eps g). bfloat16 defaults to central."""
    target_rms: float | None = identity(0.03, gt=0)
    """Root mean square of the loss change in nats that the step is steered to. bfloat16 defaults to 0.3. None: use `epsilon`."""
    epsilon: float | None = identity(None, gt=0)
    """A fixed step along the (clipped) probe gradient, as in the paper, instead of `target_rms`."""
    variance_control: Literal["none", "loss_ratio", "variance"] = identity("variance")
    """Factor on each update: `variance` is the paper's sqrt(V_uniform / V_weighted) over the step's trajectories, `loss_ratio` its
    code's min(1, L_uniform / L_weighted) over the whole step. Both are at most 1."""
    normalisation: Literal["tokens", "trajectories"] = identity("tokens")
    """`tokens`: a trajectory counts by its length, as in the paper's code. `trajectories`: all count the same, as in its text."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_each_pair(cls, values: Any) -> Any:
        return _instead(_instead(values, "temperature", "kl"), "epsilon", "target_rms")

    @model_validator(mode="after")
    def _exactly_one(self) -> VcoreSettings:
        _require_one(self, "kl", "temperature")
        _require_one(self, "target_rms", "epsilon")
        return self


Method = Annotated[UniformSettings | DftSettings | VcoreSettings, Field(discriminator="name")]


class LoraSettings(StageSettings):
    """Low-rank adapters on a frozen model, instead of training all weights."""

    rank: int = identity(8, gt=0)
    alpha: float = identity(16.0, gt=0)
    dropout: float = identity(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = identity("all-linear")
    """Names of the modules that get an adapter."""


class SftSettings(StageSettings):
    """Settings of the SFT stage."""

    method: Method = identity(VcoreSettings())
    learning_rate: float = identity(2e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = identity("cosine")
    """Learning rate after the warm-up."""
    warmup_steps: int = identity(0, ge=0)
    adam_beta1: float = identity(0.9, ge=0, lt=1)
    adam_beta2: float = identity(0.999, ge=0, lt=1)
    adam_epsilon: float = identity(1e-8, gt=0)
    weight_decay: float = identity(0.0, ge=0)
    max_grad_norm: float = identity(1.0, gt=0)
    max_length: int = identity(1024, gt=1)
    """Tokens of prompt and completion together; longer rows are cut at the end, and rows whose whole completion is cut are left out."""
    batch_size: int = identity(32, gt=0)
    """Rows per optimizer step."""
    micro_batch_size: int | None = execution(None, gt=0)
    """Rows per forward and backward pass; must divide `batch_size`. None: the whole batch at once."""
    epochs: float | None = identity(1.0, gt=0)
    max_steps: int | None = identity(None, gt=0)
    """Optimizer steps, instead of `epochs`."""
    dtype: Literal["float32", "bfloat16"] = identity("float32")
    """bfloat16: mixed precision (trained weights stay float32, a frozen base under LoRA is bfloat16), and a bfloat16 checkpoint."""
    completion_only_loss: bool = identity(True)
    """Whether the prompt's tokens carry no loss."""
    packing: Literal[False] = identity(False)
    """One row per sequence; packing is not supported."""
    lora: LoraSettings | None = identity(None)
    gradient_checkpointing: bool = execution(False)
    """Recompute activations in the backward pass: less memory, more time."""
    logging_steps: int = execution(1, gt=0)
    checkpoint_steps: int = execution(100, gt=0)
    """Optimizer steps between two checkpoints that a stopped run can resume from."""
    trainer: dict[str, Any] = identity({})
    """Further options of `trl.SFTConfig`, by their names there. Options that have a field above are refused."""

    @model_validator(mode="before")
    @classmethod
    def _fill_dependent_defaults(cls, values: Any) -> Any:
        values = _instead(values, "max_steps", "epochs")
        if not isinstance(values, dict) or values.get("dtype") != "bfloat16":
            return values
        method = values.get("method", {"name": "vcore"})
        if not isinstance(method, dict) or method.get("name") != "vcore":
            return values
        finer = {"differences": "central", **({} if method.get("epsilon") else {"target_rms": 0.3})}
        return {**values, "method": {**finer, **method}}

    @model_validator(mode="after")
    def _consistent(self) -> SftSettings:
        _require_one(self, "epochs", "max_steps")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}")
        return self
