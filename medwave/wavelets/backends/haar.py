"""Haar in 2-D and 3-D: every band in one pass over the samples.

Conventions
    Two taps at stride two never overlap, so an even axis has no border and all boundary modes agree. A square of four
    samples gives four sums; a cube is two squares. Taps are ``(l, l)`` and ``(h, -h)`` in correlation order; a band
    with ``k`` highs is scaled by ``l ** (ndim - k) * h ** k`` at the end.
    Arrays as in :mod:`medwave.wavelets.backends.kernels`, with their axes: ``(B, [D,] H, W)`` and ``(B, bands, ...)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from medwave.core.threads import run_slabs
from medwave.wavelets.backends.kernels import Array, compiled
from medwave.wavelets.filters import Kernels


def fits(taps: Kernels, size: tuple[int, ...]) -> bool:
    """Whether the fused loops can do a transform: two taps, even axes, 2-D or 3-D."""
    if taps.length != 2 or len(size) not in (2, 3) or any(n % 2 for n in size):
        return False
    return taps.low[0] == taps.low[1] and taps.high[0] == -taps.high[1]


def run(
    kernel: Callable[..., None], source: Any, out: Any, taps: Kernels, size: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    """Run a fused kernel over images (N, C flattened) and their first axis."""
    samples, bands = (source, out) if source.ndim < out.ndim else (out, source)
    samples = samples.reshape(-1, *size)
    bands = bands.reshape(len(samples), -1, *counts)
    gains = [np.prod(pair) for pair in itertools.product((taps.low[0], taps.high[0]), repeat=len(size))]
    run_slabs(kernel, len(samples) * counts[0], samples, bands, np.array(gains, dtype=samples.dtype))


@compiled
def square(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
    """Unscaled LL, LH, HL, HH of the square [[a, b], [c, d]]; its own inverse but for a factor four."""
    top, bottom, top_step, bottom_step = a + b, c + d, a - b, c - d
    return top + bottom, top_step + bottom_step, top - bottom, top_step - bottom_step


@compiled
def analysis_2d(start: int, stop: int, x: Array, out: Array, gains: Array) -> None:
    """Four bands of two rows at a time."""
    height, width = out.shape[2], out.shape[3]
    g0, g1, g2, g3 = gains
    for unit in range(start, stop):
        image, i = unit // height, unit % height
        top, bottom = x[image, 2 * i], x[image, 2 * i + 1]
        b0, b1, b2, b3 = out[image, 0, i], out[image, 1, i], out[image, 2, i], out[image, 3, i]
        for w in range(width):
            p0, p1, p2, p3 = square(top[2 * w], top[2 * w + 1], bottom[2 * w], bottom[2 * w + 1])
            b0[w], b1[w], b2[w], b3[w] = g0 * p0, g1 * p1, g2 * p2, g3 * p3


@compiled
def synthesis_2d(start: int, stop: int, out: Array, bands: Array, gains: Array) -> None:
    """Two rows of four bands at a time."""
    height, width = bands.shape[2], bands.shape[3]
    g0, g1, g2, g3 = gains
    for unit in range(start, stop):
        image, i = unit // height, unit % height
        top, bottom = out[image, 2 * i], out[image, 2 * i + 1]
        b0, b1, b2, b3 = bands[image, 0, i], bands[image, 1, i], bands[image, 2, i], bands[image, 3, i]
        for w in range(width):
            p = square(g0 * b0[w], g1 * b1[w], g2 * b2[w], g3 * b3[w])
            top[2 * w], top[2 * w + 1], bottom[2 * w], bottom[2 * w + 1] = p


@compiled
def analysis_3d(start: int, stop: int, x: Array, out: Array, gains: Array) -> None:
    """Eight bands of two rows of two planes at a time."""
    depth, height, width = out.shape[2], out.shape[3], out.shape[4]
    g0, g1, g2, g3, g4, g5, g6, g7 = gains
    for unit in range(start, stop):
        image, i = unit // depth, unit % depth
        for h in range(height):
            ra, rb = x[image, 2 * i, 2 * h], x[image, 2 * i, 2 * h + 1]
            rc, rd = x[image, 2 * i + 1, 2 * h], x[image, 2 * i + 1, 2 * h + 1]
            b0, b1, b2, b3 = out[image, 0, i, h], out[image, 1, i, h], out[image, 2, i, h], out[image, 3, i, h]
            b4, b5, b6, b7 = out[image, 4, i, h], out[image, 5, i, h], out[image, 6, i, h], out[image, 7, i, h]
            for w in range(width):
                p0, p1, p2, p3 = square(ra[2 * w], ra[2 * w + 1], rb[2 * w], rb[2 * w + 1])
                q0, q1, q2, q3 = square(rc[2 * w], rc[2 * w + 1], rd[2 * w], rd[2 * w + 1])
                b0[w], b1[w], b2[w], b3[w] = g0 * (p0 + q0), g1 * (p1 + q1), g2 * (p2 + q2), g3 * (p3 + q3)
                b4[w], b5[w], b6[w], b7[w] = g4 * (p0 - q0), g5 * (p1 - q1), g6 * (p2 - q2), g7 * (p3 - q3)


@compiled
def synthesis_3d(start: int, stop: int, out: Array, bands: Array, gains: Array) -> None:
    """Two rows of two planes of eight bands at a time."""
    depth, height, width = bands.shape[2], bands.shape[3], bands.shape[4]
    g0, g1, g2, g3, g4, g5, g6, g7 = gains
    for unit in range(start, stop):
        image, i = unit // depth, unit % depth
        for h in range(height):
            ra, rb = out[image, 2 * i, 2 * h], out[image, 2 * i, 2 * h + 1]
            rc, rd = out[image, 2 * i + 1, 2 * h], out[image, 2 * i + 1, 2 * h + 1]
            b0, b1, b2, b3 = bands[image, 0, i, h], bands[image, 1, i, h], bands[image, 2, i, h], bands[image, 3, i, h]
            b4, b5, b6, b7 = bands[image, 4, i, h], bands[image, 5, i, h], bands[image, 6, i, h], bands[image, 7, i, h]
            for w in range(width):
                p0, p1, p2, p3 = square(g0 * b0[w], g1 * b1[w], g2 * b2[w], g3 * b3[w])
                q0, q1, q2, q3 = square(g4 * b4[w], g5 * b5[w], g6 * b6[w], g7 * b7[w])
                ra[2 * w], ra[2 * w + 1], rb[2 * w], rb[2 * w + 1] = p0 + q0, p1 + q1, p2 + q2, p3 + q3
                rc[2 * w], rc[2 * w + 1], rd[2 * w], rd[2 * w + 1] = p0 - q0, p1 - q1, p2 - q2, p3 - q3


ANALYSIS = {2: analysis_2d, 3: analysis_3d}
SYNTHESIS = {2: synthesis_2d, 3: synthesis_3d}
