"""Several processes that train one network, as ``torchrun`` starts them.

Each process is a rank. The batch of a step is shared out among them in equal parts, so that the options and, within
rounding, the result are those of one process. Under ``torchrun --nproc-per-node 4 -m medwave train ...`` rank 0 alone
validates, writes and reports; a rank that fails ends the others, since torchrun stops them.

Batch norm sees the whole batch on GPUs; on CPUs each rank normalises by its own part of the batch. A loss that is no
mean over items looks at the whole batch by itself; those of detectors, MONAI's, are means over the ranks. Made-up pairs
of brains are drawn by rank.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from medwave.core.errors import InputError
from medwave.engine.predict import usable_device

_PATIENCE = timedelta(hours=6)
"""How long ranks wait for rank 0 to validate."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is; one process without ``torchrun``."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """This process validates, writes and reports."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """Items of a step that this process takes.

        Raises:
            InputError: when they cannot be shared out in equal parts.
        """
        if batch % self.count:
            raise InputError(f"batch: {batch} items cannot be shared out among {self.count} processes; give a multiple")
        return batch // self.count

    def mean(self, value: float) -> float:
        """Of the values that the processes hand in."""
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(held)
        return float(held) / self.count

    def of_first(self, value: float) -> float:
        """The value that rank 0 hands in."""
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.broadcast(held, 0)
        return float(held)

    def parallel(self, model: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes."""
        if self.count == 1:
            return model
        ids = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def join_ranks(device: str) -> Ranks:
    """Meet the other processes of ``torchrun``; call it before anything is put on ``device``.

    On ``cuda`` every rank takes the GPU of its number on its machine.

    Raises:
        DeviceError: when one process trains on a device that is not there.
        InputError: when a GPU by number is asked for, or a machine has fewer GPUs than ranks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        usable_device(device)
        return Ranks()
    cuda = torch.device(device).type == "cuda"
    if cuda:
        local = int(os.environ["LOCAL_RANK"])
        if torch.device(device).index is not None or local >= torch.cuda.device_count():
            raise InputError(
                f"device {device}: torchrun gives each of its processes one of the {torch.cuda.device_count()} GPUs; "
                "give cuda, and no more processes than GPUs"
            )
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), dist.get_world_size())


def whole_batch_norm(model: nn.Module) -> nn.Module:
    """The model with batch norms that see the parts of all processes, where the device can."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
