"""Haar in 2-D and 3-D: every band in one pass over the samples.

Conventions
    Two taps at stride two never overlap, so an even axis has no border and all boundary modes agree. A square of four
    samples gives four sums; a cube is two squares. Taps are ``(l, l)`` and ``(h, -h)`` in correlation order; a band
    with ``k`` highs is scaled by ``l ** (ndim - k) * h ** k`` at the end.
    Arrays and slabs as in :mod:`medwave.wavelets.backends.kernels`; ``counts`` is the size of a band.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from medwave.core.threads import run_slabs
from medwave.wavelets.backends.kernels import ONE, Array, Offset, compiled
from medwave.wavelets.filters import Kernels


def fits(taps: Kernels, size: tuple[int, ...]) -> bool:
    """Whether the fused loops can do a transform: two taps, even axes, 2-D or 3-D."""
    if taps.length != 2 or len(size) not in (2, 3) or any(n % 2 for n in size):
        return False
    return taps.low[0] == taps.low[1] and taps.high[0] == -taps.high[1]


def run(kernel: Callable[..., None], samples: Any, bands: Any, taps: Kernels, counts: tuple[int, ...]) -> None:
    """Run a fused kernel between flat arrays; a unit of work is a row (2-D) or a plane (3-D) of every band."""
    gains = [np.prod(pair) for pair in itertools.product((taps.low[0], taps.high[0]), repeat=len(counts))]
    units = samples.size // (2 ** len(counts) * int(np.prod(counts[1:])))
    run_slabs(kernel, units, samples, bands, counts, np.array(gains, dtype=samples.dtype))


@compiled
def square(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
    """Unscaled LL, LH, HL, HH of the square [[a, b], [c, d]]; its own inverse but for a factor four."""
    top, bottom, top_step, bottom_step = a + b, c + d, a - b, c - d
    return top + bottom, top_step + bottom_step, top - bottom, top_step - bottom_step


@compiled
def analysis_2d(start: int, stop: int, x: Array, out: Array, counts: Any, gains: Array) -> None:
    """Four bands of two rows at a time."""
    height, width = counts
    g0, g1, g2, g3 = gains
    n, step, size = Offset(width), Offset(2 * width), Offset(height * width)
    for unit in range(start, stop):
        image, i = unit // height, unit % height
        p = Offset(4 * unit * width)
        q = p + step
        b0 = Offset((4 * image * height + i) * width)
        b1, b2, b3 = b0 + size, b0 + size + size, b0 + size + size + size
        for w in range(n):
            v = w + w
            s0, s1, s2, s3 = square(x[p + v], x[p + v + ONE], x[q + v], x[q + v + ONE])
            out[b0 + w] = g0 * s0
            out[b1 + w] = g1 * s1
            out[b2 + w] = g2 * s2
            out[b3 + w] = g3 * s3


@compiled
def synthesis_2d(start: int, stop: int, out: Array, bands: Array, counts: Any, gains: Array) -> None:
    """Two rows of four bands at a time."""
    height, width = counts
    g0, g1, g2, g3 = gains
    n, step, size = Offset(width), Offset(2 * width), Offset(height * width)
    for unit in range(start, stop):
        image, i = unit // height, unit % height
        p = Offset(4 * unit * width)
        q = p + step
        b0 = Offset((4 * image * height + i) * width)
        b1, b2, b3 = b0 + size, b0 + size + size, b0 + size + size + size
        for w in range(n):
            v = w + w
            s0, s1, s2, s3 = square(g0 * bands[b0 + w], g1 * bands[b1 + w], g2 * bands[b2 + w], g3 * bands[b3 + w])
            out[p + v] = s0
            out[p + v + ONE] = s1
            out[q + v] = s2
            out[q + v + ONE] = s3


@compiled
def analysis_3d(start: int, stop: int, x: Array, out: Array, counts: Any, gains: Array) -> None:
    """Eight bands of two rows of two planes at a time."""
    depth, height, width = counts
    g0, g1, g2, g3, g4, g5, g6, g7 = gains
    n, step, plane = Offset(width), Offset(2 * width), Offset(4 * height * width)
    size = Offset(depth * height * width)
    for unit in range(start, stop):
        image, i = unit // depth, unit % depth
        for h in range(height):
            p = Offset((8 * unit * height + 4 * h) * width)
            q, r, s = p + step, p + plane, p + plane + step
            b0 = Offset(((8 * image * depth + i) * height + h) * width)
            b1, b2, b4 = b0 + size, b0 + size + size, b0 + size + size + size + size
            b3, b5, b6, b7 = b2 + size, b4 + size, b4 + size + size, b4 + size + size + size
            for w in range(n):
                v = w + w
                s0, s1, s2, s3 = square(x[p + v], x[p + v + ONE], x[q + v], x[q + v + ONE])
                t0, t1, t2, t3 = square(x[r + v], x[r + v + ONE], x[s + v], x[s + v + ONE])
                out[b0 + w] = g0 * (s0 + t0)
                out[b1 + w] = g1 * (s1 + t1)
                out[b2 + w] = g2 * (s2 + t2)
                out[b3 + w] = g3 * (s3 + t3)
                out[b4 + w] = g4 * (s0 - t0)
                out[b5 + w] = g5 * (s1 - t1)
                out[b6 + w] = g6 * (s2 - t2)
                out[b7 + w] = g7 * (s3 - t3)


@compiled
def synthesis_3d(start: int, stop: int, out: Array, bands: Array, counts: Any, gains: Array) -> None:
    """Two rows of two planes of eight bands at a time."""
    depth, height, width = counts
    g0, g1, g2, g3, g4, g5, g6, g7 = gains
    n, step, plane = Offset(width), Offset(2 * width), Offset(4 * height * width)
    size = Offset(depth * height * width)
    for unit in range(start, stop):
        image, i = unit // depth, unit % depth
        for h in range(height):
            p = Offset((8 * unit * height + 4 * h) * width)
            q, r, s = p + step, p + plane, p + plane + step
            b0 = Offset(((8 * image * depth + i) * height + h) * width)
            b1, b2, b4 = b0 + size, b0 + size + size, b0 + size + size + size + size
            b3, b5, b6, b7 = b2 + size, b4 + size, b4 + size + size, b4 + size + size + size
            for w in range(n):
                v = w + w
                s0, s1, s2, s3 = square(g0 * bands[b0 + w], g1 * bands[b1 + w], g2 * bands[b2 + w], g3 * bands[b3 + w])
                t0, t1, t2, t3 = square(g4 * bands[b4 + w], g5 * bands[b5 + w], g6 * bands[b6 + w], g7 * bands[b7 + w])
                out[p + v] = s0 + t0
                out[p + v + ONE] = s1 + t1
                out[q + v] = s2 + t2
                out[q + v + ONE] = s3 + t3
                out[r + v] = s0 - t0
                out[r + v + ONE] = s1 - t1
                out[s + v] = s2 - t2
                out[s + v + ONE] = s3 - t3


ANALYSIS = {2: analysis_2d, 3: analysis_3d}
SYNTHESIS = {2: synthesis_2d, 3: synthesis_3d}
