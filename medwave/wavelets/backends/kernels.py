"""Compiled loops of the transform (numba), one thread each.

Conventions
    Arrays are flat and C-contiguous; offsets count elements. Samples are ``(B, D, H, W)``, bands
    ``(B, bands, D', H', W')``; a transform of fewer axes has H = 1 (2-D: the first axis is called D) or D = H = 1.
    A unit of work is one output plane along D (one output row in 2-D): rows are mixed along D into planes that stay
    in the cache, those along H into rows, those along W into the result. Nothing of the size of the image is allocated.
    The first two arguments of a kernel are its slab of units, see :mod:`medwave.core.threads`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = Any  # numba specialises on the array types that come
Offset = np.uint64  # an unsigned index needs no test for a negative one, which would keep a loop from using vectors
ONE = Offset(1)
compiled = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})


@compiled
def mix(
    out: Array, first: int, second: int, outputs: int, source: Array, base: int,
    index: Array, weights: Array, start: int, stop: int, length: int,
) -> None:  # fmt: skip
    """Write one or two rows of ``out`` as weighted sums of rows of ``source`` (entries ``start:stop`` of a table)."""
    n, low, high = Offset(length), Offset(first), Offset(second)
    if start == stop:
        for w in range(n):
            out[low + w] = 0
            if outputs == 2:
                out[high + w] = 0
    t = start
    while t < stop:
        fresh = t == start
        a, b = Offset(base + index[t]), Offset(base + index[t + 1])
        la, lb = weights[0, t], weights[0, t + 1]
        if stop - t >= 4:
            c, d = Offset(base + index[t + 2]), Offset(base + index[t + 3])
            lc, ld = weights[0, t + 2], weights[0, t + 3]
            if outputs == 2:
                ha, hb, hc, hd = weights[1, t], weights[1, t + 1], weights[1, t + 2], weights[1, t + 3]
                if fresh:
                    for w in range(n):
                        va, vb, vc, vd = source[a + w], source[b + w], source[c + w], source[d + w]
                        out[low + w] = la * va + lb * vb + lc * vc + ld * vd
                        out[high + w] = ha * va + hb * vb + hc * vc + hd * vd
                else:
                    for w in range(n):
                        va, vb, vc, vd = source[a + w], source[b + w], source[c + w], source[d + w]
                        out[low + w] += la * va + lb * vb + lc * vc + ld * vd
                        out[high + w] += ha * va + hb * vb + hc * vc + hd * vd
            elif fresh:
                for w in range(n):
                    out[low + w] = la * source[a + w] + lb * source[b + w] + lc * source[c + w] + ld * source[d + w]
            else:
                for w in range(n):
                    out[low + w] += la * source[a + w] + lb * source[b + w] + lc * source[c + w] + ld * source[d + w]
            t += 4
        else:
            if outputs == 2:
                ha, hb = weights[1, t], weights[1, t + 1]
                if fresh:
                    for w in range(n):
                        va, vb = source[a + w], source[b + w]
                        out[low + w] = la * va + lb * vb
                        out[high + w] = ha * va + hb * vb
                else:
                    for w in range(n):
                        va, vb = source[a + w], source[b + w]
                        out[low + w] += la * va + lb * vb
                        out[high + w] += ha * va + hb * vb
            elif fresh:
                for w in range(n):
                    out[low + w] = la * source[a + w] + lb * source[b + w]
            else:
                for w in range(n):
                    out[low + w] += la * source[a + w] + lb * source[b + w]
            t += 2


@compiled
def split_row(
    phases: Array, rows: Array, at: int, phase: int, first: int, stop: int, offset: int, source: Array
) -> None:
    """Even and odd samples of the extended row that starts at ``rows[at]``."""
    even, odd, inner = Offset(first), Offset(phase + first), Offset(at + 2 * first - offset)
    for q in range(Offset(stop - first)):
        phases[even + q] = rows[inner + q + q]
        phases[odd + q] = rows[inner + q + q + ONE]
    for side in range(2):
        begin, end = (0, first) if side == 0 else (stop, phase)
        for k in range(begin, end):
            e, o = source[2 * k], source[2 * k + 1]
            phases[k] = rows[at + e] if e >= 0 else 0
            phases[phase + k] = rows[at + o] if o >= 0 else 0


@compiled
def merge_row(
    rows: Array, at: int, width: int, phases: Array, phase: int, offset: int, targets: Array, positions: Array
) -> None:
    """The row that starts at ``rows[at]`` from extended phases; the border goes back to the samples it repeats."""
    near = Offset(offset // 2 + (phase if offset % 2 else 0))
    far = Offset((offset + 1) // 2 + (0 if offset % 2 else phase))
    row = Offset(at)
    for q in range(Offset(width // 2)):
        rows[row + q + q] = phases[near + q]
        rows[row + q + q + ONE] = phases[far + q]
    if width % 2:
        rows[row + Offset(width - 1)] = phases[near + Offset(width // 2)]
    for t in range(len(targets)):
        rows[at + targets[t]] += phases[positions[t] // 2 + (phase if positions[t] % 2 else 0)]


@compiled
def analysis(
    start: int, stop: int, x: Array, out: Array, sizes: Any, counts: Any, outputs: Any, plan_d: Any, plan_h: Any,
    split: Any, plan_w: Any,
) -> None:  # fmt: skip
    """Bands of samples. ``outputs``: bands per axis, 0 for an axis that is not transformed (then its size is 1)."""
    _, height, width = sizes
    depth_out, height_out, width_out = counts
    by_d, by_h, by_w = outputs
    pointer_d, index_d, weights_d = plan_d
    pointer_h, index_h, weights_h = plan_h
    pointer_w, index_w, weights_w = plan_w
    phase, split_first, split_stop, offset, source = split
    planes = np.empty(by_d * height * width, x.dtype)
    rows = np.empty(max(by_d, 1) * by_h * width, x.dtype)
    phases = np.empty(2 * phase, x.dtype)
    row_count = max(by_d, 1) * max(by_h, 1)
    band_size = depth_out * height_out * width_out
    for unit in range(start, stop):
        image, i = unit // depth_out, unit % depth_out
        plane, plane_base = x, image * sizes[0] * height * width
        if by_d > 0:
            mix(planes, 0, height * width, by_d, x, plane_base, index_d, weights_d, pointer_d[i], pointer_d[i + 1],
                height * width)  # fmt: skip
            plane, plane_base = planes, 0
        for g in range(height_out):
            row, row_base = plane, plane_base
            if by_h > 0:
                for s in range(max(by_d, 1)):
                    mix(rows, s * by_h * width, (s * by_h + 1) * width, by_h, plane, plane_base + s * height * width,
                        index_h, weights_h, pointer_h[g], pointer_h[g + 1], width)  # fmt: skip
                row, row_base = rows, 0
            for r in range(row_count):
                at = row_base + r * width
                split_row(phases, row, at, phase, split_first, split_stop, offset, source)
                target = (image * row_count + r) * by_w * band_size + (i * height_out + g) * width_out
                mix(out, target, target + band_size, by_w, phases, 0, index_w, weights_w, 0, pointer_w[1], width_out)


@compiled
def synthesis(
    start: int, stop: int, bands: Array, out: Array, sizes: Any, counts: Any, inputs: Any, plan_d: Any, plan_h: Any,
    merge: Any, plan_w: Any,
) -> None:  # fmt: skip
    """Samples of bands: the transpose of :func:`analysis`. ``inputs``: bands per axis, 0 as there."""
    depth, height, width = sizes
    depth_in, height_in, width_in = counts
    by_d, by_h, by_w = inputs
    pointer_d, index_d, weights_d = plan_d
    pointer_h, index_h, weights_h = plan_h
    pointer_w, index_w, weights_w = plan_w
    phase, offset, targets, positions = merge
    overlap = phase - width_in
    padded = width_in + 2 * overlap
    plane_size = height_in * width_in
    band_size = depth_in * plane_size
    plane_count = max(by_h, 1) * by_w
    planes = np.empty(plane_count * plane_size if by_h > 0 else 0, bands.dtype)
    rows = np.zeros(by_w * padded, bands.dtype)  # coefficient rows between zeros
    phases = np.empty(2 * phase, bands.dtype)
    for unit in range(start, stop):
        image, p = unit // depth, unit % depth
        base = image * max(by_d, 1) * plane_count * band_size
        for r in range(plane_count):
            if by_h > 0:
                mix(planes, r * plane_size, 0, 1, bands, base + r * band_size, index_d, weights_d, pointer_d[p],
                    pointer_d[p + 1], plane_size)  # fmt: skip
            elif by_d > 0:
                mix(rows, r * padded + overlap, 0, 1, bands, base + r * band_size, index_d, weights_d, pointer_d[p],
                    pointer_d[p + 1], width_in)  # fmt: skip
            else:
                at = base + r * band_size
                rows[r * padded + overlap : r * padded + overlap + width_in] = bands[at : at + width_in]
        for q in range(height):
            if by_h > 0:
                for r in range(by_w):
                    mix(rows, r * padded + overlap, 0, 1, planes, r * plane_size, index_h, weights_h, pointer_h[q],
                        pointer_h[q + 1], width_in)  # fmt: skip
            mix(phases, 0, phase, 2, rows, 0, index_w, weights_w, 0, pointer_w[1], phase)
            target = ((image * depth + p) * height + q) * width
            merge_row(out, target, width, phases, phase, offset, targets, positions)
