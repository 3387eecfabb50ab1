"""TRL's SFTTrainer with token weights, through the hooks that the Trainer calls anyway.

One optimizer step of `transformers.Trainer` calls, in this order: `get_batch_samples` (once, with all micro-batches),
then for each of them `training_step` -> `compute_loss` -> backward, and after the last one clipping and the optimizer.
So rows are dealt to micro-batches by length and extra evaluations run in the first, weights are applied in
`compute_loss`, and the factor of the whole step at the end of the last `training_step`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy

from stages.harness.context import StageError
from stages.harness.json_files import read_json, write_json
from stages.sft.anchors.forward import AnchoredForward
from stages.sft.packing import packed, require_same
from stages.sft.reweighting.base import SIGNALS, Batch, Method, Window
from stages.sft.reweighting.diagnostics import Concentration
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.sharded import ShardedEvaluator
from stages.sft.reweighting.sums import Sums
from stages.sft.row_values import KINDS, WEIGHT, RowCollator, dealt_by_length, times_row_weights
from stages.sft.snapshots import Snapshots
from stages.sft.trl_internals import WHOLE_HEAD, HeadSignals, TrainerWithOwnState, log_probs_times
from stages.training import distributed

PREPARED = "reweighting"
"""Extra entry of a micro-batch: what the method prepared for it."""
PER_TOKEN = ("uniform_loss", "weighted_loss", "entropy", "mean_token_accuracy")
"""Curves that are sums over the supervised tokens of an optimizer step, by their number."""
METHOD_STATE = "reweighting.json"
METHOD_TENSORS = "reweighting.safetensors"


class ReweightingTrainer(TrainerWithOwnState):
    """SFTTrainer whose token losses are weighted by `method`, with a step's rows dealt to its micro-batches by length.

    Uniform weights train bit for bit as SFTTrainer does on the same micro-batches.
    """

    def __init__(
        self,
        *args: Any,
        method: Method,
        note: Callable[[str], None] = print,
        encode: Callable[[Any], Any] | None = None,
        max_tokens: int | None = None,
        packing: bool = False,
        **kwargs: Any,
    ) -> None:
        self.encode = encode
        super().__init__(*args, **kwargs)
        self.row_values = tuple(name for name in KINDS if name in self.train_dataset.column_names)
        if self.row_values:
            self.data_collator = RowCollator(self.data_collator)
        self.max_tokens = max_tokens
        self.packing = packing
        if packing:
            require_same(self.model, experts=self.aux_loss_enabled)
        if self.is_deepspeed_enabled or (self.is_fsdp_enabled and not self.accelerator.is_fsdp2):
            raise StageError(
                "token weights move and probe parameters, which DeepSpeed and FSDP's first version keep to themselves",
                "Use configs/accelerate/fsdp2.yaml, or plain data parallelism (torchrun, configs/accelerate/ddp.yaml).",
            )
        if self.is_fsdp_enabled and max_tokens is not None:
            raise StageError(
                "sft.max_tokens_per_micro_batch: FSDP's processes must evaluate as often as each other, also the probe",
                "Set sft.micro_batch_size instead.",
            )
        if self.is_fsdp_enabled and self.args.bf16:
            # accelerate's own policy gives outputs and reduces gradients in 16 bits, in which losses hardly differ.
            policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy
        self.method = method
        self.anchored = self._anchored_forward(method)
        self.head = self._head_signals(method.signals | method.start_signals)
        if self.head is not None:
            self.head.in_training = method.signals
        self.note = note
        self.snapshots = Snapshots(self.train_dataset, self.processing_class)
        self._start_window(tokens=1)
        self._said_zero = False
        self._unlogged: defaultdict[str, list[float]] = defaultdict(list)
        """Metrics of the optimizer steps since the last log."""

    def _anchored_forward(self, method: Method) -> AnchoredForward | None:
        if method.anchor is None:
            return None
        accelerator = self.accelerator if self.is_fsdp_enabled else None
        try:
            return AnchoredForward(self.model, method.anchor, bfloat16=self.args.bf16, accelerator=accelerator)
        except ValueError as error:
            raise StageError(f"sft.method: {error}", "Choose a method without an anchor, such as dft.") from error

    def _head_signals(self, names: frozenset[str]) -> HeadSignals | None:
        if unknown := sorted(names - set(SIGNALS)):
            raise StageError(f"there is no signal {', '.join(unknown)}", f"A method can ask for {', '.join(SIGNALS)}.")
        if not names:
            return None
        if self.is_fsdp_enabled and names & WHOLE_HEAD:
            raise StageError(
                f"{', '.join(sorted(names & WHOLE_HEAD))} takes the head's whole weights, which FSDP splits",
                "Choose a method that weighs by other signals, or plain data parallelism.",
            )
        try:
            return HeadSignals(self.model, names, bfloat16=self.args.bf16)
        except ValueError as error:
            raise StageError(f"sft.method: {error}", "Choose a method that weighs by other signals.") from error

    def _start_window(self, tokens: int) -> None:
        self._window_tokens = tokens
        self._per_token = Sums(len(PER_TOKEN))
        self._divergence = Sums(1)
        self._concentration = Concentration()

    @cached_property
    def evaluator(self) -> ModelEvaluator:
        """Evaluations of the model beside its training forward."""
        args, kind = self.args, ShardedEvaluator if self.is_fsdp_enabled else ModelEvaluator
        return kind(
            self.model,
            self.train_dataset,
            self.data_collator,
            lambda: self.optimizer,
            batch_size=args.per_device_train_batch_size * args.gradient_accumulation_steps * distributed.world_size(),
            micro_batch_size=args.per_device_train_batch_size,
            max_tokens=self.max_tokens,
            packing=self.packing,
            bfloat16=args.bf16,
            seed=args.seed,
            head=self.head,
        )

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        rows = map(self._without_repeats, epoch_iterator)
        batches, items = super().get_batch_samples(rows, num_batches, device)
        if batches:
            drawn, multiple = len(batches), self.args.pad_to_multiple_of
            pad_token, budget = self.data_collator.pad_token_id, self.max_tokens
            batches = dealt_by_length(batches, pad_token, multiple, budget, packing=self.packing)
            masks = [batch["labels"][:, 1:] != -100 for batch in batches]
            own = [float(sum(mask.sum() for mask in masks)), float(sum(mask.any(-1).sum() for mask in masks))]
            tokens, trajectories = self.evaluator.sum_over_ranks(own)
            window = Window(batches, self.state.global_step, int(tokens), int(trajectories))
            self._start_window(max(window.tokens, 1))
            for batch, prepared in zip(batches, self.method.prepare(window, self.evaluator), strict=True):
                batch[PREPARED] = prepared
            if self.snapshots.due(window.step, self.state.max_steps):
                self.snapshots.take(window.step, self.method, self.evaluator)
            self.method.examine(window, self.evaluator)
            # The Trainer counts micro-batches; those too many come first, as processes share gradients in the last.
            batches = [{PREPARED: {}} for _ in range(drawn - len(batches))] + batches
        return batches, items

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with packed(self.model) if self.packing else nullcontext():
            return super().train(*args, **kwargs)

    def floating_point_ops(self, inputs: Batch) -> int:
        return super().floating_point_ops(inputs) if "input_ids" in inputs else 0

    def _without_repeats(self, batch: Batch) -> Batch:
        """The batch without labels on the rows that fill up an epoch's last one.

        Where the rows do not share out evenly, accelerate has every process take as many, and repeats the epoch's
        first rows after the last ones. Unlabelled, they carry no loss, and the step is that of a single process.
        """
        size, processes = len(batch["labels"]), distributed.world_size()
        rest = len(self.train_dataset) % (size * processes)
        last = self.accelerator.gradient_state.end_of_dataloader and not self.args.dataloader_drop_last
        if processes > 1 and rest and last:
            batch["labels"][max(0, rest - size * distributed.rank()) :] = -100
        return batch

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        prepared = inputs.pop(PREPARED)
        values = {name: inputs.pop(name) for name in self.row_values if name in inputs}
        if not inputs:
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        labels = inputs["labels"]

        def factors_of(losses: Tensor, mask: Tensor, output: Any) -> Tensor | None:
            signals = {} if self.head is None else self.head.of(output, labels)
            factors = self.method.weigh(losses, mask, prepared | signals)
            if factors is not None:
                self._concentration.add(factors, mask)
            if WEIGHT in values:
                factors = times_row_weights(torch.ones_like(losses) if factors is None else factors, values)
            weighted = losses if factors is None else losses * factors
            summed = losses, weighted, output.entropy, output.is_top1
            self._per_token.add(*(of_tokens.detach().double().sum() for of_tokens in summed))
            return factors

        at_rest = partial(self.evaluator.modes, training=False)
        anchored, weights = self.anchored, values.get(WEIGHT)
        measured = nullcontext() if anchored is None else anchored.measured(inputs, at_rest, weights)
        with measured as penalty, log_probs_times(model, factors_of, penalty):  # TRL's own loss sums and normalises
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if anchored is not None:
            self._divergence.add(anchored.divergences.double().sum())
        return result

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:  # the window's last micro-batch: gradients are complete and not yet clipped
            outcome = self.method.finish(self.evaluator)
            if outcome.scale != 1.0:
                for parameter in self.model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(outcome.scale)
            sums = self._per_token.over_ranks(self.evaluator)
            losses = {name: value / self._window_tokens for name, value in zip(PER_TOKEN, sums, strict=True)}
            self.drop_curves(PER_TOKEN)
            if losses["weighted_loss"] == 0 < losses["uniform_loss"] and not self._said_zero:
                self._said_zero = True
                self.note(f"step {self.state.global_step + 1}: all tokens have the weight 0, and teach nothing")
            if self.anchored is not None:
                [divergence] = self._divergence.over_ranks(self.evaluator)
                losses["anchor_kl"] = divergence / self._window_tokens
            for name, value in {**losses, **self._concentration.metrics(self.evaluator), **outcome.metrics}.items():
                self._unlogged[name].append(value)
            for line in outcome.notes:
                self.note(line)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs.update({name: sum(values) / len(values) for name, values in self._unlogged.items()})
        self._unlogged.clear()
        super().log(logs, start_time)

    def write_own_state(self, folder: Path) -> None:
        if not self.is_fsdp_enabled:
            _save_tensors(self.method.tensors(), folder / METHOD_TENSORS)
        processes = distributed.world_size() if self.is_fsdp_enabled else 1
        sizes = {"tensors": len(self.method.tensors()), "shards": processes}
        write_json(folder / METHOD_STATE, {"method": self.method.state(), "snapshots": self.snapshots.taken, **sizes})

    def write_own_shard(self, folder: Path) -> None:
        if isinstance(self.evaluator, ShardedEvaluator):
            _save_tensors(self.evaluator.shards(self.method.tensors()), folder / _shard_name())

    def read_own_state(self, folder: Path) -> None:
        saved = read_json(folder / METHOD_STATE)
        shards = saved.get("shards", 1)
        if shards != (distributed.world_size() if self.is_fsdp_enabled else 1):
            raise StageError(
                f"{folder} was saved by {shards} processes with a share of the weights each, and cannot be continued "
                "otherwise",
                f"Start as many in the same way (execution.launch.sft), or remove {folder.parent} and start anew.",
            )
        self.method.restore(saved["method"])
        self.snapshots.taken = saved["snapshots"]
        file = folder / (_shard_name() if self.is_fsdp_enabled else METHOD_TENSORS)
        loaded = load_file(file, device=str(next(self.model.parameters()).device))
        tensors = [loaded[str(index)] for index in range(saved["tensors"])]
        if isinstance(self.evaluator, ShardedEvaluator):
            tensors = self.evaluator.from_shards(tensors)
        self.method.restore_tensors(tensors)


def _save_tensors(tensors: list[Tensor], file: Path) -> None:
    save_file({str(index): tensor.contiguous() for index, tensor in enumerate(tensors)}, file)


def _shard_name() -> str:
    """The file of this process' part of the method's tensors."""
    return f"reweighting-{distributed.rank()}.safetensors"
