"""Evaluations of a model beside its training forward: losses, also at moved parameters, probe gradients, utilities."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.reweighting.base import Batch, Direction, Prepared, row_digests, supervised
from stages.sft.reweighting.direction import moved, norm
from stages.sft.reweighting.forward_mode import ForwardMode
from stages.sft.row_values import times_row_weights
from stages.sft.trl_internals import HeadSignals, language_model, token_log_probs
from stages.training import distributed
from stages.training.dealing import deal, deal_within
from stages.training.same_outputs import DROPOUTS, has_dropout

MODEL_INPUTS = ("input_ids", "attention_mask", "labels")
PROBE_STREAM = 1
"""Separates the probe's random stream from others that are drawn by (seed, step)."""


@dataclasses.dataclass
class ModelEvaluator:
    """Evaluates a causal language model that has TRL's fused head; see `Evaluator` for what the methods give.

    Nothing here leaves a trace in the global random state, `.grad`, or the train and eval modes that the model was in:
    a run that evaluates trains exactly as one that does not.

    Attributes:
        model: as the Trainer calls it (with its autocast), not wrapped for data parallelism.
        dataset, collate: the tokenised training rows, and what makes a batch of some.
        optimizer: gives the optimizer; called only when its moments are needed.
        batch_size, micro_batch_size: rows of one optimizer step, over all processes, and of one forward pass.
        max_tokens: of one forward pass, instead of a number of rows; padding is included unless rows are packed.
        packing: whether the model computes rows end to end, without their padding.
        bfloat16: whether the model's forward runs under bfloat16 autocast.
        seed: of the probe batches.
        head: tells the method's signals, where it declares any.
    """

    model: Any
    dataset: Any
    collate: Callable[[list[dict[str, Any]]], Batch]
    optimizer: Callable[[], Any]
    batch_size: int
    micro_batch_size: int
    bfloat16: bool
    seed: int
    head: HeadSignals | None = None
    max_tokens: int | None = None
    packing: bool = False

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device

    @cached_property
    def _forward_mode(self) -> ForwardMode:
        return ForwardMode(self.model, self.parameters)

    def model_inputs(self, batch: Batch) -> Batch:
        """What the model's forward takes of a batch, on the model's device."""
        return {name: batch[name].to(self.device) for name in MODEL_INPUTS}

    def losses(self, batch: Batch, dropout_seed: int | None = None) -> Tensor:
        modes = self.modes(training=dropout_seed is not None, dropout_seed=dropout_seed)
        with modes, self._no_copies_of_weights(), torch.no_grad():
            return -token_log_probs(self.model, self.model_inputs(batch)).float()

    @contextmanager
    def _no_copies_of_weights(self) -> Iterator[None]:
        """Within: autocast keeps no copy of a weight in 16 bits beyond its use. It would keep all to the end of a
        forward pass, for a backward pass that is not made here."""
        usual = torch.is_autocast_cache_enabled()
        # The model's own autocast, which its forward enters, brings its own answer with it.
        hook = language_model(self.model).base_model.register_forward_pre_hook(
            lambda module, arguments: torch.set_autocast_cache_enabled(False)
        )
        try:
            yield
        finally:
            hook.remove()
            torch.set_autocast_cache_enabled(usual)

    def signals(self, batch: Batch) -> Prepared:
        if self.head is None:
            return {}
        inputs = self.model_inputs(batch)
        with self.modes(training=False), torch.no_grad():
            return self.head.measured(self.model, inputs)

    def losses_of_all_rows(self) -> dict[str, Tensor]:
        return self._of_all_rows(self.losses)

    def signals_of_all_rows(self, name: str) -> dict[str, Tensor]:
        return self._of_all_rows(lambda batch: self.signals(batch)[name])

    def _of_all_rows(self, measure: Callable[[Batch], Tensor]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for batch in self._batches(range(distributed.rank(), len(self.dataset), distributed.world_size())):
            measured, mask = measure(batch).cpu(), supervised(batch).cpu()
            rows = zip(row_digests(batch), measured, mask, strict=True)
            values |= {digest: of_row[labelled].clone() for digest, of_row, labelled in rows}
        return {digest: of_row for part in distributed.gather(values) for digest, of_row in part.items()}

    def mean_losses_of_all_rows(self) -> dict[str, float]:
        means: dict[str, float] = {}
        for batch in self._batches(range(distributed.rank(), len(self.dataset), distributed.world_size())):
            sums = self.losses(batch).double().sum(-1).cpu()
            means |= zip(row_digests(batch), (sums / supervised(batch).sum(-1).clamp(min=1)).tolist(), strict=True)
        return {digest: mean for part in distributed.gather(means) for digest, mean in part.items()}

    def _batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """Micro-batches of these rows of the training set, as many at a time as a step has by length: less padding."""
        for start in range(0, len(rows), self.batch_size):
            some = [self.dataset[row] for row in rows[start : start + self.batch_size]]
            lengths = [(len(row["input_ids"]),) for row in some]
            size, budget = self.micro_batch_size, self.max_tokens
            dealt = deal(lengths, size) if budget is None else deal_within(lengths, budget, padded=not self.packing)
            for part, _ in dealt:
                yield self.collate([some[row] for row in part])

    def probe_gradient(self, fraction: float, step: int, part: tuple[int, int] = (0, 1)) -> Direction:
        rows = self.probe_rows(fraction, step, at_least=part[1])[part[0] :: part[1]]
        batches = list(self._batches(rows[distributed.rank() :: distributed.world_size()]))
        [tokens] = self.sum_over_ranks([float(sum(int(supervised(batch).sum()) for batch in batches))])
        # Gradient checkpointing works only in training mode; dropout is off in both.
        with self.modes(training=bool(getattr(self.model, "is_gradient_checkpointing", False))):
            return self._summed_gradient(batches, max(tokens, 1.0))

    def _summed_gradient(self, batches: Sequence[Batch], tokens: float) -> Direction:
        """Gradient of the sum of the losses, times their rows' weights, over `tokens`: of the batches of all
        processes."""
        held = [parameter.grad for parameter in self.parameters]
        try:
            for parameter in self.parameters:
                parameter.grad = None
            for batch in batches:  # added up in `.grad`, each as it is made: never two sets of the weights' size
                log_probs = times_row_weights(token_log_probs(self.model, self.model_inputs(batch)), batch)
                (-log_probs.sum() / tokens).backward()
            sums = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        finally:
            for parameter, gradient in zip(self.parameters, held, strict=True):
                parameter.grad = gradient
        distributed.sum_tensors(sums)
        return sums

    def probe_rows(self, fraction: float, step: int, at_least: int = 1) -> list[int]:
        """Rows of an optimizer step's probe, drawn without replacement by (seed, step), the same on a resume."""
        size = min(len(self.dataset), max(at_least, round(fraction * self.batch_size)))
        draw = np.random.default_rng([PROBE_STREAM, self.seed, step])
        return [int(index) for index in draw.choice(len(self.dataset), size, replace=False)]

    def training_gradient(self) -> Direction:
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self.parameters]

    def utilities(self, batch: Batch, direction: Direction) -> Tensor:
        with self.modes(training=False), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self._forward_mode.utilities(self.model_inputs(batch), direction)

    @contextmanager
    def perturbed(self, direction: Direction, amount: float) -> Iterator[None]:
        with moved(self.parameters, direction, amount):
            yield

    def preconditioned(self, direction: Direction) -> Direction:
        optimizer = self.optimizer()
        roots = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if not state:
                    return direction
                if "exp_avg_sq" not in state:
                    raise StageError(
                        f"{type(optimizer).__name__} keeps no second moments to precondition with",
                        "Set sft.method.precondition to false.",
                    )
                unbiased = state["exp_avg_sq"] / (1 - group["betas"][1] ** _on_device(state["step"]))
                roots[id(parameter)] = unbiased.sqrt().add_(group["eps"])
        return [part / roots[id(parameter)] for part, parameter in zip(direction, self.parameters, strict=True)]

    def momentum(self) -> Direction | None:
        optimizer, means = self.optimizer(), {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if state and "exp_avg" not in state:
                    raise StageError(
                        f"{type(optimizer).__name__} keeps no average of the gradients to measure along",
                        "Set sft.method.direction to previous, or leave it out.",
                    )
                if state:
                    means[id(parameter)] = state["exp_avg"] / (1 - group["betas"][0] ** _on_device(state["step"]))
        return [means.get(id(part), torch.zeros_like(part)) for part in self.parameters] if means else None

    def parameter_norm(self) -> float:
        return norm([parameter.detach() for parameter in self.parameters])

    def has_dropout(self) -> bool:
        return has_dropout(self.model)

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        return [sum(column) for column in zip(*distributed.gather(values), strict=True)]

    def of_all_ranks(self, values: list[float]) -> list[float]:
        return [value for part in distributed.gather(values) for value in part]

    @contextmanager
    def modes(self, *, training: bool, dropout_seed: int | None = None) -> Iterator[None]:
        """Within: train or eval mode; dropout off, or with masks from a seed. Modes and random state come back."""
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.train(training)
            if dropout_seed is None:
                for module, _ in modes:
                    if isinstance(module, DROPOUTS):
                        module.eval()
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                if dropout_seed is not None:
                    torch.manual_seed(dropout_seed)
                yield
        finally:
            for module, mode in modes:
                module.training = mode


def _on_device(step: Any) -> Tensor:
    """An optimizer's count of steps, of which the fused one has a tensor on the device for each parameter: to read them
    would be to wait for each."""
    return torch.as_tensor(step, dtype=torch.float64)
