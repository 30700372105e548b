"""Writing volumes as NIfTI, atomically and with little CPU time.

Conventions
    Axes stay as they are. sform and qform carry the same affine with code 1 (scanner), which nibabel, ITK, FSL and
    FreeSurfer all read alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.core.geometry import Volume
from medwave.volumes.nifti import stream_nifti

SLAB_BYTES = 1 << 22


def write_volume(path: StrPath, volume: Volume, *, dtype: npt.DTypeLike | None = None) -> None:
    """Write a volume as ``.nii`` or ``.nii.gz`` (gzip level 1); the file appears when it is complete.

    Args:
        path: where to write; an existing file is replaced.
        volume: values ``(D, H, W)`` and grid.
        dtype: type to store; None keeps the array's (bool becomes uint8, float16 float32, and int64 int32 where
            the values fit). Values stored as integers are rounded to the nearest one.

    Raises:
        InputError: when values do not fit the integer type.
        OutputError: when the file cannot be written, or its name is not that of a NIfTI file.
    """
    stored = _stored_dtype(volume.data, dtype)
    _check_range(path, volume.data, stored)
    stream_nifti(path, _slabs(volume.data, stored), shape=volume.grid.shape, dtype=stored, affine=volume.grid.affine)


def _stored_dtype(data: npt.NDArray[Any], dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    wanted = np.dtype(data.dtype if dtype is None else dtype)
    if wanted == np.int64 and dtype is None and data.size and np.abs(data).max() <= np.iinfo(np.int32).max:
        return np.dtype(np.int32)
    if wanted.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if wanted == np.float16 else wanted


def _check_range(path: StrPath, data: npt.NDArray[Any], stored: np.dtype[Any]) -> None:
    if stored.kind not in "iu" or data.dtype == bool or np.can_cast(data.dtype, stored):
        return
    low, high, limits = data.min(), data.max(), np.iinfo(stored)
    if not (np.rint(low) >= limits.min and np.rint(high) <= limits.max):  # NaN fails too
        raise InputError(
            f"{path}: values from {low} to {high} do not fit {stored.name} ({limits.min} to {limits.max}); "
            "choose a wider type"
        )


def _slabs(data: npt.NDArray[Any], stored: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Slices along the last axis, transposed, so that their C order is the file's order."""
    depth = max(1, SLAB_BYTES // max(1, stored.itemsize * data.shape[0] * data.shape[1]))
    rounded = stored.kind in "iu" and data.dtype.kind == "f"
    for start in range(0, data.shape[2], depth):
        slab = data[:, :, start : start + depth]
        yield (np.rint(slab) if rounded else slab).astype(stored).T
