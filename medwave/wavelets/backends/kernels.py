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
compiled = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})


@compiled
def mix(
    out: Array, first: int, second: int, outputs: int, source: Array, base: int,
    index: Array, weights: Array, start: int, stop: int, length: int,
) -> None:  # fmt: skip
    """Write one or two rows of ``out`` as weighted sums of rows of ``source`` (entries ``start:stop`` of a table)."""
    low = out[first : first + length]
    if start == stop:
        low[:] = 0
        if outputs == 2:
            out[second : second + length] = 0
        return
    t = start
    while t < stop:
        fresh = t == start
        a = source[base + index[t] : base + index[t] + length]
        b = source[base + index[t + 1] : base + index[t + 1] + length]
        la, lb = weights[0, t], weights[0, t + 1]
        if stop - t >= 4:
            c = source[base + index[t + 2] : base + index[t + 2] + length]
            d = source[base + index[t + 3] : base + index[t + 3] + length]
            lc, ld = weights[0, t + 2], weights[0, t + 3]
            if outputs == 2:
                high = out[second : second + length]
                ha, hb, hc, hd = weights[1, t], weights[1, t + 1], weights[1, t + 2], weights[1, t + 3]
                if fresh:
                    for w in range(length):
                        low[w] = la * a[w] + lb * b[w] + lc * c[w] + ld * d[w]
                        high[w] = ha * a[w] + hb * b[w] + hc * c[w] + hd * d[w]
                else:
                    for w in range(length):
                        low[w] += la * a[w] + lb * b[w] + lc * c[w] + ld * d[w]
                        high[w] += ha * a[w] + hb * b[w] + hc * c[w] + hd * d[w]
            elif fresh:
                for w in range(length):
                    low[w] = la * a[w] + lb * b[w] + lc * c[w] + ld * d[w]
            else:
                for w in range(length):
                    low[w] += la * a[w] + lb * b[w] + lc * c[w] + ld * d[w]
            t += 4
        else:
            if outputs == 2:
                high = out[second : second + length]
                ha, hb = weights[1, t], weights[1, t + 1]
                if fresh:
                    for w in range(length):
                        low[w] = la * a[w] + lb * b[w]
                        high[w] = ha * a[w] + hb * b[w]
                else:
                    for w in range(length):
                        low[w] += la * a[w] + lb * b[w]
                        high[w] += ha * a[w] + hb * b[w]
            elif fresh:
                for w in range(length):
                    low[w] = la * a[w] + lb * b[w]
            else:
                for w in range(length):
                    low[w] += la * a[w] + lb * b[w]
            t += 2


@compiled
def split_row(phases: Array, row: Array, phase: int, first: int, stop: int, offset: int, source: Array) -> None:
    """Even and odd samples of an extended row."""
    even = phases[:phase]
    odd = phases[phase : 2 * phase]
    inner = row[2 * first - offset : 2 * stop - offset]
    inner_even = even[first:stop]
    inner_odd = odd[first:stop]
    for q in range(stop - first):
        inner_even[q] = inner[2 * q]
        inner_odd[q] = inner[2 * q + 1]
    for side in range(2):
        begin, end = (0, first) if side == 0 else (stop, phase)
        for q in range(begin, end):
            e, o = source[2 * q], source[2 * q + 1]
            even[q] = row[e] if e >= 0 else 0
            odd[q] = row[o] if o >= 0 else 0


@compiled
def merge_row(row: Array, phases: Array, phase: int, offset: int, targets: Array, positions: Array) -> None:
    """A row from its extended phases; the border goes back to the samples that stood there."""
    half = len(row) // 2
    near = phases[offset // 2 + (phase if offset % 2 else 0) :]
    far = phases[(offset + 1) // 2 + (0 if offset % 2 else phase) :]
    for q in range(half):
        row[2 * q] = near[q]
        row[2 * q + 1] = far[q]
    if len(row) % 2:
        row[2 * half] = near[half]
    for t in range(len(targets)):
        row[targets[t]] += phases[positions[t] // 2 + (phase if positions[t] % 2 else 0)]


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
                split_row(phases, row[at : at + width], phase, split_first, split_stop, offset, source)
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
            merge_row(out[target : target + width], phases, phase, offset, targets, positions)
