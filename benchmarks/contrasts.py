"""Registration between contrasts, on pairs whose true transform is known.

    python benchmarks/contrasts.py --images FOLDER

FOLDER holds ``ID_T1.nii.gz``, ``ID_T2.nii.gz`` and ``ID_FLAIR.nii.gz`` of one head on one grid, skull stripped. The
fixed image is the T1. A moving image is one of the three under ``T(x) = A(x + u(x))``: a random affine and a random
diffeomorphism, the same for the three, with noise of its own; T1+T2 takes both as channels of both sides.
``medwave.register`` runs with default options (the metric is chosen by itself), and between contrasts once more with
each of the ``--further`` metrics, each time in this process, on one thread. The error is ``|found(x) - T(x)|`` over the
brain.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import machine
from _results import save, versions

import medwave
from medwave import fields
from medwave.core.geometry import Volume
from medwave.transforms import random_affine, random_velocity
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_volume
from medwave.workflows.pullback import Pullback

CONTRASTS = ("T1", "T2", "FLAIR")
CASES = (*CONTRASTS, "T1+T2")
NOISE = 0.02
"""Standard deviation of the noise as a share of the 99th percentile of the brain."""


def main() -> None:
    options = parse()
    rows: list[dict[str, Any]] = []
    for subject in options.subjects.split(","):
        images = {name: read_volume(options.images / f"{subject}_{name}.nii.gz") for name in CONTRASTS}
        true, back = random_truth(images["T1"], seed=options.seed)
        moving = {name: moved(images[name], back, seed=number) for number, name in enumerate(CONTRASTS)}
        for name in CASES:
            first, *further = ["T1", "T2"] if name == "T1+T2" else [name]
            sides = (("fixed_channels", images), ("moving_channels", moving))
            choices: dict[str, Any] = {side: [held[n] for n in further] for side, held in sides}
            others = options.further.split(",") if name in CONTRASTS[1:] and options.further else []
            for metric in ["auto", *others]:
                found = measured(images["T1"], moving[first], true, preset=options.preset, metric=metric, **choices)
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
    parser.add_argument("--further", default="mi", help="metrics to run between contrasts beside the one chosen")
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


def moved(image: Volume, back: SpatialTransform, *, seed: int) -> Volume:
    """An image under the true transform, on its own grid, with noise inside the head."""
    pulled = np.asarray(Pullback.through(back, image.grid).image(image).data)
    scale = float(np.percentile(pulled[pulled > 0], 99))
    noise = np.random.default_rng(seed).normal(scale=NOISE * scale, size=pulled.shape)
    return Volume(np.where(pulled > 0, pulled + noise, 0).astype(np.float32), image.grid, image.name)


def measured(fixed: Volume, moving: Volume, true: SpatialTransform, **options: Any) -> dict[str, Any]:
    """Error in mm by the headers, after the affine and at the end."""
    began = time.process_time()
    result = medwave.register(fixed, moving, threads=1, **options)
    spent = time.process_time() - began
    inside = np.argwhere(np.asarray(fixed.data) > 0)[::7]
    points = fixed.grid.to_mm(inside)
    expected = true.apply_points_mm(points)

    def error(found: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(found - expected, axis=1))

    end = error(result.transform.apply_points_mm(points))
    return {
        "metric": result.options.metric,
        "before_mm": float(error(points).mean()),
        "affine_mm": float(error(LinearStep(result.matrix).apply(points)).mean()),
        "error_mm": float(end.mean()),
        "p95_mm": float(np.percentile(end, 95)),
        "folds": int((result.jacobian <= 0).sum()),
        "cpu_s": spent,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown, with the error beside that of T1 to T1 of the same subject."""
    print("\n| subject | T1 -> | metric | before mm | affine mm | error mm | / T1 | 95 % mm | folds | CPU s |")
    print("|" + "---|" * 10)
    for row in rows:
        same = next(r for r in rows if r["subject"] == row["subject"] and r["moving"] == "T1")
        print(
            f"| {row['subject']} | {row['moving']} | {row['metric']} | {row['before_mm']:.2f} | {row['affine_mm']:.2f} "
            f"| {row['error_mm']:.3f} | {row['error_mm'] / same['error_mm']:.2f} | {row['p95_mm']:.2f} "
            f"| {row['folds']} | {row['cpu_s']:.1f} |"
        )


if __name__ == "__main__":
    main()
