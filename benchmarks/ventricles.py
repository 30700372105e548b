"""Registration between people in other contrasts, judged by their lateral ventricles.

    python benchmarks/ventricles.py --images FOLDER --atlases FOLDER

``--images`` holds ``ID_T1.nii.gz``, ``ID_T2.nii.gz`` and ``ID_FLAIR.nii.gz`` of each person on one grid, skull
stripped; ``--atlases`` holds ``ID_T1_brain.nii.gz`` with ``ID_labels.nii.gz``, manual labels (51 and 52 are the lateral
ventricles). The fixed image is the T1 of a person or an atlas, the moving one each scan of another person, with
default options on one thread.

No manual labels of the people exist: all atlases are registered to the T1, their labels are fused, and the outline is
drawn where the T1 passes halfway from fluid to what surrounds it, within two voxels of the label (``--show`` draws it).
The ventricles of the T1 stand for those of the T2 and FLAIR too, which do not lie exactly on it: a part of what these
leave is that. Carried to the fixed image, they are compared with its own: Dice, and the mean distance between the two
outlines.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _measure import machine
from _results import BenchmarkError, save, versions
from scipy import ndimage

import medwave
from medwave.core.geometry import Volume
from medwave.engine.label_fusion import fuse_labels
from medwave.metrics import dice, surface_distances
from medwave.volumes import read_labels, read_volume

CONTRASTS = ("T1", "T2", "FLAIR")
LATERAL_VENTRICLES = (51, 52)
LEAST_VOXELS = 500
"""Of a piece of the ventricles: the rest is specks."""


def main() -> None:
    options = parse()
    atlases = read_atlases(options.atlases)
    people = {p.name.removesuffix("_T1.nii.gz"): read_volume(p) for p in sorted(options.images.glob("*_T1.nii.gz"))}
    if not people:
        raise BenchmarkError(f"{options.images}: no ID_T1.nii.gz")
    outlines = {name: ventricles(t1, atlases) for name, t1 in people.items()}
    if options.show:
        draw(people, outlines, options.show)
    fixed = {name: (t1, outlines[name]) for name, t1 in people.items()}
    fixed |= {name: (t1, _lateral(labels)) for name, (t1, labels) in atlases.items()}
    rows: list[dict[str, Any]] = []
    for name, (t1, truth) in fixed.items():
        for person in [other for other in people if other != name]:
            for contrast in CONTRASTS:
                moving = read_volume(options.images / f"{person}_{contrast}.nii.gz")
                result = medwave.register(
                    t1, moving, moving_labels=Volume(outlines[person], moving.grid), threads=1, preset=options.preset
                )
                carried = result.warped_labels.data
                rows.append({
                    "fixed": name, "moving": person, "contrast": contrast, "metric": result.options.metric,
                    "dice": dice(truth, carried)[1],
                    "distance_mm": surface_distances(truth, carried, t1.grid.spacing_mm)[1]["assd_mm"],
                    "folds": int((result.jacobian <= 0).sum()),
                })  # fmt: skip
                print(rows[-1], flush=True)
    results = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "preset": options.preset,
        "versions": versions(("medwave", "torch", "numba", "numpy")), "rows": rows,
    }  # fmt: skip
    print(markdown(results))
    save(options.output, results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    today = datetime.date.today().isoformat()
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1.nii.gz, ID_T2.nii.gz, ...")
    parser.add_argument("--atlases", type=Path, required=True, help="folder of ID_T1_brain.nii.gz and ID_labels.nii.gz")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--show", type=Path, help="draw the outlines over the scans in this PNG")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / f"results/ventricles-{today}.json")
    return parser.parse_args()


def read_atlases(folder: Path) -> dict[str, tuple[Volume, Volume]]:
    """T1 and labels by name."""
    paths = sorted(folder.glob("*_T1_brain.nii.gz"))
    if len(paths) < 2:
        raise BenchmarkError(f"{folder}: two atlases at least, ID_T1_brain.nii.gz with ID_labels.nii.gz")
    names = [path.name.removesuffix("_T1_brain.nii.gz") for path in paths]
    return {
        name: (read_volume(path), read_labels(folder / f"{name}_labels.nii.gz"))
        for name, path in zip(names, paths, strict=True)
    }


def _lateral(labels: Volume) -> npt.NDArray[np.uint8]:
    return np.isin(labels.data, LATERAL_VENTRICLES).astype(np.uint8)


def ventricles(t1: Volume, atlases: dict[str, tuple[Volume, Volume]]) -> npt.NDArray[np.uint8]:
    """1 in the lateral ventricles of a T1, ``(D, H, W)``; see the module."""
    runs = [medwave.register(t1, image, moving_labels=labels, threads=1) for image, labels in atlases.values()]
    labels = np.stack([_lateral(run.warped_labels) for run in runs])
    image = np.asarray(t1.data)
    fused, _ = fuse_labels(labels, method="joint", target=image, images=np.stack([run.warped.data for run in runs]))
    label = ndimage.binary_closing(fused > 0, iterations=2)
    near = ndimage.binary_dilation(label, iterations=2)
    around = ndimage.binary_dilation(label, iterations=5) & ~near & (image > 0)
    fluid, tissue = np.median(image[ndimage.binary_erosion(label)]), np.median(image[around])
    pieces, _ = ndimage.label(ndimage.binary_fill_holes(near & (image < (fluid + tissue) / 2)))
    sizes = np.bincount(pieces.ravel())
    return np.isin(pieces, np.flatnonzero(sizes >= LEAST_VOXELS)[1:]).astype(np.uint8)


def draw(people: dict[str, Volume], outlines: dict[str, npt.NDArray[np.uint8]], path: Path) -> None:
    """Each T1 with its outline, in the plane of most ventricle along each axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(people)), layout="constrained")
    axes = figure.subplots(len(people), 3, squeeze=False)
    for row, (name, t1) in zip(axes, people.items(), strict=True):
        for axis, place in enumerate(row):
            at = int(np.moveaxis(outlines[name], axis, 0).sum(axis=(1, 2)).argmax())
            place.imshow(np.asarray(t1.data).take(at, axis).T, cmap="gray", origin="lower")
            place.contour(outlines[name].take(at, axis).T, [0.5], colors="tab:orange", linewidths=0.8)
            place.set(title=f"{name}, axis {axis}", xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


def markdown(results: Mapping[str, Any]) -> str:
    """Each contrast's mean over the pairs, and beside it the share of T1 to T1 and the worst pair's."""
    rows = results["rows"]
    of = {c: np.array([(row["distance_mm"], row["dice"]) for row in rows if row["contrast"] == c]) for c in CONTRASTS}
    lines = [
        "| T1 to | pairs | distance, mm | / T1 to T1 | worst pair's | Dice | folds |",
        "|---|---|---|---|---|---|---|",
    ]
    for contrast, values in of.items():
        distance, dice = values.mean(axis=0)
        folds = sum(row["folds"] for row in rows if row["contrast"] == contrast)
        lines.append(
            f"| {contrast} | {len(values)} | {distance:.2f} | {distance / of['T1'][:, 0].mean():.2f} "
            f"| {(values[:, 0] / of['T1'][:, 0]).max():.2f} | {dice:.3f} | {folds} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        raise SystemExit(f"ventricles benchmark: {error}") from None
