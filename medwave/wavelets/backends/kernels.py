"""Compiled loops of the transform (numba), one thread each.

Conventions
    Arrays are flat and C-contiguous; offsets count elements. Samples are ``(B, D, H, W)``, bands
    ``(B, bands, D', H', W')``; a transform of fewer axes has H = 1 (2-D: the first axis is called D) or D = H = 1.
    A unit of work of analysis is one output plane along D (one output row in 2-D), of synthesis the two planes or rows
    that one step of the filters makes: rows are mixed along D into planes that stay in the cache, those along H into
    a block of rows that stays in the first cache, those along W into the result. Nothing of the size of the image is
    allocated. A call costs as much as a short row, so functions take blocks.
    The first two arguments of a kernel are its slab of units, see :mod:`medwave.core.threads`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medwave.wavelets.backends.lanes import (
    LANE_BYTES,
    ONE,
    Array,
    Index,
    Offset,
    add_scaled,
    compiled,
    evens,
    inlined,
    load,
    odds,
    store,
    zero,
    zip_back,
    zip_front,
)


@inlined
def mix(
    out: Array, low: Index, high: Index, outputs: int, source: Array, at: Index,
    index: Array, weights: Array, start: int, stop: int, n: Index,
) -> None:  # fmt: skip
    """Write one or two rows of ``out`` as weighted sums of rows of ``source`` (entries ``start:stop`` of a table)."""
    lane = Offset(LANE_BYTES // out.itemsize)
    w = Offset(0)
    if outputs == 2:
        while w + Offset(4) * lane <= n:
            mix_lanes(out, low + w, high + w, lane, source, at + w, index, weights, start, stop)
            w += Offset(4) * lane
    while w < n and n >= lane:
        w = min(w, n - lane)  # the last lanes overlap those before
        a, b = zero(out), zero(out)
        for t in range(start, stop):
            value = load(source, at + w + Offset(index[t]))
            a = add_scaled(a, value, weights[0, t])
            if outputs == 2:
                b = add_scaled(b, value, weights[1, t])
        store(out, low + w, a)
        if outputs == 2:
            store(out, high + w, b)
        w += lane
    while w < n:
        out[low + w] = dot(source, at + w, index, weights[0], start, stop)
        if outputs == 2:
            out[high + w] = dot(source, at + w, index, weights[1], start, stop)
        w += ONE


@inlined
def mix_lanes(
    out: Array, low: Index, high: Index, lane: Index, source: Array, at: Index,
    index: Array, weights: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Four lanes of two rows: as many sums as registers hold, so that an entry is read once for all of them."""
    a0, a1, a2, a3 = zero(out), zero(out), zero(out), zero(out)
    b0, b1, b2, b3 = zero(out), zero(out), zero(out), zero(out)
    for t in range(start, stop):
        k = at + Offset(index[t])
        p, q = weights[0, t], weights[1, t]
        v0, v1 = load(source, k), load(source, k + lane)
        v2, v3 = load(source, k + lane + lane), load(source, k + lane + lane + lane)
        a0, b0 = add_scaled(a0, v0, p), add_scaled(b0, v0, q)
        a1, b1 = add_scaled(a1, v1, p), add_scaled(b1, v1, q)
        a2, b2 = add_scaled(a2, v2, p), add_scaled(b2, v2, q)
        a3, b3 = add_scaled(a3, v3, p), add_scaled(b3, v3, q)
    store(out, low, a0)
    store(out, low + lane, a1)
    store(out, low + lane + lane, a2)
    store(out, low + lane + lane + lane, a3)
    store(out, high, b0)
    store(out, high + lane, b1)
    store(out, high + lane + lane, b2)
    store(out, high + lane + lane + lane, b3)


@compiled
def dot(source: Array, at: Index, index: Array, weights: Array, start: int, stop: int) -> float:
    """One weighted sum."""
    total = weights.dtype.type(0)
    for t in range(start, stop):
        total += weights[t] * source[at + Offset(index[t])]
    return total


@compiled
def mix_rows(
    out: Array, first: int, second: int, step: int, outputs: int, source: Array, base: int,
    plan: Any, begin: int, end: int, length: int,
) -> None:  # fmt: skip
    """Outputs ``begin:end`` of a table; those of the first kind go to rows ``step`` apart from ``first``."""
    pointer, index, weights = plan
    low, high = Offset(first), Offset(second)
    for g in range(begin, end):
        mix(out, low, high, outputs, source, Offset(base), index, weights, pointer[g], pointer[g + 1], Offset(length))
        low += Offset(step)
        high += Offset(step)


@compiled
def split_rows(
    out: Array, target: int, target_step: int, band_size: int, outputs: int, rows: Array, at: int, row_step: int,
    count: int, length: int, split: Any, plan: Any, phases: Array,
) -> None:  # fmt: skip
    """Last axis of analysis: ``count`` rows, each into its bands, ``length`` coefficients long.

    All rows are split before the first is filtered: what was just written must not be read at another offset.
    """
    phase, first, stop, offset, source = split
    pointer, index, weights = plan
    lane = Offset(LANE_BYTES // rows.itemsize)
    n = Offset(stop - first)
    for k in range(count):
        row, base = at + k * row_step, 2 * k * phase
        inner, even, odd = Offset(row + 2 * first - offset), Offset(base + first), Offset(base + phase + first)
        q = Offset(0)
        while q < n and n >= lane:
            q = min(q, n - lane)
            a, b = load(rows, inner + q + q), load(rows, inner + q + q + lane)
            store(phases, even + q, evens(a, b))
            store(phases, odd + q, odds(a, b))
            q += lane
        while q < n:
            phases[even + q] = rows[inner + q + q]
            phases[odd + q] = rows[inner + q + q + ONE]
            q += ONE
        for side in range(2):
            begin, end = (0, first) if side == 0 else (stop, phase)
            for j in range(begin, end):
                e, o = source[2 * j], source[2 * j + 1]
                phases[base + j] = rows[row + e] if e >= 0 else 0
                phases[base + phase + j] = rows[row + o] if o >= 0 else 0
    low, high = Offset(target), Offset(target + band_size)
    for k in range(count):
        at_phases = Offset(2 * k * phase)
        mix(out, low, high, outputs, phases, at_phases, index, weights, 0, pointer[1], Offset(length))
        low += Offset(target_step)
        high += Offset(target_step)


@compiled
def merge_rows(
    out: Array, first_row: int, width: int, members: Array, begin: int, end: int, rows: Array, second: int,
    padded: int, merge: Any, plan: Any, phases: Array,
) -> None:  # fmt: skip
    """Last axis of synthesis: the rows that are the members of pairs ``begin:end``, counted from ``first_row``.

    The border goes back to the samples it repeats.
    """
    phase, offset, targets, positions = merge
    pointer, index, weights = plan
    lane = Offset(LANE_BYTES // rows.itemsize)
    near = Offset(offset // 2 + (phase if offset % 2 else 0))
    far = Offset((offset + 1) // 2 + (0 if offset % 2 else phase))
    n, length = Offset(width // 2), Offset(phase)
    for k in range(2 * (end - begin)):
        at, base = Offset((k % 2) * second + (k // 2) * padded), Offset(2 * k * phase)
        mix(phases, base, base + length, 2, rows, at, index, weights, 0, pointer[1], length)
    for k in range(2 * (end - begin)):
        member, base = members[begin + k // 2, k % 2], 2 * k * phase
        if member < 0:
            continue
        row, even, odd, q = Offset((first_row + member) * width), Offset(base) + near, Offset(base) + far, Offset(0)
        while q < n and n >= lane:
            q = min(q, n - lane)
            a, b = load(phases, even + q), load(phases, odd + q)
            store(out, row + q + q, zip_front(a, b))
            store(out, row + q + q + lane, zip_back(a, b))
            q += lane
        while q < n:
            out[row + q + q] = phases[even + q]
            out[row + q + q + ONE] = phases[odd + q]
            q += ONE
        if width % 2:
            out[row + Offset(width - 1)] = phases[even + n]
        for t in range(len(targets)):
            value = phases[base + positions[t] // 2 + (phase if positions[t] % 2 else 0)]
            out[row + Offset(targets[t])] += value


@compiled
def analysis(
    start: int, stop: int, x: Array, out: Array, sizes: Any, counts: Any, outputs: Any, block: int, plan_d: Any,
    plan_h: Any, split: Any, plan_w: Any,
) -> None:  # fmt: skip
    """Bands of samples. ``outputs``: bands per axis, 0 for an axis that is not transformed (then its size is 1)."""
    depth, height, width = sizes
    depth_out, height_out, width_out = counts
    by_d, by_h, by_w = outputs
    plane, band, step = height * width, depth_out * height_out * width_out, block * width
    planes = np.empty(by_d * plane if by_h > 0 else 0, x.dtype)
    rows = np.empty(max(by_d, 1) * max(by_h, 1) * step, x.dtype)
    phases = np.empty(2 * block * split[0], x.dtype)
    unit = start
    while unit < stop:
        image, i = unit // depth_out, unit % depth_out
        if by_h > 0:
            mix_rows(planes, 0, plane, 0, by_d, x, image * depth * plane, plan_d, i, i + 1, plane)
            for g in range(0, height_out, block):
                count = min(block, height_out - g)
                for r in range(by_d):
                    mix_rows(rows, r * by_h * step, (r * by_h + 1) * step, width, by_h, planes, r * plane,
                             plan_h, g, g + count, width)  # fmt: skip
                for r in range(by_d * by_h):
                    target = (image * by_d * by_h + r) * by_w * band + (i * height_out + g) * width_out
                    split_rows(out, target, width_out, band, by_w, rows, r * step, width, count, width_out,
                               split, plan_w, phases)  # fmt: skip
            unit += 1
        elif by_d > 0:
            count = min(block, stop - unit, depth_out - i)
            mix_rows(rows, 0, step, width, by_d, x, image * depth * width, plan_d, i, i + count, width)
            for r in range(by_d):
                target = (image * by_d + r) * by_w * band + i * width_out
                split_rows(out, target, width_out, band, by_w, rows, r * step, width, count, width_out,
                           split, plan_w, phases)  # fmt: skip
            unit += count
        else:
            count = min(block, stop - unit)
            split_rows(out, unit * by_w * band, by_w * band, band, by_w, x, unit * width, width, count, width_out,
                       split, plan_w, phases)  # fmt: skip
            unit += count


@compiled
def synthesis(
    start: int, stop: int, bands: Array, out: Array, sizes: Any, counts: Any, inputs: Any, block: int, plan_d: Any,
    plan_h: Any, merge: Any, plan_w: Any,
) -> None:  # fmt: skip
    """Samples of bands: the transpose of :func:`analysis`. ``inputs``: bands per axis, 0 as there.

    The plans of D and H make two outputs at a time, whose numbers are in their ``members`` (-1: none).
    """
    depth, height, width = sizes
    depth_in, height_in, width_in = counts
    by_d, by_h, by_w = inputs
    members_d, table_d = plan_d
    members_h, table_h = plan_h
    overlap = merge[0] - width_in
    padded = width_in + 2 * overlap
    plane, band, step = height_in * width_in, depth_in * height_in * width_in, block * padded
    kinds = max(by_h, 1) * by_w
    planes = np.empty(2 * kinds * plane if by_h > 0 else 0, bands.dtype)
    rows = np.zeros(2 * by_w * step, bands.dtype)  # coefficient rows between zeros, of two outputs
    second = by_w * step
    phases = np.empty(4 * block * merge[0], bands.dtype)
    pairs_d, pairs_h = len(members_d), len(members_h)
    unit = start
    while unit < stop:
        image, pair = unit // pairs_d, unit % pairs_d
        base = image * max(by_d, 1) * kinds * band
        if by_h > 0:
            for r in range(kinds):
                mix_rows(planes, r * plane, (kinds + r) * plane, 0, 2, bands, base + r * band,
                         table_d, pair, pair + 1, plane)  # fmt: skip
            for one in range(2):
                p = members_d[pair, one]
                for first in range(0, pairs_h if p >= 0 else 0, block):
                    last = min(first + block, pairs_h)
                    for r in range(by_w):
                        at = r * step + overlap
                        mix_rows(rows, at, at + second, padded, 2, planes, (one * kinds + r) * plane,
                                 table_h, first, last, width_in)  # fmt: skip
                    merge_rows(out, (image * depth + p) * height, width, members_h, first, last, rows, second,
                               padded, merge, plan_w, phases)  # fmt: skip
            unit += 1
        else:
            count = min(block, stop - unit, pairs_d - pair)
            for r in range(by_w):
                at = r * step + overlap
                if by_d > 0:
                    mix_rows(rows, at, at + second, padded, 2, bands, base + r * band, table_d, pair, pair + count,
                             width_in)  # fmt: skip
                else:
                    rows[at : at + width_in] = bands[base + r * band : base + r * band + width_in]
            merge_rows(out, image * depth, width, members_d, pair, pair + count, rows, second, padded, merge, plan_w,
                       phases)  # fmt: skip
            unit += count
