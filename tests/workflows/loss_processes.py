"""The losses of fibre networks and of segmenters with their gradients: of a whole batch, or of its parts in processes.

Run as a program it is one of two processes: ``python loss_processes.py RANK FOLDER``.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medwave.workflows.train_images import known_cross_entropy
from medwave.workflows.train_options import TrainFibreOptions
from medwave.workflows.train_waveunet import _loss

LOSSES = {
    "fibre": (nn.Conv3d, _loss(TrainFibreOptions(cldice=0.5))),
    "pixels": (nn.Conv2d, lambda output, batch: known_cross_entropy(output, batch["label"][:, 0])),
    "balanced": (
        nn.Conv2d,
        lambda output, batch: known_cross_entropy(output, batch["label"][:, 0], torch.tensor([0.5, 3.0])),
    ),
}


def measure(name: str, part: slice) -> dict[str, torch.Tensor]:
    """Mean of the loss over the processes, and gradients, for a batch whose second half is hardly known."""
    torch.manual_seed(0)
    kind, loss = LOSSES[name]
    network = kind(1, 2, 3, padding=1)
    images = torch.randn(4, 1, *(8,) * (network.weight.ndim - 2))
    labels = (images > 1).long()
    labels[2:, ..., 1:] = 255
    batch = {"label": labels[part], "skeleton": (labels[part] == 1).byte()}
    whole = DistributedDataParallel(network) if dist.is_initialized() else network
    value = loss(whole(images[part]), batch)
    value.backward()
    mean = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return {"loss": mean, **{name: p.grad for name, p in network.named_parameters()}}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    part = slice(2 * rank, 2 * rank + 2)
    torch.save({name: measure(name, part) for name in LOSSES}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
