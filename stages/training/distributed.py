"""The processes of a data-parallel run, each of which trains on its share of every batch."""

import random
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def world_size() -> int:
    """Number of processes; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def share(items: list[T]) -> list[T]:
    """This process' part of a list that all processes hold, and whose length they divide."""
    size = len(items) // world_size()
    return items[rank() * size : (rank() + 1) * size]


def sum_tensors(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def number(scalar: torch.Tensor) -> float:
    """A tensor of one number as a float; of one that is shared out over the processes (a DTensor), the whole."""
    return float((scalar.full_tensor() if isinstance(scalar, DTensor) else scalar).item())


def gather(value: T) -> list[T]:
    """The values of all processes, in their order."""
    gathered = [value] * world_size()
    if len(gathered) > 1:
        dist.all_gather_object(gathered, value)
    return gathered


def seed(run_seed: int, stream: int) -> int:
    """The seed of one of a run's random streams; stream 0 has the run's own.

    The others are not the numbers next to it, which a run by the next seed would draw.
    """
    return run_seed if stream == 0 else random.Random(f"{run_seed} {stream}").getrandbits(32)
