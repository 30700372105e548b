"""A cohort that is killed and resumed: does it give the files of an uninterrupted run?

Brains are coarsened (block means; every n-th label), registered pair by pair by ``medwave batch`` once without
interruption, and once in another folder with ``kill -9`` at random times, each followed by the same command. All files
are compared byte by byte; of ``run.json`` and the pages all but the times.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

from _cohort_compare import differences, digests
from _measure import machine
from _results import BenchmarkError, save, versions

COMMAND = (sys.executable, "-c", "from medwave.cli.app import main; main()", "batch", "pairs.csv", "-o", "out")


def main() -> None:
    """Run, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1_brain.nii.gz and ID_labels.nii.gz")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--factor", type=int, default=4, help="voxels of the files per voxel of the runs, each axis")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the times at which the run is killed")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments)
    print(
        f"{result['pairs']} pairs, killed {len(result['kills'])} times with {result['done_at_kills']} done: "
        f"{result['files']} files, {len(result['different'])} different {result['different'][:5]}"
    )
    if arguments.output:
        save(arguments.output, result)
    if result["different"]:
        raise SystemExit(1)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both runs and their comparison."""
    pairs = _prepare(folder, arguments.images, arguments.factor, arguments.pairs)
    options = ("--preset", arguments.preset, "--jobs", str(arguments.jobs), "--threads", "1")
    began = time.monotonic()
    subprocess.run([*COMMAND, *options], cwd=folder / "whole", check=True)
    wall = time.monotonic() - began
    draw, kills, counts = random.Random(arguments.seed), [], []
    for _ in range(arguments.kills):
        kills.append(draw.uniform(0.1, 0.9) * wall / arguments.kills)
        counts.append(_killed([*COMMAND, *options], folder / "killed", kills[-1]))
    subprocess.run([*COMMAND, *options], cwd=folder / "killed", check=True)
    whole, killed = (folder / name / "out" for name in ("whole", "killed"))
    return {
        "pairs": len(pairs), "factor": arguments.factor, "options": options, "wall_s": wall, "kills": kills,
        "done_at_kills": counts, "files": len(digests(whole)), "different": differences(whole, killed),
        "machine": machine(), "versions": versions(("medwave", "torch", "numba", "numpy")),
    }  # fmt: skip


def _killed(command: list[str], folder: Path, after_s: float) -> int:
    """Kill a run after some seconds; how many registrations were complete then."""
    child = subprocess.Popen(command, cwd=folder)
    try:
        child.wait(after_s)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return len(list((folder / "out" / "runs").glob("*/run.json")))


def _prepare(folder: Path, images: Path, factor: int, count: int) -> list[tuple[str, str]]:
    """Coarse brains and the table of pairs, twice; the same relative paths in both folders."""
    import numpy as np

    from medwave.core.geometry import Volume
    from medwave.engine.pyramid import coarsen
    from medwave.volumes import read_labels, read_volume, write_volume

    names = sorted(path.name.split("_")[0] for path in images.glob("*_T1_brain.nii.gz"))
    if len(names) < 2:
        raise BenchmarkError(f"{images}: two brains at least, ID_T1_brain.nii.gz with ID_labels.nii.gz")
    pairs = random.Random(1).sample(list(permutations(names, 2)), count)
    for place in ("whole", "killed"):
        (folder / place / "brains").mkdir(parents=True)
        with (folder / place / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(("name", "fixed", "moving", "fixed_labels", "moving_labels"))
            for f, m in pairs:
                files = [f"brains/{name}.nii.gz" for name in (f, m, f"{f}_labels", f"{m}_labels")]
                table.writerow((f"{m}_to_{f}", *files))
    for name in names:
        image, labels = read_volume(images / f"{name}_T1_brain.nii.gz"), read_labels(images / f"{name}_labels.nii.gz")
        data, grid = coarsen(image.data, image.grid, (factor,) * 3)
        padded = np.pad(labels.data, [(0, -n % factor) for n in labels.data.shape])
        middle = slice(factor // 2, None, factor)
        for place in ("whole", "killed"):
            brains = folder / place / "brains"
            write_volume(brains / f"{name}.nii.gz", Volume(np.rint(data), grid), dtype=np.int16)
            chosen = padded[middle, middle, middle].astype(np.int16)
            write_volume(brains / f"{name}_labels.nii.gz", Volume(chosen, grid))
    return pairs


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        raise SystemExit(str(error)) from None
