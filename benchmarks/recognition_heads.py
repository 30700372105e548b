"""Memory and time of one training step of each recognition head with very many classes, and of a plain linear layer.

    python benchmarks/recognition_heads.py --classes 1000000 --dimension 512 --batch 64 --rate 0.01

Each head runs in a process of its own, on one thread: it is built, its memory of stored samples (where it has one) is
filled for all classes, then it makes steps of forward, backward and SGD. The linear layer scores all classes
(cross-entropy, dense gradient); heads draw a share of the classes as negatives and have sparse gradients.
``benchmarks/README.md`` says what the columns mean.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _measure import last_line, machine, run_measured
from torch import Tensor, nn

from medwave.losses import recognition

LINEAR = "linear layer"
CLASS_HEADS = ("SoftmaxLoss", "CosFaceLoss", "ArcFaceLoss", "UnifiedBCELoss", "UCELoss")
SAMPLE_HEADS = ("S2SSoftmaxLoss", "S2SBCELoss", "USSLoss")
DOUBLE_HEADS = ("UniTSFaceLoss", "EPLLoss", "ECLoss")
CHANNELS, SIDE = 256, 14


def main() -> None:
    options = parse()
    if options.head:
        print(json.dumps(measure(options)))
        return
    rows = {}
    for head in (LINEAR, *CLASS_HEADS, *SAMPLE_HEADS, *DOUBLE_HEADS):
        rows[head] = in_a_process(head, options)
        print(f"{head}: {rows[head]}", file=sys.stderr, flush=True)
    settings = {name: getattr(options, name) for name in ("classes", "dimension", "batch", "rate", "steps")}
    report = {"date": datetime.date.today().isoformat(), "machine": machine(), "torch": torch.__version__}
    print(json.dumps(report | {"settings": settings, "heads": rows}, indent=1))
    print(table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory and time of recognition heads with very many classes.")
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.01, help="share of the classes drawn as negatives")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--head", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process(head: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds per step and peak memory of a process that runs one head."""
    arguments = [f"--{name}={getattr(options, name)}" for name in ("classes", "dimension", "batch", "rate", "steps")]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        cost = run_measured([sys.executable, __file__, *arguments, f"--head={head}"], threads=1, log=log)
        said = last_line(log)
    if cost.exit_code:
        return {"error": said}
    return json.loads(said) | {"peak_rss_gb": cost.peak_rss_mb / 1e3}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of steps after the first, which also touches memory for the first time."""
    torch.manual_seed(0)
    parameters, step = linear(options) if options.head == LINEAR else head(options)
    optimiser = torch.optim.SGD(parameters, lr=0.1)
    seconds = []
    for _ in range(options.steps + 1):
        features = torch.randn(options.batch, options.dimension, requires_grad=True)
        labels = torch.randint(options.classes, (options.batch,))
        began = time.process_time()
        loss = step(features, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.process_time() - began)
    return {"loss": float(loss.detach()), "cpu_s_first": seconds[0], "cpu_s": statistics.median(seconds[1:])}


def linear(options: argparse.Namespace) -> tuple[Any, Callable[[Tensor, Tensor], Tensor]]:
    layer = nn.Linear(options.dimension, options.classes, bias=False)
    return layer.parameters(), lambda x, y: nn.functional.cross_entropy(layer(x), y)


def head(options: argparse.Namespace) -> tuple[Any, Callable[[Tensor, Tensor], Tensor]]:
    name, sparse = options.head, {"sparse_gradients": options.head not in SAMPLE_HEADS}
    extra = {key: value for key, value in sparse.items() if value}
    built = getattr(recognition, "CosFaceLoss" if name == "ECLoss" else name)(
        options.classes, options.dimension, sample_rate=options.rate, **extra
    )
    if name == "ECLoss":
        built = recognition.ECLoss(built, CHANNELS)
    built.set_progress(5, 10)
    for module in built.modules():
        if hasattr(module, "filled") and len(module.filled) == options.classes:
            fill(module)
    # a parameter that is never touched by SGD, so that losses without parameters have an optimiser too
    parameters = list(built.parameters()) or [nn.Parameter(torch.zeros(1))]
    if name == "ECLoss":
        return parameters, lambda x, y: built(x, y, torch.randn(len(x), CHANNELS, SIDE, SIDE, requires_grad=True)).total
    return parameters, lambda x, y: built(x, y).total


def fill(table: nn.Module) -> None:
    """Give each class a row of length one."""
    for rows in table.rows.split(1 << 16):
        rows.normal_()
        rows /= rows.norm(dim=1, keepdim=True)
    table.filled.fill_(True)


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| head | CPU s per step | / linear layer | peak RSS GB |", "|---|---|---|---|"]
    for name, row in rows.items():
        if "error" in row:
            lines.append(f"| {name} | {row['error']} | | |")
            continue
        ratio = row["cpu_s"] / rows[LINEAR]["cpu_s"] if "cpu_s" in rows[LINEAR] else float("nan")
        lines.append(f"| {name} | {row['cpu_s']:.2f} | {ratio:.2f} | {row['peak_rss_gb']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
