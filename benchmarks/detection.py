"""RetinaNets on the pyramids of a WaveResNet-18 and of its twin, on synthetic boxes in 2-D and 3-D: one recipe, a CPU.

    python benchmarks/detection.py boxes     # train, evaluate; a JSON row for each run; resumable
    python benchmarks/detection.py table     # the tables and their intervals, from the rows

Each seed draws scenes of its own, and both twins see the same ones in the same order. Weights are chosen on validation
scenes and measured on test scenes, and on the same test scenes under stronger noise, which was never trained on. Rows
are appended to a file of JSON lines, and a run that is there already is passed over, so that the program can be stopped
and repeated at any time.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine
from _results import versions
from backbones import append_row, interval, read_rows

HERE = Path(__file__).parent
ROWS = HERE / "results" / "detection_boxes.jsonl"

RECIPE = {"width": 0.25, "channels": 32, "finest": 4, "anchor_strides": 2.5, "average": 0.95}
SCENES: dict[int, dict[str, Any]] = {
    2: {"shape": (64, 64), "objects": 4, "side_voxels": (8.0, 22.0), "contrast": (0.2, 0.5), "noise": 0.15},
    3: {"shape": (32,) * 3, "objects": 3, "side_voxels": (10.0, 16.0), "contrast": (0.4, 0.7), "noise": 0.1},
}
COUNTS = {2: {"train": 200, "val": 32, "test": 200}, 3: {"train": 100, "val": 16, "test": 100}}
TRAINING = {
    2: {"batch": 8, "learning_rate": 3e-3, "epochs": 10},
    3: {"batch": 4, "learning_rate": 5e-3, "epochs": 10},
}
NOISIER = 1.5
"""Noise of the second measurement, as a multiple of that which was trained with."""

PACKAGES = ("medwave", "torch", "monai", "numpy")
MEASURES = {"map_50": "mAP@.5, %", "map_50_noisy": f"under {NOISIER} x noise, %"}


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    boxes = parts.add_parser("boxes", help="train and evaluate")
    boxes.add_argument("--work", type=Path, default=Path("detection-work"), help="folder for scenes and weights")
    boxes.add_argument("--axes", nargs="+", type=int, choices=(2, 3), default=[2, 3])
    boxes.add_argument("--wavelets", nargs="+", default=["none", "haar"], help="none is the twin")
    boxes.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    boxes.add_argument("--epochs", type=int, help="in place of those of the recipe")
    boxes.add_argument("--share", type=float, default=1.0, help="of the scenes, for a quick look")
    table = parts.add_parser("table", help="the tables from the rows")
    for part in (boxes, table):
        part.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"boxes": compare, "table": show}[arguments.part](arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Train and evaluate what has no row yet, seed by seed."""
    import torch

    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for ndim in arguments.axes:
            for wavelet in arguments.wavelets:
                epochs = arguments.epochs or TRAINING[ndim]["epochs"]
                name = f"{ndim}-D {wavelet} epochs {epochs} share {arguments.share:g} seed {seed}"
                if name in {row["run"] for row in read_rows(arguments.rows)}:
                    continue
                row = {"run": name, "ndim": ndim, "wavelet": wavelet, "seed": seed, "epochs": epochs}
                row |= _one_run(arguments.work, name, ndim, wavelet, seed, epochs, arguments.share)
                row |= {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine()}
                append_row(arguments.rows, row | {"versions": versions(PACKAGES)})
                print(f"{name}: mAP@.5 {row['map_50']:.4f}, {row['train_cpu_s']:.0f} CPU s", flush=True)


def _one_run(
    work: Path, name: str, ndim: int, wavelet: str, seed: int, epochs: int, share: float
) -> dict[str, Any]:  # fmt: skip
    from medwave.data import read_boxed, synthetic_boxes
    from medwave.models import WaveRetinaNet, open_network
    from medwave.workflows.detect import measure, train_detector

    work.mkdir(parents=True, exist_ok=True)
    scenes, counts = SCENES[ndim], {split: round(share * n) for split, n in COUNTS[ndim].items()}
    clean, noisy = (work / f"scenes-{ndim}-{seed}-{share:g}{end}.npz" for end in ("", "-noisy"))
    synthetic_boxes(clean, seed=seed, counts=counts, **scenes)
    synthetic_boxes(noisy, seed=seed, counts=counts, **{**scenes, "noise": NOISIER * scenes["noise"]})
    twin: dict[str, Any] = {"network": "resnet18"} if wavelet == "none" else {"wavelet": wavelet}
    start = time.process_time()
    trained = train_detector(
        clean, work / name.replace(" ", "-"), **{**RECIPE, **TRAINING[ndim], **twin, "epochs": epochs, "seed": seed}
    )
    taken = time.process_time() - start
    network = open_network(trained.weights, WaveRetinaNet)
    found, harder = (measure(network, read_boxed(path, "test")) for path in (clean, noisy))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "validation": trained.best_score,
        "best_epoch": trained.best_epoch,
        "map_50": found.mean,
        "ap_50": found.by_class,
        "map_50_noisy": harder.mean,
        "train_cpu_s": round(taken, 1),
    }


def show(arguments: argparse.Namespace) -> None:
    """Print the tables of a file of rows."""
    print("\n".join(tables(read_rows(arguments.rows))))


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: means over the seeds that both twins have, with the differences and their 95 % intervals."""
    classes = list(rows[0]["ap_50"])
    heads = ["parameters", "seeds", *MEASURES.values(), *(f"{c}, %" for c in classes), "train CPU s"]
    lines = [f"| | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for ndim in sorted({row["ndim"] for row in rows}):
        own = {r["seed"]: r for r in rows if r["ndim"] == ndim and r["wavelet"] == "none"}
        for wavelet in dict.fromkeys(r["wavelet"] for r in rows):
            mine = [r for r in rows if (r["ndim"], r["wavelet"]) == (ndim, wavelet) and r["seed"] in own]
            if wavelet == "none":  # only seeds whose wavelet run is there too
                both = {r["seed"] for r in rows if r["ndim"] == ndim and r["wavelet"] != "none"}
                mine = [r for r in mine if r["seed"] in both]
            if not mine:
                continue
            name = f"{ndim}-D, ResNet-18" if wavelet == "none" else f"{ndim}-D, WaveResNet-18, {wavelet}"
            twins = [own[r["seed"]] for r in mine]
            cells = [f"{mine[0]['parameters']:,}", str(len(mine))]
            for pick in (*MEASURES, *classes):
                values, others = (
                    np.array([100 * float(r[pick] if pick in r else r["ap_50"][pick]) for r in some])
                    for some in (mine, twins)
                )
                cells.append(_cell(values, None if wavelet == "none" else values - others))
            cells.append(f"{np.mean([r['train_cpu_s'] for r in mine]):.0f}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(values: np.ndarray, differences: np.ndarray | None) -> str:
    """Mean, and the difference to the twins of the same seeds with its 95 % interval."""
    text = f"{values.mean():.1f}"
    if differences is None:
        return text
    mean, half = interval(differences)
    return f"{text} ({mean:+.1f} ± {half:.1f})" if np.isfinite(half) else f"{text} ({mean:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
