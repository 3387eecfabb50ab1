"""The DPO stage: preference pairs and a checkpoint in, a checkpoint out."""

from __future__ import annotations

from pathlib import Path

from stages.harness.declaration import Batch, Context, Origin, StageDeclaration, wrong_precision
from tests.examples.dpo.settings import DpoSettings

STAGE = StageDeclaration(
    name="dpo",
    package="tests.examples.dpo",  # a stage of the project lies in stages/dpo and needs no line here
    settings=DpoSettings,
    libraries=("torch", "transformers", "trl", "accelerate", "tokenizers", "safetensors", "datasets"),
    origins=lambda s, places: [Origin("dpo.file", path=Path(s.file).expanduser())],
    uses_gpu=True,
    makes_checkpoint=True,
    batch=lambda s: Batch(s.batch_size, s.micro_batch_size, "pairs", "dpo.batch_size"),
    contexts=lambda s: [Context("dpo.max_length", s.max_length)],
    needs_gpu=lambda s: wrong_precision("dpo", s.dtype),
)
