"""The compiled loop that inverts a displacement on CPU: a root-finding problem of three unknowns at every voxel.

Conventions as in :mod:`medwave.fields.kernels`. A voxel starts from the solution of its left neighbour in the row,
carried on to its own place by the derivative of the inverse, ``S^-1 - 1`` with S the Jacobian of ``p + u(p)``, and by
the Newton step that was left: almost everywhere that is within the tolerance, and no step of its own is needed. The
result does not depend on the slabs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.threads import run_slabs

FloatVolume = npt.NDArray[np.float32]

_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")
_STEEP = np.float32(1e-3)  # a determinant nearer to zero is taken for this: backtracking shortens the long step


@_compile
def _cell(position, size):  # type: ignore[no-untyped-def]
    """The two voxels a coordinate lies between, its place between them, and 0 where the border clamped it, else 1."""
    inside = np.float32(1.0)
    if not (position >= 0):  # also where it is not a number
        position, inside = np.float32(0.0), np.float32(0.0)
    elif position > size - 1:
        position, inside = np.float32(size - 1), np.float32(0.0)
    low = min(int(position), max(size - 2, 0))
    return low, min(low + 1, size - 1), position - np.float32(low), inside


@_compile
def _error(field, i, j, k, guess, error, slope):  # type: ignore[no-untyped-def]
    """``F = x + u(p + x)`` into ``error``, its Jacobian into ``slope`` (3, 3); returns the length of ``F``."""
    _, depth, height, width = field.shape
    a, a1, z, in_z = _cell(np.float32(i) + guess[0], depth)
    b, b1, y, in_y = _cell(np.float32(j) + guess[1], height)
    c, c1, x, in_x = _cell(np.float32(k) + guess[2], width)
    length = np.float32(0.0)
    for n in range(3):
        f000, f001, f010, f011 = field[n, a, b, c], field[n, a, b, c1], field[n, a, b1, c], field[n, a, b1, c1]
        f100, f101, f110, f111 = field[n, a1, b, c], field[n, a1, b, c1], field[n, a1, b1, c], field[n, a1, b1, c1]
        d00, d01, d10, d11 = f001 - f000, f011 - f010, f101 - f100, f111 - f110
        v00, v01, v10, v11 = f000 + x * d00, f010 + x * d01, f100 + x * d10, f110 + x * d11
        v0, v1 = v00 + y * (v01 - v00), v10 + y * (v11 - v10)
        d0, d1 = d00 + y * (d01 - d00), d10 + y * (d11 - d10)
        slope[n, 0] = in_z * (v1 - v0)
        slope[n, 1] = in_y * ((v01 - v00) + z * ((v11 - v10) - (v01 - v00)))
        slope[n, 2] = in_x * (d0 + z * (d1 - d0))
        slope[n, n] += np.float32(1.0)
        error[n] = guess[n] + v0 + z * (v1 - v0)
        length += error[n] * error[n]
    return np.sqrt(length)


@_compile
def _newton_step(slope, error, step):  # type: ignore[no-untyped-def]
    """``slope^-1 error`` into ``step``, by Cramer's rule."""
    c0 = slope[1, 1] * slope[2, 2] - slope[1, 2] * slope[2, 1]
    c1 = slope[1, 2] * slope[2, 0] - slope[1, 0] * slope[2, 2]
    c2 = slope[1, 0] * slope[2, 1] - slope[1, 1] * slope[2, 0]
    volume = slope[0, 0] * c0 + slope[0, 1] * c1 + slope[0, 2] * c2
    if abs(volume) < _STEEP:
        volume = _STEEP
    c3 = slope[0, 2] * slope[2, 1] - slope[0, 1] * slope[2, 2]
    c4 = slope[0, 0] * slope[2, 2] - slope[0, 2] * slope[2, 0]
    c5 = slope[0, 1] * slope[2, 0] - slope[0, 0] * slope[2, 1]
    c6 = slope[0, 1] * slope[1, 2] - slope[0, 2] * slope[1, 1]
    c7 = slope[0, 2] * slope[1, 0] - slope[0, 0] * slope[1, 2]
    c8 = slope[0, 0] * slope[1, 1] - slope[0, 1] * slope[1, 0]
    step[0] = (c0 * error[0] + c3 * error[1] + c6 * error[2]) / volume
    step[1] = (c1 * error[0] + c4 * error[1] + c7 * error[2]) / volume
    step[2] = (c2 * error[0] + c5 * error[1] + c8 * error[2]) / volume


@_compile
def invert_newton(
    start: int,
    stop: int,
    field: FloatVolume,
    iterations: int,
    tolerance: float,
    inverse: FloatVolume,
    residual: FloatVolume,
) -> None:
    """Newton with backtracking until ``|x + u(p + x)| <= tolerance`` at every voxel of the slab.

    ``field`` and ``inverse`` are ``(3, D, H, W)``, ``residual`` ``(D, H, W)``; nothing shares memory.
    """
    _, _, height, width = field.shape
    guess, tried, step = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    error, error_tried = np.zeros(3, np.float32), np.zeros(3, np.float32)
    slope, slope_tried = np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32)
    for i in range(start, stop):
        for j in range(height):
            size = np.float32(np.inf)
            for k in range(width):
                if not (size <= tolerance):  # first of its row, or the neighbour has no inverse to start from
                    for n in range(3):
                        guess[n] = -field[n, i, j, k]
                size = _error(field, i, j, k, guess, error, slope)
                damping = np.float32(1.0)
                for _ in range(iterations):
                    if size <= tolerance:
                        break
                    _newton_step(slope, error, step)
                    for n in range(3):
                        tried[n] = guess[n] - damping * step[n]
                    size_tried = _error(field, i, j, k, tried, error_tried, slope_tried)
                    if size_tried < size:
                        size = size_tried
                        for n in range(3):  # loops: the shape check of a slice assignment takes seconds to compile
                            guess[n], error[n] = tried[n], error_tried[n]
                            for m in range(3):
                                slope[n, m] = slope_tried[n, m]
                        damping = min(np.float32(2.0) * damping, np.float32(1.0))
                    else:
                        damping *= np.float32(0.5)
                for n in range(3):
                    inverse[n, i, j, k] = guess[n]
                residual[i, j, k] = size
                error[2] -= np.float32(1.0)
                _newton_step(slope, error, step)
                guess[0] -= step[0]
                guess[1] -= step[1]
                guess[2] -= step[2] + np.float32(1.0)


def invert_array(
    field: FloatVolume, *, iterations: int = 30, tolerance_voxels: float
) -> tuple[FloatVolume, FloatVolume]:
    """:func:`medwave.fields.invert` for one field ``(3, D, H, W)`` as an array: the inverse, and its residual."""
    inverse, residual = np.empty_like(field), np.empty_like(field[0])
    run_slabs(invert_newton, field.shape[1], field, iterations, tolerance_voxels, inverse, residual)
    return inverse, residual
