"""The processes of a data-parallel run, each of which trains on its share of every batch."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def count() -> int:
    """Number of processes; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def index() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if count() > 1 else 0


def sum_tensors(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather(value: T) -> list[T]:
    """The values of all processes, in their order."""
    if count() == 1:
        return [value]
    gathered = [value] * count()
    dist.all_gather_object(gathered, value)
    return gathered
