"""Turning arrays to the nearest RAS+ axis order and back, exactly: axes are permuted and flipped, nothing is sampled.

Conventions
    A reorientation is a pair ``(permutation, flips)``: axis ``w`` of the new array is axis ``permutation[w]`` of the
    old one, run backwards where ``flips[w]``. With :func:`canonical_axes`, new axis 0 grows to the right, 1 to the
    front, 2 upwards (as nearly as an oblique grid allows). :func:`invert_axes` gives the pair that leads back.
    Vectors are ``(3, D, H, W)``, component ``i`` along array axis ``i`` in voxels.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from medwave.core.geometry import Grid

Permutation = tuple[int, int, int]
Flips = tuple[bool, bool, bool]
AnyArray = npt.NDArray[Any]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def canonical_axes(affine: npt.ArrayLike) -> tuple[Permutation, Flips]:
    """The reorientation that takes a grid with this 4x4 affine (RAS+ mm) to the nearest RAS+ order.

    Raises:
        GeometryError: when the affine is singular or not finite.
    """
    letters = Grid((1, 1, 1), np.asarray(affine)).orientation
    axes = [next(axis for axis in range(3) if letters[axis] in pair) for pair in ("RL", "AP", "SI")]
    flips = [letters[axis] in "LPI" for axis in axes]
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def invert_axes(permutation: Permutation, flips: Flips) -> tuple[Permutation, Flips]:
    """The reorientation that undoes the given one."""
    back = [permutation.index(axis) for axis in range(3)]
    return (back[0], back[1], back[2]), (flips[back[0]], flips[back[1]], flips[back[2]])


def reorient(array: npt.NDArray[_Scalar], permutation: Permutation, flips: Flips) -> npt.NDArray[_Scalar]:
    """Permute and flip the last three axes of an array ``(..., D, H, W)``; contiguous, no copy if nothing changes."""
    leading = array.ndim - 3
    turned = array.transpose(*range(leading), *(leading + axis for axis in permutation))
    turned = np.flip(turned, tuple(leading + axis for axis in range(3) if flips[axis]))
    return np.ascontiguousarray(turned)


def reorient_grid(grid: Grid, permutation: Permutation, flips: Flips) -> Grid:
    """The grid of a reoriented array: every voxel keeps its place in the world."""
    old_from_new = np.zeros((4, 4))
    old_from_new[3, 3] = 1.0
    for new_axis, old_axis in enumerate(permutation):
        old_from_new[old_axis, new_axis] = -1.0 if flips[new_axis] else 1.0
        old_from_new[old_axis, 3] = grid.shape[old_axis] - 1 if flips[new_axis] else 0.0
    shape = (grid.shape[permutation[0]], grid.shape[permutation[1]], grid.shape[permutation[2]])
    return Grid(shape, grid.affine @ old_from_new)


def reorient_vectors(vectors: npt.NDArray[_Scalar], permutation: Permutation, flips: Flips) -> npt.NDArray[_Scalar]:
    """Reorient a field ``(3, D, H, W)`` in voxels: places move, components are permuted and change sign with them.

    A displacement on the canonical grid goes back to the file's own grid by
    ``reorient_vectors(field, *invert_axes(*canonical_axes(grid.affine)))``.
    """
    shape = (vectors.shape[0], *(vectors.shape[1 + axis] for axis in permutation))
    turned = np.empty(shape, dtype=vectors.dtype)
    flipped = tuple(axis for axis in range(3) if flips[axis])
    for component, old in enumerate(permutation):
        placed = np.flip(vectors[old].transpose(permutation), flipped)
        np.multiply(placed, -1 if flips[component] else 1, out=turned[component])  # one pass: places and sign
    return turned
