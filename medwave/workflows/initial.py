"""What a registration starts from: a matrix, or a transform that bends space."""

from __future__ import annotations

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.core.geometry import Float64Array, Volume
from medwave.engine.pyramid import foreground
from medwave.volumes import SpatialTransform
from medwave.workflows.chains import load_chain
from medwave.workflows.pullback import Pullback


def initial_transform(
    init: StrPath | SpatialTransform | Float64Array | None, fixed: Volume, moving: Volume
) -> tuple[Float64Array | None, SpatialTransform | None]:
    """The 4x4 RAS+ mm matrix to start from, or a transform that bends space; neither without ``init``.

    Raises:
        MedwaveError: one of its leaves, for a file that cannot be read or an array that is no such matrix.
    """
    if init is None:
        return None, None
    if isinstance(init, np.ndarray | list | tuple):
        return _matrix(init), None
    transform = load_chain(init, fixed=fixed, moving=moving).transform
    return (transform.linear, None) if transform.linear is not None else (None, transform)


def _matrix(values: Float64Array | list[list[float]] | tuple[tuple[float, ...], ...]) -> Float64Array:
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    usable = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.allclose(matrix[3], (0, 0, 0, 1))
    if not usable or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
        raise InputError(
            "an initial matrix is 4x4, finite and invertible, with 0 0 0 1 as its last row: RAS+ mm, from fixed to "
            f"moving points; got {values!r}"
        )
    return matrix


def linear_part(bend: SpatialTransform, fixed: Volume) -> Float64Array:
    """The linear part of a transform that bends space, which the refinement leaves as it is.

    A field that holds the linear part too, as those of FSL do, would lose it to smoothing, which is not exact where
    the field ends: there the map nearest to it inside the subject is taken out.
    """
    places = Pullback.through(bend, fixed.grid)
    if np.allclose(places.matrix[:3, :3], np.eye(3), rtol=0, atol=1e-6):
        return places.nearest_linear(foreground(np.asarray(fixed.data, dtype=np.float32)))
    return places.matrix
