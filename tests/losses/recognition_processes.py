"""Three steps of SGD on a small network and each loss: whole batch in one process, or its parts in several.

Run as a program it is one of several processes: ``python recognition_processes.py RANK FOLDER``.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medwave.losses.recognition import (
    ArcFaceLoss,
    CosFaceLoss,
    ECLoss,
    EPLLoss,
    RecognitionLoss,
    S2SBCELoss,
    S2SSoftmaxLoss,
    SoftmaxLoss,
    UCELoss,
    UnifiedBCELoss,
    UniTSFaceLoss,
    USSLoss,
)

CLASSES, DIMENSION, CHANNELS = 9, 6, 8
LENGTHS = (5, 3)  # samples of each process: not the same

LOSSES = {
    "softmax": lambda: SoftmaxLoss(CLASSES, DIMENSION),
    "cosface drawn": lambda: CosFaceLoss(CLASSES, DIMENSION, sample_rate=0.5),
    "arcface": lambda: ArcFaceLoss(CLASSES, DIMENSION),
    "bce diverse": lambda: UnifiedBCELoss(CLASSES, DIMENSION, bias="diverse"),
    "uce": lambda: UCELoss(CLASSES, DIMENSION),
    "s2s softmax": lambda: S2SSoftmaxLoss(CLASSES, DIMENSION),
    "s2s bce": lambda: S2SBCELoss(CLASSES, DIMENSION),
    "uss": lambda: USSLoss(CLASSES, DIMENSION),
    "unitsface": lambda: UniTSFaceLoss(CLASSES, DIMENSION, start_epoch=1),
    "epl": lambda: EPLLoss(CLASSES, DIMENSION, start_epoch=1),
    "ecloss": lambda: ECLoss(CosFaceLoss(CLASSES, DIMENSION), CHANNELS, groups=4, weight=1.0),
    "ecloss mi": lambda: ECLoss(CosFaceLoss(CLASSES, DIMENSION), CHANNELS, groups=4, weight=1.0, variant="mi"),
}


class Network(nn.Module):
    """Maps and a feature of an image ``(B, 1, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.feature = nn.Linear(CHANNELS * 64, DIMENSION)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.maps(images)
        return maps, self.feature(maps.relu().flatten(1))


def train(name: str, part: slice, *, parallel: bool = False, wrapped: bool = False) -> dict[str, torch.Tensor]:
    """Losses of the steps, and all gradients, parameters and buffers at the end."""
    torch.manual_seed(3)
    network, loss = Network().double(), LOSSES[name]().double()
    plain_loss: RecognitionLoss = loss
    whole_network = DistributedDataParallel(network) if parallel else network
    has_parameters = bool(list(loss.parameters()))
    whole_loss = DistributedDataParallel(loss) if wrapped and has_parameters else loss
    optimiser = torch.optim.SGD([*network.parameters(), *loss.parameters()], lr=0.01)
    steps = []
    for step in range(4):
        plain_loss.set_progress(step / 2, 2)
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(sum(LENGTHS), 1, 8, 8, dtype=torch.float64, generator=generator)
        labels = torch.randint(CLASSES, (sum(LENGTHS),), generator=generator)
        maps, features = whole_network(images[part])
        extra = (maps,) if name.startswith("ecloss") else ()
        optimiser.zero_grad()
        total = whole_loss(features, labels[part], *extra).total
        total.backward()
        optimiser.step()
        steps.append(total.detach())
    found = {"losses": torch.stack(steps)}
    for where, module in (("network", network), ("loss", loss)):
        found |= {f"{where}.{k}": v for k, v in module.state_dict().items()}
        found |= {f"{where}.{k}.grad": p.grad for k, p in module.named_parameters()}
    return found


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=len(LENGTHS), timeout=timedelta(seconds=240)
    )
    start = sum(LENGTHS[:rank])
    part = slice(start, start + LENGTHS[rank])
    for how in ("wrapped", "bare"):
        found = {name: train(name, part, parallel=True, wrapped=how == "wrapped") for name in LOSSES}
        torch.save(found, folder / f"{how}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
