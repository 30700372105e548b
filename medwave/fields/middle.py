"""The middle of several linear maps, with favour to none.

Conventions
    Matrices are 4x4 and act on column points in mm. ``A_i`` goes from one common world to the world of image i. A
    matrix is a rotation after a stretch, ``R P`` (polar form, P symmetric and positive).

The middle is another world, from which the maps are ``B_i = A_i H``: their rotations have the identity as chordal
mean (Hartley et al., IJCV 103:267-305, 2013, doi 10.1007/s11263-012-0601-0), the logarithms of their stretches sum to
zero (Arsigny et al., Magn Reson Med 56:411-421, 2006, doi 10.1002/mrm.20965), and a given point stays where it is on
average. Turns and stretches of the ``B_i`` do not depend on which common world there was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError

Float64Array = npt.NDArray[np.float64]
_MOST_ROUNDS = 100
_SMALL = 1e-13


def to_common_world(matrices: Sequence[Float64Array], point: Float64Array) -> Float64Array:
    """H, the 4x4 matrix from the middle of the maps to their common world.

    Args:
        matrices: ``A_i``, 4x4 each, without reflections.
        point: ``(3,)`` mm in the common world. It goes to the mean of its images: there ``B_i`` moves it by nothing on
            average.

    Raises:
        GeometryError: when there is no map, or one is singular or reflects.
    """
    maps = np.array(matrices, dtype=np.float64).reshape(-1, 4, 4)
    if not len(maps) or not np.isfinite(maps).all() or (np.linalg.det(maps[:, :3, :3]) <= 0).any():
        raise GeometryError("the middle is of one or more finite 4x4 matrices that neither reflect nor flatten")
    linear = np.eye(3)
    for _ in range(_MOST_ROUNDS):
        turns, logs = _polar(maps[:, :3, :3] @ linear)
        stretch, turn = logs.mean(axis=0), _nearest_rotation(turns.mean(axis=0))
        values, axes = np.linalg.eigh(stretch)
        linear = linear @ (axes * np.exp(-values)) @ axes.T @ turn.T
        if max(float(np.abs(stretch).max()), float(np.abs(turn - np.eye(3)).max())) < _SMALL:
            break
    place = (maps[:, :3, :3] @ point + maps[:, :3, 3]).mean(axis=0)
    found = np.eye(4)
    found[:3, :3] = linear
    found[:3, 3] = point - linear @ place
    return found


def _polar(matrices: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Rotations ``(N, 3, 3)`` and logarithms of the stretches that come before them."""
    left, lengths, right = np.linalg.svd(matrices)
    logs = np.swapaxes(right, 1, 2) * np.log(lengths)[:, None] @ right
    return np.asarray(left @ right), np.asarray(logs)


def _nearest_rotation(matrix: Float64Array) -> Float64Array:
    left, _, right = np.linalg.svd(matrix)
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ right)
