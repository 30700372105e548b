"""Maximum projections of a volume of any size along its three axes, read block by block.

Conventions
    Volumes are ``(z, y, x)``. ``xy`` has rows y and columns x, ``xz`` rows z and columns x, ``zy`` rows y and columns
    z: laid out with ``xz`` below ``xy`` and ``zy`` to its right, neighbours share an axis. Large axes are reduced by
    the maximum over bins of ``bins`` voxels, so that no fibre is lost; the last bin may hold fewer.
    Values that are not finite are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.reports.colours import FloatArray
from medwave.volumes import LazyVolume
from medwave.volumes.stack import Box, check_box

LONGEST_PX = 900
BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Projections:
    """Three maximum projections of one volume.

    Attributes:
        shape: voxels that were projected, along z, y, x.
        bins: voxels per pixel along z, y, x.
        xy, xz, zy: float32 pictures, see the conventions of this module.
    """

    shape: tuple[int, int, int]
    bins: tuple[int, int, int]
    xy: FloatArray
    xz: FloatArray
    zy: FloatArray


def project(
    volume: LazyVolume | npt.NDArray[Any],
    *,
    box: Sequence[slice] | None = None,
    longest_px: int = LONGEST_PX,
    block_bytes: int = BLOCK_BYTES,
) -> Projections:
    """Project a volume, or a box of it, along each axis, holding one block of it at a time.

    Every voxel is read once. For a quick look at a huge OME-Zarr open a coarser level of it.

    Args:
        volume: from :func:`medwave.volumes.open_stack`, or an array ``(z, y, x)``.
        box: three slices along z, y, x of step 1: the part to project; all by default.
        longest_px: largest number of pixels along any axis of a picture.
        block_bytes: largest block to read at once, where the chunks of the file allow it.

    Raises:
        InputError: when ``longest_px`` or ``block_bytes`` is not positive.
        MedwaveError: as reading the volume does.
    """
    if longest_px < 1 or block_bytes < 1:
        raise InputError(f"projections need positive sizes, got {longest_px} pixels and blocks of {block_bytes} bytes")
    lazy = volume if isinstance(volume, LazyVolume) else _in_slices(np.asarray(volume))
    part = check_box(lazy.path, lazy.shape, box)
    nz, ny, nx = shape = tuple(s.stop - s.start for s in part)
    fz, fy, fx = (math.ceil(n / longest_px) for n in shape)
    z_px, y_px, x_px = math.ceil(nz / fz), math.ceil(ny / fy), math.ceil(nx / fx)
    xy, xz, zy = (np.full(size, -np.inf, np.float32) for size in ((y_px, x_px), (z_px, x_px), (y_px, z_px)))
    for place in _blocks(lazy, part, block_bytes):
        block = lazy.read(place)
        if block.dtype.kind == "f":
            block[~np.isfinite(block)] = -np.inf
        z, y, x = (at.start - first.start for at, first in zip(place, part, strict=True))
        _raise(xy, block.max(axis=0), (y, x), (fy, fx))
        _raise(xz, block.max(axis=1), (z, x), (fz, fx))
        _raise(zy, block.max(axis=2).T, (y, z), (fy, fz))
    for picture in (xy, xz, zy):
        known = np.isfinite(picture)
        picture[~known] = picture[known].min() if known.any() else 0.0
    return Projections((nz, ny, nx), (fz, fy, fx), xy, xz, zy)


def _in_slices(array: npt.NDArray[Any]) -> LazyVolume:
    """An array as a volume whose slices may be read one by one, so that it is never copied whole."""
    chunks = (1, *array.shape[1:]) if array.ndim == 3 else None
    return LazyVolume("volume", array.shape, array.dtype, array.__getitem__, chunks=chunks)


def _blocks(volume: LazyVolume, box: Box, block_bytes: int) -> list[Box]:
    """Boxes that cover a box: whole chunks inside it, as many as fit, first along x, then y, then z."""
    size = [min(c, n) for c, n in zip(volume.chunks, volume.shape, strict=True)]
    for axis in (2, 1, 0):
        fit = max(1, block_bytes // (math.prod(size) * volume.dtype.itemsize))
        size[axis] = min(size[axis] * fit, volume.shape[axis])
    spans = [
        [
            slice(max(start, part.start), min(start + step, part.stop))
            for start in range(part.start // step * step, part.stop, step)
        ]
        for step, part in zip(size, box, strict=True)
    ]
    return list(itertools.product(*spans))  # type: ignore[arg-type]


def _raise(picture: FloatArray, part: npt.NDArray[Any], start: tuple[int, int], bins: tuple[int, int]) -> None:
    """Take the larger of a picture and of a part of a projection, in voxels, that begins at ``start``."""
    place = []
    for axis, (first, width) in enumerate(zip(start, bins, strict=True)):
        bin_of = (first + np.arange(part.shape[axis])) // width
        begins = np.flatnonzero(np.diff(bin_of, prepend=-1))
        part = np.maximum.reduceat(part, begins, axis=axis)
        place.append(slice(int(bin_of[0]), int(bin_of[-1]) + 1))
    window = picture[tuple(place)]
    np.maximum(window, part, out=window, casting="unsafe")
