"""Registration between contrasts, on pairs whose true transform is known.

    python benchmarks/contrasts.py --images FOLDER

FOLDER holds ``ID_T1.nii.gz``, ``ID_T2.nii.gz`` and ``ID_FLAIR.nii.gz`` of one head on one grid, skull stripped. The
fixed image is the T1. A moving image is one of the three, or ``T2-like`` or ``FLAIR-like``, under ``T(x) = A(x +
u(x))``: a random affine and a random diffeomorphism, the same for all, with noise of its own; T1+T2 takes both as
channels of both sides. An image like the T2 is the T1 with each intensity replaced by the mean of the T2 where the T1
has it: the contrast is another, the anatomy, its resolution and its place are exactly those of the T1.
``medwave.register`` runs with default options (the metric is chosen by itself), and once more with each of the
``--further`` metrics that was not chosen, each time in this process, on one thread.

The error is ``|found(x) - T(x)|`` over the brain, and over the outline of the ventricles. Scans of one head do not lie
exactly on each other, and no T is known for what was between them before. So each image is also registered where it
lies, without T, to ``S``: ``apart`` is ``|S(x) - x|``, and ``repeated`` is ``|found(x) - T(S(x))|``, what T leaves
beside that.
"""

from __future__ import annotations

import argparse
import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from _measure import machine
from _results import save, versions
from scipy import ndimage

import medwave
from medwave import fields
from medwave.core.geometry import Volume
from medwave.transforms import random_affine, random_velocity
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_volume
from medwave.workflows.pullback import Pullback

CONTRASTS = ("T1", "T2", "FLAIR")
LIKE = {"T2-like": "T2", "FLAIR-like": "FLAIR"}
CASES = (*CONTRASTS, *LIKE, "T1+T2")
NOISE = 0.02
"""Standard deviation of the noise as a share of the 99th percentile of the brain."""
BINS = 64
"""Of the T1's intensities, where an image is given another contrast."""
DEEP_VOXELS = 18
"""How far inside the head the ventricles are looked for."""


def main() -> None:
    options = parse()
    rows: list[dict[str, Any]] = []
    for subject in options.subjects.split(","):
        images = {name: read_volume(options.images / f"{subject}_{name}.nii.gz") for name in CONTRASTS}
        images |= {name: in_contrast_of(images[other], images["T1"]) for name, other in LIKE.items()}
        true, back = random_truth(images["T1"], seed=options.seed)
        moving = {name: with_noise(moved(image, back), seed=n) for n, (name, image) in enumerate(images.items())}
        case = Case(images["T1"], true, outline(images["T1"], images["T2"]), options.preset)
        for name in CASES:
            first, *further = ["T1", "T2"] if name == "T1+T2" else [name]
            sides = (("fixed_channels", images), ("moving_channels", moving))
            choices: dict[str, Any] = {side: [held[n] for n in further] for side, held in sides}
            taken: set[str] = set()
            for metric in ["auto", *(options.further.split(",") if name in images and options.further else [])]:
                if metric in taken:
                    continue
                still = with_noise(images[name], seed=len(images)) if name in images and metric == "auto" else None
                found = case.measured(moving[first], still, metric=metric, **choices)
                taken.add(found["metric"])
                rows.append({"subject": subject, "moving": name, **found})
                print({key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}, flush=True)
    print_table(rows)
    packages = versions(("medwave", "torch", "numba", "numpy"))
    save(options.output, {
        "date": datetime.date.today().isoformat(), "machine": machine(), "preset": options.preset,
        "seed": options.seed, "noise": NOISE, "versions": packages, "rows": rows,
    })  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    today = datetime.date.today().isoformat()
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1.nii.gz, ID_T2.nii.gz, ...")
    parser.add_argument("--subjects", default="patient07,patient19")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--further", default="curve", help="metrics to run beside the one chosen")
    parser.add_argument("--seed", type=int, default=0, help="of the true transform")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / f"results/contrasts-{today}.json")
    return parser.parse_args()


def random_truth(fixed: Volume, *, seed: int) -> tuple[SpatialTransform, SpatialTransform]:
    """T from fixed to moving points, and its inverse, which pulls the moving image from the fixed one's space."""
    rng = np.random.default_rng(seed)
    affine = random_affine(
        seed=rng, rotation_degrees=8.0, scale=0.05, shear=0.02, translation_mm=8.0, center_mm=fixed.grid.center_mm
    )
    spacing = tuple(fixed.grid.spacing_mm)
    velocity = random_velocity(fixed.grid.shape, seed=rng, amplitude_mm=7.0, smoothness_mm=15.0, spacing_mm=spacing)
    velocity += random_velocity(fixed.grid.shape, seed=rng, amplitude_mm=2.5, smoothness_mm=7.0, spacing_mm=spacing)
    there, home = (fields.integrate(torch.from_numpy(sign * velocity)[None])[0].numpy() for sign in (1, -1))
    forward = SpatialTransform((FieldStep(there, fixed.grid), LinearStep(affine)))
    return forward, SpatialTransform((LinearStep(np.linalg.inv(affine)), FieldStep(home, fixed.grid)))


def moved(image: Volume, back: SpatialTransform) -> Volume:
    """An image under the true transform, on its own grid."""
    pulled = Pullback.through(back, image.grid).image(image)
    return Volume(np.asarray(pulled.data), image.grid, image.name)


def with_noise(image: Volume, *, seed: int) -> Volume:
    """An image with noise inside the head."""
    data = np.asarray(image.data)
    scale = float(np.percentile(data[data > 0], 99))
    noise = np.random.default_rng(seed).normal(scale=NOISE * scale, size=data.shape)
    return Volume(np.where(data > 0, data + noise, 0).astype(np.float32), image.grid, image.name)


def in_contrast_of(other: Volume, image: Volume) -> Volume:
    """The image with each intensity replaced by the mean of the other where the image has it."""
    data, head = np.asarray(image.data), np.asarray(image.data) > 0
    at = np.clip(data[head] / np.percentile(data[head], 99.5), 0, 1) * BINS
    bins = at.astype(np.int64)
    sums = (np.bincount(bins, weights, minlength=BINS + 1) for weights in (np.asarray(other.data)[head], None))
    total, count = (ndimage.gaussian_filter1d(values.astype(np.float64), 1.5) for values in sums)
    result = np.zeros(data.shape, dtype=np.float32)
    known = np.flatnonzero(count)
    result[head] = np.interp(at, known + 0.5, total[known] / count[known])
    return Volume(result, image.grid, f"{image.name} like {other.name}")


def outline(t1: Volume, t2: Volume) -> npt.NDArray[np.bool_]:
    """Voxels at the surface of the ventricles: the largest piece deep in the head, dark in T1 and bright in T2."""
    dark, bright = np.asarray(t1.data), np.asarray(t2.data)
    head = dark > 0
    deep = ndimage.distance_transform_edt(ndimage.binary_fill_holes(head)) > DEEP_VOXELS
    fluid = deep & (dark < 0.45 * np.median(dark[head])) & (bright > 0.6 * np.percentile(bright[head], 99))
    pieces, _ = ndimage.label(fluid)
    ventricles = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_dilation(ventricles) & ~ndimage.binary_erosion(ventricles))


@dataclass(frozen=True)
class Case:
    """A fixed image, the true transform, the outline of its ventricles, and the preset."""

    fixed: Volume
    true: SpatialTransform
    ventricles: npt.NDArray[np.bool_]
    preset: str

    def measured(self, moving: Volume, still: Volume | None, **options: Any) -> dict[str, Any]:
        """Errors in mm by the headers, after the affine and at the end; ``still`` is the moving image without T."""
        began = time.process_time()
        result = medwave.register(self.fixed, moving, threads=1, preset=self.preset, **options)
        spent = time.process_time() - began
        grid, head = self.fixed.grid, np.asarray(self.fixed.data) > 0
        points, edge = (grid.to_mm(np.argwhere(where)[::step]) for where, step in ((head, 7), (self.ventricles, 1)))
        expected = self.true.apply_points_mm(points)
        found = result.transform.apply_points_mm(points)
        end = distances(found, expected)
        row = {
            "metric": result.options.metric,
            "before_mm": float(distances(points, expected).mean()),
            "affine_mm": float(distances(LinearStep(result.matrix).apply(points), expected).mean()),
            "error_mm": float(end.mean()),
            "p95_mm": float(np.percentile(end, 95)),
            "ventricles_mm": float(
                distances(result.transform.apply_points_mm(edge), self.true.apply_points_mm(edge)).mean()
            ),
            "folds": int((result.jacobian <= 0).sum()),
            "cpu_s": spent,
        }
        if still is not None:
            there = medwave.register(self.fixed, still, threads=1, preset=self.preset, **options).transform
            shifted = there.apply_points_mm(points)
            row["apart_mm"] = float(distances(shifted, points).mean())
            row["repeated_mm"] = float(distances(found, self.true.apply_points_mm(shifted)).mean())
        return row


def distances(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Between points, row by row."""
    return np.asarray(np.linalg.norm(one - other, axis=1))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown, with the error beside that of T1 to T1 of the same subject."""
    heads = ["before", "affine", "error", "/ T1", "95 %", "ventricles", "/ T1", "apart", "repeated", "/ T1"]
    print("\n| subject | T1 -> | metric |", " | ".join(heads), "| folds | CPU s |")
    print("|" + "---|" * (len(heads) + 5))
    for row in rows:
        same = next(r for r in rows if r["subject"] == row["subject"] and r["moving"] == "T1")
        cells = []
        for key in ("before_mm", "affine_mm", "error_mm", "p95_mm", "ventricles_mm", "apart_mm", "repeated_mm"):
            cells.append(f"{row[key]:.3f}" if key in row else "")
            if key in ("error_mm", "ventricles_mm", "repeated_mm"):
                cells.append(f"{row[key] / same[key]:.2f}" if key in row else "")
        print(
            f"| {row['subject']} | {row['moving']} | {row['metric']} |", " | ".join(cells),
            f"| {row['folds']} | {row['cpu_s']:.1f} |",
        )  # fmt: skip


if __name__ == "__main__":
    main()
