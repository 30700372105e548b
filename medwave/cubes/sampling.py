"""Which cubes of a labelled volume a network learns from: some from anywhere, more of them with fibre.

As Li & Shen, Bioinformatics 38:809 (2022), doi 10.1093/bioinformatics/btab716 do it, with n the number of cubes that
tile the volume: n cubes anywhere, so that there are empty ones, and m n cubes whose share of fibre reaches
min(0.003, the volume's own share), with m = 10, 8, 6 or 4 for n below 10, 50, 200 or not. They draw until chance
brings such a cube, which on thin stacks may be never. Here the share of every cube on a lattice is counted beforehand
and cubes are drawn from those that qualify; a volume without enough of them gives fewer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.cubes.plan import REFERENCE_SIZE, Box, Triple

LEAST_FIBRE_SHARE = 0.003
"""A cube with this share of fibre is full enough, whatever the volume holds."""

_LATTICE_PER_CUBE = 32
_Counts = npt.NDArray[np.int64]


class SampledCube(NamedTuple):
    """A cube to learn from.

    Attributes:
        box: where it lies; it reaches beyond the volume along axes that are shorter than the cube.
        group: ``"any"`` or ``"fibre"``.
    """

    box: Box
    group: str


def sample_cubes(
    fibre: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_] | None = None,
    *,
    size: Triple = REFERENCE_SIZE,
    least_known_share: float = 0.5,
    seed: int | np.random.Generator,
) -> list[SampledCube]:
    """Draw training cubes from a labelled volume, first those from anywhere, then those with fibre.

    No cube comes twice in a group. Shares are those of the voxels that lie inside the volume and are known.

    Args:
        fibre: ``(z, y, x)``, where fibre is known to be.
        known: where anything is known; everywhere if left out.
        size: of a cube.
        least_known_share: cubes that know less of their voxels are not drawn.
        seed: of the draw.

    Raises:
        GeometryError: when shapes do not fit, or a size is not positive.
        InputError: when no cube knows enough.
    """
    if fibre.ndim != 3 or (known is not None and known.shape != fibre.shape) or len(size) != 3 or min(size) < 1:
        shapes = f"{fibre.shape} and {None if known is None else known.shape}"
        raise GeometryError(f"cubes of {size} are drawn from volumes (z, y, x) of one shape, got {shapes}")
    rng = np.random.default_rng(seed)
    axes = [_lattice(n, s) for n, s in zip(fibre.shape, size, strict=True)]
    voxels = math.prod(min(n, s) for n, s in zip(fibre.shape, size, strict=True))
    knows = np.full([len(a) for a in axes], voxels) if known is None else _counts(known, axes, size)
    eligible = knows >= max(1, least_known_share * voxels)
    if not eligible.any():
        raise InputError(f"no cube of {size} knows {least_known_share:.0%} of its voxels; enlarge the clean boxes")
    holds = _counts(fibre if known is None else fibre & known, axes, size)
    share = holds / np.maximum(knows, 1)
    whole = fibre.mean() if known is None else fibre[known].mean()
    tiles = math.prod(math.ceil(n / s) for n, s in zip(fibre.shape, size, strict=True))
    full = eligible & (share >= min(LEAST_FIBRE_SHARE, whole)) & (holds > 0)
    drawn = []
    for group, places, wanted in (("any", eligible, tiles), ("fibre", full, fibre_cubes(tiles))):
        flat = np.flatnonzero(places)
        for place in rng.choice(flat, min(wanted, len(flat)), replace=False):
            z, y, x = (int(a[i]) for a, i in zip(axes, np.unravel_index(place, places.shape), strict=True))
            drawn.append(SampledCube(Box((z, y, x), (z + size[0], y + size[1], x + size[2])), group))
    return drawn


def fibre_cubes(tiles: int) -> int:
    """How many cubes with fibre are drawn from a volume that ``tiles`` cubes tile."""
    factor = next((m for limit, m in ((10, 10), (50, 8), (200, 6)) if tiles < limit), 4)
    return factor * tiles


def _lattice(length: int, size: int) -> npt.NDArray[np.int64]:
    """Starts along an axis: about 32 per cube, the last one included; 0 alone where the axis is not longer."""
    last = max(0, length - size)
    return np.unique(np.append(np.arange(0, last + 1, max(1, size // _LATTICE_PER_CUBE)), last))


def _counts(mask: npt.NDArray[np.bool_], axes: list[npt.NDArray[np.int64]], size: Triple) -> _Counts:
    """Voxels of a mask in each cube of the lattice: sums of windows, one axis after the other, plane by plane."""
    planes = np.empty((mask.shape[0], len(axes[1]), len(axes[2])), dtype=np.int64)
    for z, plane in enumerate(mask):
        planes[z] = _windows(_windows(plane.astype(np.int64), axes[2], size[2], 1), axes[1], size[1], 0)
    return _windows(planes, axes[0], size[0], 0)


def _windows(values: _Counts, starts: npt.NDArray[np.int64], size: int, axis: int) -> _Counts:
    """Sums over windows ``[start, start + size)`` of an axis, clipped at its end."""
    sums = np.insert(np.cumsum(values, axis=axis), 0, 0, axis=axis)
    stops = np.minimum(starts + size, values.shape[axis])
    return sums.take(stops, axis=axis) - sums.take(starts, axis=axis)
