"""Scores one registration, whatever method made it: overlap of structures, folds, unevenness of volume change.

``python _registration_score.py REQUEST`` prints one line of JSON. The moving labels go through ``T(x) = A(x + u(x))``
to the fixed grid by nearest neighbour. Which structures count:

``dice_present``
    all labels but 0 that the fixed or the moving map holds; one that is missing in the other map counts as 0.
``dice_common``
    the labels but 0 that every label map of the folder holds. In the eight brains of the MICCAI 2012 multi-atlas
    challenge these are 138 (cortical parcels, subcortical structures, tissue and vessels); what else occurs (5th
    ventricle, 15, and label 66) is absent in most of them.

Folds are the interior voxels where the determinant of the Jacobian of ``x + u(x)`` is zero or less, over the whole
grid; ``sd_log_jacobian`` is over the voxels where the skull-stripped fixed image is above zero. Derivatives are
central differences in voxels: a deformable field alone is judged, not the affine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.geometry import Grid, Volume
from medwave.metrics import dice, folding, log_jacobian_sd
from medwave.volumes import read_affine, read_field, read_labels, read_volume
from medwave.workflows.pair import resample_labels

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


def lps_to_voxels(vectors_mm: npt.NDArray[np.floating], grid: Grid) -> Float32Array:
    """Vectors ``(3, D, H, W)`` in LPS mm, in file axis order, as vectors in voxels of their grid."""
    to_voxels = np.linalg.inv(grid.affine[:3, :3]) @ np.diag([-1.0, -1.0, 1.0])
    return np.einsum("ij,j...->i...", to_voxels.astype(np.float32), np.asarray(vectors_mm, dtype=np.float32))


def common_structures(label_files: Iterable[Path]) -> list[int]:
    """Labels but 0 that every map holds."""
    present = [set(np.unique(read_labels(path).data).tolist()) for path in label_files]
    return sorted(set.intersection(*present) - {0})


def score(
    displacement_voxels: Float32Array | None,
    affine: Float64Array,
    *,
    brain: npt.NDArray[np.bool_],
    fixed_labels: Volume,
    moving_labels: Volume,
    structures: Collection[int],
) -> dict[str, Any]:
    """Overlap and regularity of ``T(x) = A(x + u(x))``.

    Args:
        displacement_voxels: u, ``(3, D, H, W)`` in voxels of the fixed grid; None for the affine alone.
        affine: A, 4x4 RAS+ mm, fixed to moving points.
        brain: where the unevenness of volume change is measured, ``(D, H, W)`` on the fixed grid.
        fixed_labels, moving_labels: label maps of both images.
        structures: the labels of ``dice_common``.
    """
    warped = resample_labels(moving_labels, affine, fixed_labels.grid, displacement_voxels)
    held = set(np.unique(fixed_labels.data).tolist()) | set(np.unique(moving_labels.data).tolist())
    overlap = dice(fixed_labels.data, warped)
    result: dict[str, Any] = {
        "dice_present": float(np.mean([overlap.get(label, 0.0) for label in sorted(held - {0})])),
        "dice_common": float(np.mean([overlap.get(label, 0.0) for label in structures])),
    }
    if displacement_voxels is not None:
        folds = folding(displacement_voxels)
        result |= {"folds": folds.count, "folds_share": folds.share}
        result["sd_log_jacobian"] = log_jacobian_sd(displacement_voxels, brain)
    return result


def main(request_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    if "all_labels" in request:
        print(json.dumps({"structures": common_structures(Path(path) for path in request["all_labels"])}))
        return
    fixed, moving = read_labels(request["fixed_labels"]), read_labels(request["moving_labels"])
    displacement, affine = None, request["affine"]
    if "field" in request:
        displacement = lps_to_voxels(np.load(request["field"]), fixed.grid)
    elif "result" in request:  # a folder that medwave wrote: its own affine counts
        displacement, _ = read_field(Path(request["result"]) / "transform" / "field.nii.gz")
        affine = read_affine(Path(request["result"]) / "transform" / "affine.tfm")
    brain = np.asarray(read_volume(request["fixed"]).data) > 0
    result = score(
        displacement, np.asarray(affine, dtype=np.float64), brain=brain,
        fixed_labels=fixed, moving_labels=moving, structures=request["structures"],
    )  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
