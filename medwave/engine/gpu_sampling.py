"""Triton kernels of the refinement that read at displaced places, and what it does once per iteration.

Conventions as in :mod:`medwave.fields.kernels`: fields ``(3, D, H, W)`` float32 in voxels, pull-back, positions clamped
to the border; a position that is not a number counts as 0. Offsets are 32 bits wide.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def cell(position, size):
    """The two voxels that a position lies between, and how far it is from the first."""
    clamped = tl.minimum(tl.where(position > 0.0, position, 0.0), (size - 1).to(tl.float32))
    low = clamped.to(tl.int32)
    return low, tl.minimum(low + 1, size - 1), clamped - low.to(tl.float32)


@triton.jit
def cells(at, z, y, x, depth, height, width):
    """The cells about ``p + (z, y, x)`` for the voxel p at offset ``at``."""
    k = at % width
    row = at // width
    j = row % height
    i = row // height
    a, a1, p = cell(i.to(tl.float32) + z, depth)
    b, b1, q = cell(j.to(tl.float32) + y, height)
    c, c1, r = cell(k.to(tl.float32) + x, width)
    return (
        (a * height + b) * width,
        (a * height + b1) * width,
        (a1 * height + b) * width,
        (a1 * height + b1) * width,
        c,
        c1,
        p,
        q,
        r,
    )


@triton.jit
def mixed(image, found):
    """Linear interpolation between the eight voxels about a place."""
    r00, r01, r10, r11, c, c1, p, q, r = found
    v00 = tl.load(image + r00 + c)
    v01 = tl.load(image + r01 + c)
    v10 = tl.load(image + r10 + c)
    v11 = tl.load(image + r11 + c)
    v00 += r * (tl.load(image + r00 + c1) - v00)
    v01 += r * (tl.load(image + r01 + c1) - v01)
    v10 += r * (tl.load(image + r10 + c1) - v10)
    v11 += r * (tl.load(image + r11 + c1) - v11)
    v0 = v00 + q * (v01 - v00)
    v1 = v10 + q * (v11 - v10)
    return v0 + p * (v1 - v0)


@triton.jit(do_not_specialize=("depth", "height", "width", "voxels"))
def warp(image, field, out, depth, height, width, voxels, BLOCK: tl.constexpr):
    """``out(p) = image(p + field(p))``; the image has the shape of the field."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < voxels
    z = tl.load(field + at, mask=inside, other=0.0)
    y = tl.load(field + voxels + at, mask=inside, other=0.0)
    x = tl.load(field + 2 * voxels + at, mask=inside, other=0.0)
    tl.store(out + at, mixed(image, cells(at, z, y, x, depth, height, width)), mask=inside)


@triton.jit(do_not_specialize=("depth", "height", "width", "voxels"))
def compose(outer, inner, scale, out, depth, height, width, voxels, BLOCK: tl.constexpr):
    """``out(p) = s inner(p) + outer(p + s inner(p))`` with the one number s at ``scale``."""
    s = tl.load(scale)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < voxels
    z = s * tl.load(inner + at, mask=inside, other=0.0)
    y = s * tl.load(inner + voxels + at, mask=inside, other=0.0)
    x = s * tl.load(inner + 2 * voxels + at, mask=inside, other=0.0)
    found = cells(at, z, y, x, depth, height, width)
    tl.store(out + at, z + mixed(outer, found), mask=inside)
    tl.store(out + voxels + at, y + mixed(outer + voxels, found), mask=inside)
    tl.store(out + 2 * voxels + at, x + mixed(outer + 2 * voxels, found), mask=inside)


@triton.jit
def slope(field, at, step, place, size):
    """Derivative at offset ``at``, whose index along an axis of stride ``step`` is ``place``; one-sided at the ends."""
    ahead = tl.minimum(place + 1, size - 1) - place
    behind = place - tl.maximum(place - 1, 0)
    rise = tl.load(field + at + ahead * step) - tl.load(field + at - behind * step)
    return rise / (ahead + behind).to(tl.float32)


@triton.jit(do_not_specialize=("depth", "height", "width", "voxels"))
def folded(field, out, least, depth, height, width, voxels, BLOCK: tl.constexpr):
    """1 where the determinant of the Jacobian of ``p + field(p)`` is below ``least``, else 0, as float32."""
    program = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = tl.minimum(program, voxels - 1)
    k = at % width
    row = at // width
    j = row % height
    i = row // height
    plane = height * width
    second = field + voxels
    third = second + voxels
    a = 1.0 + slope(field, at, plane, i, depth)
    b = slope(field, at, width, j, height)
    c = slope(field, at, 1, k, width)
    d = slope(second, at, plane, i, depth)
    e = 1.0 + slope(second, at, width, j, height)
    f = slope(second, at, 1, k, width)
    g = slope(third, at, plane, i, depth)
    h = slope(third, at, width, j, height)
    m = 1.0 + slope(third, at, 1, k, width)
    determinant = a * (e * m - f * h) - b * (d * m - f * g) + c * (d * h - e * g)
    tl.store(out + at, tl.where(determinant < least, 1.0, 0.0), mask=program < voxels)


@triton.jit(do_not_specialize=("sums", "squares"))
def advance(
    partial, sums, longest, squares, history, state, scale, step, WINDOW: tl.constexpr, TOLERANCE: tl.constexpr,
    LENGTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """End of the search of an iteration: note the similarity, say how far to step and whether to stop.

    Args:
        partial: ``sums`` parts of the weighted sum of the similarity, float64.
        longest: ``squares`` squared lengths, of which the largest counts.
        history: the weighted sums, float64, at least ``LENGTH``.
        state: int32, at 0 the iterations noted, at 4 whether to stop: once it is, nothing changes any more.
        scale: float32, the factor that makes the longest vector ``step`` long.
        WINDOW, TOLERANCE: as in :func:`medwave.engine.loops.converged`.
    """
    lanes = tl.arange(0, BLOCK)
    total = tl.full((BLOCK,), 0.0, tl.float64)
    for first in range(0, sums, BLOCK):
        total += tl.load(partial + first + lanes, mask=first + lanes < sums, other=0.0)
    value = tl.sum(total)
    largest = tl.full((BLOCK,), 0.0, tl.float32)
    for first in range(0, squares, BLOCK):
        largest = tl.maximum(largest, tl.load(longest + first + lanes, mask=first + lanes < squares, other=0.0))
    length = tl.sqrt(tl.max(largest))
    done = tl.load(state)
    stopped = tl.load(state + 4)
    entry = tl.arange(0, LENGTH)
    noted = tl.where(entry == done, value, tl.load(history + entry, mask=entry < done, other=0.0))
    late = tl.max(tl.where((entry <= done) & (entry > done - WINDOW), noted, float("-inf")))
    early = tl.max(tl.where(entry <= done - WINDOW, noted, float("-inf")))
    settled = (done + 1 > 2 * WINDOW) & (late <= early * (1.0 + TOLERANCE))
    going = stopped == 0
    tl.store(history + done, value, mask=going)
    tl.store(state, done + 1, mask=going)
    tl.store(state + 4, ((length < 1e-12) | settled).to(tl.int32), mask=going)
    tl.store(scale, step / tl.maximum(length, 1e-12))
