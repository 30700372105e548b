"""Convolutions of 3x3x3 taps in small groups, as compiled loops over rows: what a network does to details of fields.

Values outside the grid count as zero. Every kernel works on the slab ``[start, stop)`` of the first spatial axis (see
:mod:`medwave.core.threads`). Libraries for convolutions are made for many channels. Here a row is held in a frame of
zeros (:func:`framed`), so that loops need no ends, and each value that is loaded serves three outputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.threads import run_slabs

FloatVolume = npt.NDArray[np.float32]
LANES = 16
"""Rows are filtered in whole numbers of so many values: what the widest vectors of a processor hold."""

_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


def framed(count: int, shape: tuple[int, ...]) -> tuple[FloatVolume, FloatVolume]:
    """Zeros for ``count`` volumes of ``(D, H, W)`` in frames, ``(count, D, H, F)``, and the view ``(count, D, H, W)``.

    A row of a frame has one zero before its W values, and after them one and what is missing to :data:`LANES`.
    """
    frames = np.zeros((count, *shape[:2], -(-shape[2] // LANES) * LANES + 2), dtype=np.float32)
    return frames, frames[..., 1 : shape[2] + 1]


@_compile
def _add_row(x, w, row):  # type: ignore[no-untyped-def]
    """Add a framed row filtered by three taps."""
    w0, w1, w2 = w[0], w[1], w[2]
    for k in range((row.shape[0] // LANES) * LANES):  # which tells the compiler that nothing is left over
        row[k] += w0 * x[k] + w1 * x[k + 1] + w2 * x[k + 2]


@_compile
def _add_three_rows(x, u, v, w, row0, row1, row2):  # type: ignore[no-untyped-def]
    """A framed row filtered in three ways."""
    u0, u1, u2, v0, v1, v2, w0, w1, w2 = u[0], u[1], u[2], v[0], v[1], v[2], w[0], w[1], w[2]
    for k in range((row0.shape[0] // LANES) * LANES):
        a, b, c = x[k], x[k + 1], x[k + 2]
        row0[k] += u0 * a + u1 * b + u2 * c
        row1[k] += v0 * a + v1 * b + v2 * c
        row2[k] += w0 * a + w1 * b + w2 * c


@_compile
def _convolve_slab(start, stop, frames, weights, bias, slope, out):  # type: ignore[no-untyped-def]
    depth, height, width = out.shape[1:]
    rows = np.empty((3, frames.shape[3] - 2), dtype=np.float32)
    for i in range(start, stop):
        for j in range(height):
            for o in range(0, out.shape[0], 3):
                for n in range(3):
                    rows[n] = bias[o + n]
                for c in range(frames.shape[0]):
                    for a in range(max(i - 1, 0), min(i + 2, depth)):
                        for b in range(max(j - 1, 0), min(j + 2, height)):
                            da, db = a - i + 1, b - j + 1
                            _add_three_rows(
                                frames[c, a, b], weights[o, c, da, db], weights[o + 1, c, da, db],
                                weights[o + 2, c, da, db], rows[0], rows[1], rows[2],
                            )  # fmt: skip
                for n in range(3):
                    for k in range(width):
                        value = rows[n, k]
                        out[o + n, i, j, k] = value if value > np.float32(0.0) else slope * value


def convolve(frames: FloatVolume, weights: FloatVolume, bias: FloatVolume, slope: float, out: FloatVolume) -> None:
    """Convolve all inputs for each output, and rectify.

    Args:
        frames: the inputs, ``(I, D, H, F)`` from :func:`framed`.
        weights: ``(O, I, 3, 3, 3)`` float32, cross-correlated; O is a multiple of 3.
        bias: ``(O,)`` float32.
        slope: what negative results are multiplied by; 1 leaves them.
        out: ``(O, D, H, W)`` float32, any strides; other memory than the inputs'.
    """
    taps = np.ascontiguousarray(weights, dtype=np.float32)
    run_slabs(_convolve_slab, out.shape[1], frames, taps, bias, np.float32(slope), out)


@_compile
def _places(count, of):  # type: ignore[no-untyped-def]
    """For each of ``count`` places from the first to the last of ``of`` samples: the one before, and how far beyond."""
    before, beyond = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.float32)
    for n in range(count):
        place = np.float32(n) * (np.float32(of - 1) / np.float32(max(count - 1, 1)))
        before[n] = min(int(place), max(of - 2, 0))
        beyond[n] = place - np.float32(before[n])
    return before, beyond


@_compile
def _enlarge_slab(start, stop, coarse, out):  # type: ignore[no-untyped-def]
    depth, height, width = coarse.shape[1:]
    (ia, iz), (ja, jy) = _places(out.shape[1], depth), _places(out.shape[2], height)
    ka, kx = _places(out.shape[3], width)
    row = np.empty(width + 1, dtype=np.float32)
    for n in range(coarse.shape[0]):
        for i in range(start, stop):
            for j in range(out.shape[2]):
                a, b, z, y = ia[i], ja[j], iz[i], jy[j]
                near, far = coarse[n, a], coarse[n, min(a + 1, depth - 1)]
                b1 = min(b + 1, height - 1)
                for k in range(width):
                    low = near[b, k] + y * (near[b1, k] - near[b, k])
                    high = far[b, k] + y * (far[b1, k] - far[b, k])
                    row[k] = low + z * (high - low)
                row[width] = row[width - 1]
                for k in range(out.shape[3]):
                    left = row[ka[k]]
                    out[n, i, j, k] = left + kx[k] * (row[ka[k] + 1] - left)


def enlarge_ends(coarse: FloatVolume, out: FloatVolume) -> None:
    """Interpolate volumes ``(N, d, h, w)`` linearly to the size of ``out`` ``(N, D, H, W)``; first and last voxels of
    each axis coincide (``align_corners`` of torch).
    """
    run_slabs(_enlarge_slab, out.shape[1], np.ascontiguousarray(coarse, dtype=np.float32), out)


@_compile
def _filter_slab(start, stop, frames, taps, out):  # type: ignore[no-untyped-def]
    depth, height, width = out.shape
    row = np.empty(frames.shape[2] - 2, dtype=np.float32)
    for i in range(start, stop):
        for j in range(height):
            row[:] = np.float32(0.0)
            for a in range(max(i - 1, 0), min(i + 2, depth)):
                for b in range(max(j - 1, 0), min(j + 2, height)):
                    _add_row(frames[a, b], taps[a - i + 1, b - j + 1], row)
            for k in range(width):
                out[i, j, k] = row[k]


def filter_each(volumes: FloatVolume, taps: FloatVolume) -> None:
    """Cross-correlate each of N volumes ``(N, D, H, W)`` with taps of its own, ``(N, 3, 3, 3)``, in place."""
    frames, inside = framed(1, volumes.shape[1:])
    for volume, own in zip(volumes, np.ascontiguousarray(taps), strict=True):
        inside[0] = volume
        run_slabs(_filter_slab, len(volume), frames[0], own, volume)
