"""Settings of the base stage: which model training starts from, and how a small one is made."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from stages.harness.settings import StageSettings, identity

MAKE = "make"


def gguf_file(source: str) -> Path | None:
    """The GGUF file that a model's name stands for: itself, or the only one of a folder without a checkpoint."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return path
    files = [] if (path / "config.json").exists() else sorted(path.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


class BaseSettings(StageSettings):
    """Either `source: make` (a tokenizer and a small Qwen3 model, from scratch, as all other fields say), or a
    checkpoint."""

    source: str = identity(MAKE)
    """`make`, a local checkpoint folder, a GGUF file, or a hub id. The orchestrator fills it from `model:`."""
    revision: str = identity("main")
    """Revision of a hub model."""
    chat: bool = identity(True)
    """Whether the checkpoint needs a chat template. The orchestrator fills it: all but prompt completion does."""
    corpus: Literal["word_problems", "train_data"] = identity("word_problems")
    """What a made model reads: arithmetic, worked problems and programs (the demo), or the texts of the SFT data."""

    vocab_size: int = identity(600, ge=280)
    """Largest size of the byte-level BPE vocabulary; a small corpus may yield fewer entries."""
    hidden_size: int = identity(128, gt=0)
    intermediate_size: int = identity(384, gt=0)
    layers: int = identity(2, gt=0)
    heads: int = identity(4, gt=0)
    kv_heads: int = identity(2, gt=0)
    head_dim: int = identity(32, gt=0)
    max_position_embeddings: int = identity(512, ge=16)
    """Longest sequence in tokens; longer documents are cut there."""

    steps: int = identity(400, gt=0)
    batch_size: int = identity(16, gt=0)
    """Documents per step, one a row."""
    learning_rate: float = identity(3e-3, gt=0)
    """Peak for embeddings and norms (AdamW); linear warm-up, constant until 70 % of the steps, then linear to 5 % of
    the peak."""
    muon_learning_rate: float = identity(0.03, gt=0)
    """Peak for the matrices of the layers (Muon), same schedule."""
    warmup_steps: int = identity(20, ge=0)
    adam_beta2: float = identity(0.98, gt=0, lt=1)
    weight_decay: float = identity(0.01, ge=0)
    max_grad_norm: float = identity(1.0, gt=0)
    min_accuracy: float | None = identity(None, ge=0, le=1)
    """The made model must predict at least this share of the tokens of held-out worked problems, each from the right
    prefix (corpus word_problems only). None asks for 0.97 there. A model that has not learnt to copy operands stays far
    below."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        if self.head_dim % 2:
            raise ValueError("head_dim: rotary embeddings need an even number")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} leave nothing of {self.steps} steps; lower them")
        if self.corpus == "train_data" and self.min_accuracy is not None:
            raise ValueError("min_accuracy: only the corpus word_problems has held-out problems to measure it on")
        return self
