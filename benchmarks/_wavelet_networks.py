"""WiNet and WaveUNet of two checkouts of medwave, call by call in turn. Used by ``wavelets.py --networks``.

Each checkout has a process of its own that keeps the networks and runs one forward pass when told to, with one thread
and float32; the figure is the ratio of CPU seconds of neighbouring calls.

``python _wavelet_networks.py`` is that process: it reads lines ``NAME`` and answers CPU seconds of one forward pass.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WAVEUNET_CUBE = (32, 128, 128)
WINET_IMAGE = (80, 96, 112)
NETWORKS = ("WiNet 80x96x112", "WaveUNet width 4, 32x128x128", "WaveUNet width 8, 32x128x128")


def compare(before: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Network -> median and quartiles of the time after over that before, and median milliseconds of both."""
    old, new = Server(before), Server(HERE.parent)
    found = {}
    for name in NETWORKS:
        old.seconds(name), new.seconds(name)  # builds the network, and compiles
        pairs = []
        for turn in range(rounds):
            if turn % 2:
                first = old.seconds(name)
                pairs.append((first, new.seconds(name)))
            else:
                second = new.seconds(name)
                pairs.append((old.seconds(name), second))
        low, middle, high = statistics.quantiles([b / a for a, b in pairs], n=4)
        times = [statistics.median(column) * 1e3 for column in zip(*pairs, strict=True)]
        found[name] = {"ratio": middle, "low": low, "high": high, "before_ms": times[0], "after_ms": times[1]}
    return found


class Server:
    """The process of one checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve())]
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def seconds(self, name: str) -> float:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(name + "\n")
        return float(self.child.stdout.readline())


def serve() -> None:
    import torch

    from medwave.models import WaveUNet, WiNet

    torch.set_num_threads(1)
    known = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in known:
            torch.manual_seed(0)
            if name.startswith("WiNet"):
                images = torch.rand(2, 1, 1, *WINET_IMAGE)
                known[name] = WiNet().eval(), (images[0], images[1])
            else:
                width = int(name.split()[2].rstrip(","))
                known[name] = WaveUNet(width=width).eval(), (torch.rand(1, 1, *WAVEUNET_CUBE),)
        network, inputs = known[name]
        with torch.no_grad():
            start = time.process_time()
            network(*inputs)
            print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    serve()
