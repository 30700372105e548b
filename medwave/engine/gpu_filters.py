"""Triton kernels of the refinement that sum over windows: building blocks, and the smoothing of fields.

Conventions
    As in :mod:`medwave.fields.filters`: symmetric filters by their half, zeros outside the grid. Volumes are
    ``(D, H, W)`` float32, ``voxels`` apart where several lie in one array. Offsets are 32 bits wide.
    A program makes a tile of ``BR`` rows by ``BW`` columns and marches along the depth: each plane is filtered within
    itself once, the ``2 R`` planes before stay in registers, and their sum along the depth is what comes out.
    ``FUSED``: a plane is filtered along both axes by ``(2 R + 1)^2`` loads, which the first-level cache serves: one
    read and one write of memory. Else :func:`filter_rows` has filtered the rows before, and a march loads ``2 R + 1``.
    ``KIND`` says what is summed: ``"stored"``, so many volumes of one array, or products of one or two images that are
    made as they are read (:func:`values`).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def zeros(COUNT: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr):
    """``COUNT`` tiles of zeros."""
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.full((BR, BW), 0.0, tl.float32),)
    return tiles


@triton.jit
def values(x, y, at, known, voxels, KIND: tl.constexpr, COUNT: tl.constexpr):
    """The ``COUNT`` values at offsets ``at`` that are summed; zeros where they are not known."""
    a = tl.load(x + at, mask=known, other=0.0)
    found = (a,)
    if KIND == "stored":
        for n in tl.static_range(1, COUNT):
            found = found + (tl.load(x + n * voxels + at, mask=known, other=0.0),)
    elif KIND == "powers":  # f, f^2, ...
        power = a
        for _ in tl.static_range(1, COUNT):
            power = power * a
            found = found + (power,)
    else:  # w, w^2, w f, w f^2
        b = tl.load(y + at, mask=known, other=0.0)
        found = found + (a * a, a * b)
        if COUNT == 4:
            found = found + (a * b * b,)
    return found


@triton.jit
def weighted(part, tap):
    """Each tile times a tap."""
    tiles = ()
    for n in tl.static_range(len(part)):
        tiles = tiles + (tap * part[n],)
    return tiles


@triton.jit
def add(total, tap, one, other):
    """``total + tap (one + other)``, tile by tile."""
    tiles = ()
    for n in tl.static_range(len(total)):
        tiles = tiles + (total[n] + tap * (one[n] + other[n]),)
    return tiles


@triton.jit
def along_row(
    x, y, at, known, k, width, voxels, taps, R: tl.constexpr, KIND: tl.constexpr, COUNT: tl.constexpr,
    FUSED: tl.constexpr,
):  # fmt: skip
    """The values at ``at``, column ``k``; filtered along the width if ``FUSED``."""
    total = values(x, y, at, known & (k < width), voxels, KIND, COUNT)
    if FUSED:
        total = weighted(total, taps[0])
        for t in tl.static_range(1, R + 1):
            one = values(x, y, at - t, known & (k >= t) & (k - t < width), voxels, KIND, COUNT)
            other = values(x, y, at + t, known & (k + t < width), voxels, KIND, COUNT)
            total = add(total, taps[t], one, other)
    return total


@triton.jit
def plane(
    x, y, i, j, k, depth, height, width, voxels, taps, R: tl.constexpr, KIND: tl.constexpr, COUNT: tl.constexpr,
    FUSED: tl.constexpr,
):  # fmt: skip
    """A tile of plane ``i`` filtered within the plane; zeros where the plane lies outside the grid."""
    inside = (i >= 0) & (i < depth)
    rows = j[:, None]
    columns = k[None, :]
    at = (i * height + rows) * width + columns
    total = along_row(
        x, y, at, inside & (rows < height), columns, width, voxels, taps, R, KIND, COUNT, FUSED
    )  # fmt: skip
    total = weighted(total, taps[0])
    for t in tl.static_range(1, R + 1):
        before = inside & (rows >= t) & (rows - t < height)
        one = along_row(x, y, at - t * width, before, columns, width, voxels, taps, R, KIND, COUNT, FUSED)
        after = inside & (rows + t < height)
        other = along_row(x, y, at + t * width, after, columns, width, voxels, taps, R, KIND, COUNT, FUSED)
        total = add(total, taps[t], one, other)
    return total


@triton.jit
def combined(planes, taps, R: tl.constexpr, COUNT: tl.constexpr):
    """Weighted sums of ``2 R + 1`` planes of ``COUNT`` tiles each."""
    total = weighted(planes[R * COUNT : (R + 1) * COUNT], taps[0])
    for t in tl.static_range(1, R + 1):
        one = planes[(R - t) * COUNT : (R - t + 1) * COUNT]
        other = planes[(R + t) * COUNT : (R + t + 1) * COUNT]
        total = add(total, taps[t], one, other)
    return total


@triton.jit
def place(depth, height, width, chunk, BR: tl.constexpr, BW: tl.constexpr):
    """First plane and the one after the last, rows and columns of this program."""
    program = tl.program_id(0)
    tiles_w = tl.cdiv(width, BW)
    tiles_r = tl.cdiv(height, BR)
    k = (program % tiles_w) * BW + tl.arange(0, BW)
    program = program // tiles_w
    j = (program % tiles_r) * BR + tl.arange(0, BR)
    begin = (program // tiles_r) * chunk
    return begin, tl.minimum(begin + chunk, depth), j, k


@triton.jit(do_not_specialize=("voxels", "width"))
def filter_rows(
    x, y, out, voxels, width, t0, t1, t2, t3, t4, R: tl.constexpr, KIND: tl.constexpr, COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Filter along the width alone: ``COUNT`` volumes into ``out``."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < voxels
    taps = (t0, t1, t2, t3, t4)
    sums = along_row(x, y, at, known, at % width, width, voxels, taps, R, KIND, COUNT, True)
    for n in tl.static_range(COUNT):
        tl.store(out + n * voxels + at, sums[n], mask=known)


@triton.jit(do_not_specialize=("depth", "height", "width", "voxels", "chunk"))
def smooth_field(
    x, out, gate, longest, depth, height, width, voxels, chunk, t0, t1, t2, t3, t4, R: tl.constexpr,
    FUSED: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Filter a field ``(3, D, H, W)``; per program the largest squared length of a vector into ``longest``.

    Nothing is written to ``out`` where ``gate`` is not 0.
    """
    begin, end, j, k = place(depth, height, width, chunk, BR, BW)
    taps = (t0, t1, t2, t3, t4)
    here = (j < height)[:, None] & (k < width)[None, :]
    written = here & (tl.load(gate) == 0)
    largest = tl.full((BR, BW), 0.0, tl.float32)
    held = zeros(2 * R * 3, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, x, p, j, k, depth, height, width, voxels, taps, R, "stored", 3, FUSED)
        if p - R >= begin:
            sums = combined(planes, taps, R, 3)
            at = ((p - R) * height + j[:, None]) * width + k[None, :]
            for n in tl.static_range(3):
                tl.store(out + n * voxels + at, sums[n], mask=written)
            square = sums[0] * sums[0] + sums[1] * sums[1] + sums[2] * sums[2]
            largest = tl.maximum(largest, tl.where(here, square, 0.0))
        held = planes[3:]
    tl.store(longest + tl.program_id(0), tl.max(largest))
