"""Folds that a refinement left, smoothed away where they are.

A field ``(3, D, H, W)`` in voxels folds where the determinant of the Jacobian of ``p + u(p)`` is zero or less. Updates
below a voxel compose to an invertible map, but on a grid a few steep voxels may still cross; the rest is right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.core.masks import box_of
from medwave.fields.filters import gaussian_taps, smooth
from medwave.fields.kernels import determinants

FloatVolume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
LEAST = 0.01  # determinants below count as folded: files round
REACH = 2  # voxels about a fold that are smoothed with it
SIGMA_VOXELS = 0.8
ROUNDS = 30


def unfold(field: FloatVolume) -> FloatVolume:
    """The field without folds: the same array when it has none, else smoothed about each, again until it is gone.

    What is left after thirty rounds stays.
    """
    if min(field.shape[1:]) < 2:  # along one voxel nothing has a slope
        return field
    taps, copied = gaussian_taps(SIGMA_VOXELS), False
    for _ in range(ROUNDS):
        folds = determinants(field) < LEAST
        if not folds.any():
            break
        if not copied:
            field, copied = field.copy(), True
        box = box_of(folds, REACH + len(taps) - 1)
        near, part = _spread(folds[box]), field[:, *box]
        softer = np.empty(part.shape, np.float32)
        smooth(np.ascontiguousarray(part), taps, softer)
        np.copyto(part, softer, where=near)
    return field


def _spread(mask: Mask) -> Mask:
    """What is set, and the cube around each."""
    for axis in range(mask.ndim):
        lines, wide = np.moveaxis(mask, axis, 0), mask.copy()
        for shift in range(1, REACH + 1):
            np.moveaxis(wide, axis, 0)[shift:] |= lines[:-shift]
            np.moveaxis(wide, axis, 0)[:-shift] |= lines[shift:]
        mask = wide
    return mask
