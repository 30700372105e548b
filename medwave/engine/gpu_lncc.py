"""Triton kernels of the local squared correlation and its gradient; formulas in :mod:`medwave.engine.lncc_kernels`.

Windows are boxes: all taps are one. See :mod:`medwave.engine.gpu_filters` for tiles, marches and ``FUSED``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from medwave.engine.gpu_filters import combined, place, plane, zeros

_SIZES = ("depth", "height", "width", "voxels", "chunk")


@triton.jit(do_not_specialize=_SIZES)
def moments(
    x, out, depth, height, width, voxels, chunk, count, R: tl.constexpr, FUSED: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    """``S(f)`` and ``S(f^2) - S(f)^2 / count`` into ``out`` ``(2, D, H, W)``; not ``FUSED``, x holds both row sums."""
    begin, end, j, k = place(depth, height, width, chunk, BR, BW)
    taps = (1.0, 1.0, 1.0, 1.0, 1.0)
    here = (j < height)[:, None] & (k < width)[None, :]
    KIND: tl.constexpr = "powers" if FUSED else "stored"
    held = zeros(2 * R * 2, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, x, p, j, k, depth, height, width, voxels, taps, R, KIND, 2, FUSED)
        if p - R >= begin:
            s, ss = combined(planes, taps, R, 2)
            at = ((p - R) * height + j[:, None]) * width + k[None, :]
            tl.store(out + at, s, mask=here)
            tl.store(out + voxels + at, tl.maximum(ss - s * s / count, 0.0), mask=here)
        held = planes[2:]


@triton.jit(do_not_specialize=_SIZES)
def coefficients(
    x, y, fixed_moments, weight, out, partial, depth, height, width, voxels, chunk, count, epsilon, R: tl.constexpr,
    FUSED: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """alpha, beta, gamma into ``out`` ``(3, D, H, W)``; per program its part of the similarity, float64.

    ``x`` is the warped image and ``y`` the fixed one; not ``FUSED``, x holds the row sums of w, w^2, w f.
    """
    begin, end, j, k = place(depth, height, width, chunk, BR, BW)
    taps = (1.0, 1.0, 1.0, 1.0, 1.0)
    here = (j < height)[:, None] & (k < width)[None, :]
    KIND: tl.constexpr = "products" if FUSED else "stored"
    one = 1.0 / count
    similarity = tl.full((BR, BW), 0.0, tl.float32)
    held = zeros(2 * R * 3, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, y, p, j, k, depth, height, width, voxels, taps, R, KIND, 3, FUSED)
        if p - R >= begin:
            sw, sww, sfw = combined(planes, taps, R, 3)
            at = ((p - R) * height + j[:, None]) * width + k[None, :]
            sf = tl.load(fixed_moments + at, mask=here, other=0.0)
            vf = tl.load(fixed_moments + voxels + at, mask=here, other=0.0)
            m = tl.load(weight + at, mask=here, other=0.0)
            vw = tl.maximum(sww - sw * sw * one, 0.0)
            c = sfw - sf * sw * one
            inverse = 1.0 / (vf * vw + epsilon)
            alpha = 2.0 * m * c * inverse
            beta = -alpha * c * vf * inverse
            similarity += m * c * c * inverse
            tl.store(out + at, alpha, mask=here)
            tl.store(out + voxels + at, beta, mask=here)
            tl.store(out + 2 * voxels + at, (alpha * sf + beta * sw) * one, mask=here)
        held = planes[3:]
    tl.store(partial + tl.program_id(0), tl.sum(similarity.to(tl.float64)))


@triton.jit
def push(g, warped, out, i, at, rows, columns, here, depth, height, width, voxels, bound):
    """Force at ``at`` from half the derivative by intensities, ``g``: times the differences of the warped image.

    ``bound`` is one over the length that no vector reaches.
    """
    ahead = (tl.minimum(i + 1, depth - 1) - i) * height * width
    behind = (i - tl.maximum(i - 1, 0)) * height * width
    x = g * (tl.load(warped + at + ahead, mask=here, other=0.0) - tl.load(warped + at - behind, mask=here, other=0.0))
    up = (tl.minimum(rows + 1, height - 1) - rows) * width
    down = (rows - tl.maximum(rows - 1, 0)) * width
    y = g * (tl.load(warped + at + up, mask=here, other=0.0) - tl.load(warped + at - down, mask=here, other=0.0))
    right = tl.minimum(columns + 1, width - 1) - columns
    left = columns - tl.maximum(columns - 1, 0)
    z = g * (tl.load(warped + at + right, mask=here, other=0.0) - tl.load(warped + at - left, mask=here, other=0.0))
    share = 1.0 / (1.0 + bound * tl.sqrt(x * x + y * y + z * z))
    tl.store(out + at, share * x, mask=here)
    tl.store(out + voxels + at, share * y, mask=here)
    tl.store(out + 2 * voxels + at, share * z, mask=here)


@triton.jit(do_not_specialize=_SIZES)
def force(
    x, fixed, warped, out, depth, height, width, voxels, chunk, bound, R: tl.constexpr, FUSED: tl.constexpr,
    BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """The gradient by displacement ``(3, D, H, W)`` from the coefficients in ``x``, their row sums if not ``FUSED``."""
    begin, end, j, k = place(depth, height, width, chunk, BR, BW)
    taps = (1.0, 1.0, 1.0, 1.0, 1.0)
    rows = j[:, None]
    columns = k[None, :]
    here = (rows < height) & (columns < width)
    held = zeros(2 * R * 3, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, x, p, j, k, depth, height, width, voxels, taps, R, "stored", 3, FUSED)
        i = p - R
        if i >= begin:
            a, b, c = combined(planes, taps, R, 3)
            at = (i * height + rows) * width + columns
            f = tl.load(fixed + at, mask=here, other=0.0)
            w = tl.load(warped + at, mask=here, other=0.0)
            g = 0.5 * (a * f + b * w - c)
            push(g, warped, out, i, at, rows, columns, here, depth, height, width, voxels, bound)
        held = planes[3:]
