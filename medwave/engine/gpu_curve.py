"""Triton kernels of the local curve and its gradient; formulas in :mod:`medwave.engine.curve_kernels`.

Windows are boxes: all taps are one. See :mod:`medwave.engine.gpu_filters` for tiles, marches and ``FUSED``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from medwave.engine.gpu_filters import combined, place, plane, zeros
from medwave.engine.gpu_lncc import push

_SIZES = ("depth", "height", "width", "voxels", "chunk")


@triton.jit(do_not_specialize=_SIZES)
def moments(
    x, out, depth, height, width, voxels, chunk, count, ridge, R: tl.constexpr, FUSED: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    """S(f), S(f^2) and the three entries of (M + ridge I)^-1 into ``out`` ``(5, D, H, W)``."""
    begin, end, j, k = place(depth, height, width, chunk, BR, BW)
    taps = (1.0, 1.0, 1.0, 1.0, 1.0)
    here = (j < height)[:, None] & (k < width)[None, :]
    KIND: tl.constexpr = "powers" if FUSED else "stored"
    one = 1.0 / count
    held = zeros(2 * R * 4, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, x, p, j, k, depth, height, width, voxels, taps, R, KIND, 4, FUSED)
        if p - R >= begin:
            s, ss, sss, ssss = combined(planes, taps, R, 4)
            v1 = tl.maximum(ss - s * s * one, 0.0)
            v2 = tl.maximum(ssss - ss * ss * one, 0.0)
            v12 = sss - s * ss * one
            # no covariance exceeds both spreads: what rounding adds must not turn the determinant negative
            inverse = 1.0 / ((v1 + ridge) * (v2 + ridge) - tl.minimum(v12 * v12, v1 * v2))
            at = ((p - R) * height + j[:, None]) * width + k[None, :]
            tl.store(out + at, s, mask=here)
            tl.store(out + voxels + at, ss, mask=here)
            tl.store(out + 2 * voxels + at, (v2 + ridge) * inverse, mask=here)
            tl.store(out + 3 * voxels + at, -v12 * inverse, mask=here)
            tl.store(out + 4 * voxels + at, (v1 + ridge) * inverse, mask=here)
        held = planes[4:]


@triton.jit(do_not_specialize=_SIZES)
def coefficients(
    x, y, fixed_moments, weight, out, partial, depth, height, width, voxels, chunk, count, least, R: tl.constexpr,
    FUSED: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """alpha_1, alpha_2, beta, gamma into ``out`` ``(4, D, H, W)``; per program its part of the similarity, float64.

    ``x`` is the warped image and ``y`` the fixed one; not ``FUSED``, x holds the row sums of w, w^2, w f, w f^2.
    """
    begin, end, j, k = place(depth, height, width, chunk, BR, BW)
    taps = (1.0, 1.0, 1.0, 1.0, 1.0)
    here = (j < height)[:, None] & (k < width)[None, :]
    KIND: tl.constexpr = "products" if FUSED else "stored"
    one = 1.0 / count
    similarity = tl.full((BR, BW), 0.0, tl.float32)
    held = zeros(2 * R * 4, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, y, p, j, k, depth, height, width, voxels, taps, R, KIND, 4, FUSED)
        if p - R >= begin:
            sw, sww, sfw, sgw = combined(planes, taps, R, 4)
            at = ((p - R) * height + j[:, None]) * width + k[None, :]
            sf = tl.load(fixed_moments + at, mask=here, other=0.0)
            sg = tl.load(fixed_moments + voxels + at, mask=here, other=0.0)
            first = tl.load(fixed_moments + 2 * voxels + at, mask=here, other=0.0)
            mixed = tl.load(fixed_moments + 3 * voxels + at, mask=here, other=0.0)
            last = tl.load(fixed_moments + 4 * voxels + at, mask=here, other=0.0)
            m = tl.load(weight + at, mask=here, other=0.0)
            mean = sw * one
            inverse = 1.0 / (tl.maximum(sww - sw * mean, 0.0) + least)
            c1 = sfw - sf * mean
            c2 = sgw - sg * mean
            a1 = first * c1 + mixed * c2
            a2 = mixed * c1 + last * c2
            share = (a1 * c1 + a2 * c2) * inverse
            similarity += m * share
            scale = 2.0 * m * inverse
            tl.store(out + at, scale * a1, mask=here)
            tl.store(out + voxels + at, scale * a2, mask=here)
            tl.store(out + 2 * voxels + at, -scale * share, mask=here)
            gamma = scale * ((a1 * sf + a2 * sg) * one - share * mean)
            tl.store(out + 3 * voxels + at, gamma, mask=here)
        held = planes[4:]
    tl.store(partial + tl.program_id(0), tl.sum(similarity.to(tl.float64)))


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
    held = zeros(2 * R * 4, BR, BW)
    for p in range(begin - R, end + R):
        planes = held + plane(x, x, p, j, k, depth, height, width, voxels, taps, R, "stored", 4, FUSED)
        i = p - R
        if i >= begin:
            a1, a2, b, c = combined(planes, taps, R, 4)
            at = (i * height + rows) * width + columns
            f = tl.load(fixed + at, mask=here, other=0.0)
            w = tl.load(warped + at, mask=here, other=0.0)
            g = 0.5 * ((a1 + a2 * f) * f + b * w - c)
            push(g, warped, out, i, at, rows, columns, here, depth, height, width, voxels, bound)
        held = planes[4:]
