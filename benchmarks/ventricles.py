"""Registration of one person's T1, T2 or FLAIR to another person's T1, judged through the ventricles.

    python benchmarks/ventricles.py --images FOLDER

FOLDER holds ``ID_T1.nii.gz``, ``ID_T2.nii.gz`` and ``ID_FLAIR.nii.gz`` of people, the three on one grid, skull
stripped. Every ordered pair of people is registered with default options, on one thread, once for each contrast of
the moving person; the fixed image is a T1 always. The ventricles of each are found from T1 and T2 together, so that
they are the same for all contrasts; those of the moving person are carried to the fixed one and compared with theirs:
mean distance between the surfaces, 95th percentile, and Dice.
"""

from __future__ import annotations

import argparse
import datetime
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _measure import machine
from _results import save, versions
from _ventricles import ventricles

import medwave
from medwave.core.geometry import Volume
from medwave.metrics.registration import dice, surface_distances
from medwave.volumes import LinearStep, SpatialTransform, read_volume
from medwave.workflows.pullback import Pullback

CONTRASTS = ("T1", "T2", "FLAIR")


def main() -> None:
    options = parse()
    people = {
        subject: {name: read_volume(options.images / f"{subject}_{name}.nii.gz") for name in CONTRASTS}
        for subject in options.subjects.split(",")
    }
    fluid = {subject: ventricles(images["T1"], images["T2"]) for subject, images in people.items()}
    rows = []
    for fixed, moving in permutations(people, 2):
        for contrast in CONTRASTS:
            found = measured(
                people[fixed]["T1"], people[moving][contrast], fluid[fixed], fluid[moving], preset=options.preset
            )
            rows.append({"fixed": fixed, "moving": moving, "contrast": contrast, **found})
            print({key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
    print_table(rows)
    save(options.output, {
        "date": datetime.date.today().isoformat(), "machine": machine(), "preset": options.preset,
        "versions": versions(("medwave", "torch", "numba", "numpy")), "rows": rows,
    })  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    today = datetime.date.today().isoformat()
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1.nii.gz, ID_T2.nii.gz, ...")
    parser.add_argument("--subjects", default="patient07,patient19")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / f"results/ventricles-{today}.json")
    return parser.parse_args()


def measured(
    fixed: Volume,
    moving: Volume,
    fixed_fluid: npt.NDArray[np.bool_],
    moving_fluid: npt.NDArray[np.bool_],
    *,
    preset: str,
) -> dict[str, Any]:
    """Agreement of the ventricles after the affine and at the end."""
    began = time.process_time()
    result = medwave.register(fixed, moving, threads=1, preset=preset)
    spent = time.process_time() - began
    row: dict[str, Any] = {"metric": result.options.metric, "cpu_s": spent, "folds": int((result.jacobian <= 0).sum())}
    mask = Volume(moving_fluid.astype(np.uint8), moving.grid, moving.name)
    for stage, transform in (("affine", SpatialTransform((LinearStep(result.matrix),))), ("end", result.transform)):
        carried = np.asarray(Pullback.through(transform, fixed.grid).labels(mask).data)
        surface = surface_distances(fixed_fluid.astype(np.uint8), carried, fixed.grid.spacing_mm)[1]
        row |= {f"{stage}_{key}": float(value) for key, value in surface.items()}
        row[f"{stage}_dice"] = dice(fixed_fluid.astype(np.uint8), carried)[1]
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown, with the mean distance beside that of T1 to T1 of the same two people."""
    heads = ["after affine, mm", "mean distance, mm", "/ T1 to T1", "95 %", "Dice", "folds", "CPU s"]
    print("\n| fixed | moving | metric |", " | ".join(heads), "|")
    print("|" + "---|" * 10)
    for row in rows:
        same = next(r for r in rows if (r["fixed"], r["moving"]) == (row["fixed"], row["moving"]))
        print(
            f"| {row['fixed']} T1 | {row['moving']} {row['contrast']} | {row['metric']} | {row['affine_assd_mm']:.3f} "
            f"| {row['end_assd_mm']:.3f} | {row['end_assd_mm'] / same['end_assd_mm']:.2f} | {row['end_hd95_mm']:.2f} "
            f"| {row['end_dice']:.3f} | {row['folds']} | {row['cpu_s']:.1f} |"
        )


if __name__ == "__main__":
    main()
