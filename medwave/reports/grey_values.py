"""Grey values as pictures need them: finite, few enough, smooth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.reports.colours import FloatArray

Array = npt.NDArray[np.generic]


def finite(cut: Array) -> FloatArray:
    """A contiguous float32 copy with NaN and infinity replaced by 0."""
    values = np.array(cut, dtype=np.float32, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(values.sum())
    return values if sound else np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def sample(array: Array, at_most: int = 80) -> FloatArray:
    """Every n-th voxel, so that no axis has more than ``at_most``: enough for percentiles and boxes."""
    return finite(array[tuple(slice(None, None, max(1, -(-n // at_most))) for n in array.shape)])


def smooth(array: FloatArray, sigmas: tuple[float, ...]) -> FloatArray:
    """Gaussian smoothing, one sigma in voxels per axis, edges repeated."""
    for axis, sigma in enumerate(sigmas):
        radius = int(np.ceil(3 * sigma))
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
        padded = np.pad(array, [(radius, radius) if a == axis else (0, 0) for a in range(array.ndim)], mode="edge")
        lines, length = np.moveaxis(padded, axis, 0), array.shape[axis]
        soft = sum(w * lines[i : i + length] for i, w in enumerate((weights / weights.sum()).astype(np.float32)))
        array = np.moveaxis(np.asarray(soft), 0, axis)
    return np.ascontiguousarray(array, dtype=np.float32)
