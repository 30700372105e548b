"""A short training as one of several processes; started by ``test_fit_processes.py`` through torchrun.

``fit_processes.py FOLDER EPOCHS [fail]``: with ``fail`` rank 1 meets a damaged item in its second epoch.
"""

import os
import sys

import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.engine.fit import FitOptions, fit

OPTIONS = FitOptions(epochs=3, steps=4, batch=4, learning_rate=0.05, seed=5)


class Network(nn.Module):
    """A convolution, group norm and a head, in double precision."""

    def __init__(self):
        super().__init__()
        self.options = {"kind": "test"}
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv1d(4, 1, 1))

    def forward(self, x):
        return self.layers(x)


class Signals(torch.utils.data.Dataset):
    """Noise, and its running mean to be learned."""

    def __init__(self, fail=False):
        self.fail = fail

    def __len__(self):
        return OPTIONS.epochs * OPTIONS.steps * OPTIONS.batch

    def __getitem__(self, index):
        if self.fail and index == 23:
            raise InputError("signal 23: is damaged; leave it out")
        x = torch.randn(1, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
        return {"image": x, "label": nn.functional.avg_pool1d(x, 5, 1, 2)}


def train(folder, epochs, fail=False):
    """Train; a run of fewer epochs stops there as if it had been killed."""
    torch.manual_seed(0)

    def report(epoch, loss, score):
        print(f"epoch {epoch}", flush=True)
        if epoch == epochs and epochs < OPTIONS.epochs:
            os._exit(0)

    def score(model):
        image = Signals()[0]
        return -float((model(image["image"][None]) - image["label"][None]).abs().mean())

    return fit(
        Network().double(), Signals(fail), lambda output, batch: (output - batch["label"].float()).square().mean(),
        score, folder, options=OPTIONS, report=report,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], int(sys.argv[2]), fail="fail" in sys.argv[3:])
