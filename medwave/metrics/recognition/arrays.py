"""From whatever array-like comes to checked numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medwave.core.errors import GeometryError, InputError

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def to_numpy(values: Any) -> npt.NDArray[Any]:
    """Numpy of anything, also of tensors on any device, of half precision, or with gradient."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def finite(values: Any, ndim: int, what: str) -> Float64Array:
    """A float64 array without NaN or infinity; raises GeometryError for other axes, InputError for such values."""
    array = to_numpy(values)
    if array.ndim != ndim:
        raise GeometryError(f"{what} must have {ndim} axes, got shape {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what} hold NaN or infinity: look at what made them, such as overflow in half precision")
    return array


def whole(values: Any, count: int, what: str) -> IntArray:
    """``count`` whole numbers; raises GeometryError for another shape, InputError for fractions."""
    array = to_numpy(values)
    if array.shape != (count,):
        raise GeometryError(f"{what} must have shape ({count},), one for each, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{what} must be whole numbers, got {array.dtype}")
    return array.astype(np.int64)


def unit_rows(values: Any, what: str) -> Float64Array:
    """Rows of length one; raises GeometryError for another layout, InputError for zero rows, NaN or infinity."""
    array = finite(values, 2, what)
    length = np.linalg.norm(array, axis=1, keepdims=True)
    if (length == 0).any():
        raise InputError(f"{what} hold a row of zeros, which has no direction")
    return array / length


def midpoint(low: float, high: float) -> float:
    """A number of ``[low, high)`` in the middle."""
    middle = low + (high - low) / 2
    return middle if middle < high else low


def widest_run(best: BoolArray, edges: Float64Array) -> tuple[int, int]:
    """First and last of the neighbouring true segments that are widest together.

    Segment ``k`` is ``[edges[k], edges[k + 1])``; runs that reach infinity are the last choice.
    """
    change = np.flatnonzero(np.diff(np.concatenate([[False], best, [False]]).astype(np.int8)))
    starts, stops = change[::2], change[1::2]
    width = edges[stops] - edges[starts]
    n = int(np.where(np.isfinite(width), width, -1.0).argmax())
    return int(starts[n]), int(stops[n] - 1)
