"""Series of volumes: 4-D NIfTI files, such as functional runs or diffusion weighted images.

Conventions
    As in :mod:`medwave.volumes.read`; the fourth axis counts volumes. What its step means (seconds between them,
    often) is kept as the header says it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, MedwaveError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import Grid, Volume
from medwave.volumes.nifti import decode_nifti, is_nifti, nifti_shape, stream_nifti


@dataclass(frozen=True)
class Series:
    """Volumes on one grid, each made when it is asked for.

    Attributes:
        grid: on which all of them lie.
        count: how many there are.
        volume: gives the one of a number, from 0.
        step: of the fourth axis, in ``time_unit``.
        time_unit: code of NIfTI (8: seconds, 16: milliseconds, 24: microseconds; 0: not said).
    """

    grid: Grid
    count: int
    volume: Callable[[int], Volume]
    step: float = 1.0
    time_unit: int = 0

    def each(self, grid: Grid, change: Callable[[Volume], Volume]) -> Series:
        """The same series with every volume changed, on another grid."""
        return replace(self, grid=grid, volume=lambda number: change(self.volume(number)))


def is_series(path: StrPath) -> bool:
    """Whether a file is NIfTI and holds more than one volume along a fourth and last axis."""
    try:
        shape = nifti_shape(Path(path)) if is_nifti(path) else ()
    except MedwaveError:  # missing or damaged, which reading it will tell
        return False
    return len(shape) > 3 and shape[3] > 1 and set(shape[4:]) <= {1}


def read_series(path: StrPath, *, dtype: npt.DTypeLike | None = np.float32) -> Series:
    """Read a 4-D NIfTI file; its values are held as they are stored (as float64 where the header scales them).

    Args:
        path: ``.nii`` or ``.nii.gz`` file.
        dtype: type of the values; None keeps the stored one.

    Raises:
        MissingFileError, VolumeFormatError: when it cannot be read.
        GeometryError: when its voxel sizes or its affine are unusable.
        InputError: from ``volume``, for one that holds NaN or infinite values.
    """
    file = input_file(path)
    decoded = decode_nifti(file)
    values = decoded.values.reshape(decoded.values.shape[:4], order="F")
    if values.dtype.kind not in "iufb":
        raise GeometryError(f"{file}: one number per voxel is needed, got {values.dtype}; convert it to grey images")
    try:
        grid = Grid(values.shape[:3], decoded.affine)
    except GeometryError as error:
        raise GeometryError(f"{file}: {error}; correct the header") from None

    def volume(number: int) -> Volume:
        data = np.array(values[..., number], dtype=values.dtype if dtype is None else dtype, order="C")
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise InputError(f"{file}: volume {number} of the series holds NaN or infinite values; replace them first")
        return Volume(data, grid, file.name)

    return Series(grid, values.shape[3], volume, *decoded.time)


def write_series(path: Path, series: Series) -> None:
    """Write a 4-D NIfTI file, a volume at a time; values keep their type.

    Raises:
        InputError: from the volumes of the series.
        OutputError: when the file cannot be written.
    """
    first = series.volume(0)
    rest = (series.volume(number) for number in range(1, series.count))
    stream_nifti(
        path, _slabs(itertools.chain([first], rest)), shape=(*series.grid.shape, series.count), dtype=first.data.dtype,
        affine=series.grid.affine, time=(series.step, series.time_unit),
        sample=first.data if first.data.dtype == np.float32 else None,
    )  # fmt: skip


def _slabs(volumes: Iterator[Volume]) -> Iterator[npt.NDArray[Any]]:
    for volume in volumes:
        yield np.asarray(volume.data).T
