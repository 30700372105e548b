"""Triton kernels of global mutual information and its gradient; formulas in :mod:`medwave.engine.mi_force`.

The joint histogram is counted in whole units of 2^-32 by atomic additions, whose order does not matter then: the same
images give the same numbers every time. Programs share ``COPIES`` of it, so that few meet at one entry.
"""

from __future__ import annotations

import triton
import triton.language as tl

COPIES = 32
SIDE = 64
"""Entries along each side of a copy, a power of two that holds the bins."""


@triton.jit
def bin_of(warped, at, known, BINS: tl.constexpr):
    """The first of the four bins that a warped intensity reaches, and how far it is within it."""
    v = tl.load(warped + at, mask=known, other=0.0) * (BINS - 4)
    v = tl.minimum(tl.where(v > 0.0, v, 0.0), BINS - 4 - 1e-3)  # what is not a number counts as 0
    first = v.to(tl.int32)
    return first, v - first.to(tl.float32)


@triton.jit
def count(histogram, entry, amount, known):
    """Add amounts to entries."""
    tl.atomic_add(histogram + entry, (amount * 4294967296.0).to(tl.int64), mask=known, sem="relaxed")


@triton.jit(do_not_specialize=("voxels",))
def joint_histogram(
    bins, warped, weight, histograms, voxels, BINS: tl.constexpr, SIDE: tl.constexpr, COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the weighted joint histogram to ``histograms`` ``(COPIES, SIDE, SIDE)`` int64, fixed bins first."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < voxels
    amount = tl.load(weight + at, mask=known, other=0.0).to(tl.float64)
    known = known & (amount != 0.0)
    first, t = bin_of(warped, at, known, BINS)
    t = t.to(tl.float64)
    entry = tl.load(bins + at, mask=known, other=0).to(tl.int32) * SIDE + first
    entry += (tl.program_id(0) % COPIES) * SIDE * SIDE
    u = 1.0 - t
    count(histograms, entry, amount * (u * u * u) / 6.0, known)
    count(histograms, entry + 1, amount * ((3.0 * t - 6.0) * t * t + 4.0) / 6.0, known)
    count(histograms, entry + 2, amount * (((3.0 - 3.0 * t) * t + 3.0) * t + 1.0) / 6.0, known)
    count(histograms, entry + 3, amount * (t * t * t) / 6.0, known)


@triton.jit
def information(histograms, table, value, SIDE: tl.constexpr, COPIES: tl.constexpr):
    """Mutual information and the table of its derivative from the histograms, which are emptied."""
    place = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    total = tl.full((SIDE, SIDE), 0, tl.int64)
    for copy in range(COPIES):
        total += tl.load(histograms + copy * SIDE * SIDE + place)
        tl.store(histograms + copy * SIDE * SIDE + place, tl.full((SIDE, SIDE), 0, tl.int64))
    joint = total.to(tl.float64)
    joint = joint / tl.maximum(tl.sum(joint), 1e-12)
    least = tl.full((SIDE, SIDE), 1e-12, tl.float64)
    log_joint = tl.log(joint + least)
    log_moving = tl.log(tl.sum(joint, 0)[None, :] + least)
    log_fixed = tl.log(tl.sum(joint, 1)[:, None] + least)
    tl.store(value, tl.sum(joint * (log_joint - log_moving - log_fixed)))
    tl.store(table + place, (log_joint - log_moving).to(tl.float32))


@triton.jit
def rise(warped, at, step, place, size, known):
    """Difference of the neighbours along an axis of stride ``step``; at the ends of the axis, of one and the voxel."""
    ahead = tl.load(warped + at + (tl.minimum(place + 1, size - 1) - place) * step, mask=known, other=0.0)
    return ahead - tl.load(warped + at - (place - tl.maximum(place - 1, 0)) * step, mask=known, other=0.0)


@triton.jit(do_not_specialize=("depth", "height", "width", "voxels"))
def force(
    bins, warped, weight, table, out, depth, height, width, voxels, BINS: tl.constexpr, SIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient by displacement ``(3, D, H, W)`` from the table."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < voxels
    first, t = bin_of(warped, at, known, BINS)
    row = table + tl.load(bins + at, mask=known, other=0).to(tl.int32) * SIDE + first
    slope = -tl.load(row) * (1.0 - t) * (1.0 - t)
    slope += tl.load(row + 1) * (3.0 * t - 4.0) * t
    slope += tl.load(row + 2) * ((2.0 - 3.0 * t) * t + 1.0)
    slope += tl.load(row + 3) * t * t
    g = 0.25 * slope * tl.load(weight + at, mask=known, other=0.0)
    k = at % width
    line = at // width
    j = line % height
    tl.store(out + at, g * rise(warped, at, height * width, line // height, depth, known), mask=known)
    tl.store(out + voxels + at, g * rise(warped, at, width, j, height, known), mask=known)
    tl.store(out + 2 * voxels + at, g * rise(warped, at, 1, k, width, known), mask=known)
