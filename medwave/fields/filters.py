"""Separable smoothing of volumes and fields, as compiled loops over planes.

A symmetric filter of radius 1, 2 or 4 is given by its half: ``taps[0]`` is the centre, ``taps[t]`` stands at distance
t on both sides (a radius of 3 is stored as 4 with a zero). Values outside the grid count as zero. A plane is filtered
along its two axes while it is in cache, kept in a ring of as many planes as the filter is long, and combined along
the first axis: the volume is read once and written once.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.errors import InputError
from medwave.core.threads import run_slabs

FloatVolume = npt.NDArray[np.float32]
MAX_RADIUS = 4
_SIGMAS = 2.5  # where a Gaussian is cut: its weight is 4 % of the centre's there

_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


def _stored(half: npt.NDArray[np.floating]) -> FloatVolume:
    """Pad half a filter to a length that has a compiled loop: radius 1, 2 or 4."""
    length = (2, 2, 3, 5, 5)[len(half) - 1]
    return np.pad(half, (0, length - len(half))).astype(np.float32)


def gaussian_taps(sigma_voxels: float) -> FloatVolume:
    """Half of a normalised sampled Gaussian, cut 2.5 sigmas from the centre; a sigma of 0 smooths nothing.

    Raises:
        InputError: for a sigma that is negative or over 1.6 voxels.
    """
    if not 0 <= sigma_voxels <= MAX_RADIUS / _SIGMAS:
        raise InputError(f"smoothing takes a sigma of 0 to {MAX_RADIUS / _SIGMAS} voxels, got {sigma_voxels}")
    radius = math.ceil(_SIGMAS * sigma_voxels - 1e-6)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / max(sigma_voxels, 1e-6)) ** 2)
    return _stored(weights / (weights[0] + 2 * weights[1:].sum()))


def box_taps(radius: int) -> FloatVolume:
    """Half of a box of ones of the given radius.

    Raises:
        InputError: for a radius that is not 1 to 4.
    """
    if not 1 <= radius <= MAX_RADIUS:
        raise InputError(f"a window has a half-width of 1 to {MAX_RADIUS} voxels, got {radius}")
    return _stored(np.ones(radius + 1))


@_compile
def _line3(a1, m, b1, taps, out):  # type: ignore[no-untyped-def]
    t0, t1 = taps[0], taps[1]
    for k in range(out.shape[0]):
        out[k] = t0 * m[k] + t1 * (a1[k] + b1[k])


@_compile
def _line5(a2, a1, m, b1, b2, taps, out):  # type: ignore[no-untyped-def]
    t0, t1, t2 = taps[0], taps[1], taps[2]
    for k in range(out.shape[0]):
        out[k] = t0 * m[k] + t1 * (a1[k] + b1[k]) + t2 * (a2[k] + b2[k])


@_compile
def _line9(a4, a3, a2, a1, m, b1, b2, b3, b4, taps, out):  # type: ignore[no-untyped-def]
    t0, t1, t2, t3, t4 = taps[0], taps[1], taps[2], taps[3], taps[4]
    for k in range(out.shape[0]):
        near = t0 * m[k] + t1 * (a1[k] + b1[k]) + t2 * (a2[k] + b2[k])
        out[k] = near + t3 * (a3[k] + b3[k]) + t4 * (a4[k] + b4[k])


@_compile
def _window(lines, base, stride, count, first, taps, out):  # type: ignore[no-untyped-def]
    """Combine ``2 r + 1`` rows of ``lines`` into ``out``; row t is ``base + (first + t) % count * stride``.

    The loops are written out per radius: the compiler makes vector code of them, ten times as fast as a loop over taps.
    """
    a = lines[base + first % count * stride]
    b = lines[base + (first + 1) % count * stride]
    c = lines[base + (first + 2) % count * stride]
    if taps.shape[0] == 2:
        _line3(a, b, c, taps, out)
        return
    d = lines[base + (first + 3) % count * stride]
    e = lines[base + (first + 4) % count * stride]
    if taps.shape[0] == 3:
        _line5(a, b, c, d, e, taps, out)
        return
    f = lines[base + (first + 5) % count * stride]
    g = lines[base + (first + 6) % count * stride]
    h = lines[base + (first + 7) % count * stride]
    i = lines[base + (first + 8) % count * stride]
    _line9(a, b, c, d, e, f, g, h, i, taps, out)


@_compile
def filter_plane(plane, taps, row, rows, out):  # type: ignore[no-untyped-def]
    """Filter one plane ``(H, W)`` along both axes into ``out``.

    Scratch: ``row`` ``(W + 2 r,)`` and ``rows`` ``(H + 2 r, W)``, both zero in their margins on entry and on exit.
    """
    height, width = plane.shape
    r = taps.shape[0] - 1
    for j in range(height):
        source, inner = plane[j], row[r : r + width]
        for k in range(width):  # a loop: the shape check of a slice assignment takes seconds to compile
            inner[k] = source[k]
        target = rows[r + j]
        if r == 1:
            _line3(row[0:width], row[1 : 1 + width], row[2 : 2 + width], taps, target)
        elif r == 2:
            _line5(
                row[0:width], row[1 : 1 + width], row[2 : 2 + width], row[3 : 3 + width], row[4 : 4 + width],
                taps, target,
            )  # fmt: skip
        else:
            _line9(
                row[0:width], row[1 : 1 + width], row[2 : 2 + width], row[3 : 3 + width], row[4 : 4 + width],
                row[5 : 5 + width], row[6 : 6 + width], row[7 : 7 + width], row[8 : 8 + width], taps, target,
            )  # fmt: skip
    for j in range(height):
        _window(rows, 0, 1, rows.shape[0], j, taps, out[j])


@_compile
def combine_planes(ring, first, taps, out):  # type: ignore[no-untyped-def]
    """Weighted sum of ``2 r + 1`` planes of a ring, of which ``first`` (modulo the ring's length) is the lowest."""
    length, height, width = ring.shape
    lines = ring.reshape((length * height, width))
    for j in range(height):
        _window(lines, j, height, length, first, taps, out[j])


@_compile
def clear_plane(plane):  # type: ignore[no-untyped-def]
    """Set a plane ``(H, W)`` to zero."""
    for j in range(plane.shape[0]):
        line = plane[j]
        for k in range(line.shape[0]):
            line[k] = np.float32(0.0)


@_compile
def _smooth_slab(start, stop, channels, taps, out):  # type: ignore[no-untyped-def]
    count, depth, height, width = channels.shape
    radius = taps.shape[0] - 1
    length = 2 * radius + 1
    row = np.zeros(width + 2 * radius, dtype=np.float32)
    rows = np.zeros((height + 2 * radius, width), dtype=np.float32)
    ring = np.zeros((length, height, width), dtype=np.float32)
    for n in range(count):
        for plane in range(start - radius, stop + radius):
            slot = (plane - start + radius) % length
            if plane < 0 or plane >= depth:
                clear_plane(ring[slot])
            else:
                filter_plane(channels[n, plane], taps, row, rows, ring[slot])
            if plane - radius >= start:
                combine_planes(ring, plane - radius - start, taps, out[n, plane - radius])


def smooth(channels: FloatVolume, taps: FloatVolume, out: FloatVolume) -> None:
    """Separable filtering of ``(C, D, H, W)`` float32 into ``out`` (other memory), zeros outside the grid."""
    run_slabs(_smooth_slab, channels.shape[1], channels, taps, out)
