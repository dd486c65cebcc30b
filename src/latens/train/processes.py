"""One training run in several processes, started by torchrun: which of them this is, and what they share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from latens.errors import TrainingError

__all__ = ["Processes"]

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: number of this process; the first, 0, writes files and speaks.
        count: how many there are.
        device: what this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> Processes:
        """The processes that ``torchrun`` started, or just this one.

        Args:
            device: as in :class:`latens.train.TrainConfig`; with several processes on a machine, GPUs are given
                out in turn.

        Raises:
            TrainingError: there is no such device, or the others cannot be reached.
        """
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        try:
            chosen = torch.device(device or ("cuda" if cuda else "cpu"))
        except RuntimeError as error:
            raise TrainingError(f"device {device!r}: expected cpu, cuda or cuda:N") from error
        if chosen.type not in ("cpu", "cuda") or (chosen.type == "cuda" and not cuda):
            raise TrainingError(
                f"device {device!r}: not available here; expected cpu or an NVIDIA GPU (cuda)"
            )
        if chosen.type == "cuda":
            number = int(os.environ.get("LOCAL_RANK", 0)) if count > 1 else chosen.index or 0
            if number >= torch.cuda.device_count():
                raise TrainingError(f"there is no GPU {number}; there are {torch.cuda.device_count()}")
            chosen = torch.device("cuda", number)
            torch.cuda.set_device(chosen)
        if count > 1 and not dist.is_initialized():
            try:
                dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
            except (ValueError, RuntimeError) as error:
                raise TrainingError(f"cannot reach the other processes of the run ({error})") from error
        return cls(rank, count, chosen)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def share_out(self, costs: Sequence[float]) -> list[int]:
        """Which process takes which task, so that all have about the same to do; all come to the same result."""
        loads, owners = [0.0] * self.count, [0] * len(costs)
        for task in sorted(range(len(costs)), key=lambda i: -costs[i]):
            owners[task] = loads.index(min(loads))
            loads[owners[task]] += costs[task]
        return owners

    def spread(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        """Give the values of each tensor from its owner to all others, in place."""
        for rank in sorted(set(owners)):
            owned = [t for t, owner in zip(tensors, owners, strict=True) if owner == rank]
            flat = torch.cat([t.reshape(-1) for t in owned])
            dist.broadcast(flat, rank)
            if rank != self.rank:
                for target, values in zip(owned, torch.split(flat, [t.numel() for t in owned]), strict=True):
                    target.copy_(values.view(target.shape))

    def collect(self, value: T) -> list[T]:
        """What all processes have, in the first; nothing in the others."""
        found: list[T] = [value] * self.count
        dist.gather_object(value, found if self.leads else None)
        return found if self.leads else []

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Part from the others, at the end of a run."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
