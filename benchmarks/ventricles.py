"""Registration between people in other contrasts, judged by their lateral ventricles.

    python benchmarks/ventricles.py --images FOLDER --atlases FOLDER

``--images`` holds ``ID_T1.nii.gz``, ``ID_T2.nii.gz`` and ``ID_FLAIR.nii.gz`` of each person on one grid, skull
stripped; ``--atlases`` holds ``ID_T1_brain.nii.gz`` with ``ID_labels.nii.gz``, manual labels (51 and 52 are the lateral
ventricles). The fixed image is the T1 of a person or an atlas, the moving one each scan of another person, with
default options on one thread.

No manual labels of the people exist: all atlases are registered to the T1, their labels are fused, and the outline is
drawn where a scan passes halfway from fluid to what surrounds it, within two voxels of the label (``--show`` draws it).
Carried to the fixed image, the ventricles are compared with its own: Dice, and the mean distance between the two
outlines. For T2 and FLAIR that is done twice: with the outline of the same head's T1, which does not lie exactly on
them and which no registration of them can know, and with the outline that the scan itself shows.
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
    names = [p.name.removesuffix("_T1.nii.gz") for p in sorted(options.images.glob("*_T1.nii.gz"))]
    if not names:
        raise BenchmarkError(f"{options.images}: no ID_T1.nii.gz")
    people = {n: {c: read_volume(options.images / f"{n}_{c}.nii.gz") for c in CONTRASTS} for n in names}
    outlines = {name: ventricles(scans, atlases) for name, scans in people.items()}
    if options.show:
        draw(people, outlines, options.show)
    fixed = {name: (scans["T1"], outlines[name]["T1"]) for name, scans in people.items()}
    fixed |= {name: (t1, _lateral(labels)) for name, (t1, labels) in atlases.items()}
    rows: list[dict[str, Any]] = []
    for name, (t1, truth) in fixed.items():
        for person in [other for other in people if other != name]:
            for contrast, moving in people[person].items():
                both = outlines[person]["T1"] + 2 * outlines[person][contrast]
                result = medwave.register(
                    t1, moving, moving_labels=Volume(both, moving.grid), threads=1, preset=options.preset
                )
                of_t1, shown = (((result.warped_labels.data & bit) > 0).astype(np.uint8) for bit in (1, 2))
                rows.append({
                    "fixed": name, "moving": person, "contrast": contrast, "metric": result.options.metric,
                    "dice": dice(truth, of_t1)[1], "distance_mm": distance_mm(truth, of_t1, t1),
                    "shown_mm": distance_mm(truth, shown, t1), "folds": int((result.jacobian <= 0).sum()),
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


def distance_mm(truth: npt.NDArray[np.uint8], carried: npt.NDArray[np.uint8], image: Volume) -> float:
    return float(surface_distances(truth, carried, image.grid.spacing_mm)[1]["assd_mm"])


def ventricles(
    scans: Mapping[str, Volume], atlases: dict[str, tuple[Volume, Volume]]
) -> dict[str, npt.NDArray[np.uint8]]:
    """1 in the lateral ventricles that each scan of a person shows, ``(D, H, W)``; see the module."""
    t1 = scans["T1"]
    runs = [medwave.register(t1, image, moving_labels=labels, threads=1) for image, labels in atlases.values()]
    labels = np.stack([_lateral(run.warped_labels) for run in runs])
    images = np.stack([run.warped.data for run in runs])
    fused, _ = fuse_labels(labels, method="joint", target=np.asarray(t1.data), images=images)
    label = ndimage.binary_closing(fused > 0, iterations=2)
    return {contrast: within(label, np.asarray(scan.data)) for contrast, scan in scans.items()}


def within(label: npt.NDArray[np.bool_], image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """1 where an image is nearer to what it is inside a label than to what it is around it, near the label."""
    near = ndimage.binary_dilation(label, iterations=2)
    around = ndimage.binary_dilation(label, iterations=5) & ~near & (image > 0)
    fluid, tissue = np.median(image[ndimage.binary_erosion(label)]), np.median(image[around])
    pieces, _ = ndimage.label(ndimage.binary_fill_holes(near & ((image - tissue) / (fluid - tissue) > 0.5)))
    sizes = np.bincount(pieces.ravel())
    return np.isin(pieces, np.flatnonzero(sizes >= LEAST_VOXELS)[1:]).astype(np.uint8)


def draw(
    people: Mapping[str, Mapping[str, Volume]], outlines: Mapping[str, Mapping[str, npt.NDArray[np.uint8]]], path: Path
) -> None:
    """Each scan in the plane of most ventricle, with its outline; that of the T1 dashed over the others."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4 * len(people)), layout="constrained")
    axes = figure.subplots(len(people), len(CONTRASTS), squeeze=False)
    for row, (name, scans) in zip(axes, people.items(), strict=True):
        own = outlines[name]
        at = int(own["T1"].sum(axis=(0, 1)).argmax())
        for place, (contrast, scan) in zip(row, scans.items(), strict=True):
            place.imshow(np.asarray(scan.data)[:, :, at].T, cmap="gray", origin="lower")
            place.contour(own["T1"][:, :, at].T, [0.5], colors="tab:orange", linewidths=0.8, linestyles="dashed")
            place.contour(own[contrast][:, :, at].T, [0.5], colors="tab:cyan", linewidths=0.8)
            place.set(title=f"{name}, {contrast}", xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


def markdown(results: Mapping[str, Any]) -> str:
    """Each contrast's mean over the pairs, and beside it the share of T1 to T1 and the worst pair's."""
    rows = results["rows"]
    keys = ("distance_mm", "shown_mm", "dice")
    of = {c: np.array([[row[key] for key in keys] for row in rows if row["contrast"] == c]) for c in CONTRASTS}
    lines = [
        "| T1 to | pairs | outline of its T1, mm | / T1 to T1 | worst pair's | outline it shows, mm | / T1 to T1 "
        "| worst pair's | Dice, T1's outline | folds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for contrast, values in of.items():
        mean, share = values.mean(axis=0), values[:, :2] / of["T1"][:, :2]
        told = " | ".join(
            f"{mean[n]:.2f} | {mean[n] / of['T1'][:, n].mean():.2f} | {share[:, n].max():.2f}" for n in (0, 1)
        )
        folds = sum(row["folds"] for row in rows if row["contrast"] == contrast)
        lines.append(f"| {contrast} | {len(values)} | {told} | {mean[2]:.3f} | {folds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        raise SystemExit(f"ventricles benchmark: {error}") from None
