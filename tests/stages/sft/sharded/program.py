"""Trains in several gloo processes with the model shared out by FSDP2 as accelerate does it on GPUs.

    torchrun ... program.py measure FOLDER train FOLDER stage FOLDER ...

accelerate looks at FSDP's settings only where it finds an accelerator. What it decides there is set here, and all that
follows from it (wrapping, mixed precision, checkpoints) is its own and the Trainer's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from trl.trainer.utils import add_fused_lm_head

from stages.harness.context import StageError
from stages.harness.process import leave
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import Method, Prepared, Window, supervised
from stages.sft.reweighting.direction import norm
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.sharded import ShardedEvaluator
from stages.sft.run import run
from stages.sft.settings import SftSettings
from stages.training import distributed
from stages.training.checkpoint import load_model_and_tokenizer
from tests.stages.sft import test_trainer
from tests.tiny import open_stage

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What `accelerate launch --config_file configs/accelerate/fsdp2.yaml` sets."""


def shard_on_the_cpu() -> None:
    """Let accelerate take FSDP's settings on a CPU as it does where there is an accelerator."""
    os.environ.update(FSDP2)
    usual = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        usual(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and "fsdp_plugin" not in self.__dict__:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Measures(Method):
    """Compares every evaluation of the sharded model with those of a whole one; the first step's only."""

    def __init__(self, model: Path) -> None:
        self.folder, self.found = model, {}

    def prepare(self, window: Window, model: Any) -> list[Prepared]:
        if not self.found:
            self.found = {"seen": 1.0, **self._compare(window, model)}
        return super().prepare(window, model)

    def _compare(self, window: Window, model: ShardedEvaluator) -> dict[str, float]:
        one, _ = load_model_and_tokenizer(self.folder, "float32")
        add_fused_lm_head(one, outputs=("log_probs", "entropy", "is_top1"))
        sizes = {"batch_size": model.batch_size, "micro_batch_size": model.micro_batch_size}
        reference = ModelEvaluator(one, model.dataset, model.collate, lambda: None, **sizes, bfloat16=False, seed=0)
        batch, found = window.batches[0], {}
        model.losses(batch)  # leaves the root's weights gathered
        ours, theirs = model.probe_gradient(0.5, 3), reference.probe_gradient(0.5, 3)
        apart = [whole(part) - other for part, other in zip(ours, theirs, strict=True)]
        found["probe"] = norm(apart) / norm(theirs)
        found["norm"] = abs(norm(ours) / norm(theirs) - 1)
        found["grad_left"] = float(any(parameter.grad is not None for parameter in model.parameters))
        before = [shard.clone() for shard in model.shards(model.parameters)]
        step, mask = 0.1 / norm(theirs), supervised(batch)
        for name, ends in (("finite", (0.0, -step)), ("central", (step, -step))):
            utilities = []
            for evaluator, direction in ((model, ours), (reference, theirs)):
                losses = []
                for end in ends:
                    with evaluator.perturbed(direction, end):
                        losses.append(evaluator.losses(batch))
                utilities.append((losses[0] - losses[1]) / (ends[0] - ends[1]))
            found[name] = float((utilities[0] - utilities[1])[mask].abs().max() / utilities[1][mask].abs().max())
        after = model.shards(model.parameters)
        found["moved"] = float(not all(map(torch.equal, before, after)))
        found["share"] = sum(shard.numel() for shard in after) / sum(part.numel() for part in theirs)
        found["stale"] = float((model.losses(batch) - reference.losses(batch)).abs().max())
        again = model.from_shards(model.shards(ours))
        found["shards"] = float(not all(torch.equal(whole(a), whole(b)) for a, b in zip(ours, again, strict=True)))
        means, others = model.mean_losses_of_all_rows(), reference.mean_losses_of_all_rows()
        found["means"] = max(abs(means[row] - mean) for row, mean in others.items())
        with torch.no_grad():
            try:
                model.utilities(batch, ours)
            except StageError as error:
                found["jvp_refused"] = float("sft.method.utility" in str(error))
        return found


def stage(context: Any, folder: Path, continued: Path | None) -> None:
    """The whole stage; `continued`: from the middle of a run in another folder. Its error is kept."""
    if continued is not None:
        middle = Path("state", "checkpoints", "checkpoint-2")
        if distributed.rank() == 0:
            shutil.copytree(continued / middle, folder / middle)
        dist.barrier()
        shards = folder / middle / "reweighting.json"
        if (folder / "of_four").exists() and distributed.rank() == 0:
            shards.write_text(json.dumps({**json.loads(shards.read_text()), "shards": 4}))
        dist.barrier()
    try:
        result = run(context)
    except StageError as error:
        (folder / f"error.{distributed.rank()}.txt").write_text(str(error))
    else:
        if distributed.rank() == 0:
            (folder / "proof.json").write_text(json.dumps(result.proof))


def main() -> None:
    """Arguments: measure, train or stage, then a folder with a spec; for `stage` also FOLDER:CONTINUED."""
    shard_on_the_cpu()
    for what, name in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        folder, _, continued = name.partition(":")
        context = open_stage(SftSettings, Path(folder, "SPEC.json"))
        if what == "stage":
            stage(context, Path(folder), Path(continued) if continued else None)
            continue
        measures = Measures(context.inputs["model"] / "model")
        if what == "measure":
            test_trainer.make_method = lambda *_, measures=measures: measures
        trainer = test_trainer.train(context)
        if what == "measure":
            Path(folder, f"found.{distributed.rank()}.json").write_text(json.dumps(measures.found))
            test_trainer.make_method = make_method
            continue
        named = {name: whole(value).contiguous().clone() for name, value in trainer.model.state_dict().items()}
        if trainer.accelerator.is_main_process:
            save_file(named, Path(folder, "two.safetensors"))


if __name__ == "__main__":
    try:
        main()
    except Exception:  # noqa: BLE001 - whatever it is, and at once: the other process waits for this one
        traceback.print_exc()
        leave(1)
    leave(0)
