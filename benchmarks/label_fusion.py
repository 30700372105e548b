"""Labels from several atlases: leave-one-out overlap of majority and joint fusion beside a single atlas.

Brains are coarsened (block means; every n-th label). Each in turn is the target, all others are its atlases. Dice is
the mean over the structures that all label maps have. All methods see the same registrations.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine
from _results import BenchmarkError, save, versions

import medwave
from medwave.core.geometry import Volume
from medwave.engine.label_fusion import fuse_labels
from medwave.engine.pyramid import coarsen
from medwave.metrics import dice
from medwave.volumes import read_labels, read_volume


def main() -> None:
    """Run, print a row per target, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1_brain.nii.gz and ID_labels.nii.gz")
    parser.add_argument("--factor", type=int, default=3, help="voxels of the files per voxel of the runs, each axis")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--targets", type=int, default=0, help="only the first ones; 0 for all")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    brains = _brains(arguments.images, arguments.factor)
    common = sorted(set.intersection(*({*np.unique(labels.data).tolist()} for _, labels in brains.values())) - {0})
    result: dict[str, Any] = {
        "factor": arguments.factor, "preset": arguments.preset, "structures": len(common), "targets": {},
        "machine": machine(), "versions": versions(("medwave", "torch", "numba", "numpy")),
    }  # fmt: skip
    for target in list(brains)[: arguments.targets or None]:
        result["targets"][target] = row = _leave_one_out(target, brains, common, arguments.preset)
        print(target, " ".join(f"{name} {value:.4f}" for name, value in row.items()), flush=True)
        if arguments.output:
            save(arguments.output, result)
    rows = result["targets"].values()
    print("mean", " ".join(f"{name} {np.mean([row[name] for row in rows]):.4f}" for name in next(iter(rows))))


def _leave_one_out(
    target: str, brains: dict[str, tuple[Volume, Volume]], common: list[int], preset: str
) -> dict[str, float]:
    image, truth = brains[target]
    runs = [
        medwave.register(image, moving, moving_labels=labels, preset=preset, threads=1)
        for name, (moving, labels) in brains.items() if name != target
    ]  # fmt: skip
    labels, images = np.stack([r.warped_labels.data for r in runs]), np.stack([r.warped.data for r in runs])

    def score(found: Any) -> float:
        overlaps = dice(truth.data, found)
        return float(np.mean([overlaps.get(label, 0.0) for label in common]))

    alone = [score(one) for one in labels]
    row = {"single, mean": float(np.mean(alone)), "single, best": max(alone)}
    for method in ("majority", "joint"):
        began = time.process_time()
        row[method] = score(fuse_labels(labels, method=method, target=np.asarray(image.data), images=images)[0])
        row[f"{method} CPU s"] = time.process_time() - began
    return row


def _brains(folder: Path, factor: int) -> dict[str, tuple[Volume, Volume]]:
    found = {}
    for path in sorted(folder.glob("*_T1_brain.nii.gz")):
        name = path.name.split("_")[0]
        image, labels = read_volume(path), read_labels(folder / f"{name}_labels.nii.gz")
        data, grid = coarsen(image.data, image.grid, (factor,) * 3)
        padded = np.pad(labels.data, [(0, -n % factor) for n in labels.data.shape])
        middle = slice(factor // 2, None, factor)
        found[name] = Volume(data, grid, name), Volume(np.ascontiguousarray(padded[middle, middle, middle]), grid)
    if len(found) < 3:
        raise BenchmarkError(f"{folder}: three brains at least, ID_T1_brain.nii.gz with ID_labels.nii.gz")
    return found


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        raise SystemExit(str(error)) from None
