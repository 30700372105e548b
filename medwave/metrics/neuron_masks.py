"""Segmented fibres as masks: overlap of voxels, clDice, and the Betti-0 error.

Conventions
    Masks are ``(D, H, W)``, non-zero is fibre. Objects are connected through faces, edges and corners (26).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.errors import GeometryError
from medwave.core.optional import require

Mask = npt.NDArray[np.generic]
BoolArray = npt.NDArray[np.bool_]


class VoxelScores(NamedTuple):
    """Overlap of fibre voxels, 0 to 1, higher is better.

    Attributes:
        iou: fibre in both over fibre in either.
        precision: share of the mask that is fibre in the gold mask.
        recall: share of the gold mask that is fibre in the mask.
    """

    iou: float
    precision: float
    recall: float


def voxel_scores(gold_mask: Mask, mask: Mask, *, valid: Mask | None = None) -> VoxelScores:
    """Overlap of the fibres of two masks, where the truth is known.

    For the score of many cubes together, join their voxels first: the mean of the cubes' own scores would weigh a
    cube with a few fibre voxels like one with thousands.

    Args:
        gold_mask: true fibres, any shape.
        mask: fibres to score, same shape.
        valid: where the gold mask is known; elsewhere nothing is counted.

    Returns:
        Zeros for an empty mask, ``nan`` three times where there is no gold fibre to find.

    Raises:
        GeometryError: when shapes differ.
    """
    given = [np.asarray(m) != 0 for m in (gold_mask, mask, valid) if m is not None]
    if len({m.shape for m in given}) != 1:
        raise GeometryError(f"masks of one shape are needed, got {[m.shape for m in given]}")
    known = given[2] if valid is not None else True
    gold, made = given[0] & known, given[1] & known
    both, truth, found = (int(np.count_nonzero(m)) for m in (gold & made, gold, made))
    if truth == 0:
        return VoxelScores(np.nan, np.nan, np.nan)
    return VoxelScores(both / (truth + found - both), both / found if found else 0.0, both / truth)


class ClDice(NamedTuple):
    """Centre-line Dice and its parts, 0 to 1, higher is better.

    Attributes:
        cl_dice: harmonic mean of the other two.
        precision: share of the mask's skeleton that lies in the gold mask.
        sensitivity: share of the gold skeleton that lies in the mask.
    """

    cl_dice: float
    precision: float
    sensitivity: float


def cl_dice(
    gold_mask: Mask,
    mask: Mask,
    *,
    gold_skeleton: Mask | None = None,
    skeleton: Mask | None = None,
    valid: Mask | None = None,
) -> ClDice:
    """Overlap of each mask with the other's centre line (Shit et al. 2021, doi 10.1109/CVPR46437.2021.01629).

    Args:
        gold_mask: true fibres ``(D, H, W)``.
        mask: fibres to score, same shape.
        gold_skeleton: centre lines of the gold mask, for example drawn from its tree; default: thinned here.
        skeleton: centre lines of the other mask; default: thinned here.
        valid: where the gold mask is known; elsewhere nothing is counted.

    Returns:
        Zeros for an empty mask, ``nan`` three times where there is no gold skeleton to find.

    Raises:
        GeometryError: when shapes differ or are not 3-D.
        MissingPackageError: when a mask must be thinned and scikit-image is not installed.
    """
    given = [np.asarray(m) != 0 for m in (gold_mask, mask, gold_skeleton, skeleton, valid) if m is not None]
    if given[0].ndim != 3 or len({m.shape for m in given}) != 1:
        raise GeometryError(f"masks and skeletons of one shape (D, H, W) are needed, got {[m.shape for m in given]}")
    known = np.ones(given[0].shape, dtype=np.bool_) if valid is None else given[-1]
    gold, made = given[:2]
    gold_line = (skeletonize(gold) if gold_skeleton is None else np.asarray(gold_skeleton) != 0) & known
    line = (skeletonize(made) if skeleton is None else np.asarray(skeleton) != 0) & known
    if not gold_line.any():
        return ClDice(np.nan, np.nan, np.nan)
    precision = float(gold[line].mean()) if line.any() else 0.0
    sensitivity = float(made[gold_line].mean())
    both = precision + sensitivity
    return ClDice(2 * precision * sensitivity / both if both > 0 else 0.0, precision, sensitivity)


def skeletonize(mask: Mask) -> BoolArray:
    """Centre lines of a mask, one voxel thin (Lee, Kashyap & Chu 1994, doi 10.1006/cgip.1994.1042).

    Raises:
        MissingPackageError: when scikit-image is not installed.
    """
    morphology = require("skimage.morphology", extra="neurons", purpose="thinning masks to centre lines")
    thin: BoolArray = np.asarray(morphology.skeletonize(np.asarray(mask) != 0, method="lee")) != 0
    return thin


def betti0_error(gold_mask: Mask, mask: Mask) -> float:
    """Difference in the number of objects of two masks; ``inf`` for an empty mask where the gold mask is not.

    Raises:
        GeometryError: when the shapes differ.
    """
    if np.shape(gold_mask) != np.shape(mask):
        raise GeometryError(f"masks of one shape are needed, got {np.shape(gold_mask)} and {np.shape(mask)}")
    gold, made = (np.asarray(m) != 0 for m in (gold_mask, mask))
    touching = np.ones((3,) * gold.ndim)
    counts = [int(ndimage.label(m, structure=touching)[1]) for m in (gold, made)]
    return float("inf") if counts[0] and not counts[1] else float(abs(counts[0] - counts[1]))
