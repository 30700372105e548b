"""Haar in 2-D and 3-D: every band in one pass over the samples.

Conventions
    Two taps at stride two never overlap, so an even axis has no border and all boundary modes agree. A square of four
    samples gives four sums; a cube is two squares. Taps are ``(l, l)`` and ``(h, -h)`` in correlation order; a band
    with ``k`` highs is scaled by ``l ** (ndim - k) * h ** k`` at the end.
    A unit of work is one row of every band; ``counts`` is the size of a band, with one row as a plane in 2-D.
    The last lanes of a row overlap those before; a row shorter than lanes is done one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from medwave.core.first_calls import compile_in_turn
from medwave.core.threads import run_slabs
from medwave.wavelets.backends.lanes import (
    LANE_BYTES,
    ONE,
    Array,
    Index,
    Offset,
    added,
    compiled,
    evens,
    inlined,
    less,
    load,
    odds,
    scaled,
    store,
    zip_back,
    zip_front,
)
from medwave.wavelets.filters import Kernels


def fits(taps: Kernels, size: tuple[int, ...]) -> bool:
    """Whether the fused loops can do a transform: two taps, even axes, 2-D or 3-D."""
    if taps.length != 2 or len(size) not in (2, 3) or any(n % 2 for n in size):
        return False
    return taps.low[0] == taps.low[1] and taps.high[0] == -taps.high[1]


@lru_cache(maxsize=64)
def _gains(taps: Kernels, ndim: int, dtype: str) -> Any:
    return np.array([prod(pair) for pair in product((taps.low[0], taps.high[0]), repeat=ndim)], dtype=dtype)


def analyse(samples: Array, bands: Array, taps: Kernels, counts: tuple[int, ...]) -> None:
    """Bands of samples, both flat."""
    _run(analysis_2d if len(counts) == 2 else analysis_3d, samples, bands, taps, counts)


def synthesise(bands: Array, samples: Array, taps: Kernels, counts: tuple[int, ...]) -> None:
    """Samples of bands, both flat."""
    _run(synthesis_2d if len(counts) == 2 else synthesis_3d, samples, bands, taps, counts)


def _run(kernel: Callable[..., None], samples: Array, bands: Array, taps: Kernels, counts: tuple[int, ...]) -> None:
    gains = _gains(taps, len(counts), samples.dtype.str)
    compile_in_turn(kernel, samples.dtype, samples, bands, counts, gains)
    run_slabs(kernel, samples.size // (2 ** len(counts) * counts[-1]), samples, bands, counts, gains)


@inlined
def square(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
    """Unscaled LL, LH, HL, HH of the square [[a, b], [c, d]]; its own inverse but for a factor four."""
    top, bottom, top_step, bottom_step = a + c, b + d, a - c, b - d
    return top + bottom, top - bottom, top_step + bottom_step, top_step - bottom_step


@inlined
def squares(x: Array, p: Index, q: Index, lane: Index) -> Any:
    """Unscaled bands of the squares in two rows that start at p and q."""
    a, b, c, d = load(x, p), load(x, p + lane), load(x, q), load(x, q + lane)
    front, back, front_step, back_step = added(a, c), added(b, d), less(a, c), less(b, d)
    even, odd = evens(front, back), odds(front, back)
    even_step, odd_step = evens(front_step, back_step), odds(front_step, back_step)
    return added(even, odd), less(even, odd), added(even_step, odd_step), less(even_step, odd_step)


@inlined
def unsquare(out: Array, p: Index, q: Index, lane: Index, ll: Any, lh: Any, hl: Any, hh: Any) -> None:
    """Write the squares of scaled bands into two rows that start at p and q."""
    even, odd, even_step, odd_step = added(ll, lh), less(ll, lh), added(hl, hh), less(hl, hh)
    top, top_odd = added(even, even_step), added(odd, odd_step)
    store(out, p, zip_front(top, top_odd))
    store(out, p + lane, zip_back(top, top_odd))
    bottom, bottom_odd = less(even, even_step), less(odd, odd_step)
    store(out, q, zip_front(bottom, bottom_odd))
    store(out, q + lane, zip_back(bottom, bottom_odd))


@compiled
def analysis_2d(start: int, stop: int, x: Array, out: Array, counts: Any, gains: Array) -> None:
    """Four bands of two rows at a time."""
    height, width = counts
    g0, g1, g2, g3 = gains
    n, lane, size = Offset(width), Offset(LANE_BYTES // x.itemsize), Offset(height * width)
    for unit in range(start, stop):
        image, i = unit // height, unit % height
        p = Offset(4 * unit * width)
        q = p + n + n
        b0 = Offset((4 * image * height + i) * width)
        b1, b2, b3 = b0 + size, b0 + size + size, b0 + size + size + size
        w = Offset(0)
        while w < n and n >= lane:
            w = min(w, n - lane)
            s0, s1, s2, s3 = squares(x, p + w + w, q + w + w, lane)
            store(out, b0 + w, scaled(s0, g0))
            store(out, b1 + w, scaled(s1, g1))
            store(out, b2 + w, scaled(s2, g2))
            store(out, b3 + w, scaled(s3, g3))
            w += lane
        while w < n:
            v = w + w
            t0, t1, t2, t3 = square(x[p + v], x[p + v + ONE], x[q + v], x[q + v + ONE])
            out[b0 + w], out[b1 + w], out[b2 + w], out[b3 + w] = g0 * t0, g1 * t1, g2 * t2, g3 * t3
            w += ONE


@compiled
def synthesis_2d(start: int, stop: int, out: Array, bands: Array, counts: Any, gains: Array) -> None:
    """Two rows of four bands at a time."""
    height, width = counts
    g0, g1, g2, g3 = gains
    n, lane, size = Offset(width), Offset(LANE_BYTES // out.itemsize), Offset(height * width)
    for unit in range(start, stop):
        image, i = unit // height, unit % height
        p = Offset(4 * unit * width)
        q = p + n + n
        b0 = Offset((4 * image * height + i) * width)
        b1, b2, b3 = b0 + size, b0 + size + size, b0 + size + size + size
        w = Offset(0)
        while w < n and n >= lane:
            w = min(w, n - lane)
            s0, s1 = scaled(load(bands, b0 + w), g0), scaled(load(bands, b1 + w), g1)
            s2, s3 = scaled(load(bands, b2 + w), g2), scaled(load(bands, b3 + w), g3)
            unsquare(out, p + w + w, q + w + w, lane, s0, s1, s2, s3)
            w += lane
        while w < n:
            v = w + w
            t0, t1, t2, t3 = square(g0 * bands[b0 + w], g1 * bands[b1 + w], g2 * bands[b2 + w], g3 * bands[b3 + w])
            out[p + v], out[p + v + ONE], out[q + v], out[q + v + ONE] = t0, t1, t2, t3
            w += ONE


@compiled
def analysis_3d(start: int, stop: int, x: Array, out: Array, counts: Any, gains: Array) -> None:
    """Eight bands of two rows of two planes at a time."""
    depth, height, width = counts
    g0, g1, g2, g3, g4, g5, g6, g7 = gains
    n, lane, plane = Offset(width), Offset(LANE_BYTES // x.itemsize), Offset(4 * height * width)
    size = Offset(depth * height * width)
    for unit in range(start, stop):
        pair, h = unit // height, unit % height
        image, i = pair // depth, pair % depth
        p = Offset((8 * pair * height + 4 * h) * width)
        q, r, s = p + n + n, p + plane, p + plane + n + n
        b0 = Offset(((8 * image * depth + i) * height + h) * width)
        b1, b2, b4 = b0 + size, b0 + size + size, b0 + size + size + size + size
        b3, b5, b6, b7 = b2 + size, b4 + size, b4 + size + size, b4 + size + size + size
        w = Offset(0)
        while w < n and n >= lane:
            w = min(w, n - lane)
            s0, s1, s2, s3 = squares(x, p + w + w, q + w + w, lane)
            t0, t1, t2, t3 = squares(x, r + w + w, s + w + w, lane)
            store(out, b0 + w, scaled(added(s0, t0), g0))
            store(out, b1 + w, scaled(added(s1, t1), g1))
            store(out, b2 + w, scaled(added(s2, t2), g2))
            store(out, b3 + w, scaled(added(s3, t3), g3))
            store(out, b4 + w, scaled(less(s0, t0), g4))
            store(out, b5 + w, scaled(less(s1, t1), g5))
            store(out, b6 + w, scaled(less(s2, t2), g6))
            store(out, b7 + w, scaled(less(s3, t3), g7))
            w += lane
        while w < n:
            v = w + w
            a0, a1, a2, a3 = square(x[p + v], x[p + v + ONE], x[q + v], x[q + v + ONE])
            c0, c1, c2, c3 = square(x[r + v], x[r + v + ONE], x[s + v], x[s + v + ONE])
            out[b0 + w], out[b4 + w] = g0 * (a0 + c0), g4 * (a0 - c0)
            out[b1 + w], out[b5 + w] = g1 * (a1 + c1), g5 * (a1 - c1)
            out[b2 + w], out[b6 + w] = g2 * (a2 + c2), g6 * (a2 - c2)
            out[b3 + w], out[b7 + w] = g3 * (a3 + c3), g7 * (a3 - c3)
            w += ONE


@compiled
def synthesis_3d(start: int, stop: int, out: Array, bands: Array, counts: Any, gains: Array) -> None:
    """Two rows of two planes of eight bands at a time."""
    depth, height, width = counts
    g0, g1, g2, g3, g4, g5, g6, g7 = gains
    n, lane, plane = Offset(width), Offset(LANE_BYTES // out.itemsize), Offset(4 * height * width)
    size = Offset(depth * height * width)
    for unit in range(start, stop):
        pair, h = unit // height, unit % height
        image, i = pair // depth, pair % depth
        p = Offset((8 * pair * height + 4 * h) * width)
        q, r, s = p + n + n, p + plane, p + plane + n + n
        b0 = Offset(((8 * image * depth + i) * height + h) * width)
        b1, b2, b4 = b0 + size, b0 + size + size, b0 + size + size + size + size
        b3, b5, b6, b7 = b2 + size, b4 + size, b4 + size + size, b4 + size + size + size
        w = Offset(0)
        while w < n and n >= lane:
            w = min(w, n - lane)
            v = w + w
            s0, t0 = scaled(load(bands, b0 + w), g0), scaled(load(bands, b4 + w), g4)
            s1, t1 = scaled(load(bands, b1 + w), g1), scaled(load(bands, b5 + w), g5)
            s2, t2 = scaled(load(bands, b2 + w), g2), scaled(load(bands, b6 + w), g6)
            s3, t3 = scaled(load(bands, b3 + w), g3), scaled(load(bands, b7 + w), g7)
            unsquare(out, p + v, q + v, lane, added(s0, t0), added(s1, t1), added(s2, t2), added(s3, t3))
            unsquare(out, r + v, s + v, lane, less(s0, t0), less(s1, t1), less(s2, t2), less(s3, t3))
            w += lane
        while w < n:
            v = w + w
            a0, a1, a2, a3 = square(g0 * bands[b0 + w], g1 * bands[b1 + w], g2 * bands[b2 + w], g3 * bands[b3 + w])
            c0, c1, c2, c3 = square(g4 * bands[b4 + w], g5 * bands[b5 + w], g6 * bands[b6 + w], g7 * bands[b7 + w])
            out[p + v], out[r + v] = a0 + c0, a0 - c0
            out[p + v + ONE], out[r + v + ONE] = a1 + c1, a1 - c1
            out[q + v], out[s + v] = a2 + c2, a2 - c2
            out[q + v + ONE], out[s + v + ONE] = a3 + c3, a3 - c3
            w += ONE
