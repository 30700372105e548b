"""Folds that a refinement left, smoothed away where they are.

A field ``(3, D, H, W)`` in voxels folds where the determinant of the Jacobian of ``p + u(p)`` is zero or less. Updates
of half a voxel compose to an invertible map, but on a grid a few steep voxels may still cross; the rest is right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.fields.filters import gaussian_taps, smooth
from medwave.fields.kernels import determinants

FloatVolume = npt.NDArray[np.float32]
_LEAST = 0.01  # determinants below count as folded: files round
_REACH = 2  # voxels about a fold that are smoothed with it
_SIGMA_VOXELS = 0.8
_ROUNDS = 30


def unfold(field: FloatVolume) -> FloatVolume:
    """The field without folds: the same array when it has none, else smoothed about each, again until it is gone.

    What is left after thirty rounds stays.
    """
    if min(field.shape[1:]) < 2:  # along one voxel nothing has a slope
        return field
    for _ in range(_ROUNDS):
        folds = np.argwhere(determinants(field) < _LEAST)
        if not len(folds):
            break
        near = np.zeros(field.shape[1:], dtype=bool)
        for fold in folds:
            near[tuple(slice(max(0, place - _REACH), place + _REACH + 1) for place in fold)] = True
        softer = np.empty_like(field)
        smooth(field, gaussian_taps(_SIGMA_VOXELS), softer)
        field = np.where(near, softer, field)
    return field
