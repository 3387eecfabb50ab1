"""The processes of a data-parallel run, each of which trains on its share of every batch."""

from __future__ import annotations

import random
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def world_size() -> int:
    """Number of processes; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_tensors(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather(value: T) -> list[T]:
    """The values of all processes, in their order."""
    if world_size() == 1:
        return [value]
    gathered = [value] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def seed(of_run: int, stream: int) -> int:
    """The seed of one of several random streams of a run; the first is the run's own, so that one process draws what it always drew.

    The others are not the numbers next to it: a run by the next seed would draw the same.
    """
    return of_run if stream == 0 else random.Random(f"{of_run} {stream}").getrandbits(32)
