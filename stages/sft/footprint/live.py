"""Counts the bytes of the tensors that are alive while code runs, on tensors with content or without."""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512
"""Bytes of which sizes are multiples, as torch's CUDA allocator rounds them."""
aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):  # type: ignore[misc]
    """Within: counts storages from the operation that makes them to the moment when nobody has them any more.

    Buffers that a kernel takes and gives back within one operation are not seen, nor what an allocator keeps.
    Inside a `FakeTensorMode` tensors have no values. There a number that is asked for is 1, all is true, and a mask
    chooses as many elements as `chosen` of it.

    Attributes:
        phase: a name for what runs now; peaks are kept for each.
        peaks: the most bytes at once in each phase.
        others: the most bytes at once beside tensors of a trained parameter's shape: activations and buffers.
    """

    def __init__(self, share: float = 1.0, chosen: float = 1.0, empty: bool = False) -> None:
        """
        Args:
            share: what counts of a tensor that has the shape of a parameter (weights, gradients, moments, directions),
                where processes share these out.
            chosen: share of a tensor's elements that a mask chooses.
            empty: whether tensors have no values.
        """
        super().__init__()
        self.share, self.chosen, self.empty = share, chosen, empty
        self.phase = "start"
        self.peaks: dict[str, float] = {}
        self.others = 0.0
        self._shapes: set[torch.Size] = set()
        self._state = self._other = 0
        self._known: set[int] = set()

    @property
    def now(self) -> float:
        """Bytes that are alive."""
        return self.share * self._state + self._other

    def begin(self, parameters: Iterable[Tensor]) -> None:
        """Begin with these parameters alone: what was alive or counted before is forgotten."""
        self._known, self._state, self._other, self.others, self.peaks = set(), 0, 0, 0.0, {}
        parameters = list(parameters)
        self._shapes = {parameter.shape for parameter in parameters}
        for parameter in parameters:
            self._add(parameter)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        known, key = self._known, storage._cdata
        if key in known:
            return
        known.add(key)
        size = math.ceil(storage.nbytes() / BLOCK) * BLOCK
        of_state = tensor.shape in self._shapes

        def gone() -> None:
            known.discard(key)
            if known is self._known:  # not of a time before `begin`
                self._count(-size, of_state)

        weakref.finalize(storage, gone)
        self._count(size, of_state)
        self.others = max(self.others, self._other)
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0.0), self.now)

    def _count(self, size: int, of_state: bool) -> None:
        if of_state:
            self._state += size
        else:
            self._other += size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self._without_values(func, args) if self.empty else NotImplemented
        if out is NotImplemented:
            out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return out

    def _without_values(self, func: Any, args: Any) -> Any:
        """What an operation whose result depends on values gives here; NotImplemented for all others."""
        if func is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
        if func is aten.equal.default:
            return True
        if func is aten.nonzero.default:
            return args[0].new_empty((self._chosen(args[0]), args[0].dim()), dtype=torch.long)
        if func is aten.index.Tensor and [index.dtype for index in args[1] if index is not None] == [torch.bool]:
            source, mask = args[0], args[1][0]
            return source.new_empty((self._chosen(mask), *source.shape[mask.dim() :]))
        if func is aten._unique2.default:
            flat = args[0].flatten()
            return flat.clone(), torch.zeros_like(args[0], dtype=torch.long), torch.zeros_like(flat, dtype=torch.long)
        return NotImplemented

    def _chosen(self, mask: Tensor) -> int:
        return math.ceil(self.chosen * int(mask.numel()))


@contextmanager
def lists_of_ones() -> Iterator[None]:
    """Within: a tensor without content is a list of ones, where it is asked for as a list. Others stay as they are."""
    usual: Callable[[Tensor], Any] = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        return _ones(tensor.shape) if is_fake(tensor) else usual(tensor)

    Tensor.tolist = tolist
    try:
        yield
    finally:
        Tensor.tolist = usual


def _ones(shape: torch.Size) -> Any:
    return [_ones(shape[1:]) for _ in range(shape[0])] if shape else 1.0
