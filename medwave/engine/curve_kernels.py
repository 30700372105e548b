"""How well a curve of the fixed image tells the warped one within windows, with its exact gradient, as compiled loops.

In each window the warped intensities w are fitted by a parabola of the fixed ones, ``p + q f + r f^2``: one curve per
window, so that contrasts may be related otherwise in every place. The similarity is the share of the variance of w
that the curve explains (squared multiple correlation), where local correlation (:mod:`medwave.engine.lncc_kernels`)
fits a line. T1 and T2 or FLAIR are not related by a line where a window holds background, fluid and grey matter.

With S the sum over a window of N voxels, ``f_1 = f``, ``f_2 = f^2``, ``c_i = S(f_i w) - S(f_i) S(w) / N``, ``v`` the
variance sum of w and ``M_ij`` the covariance sums of f_i and f_j: ``a = (M + N e I)^-1 c``, the similarity is the mean
over x of ``m(x) a . c / (v + N e')`` with an optional weight m. Its derivative with respect to the intensity w(y) is

    S(alpha_1)(y) f(y) + S(alpha_2)(y) f(y)^2 + S(beta)(y) w(y) - S(gamma)(y)
    alpha_i = 2 m a_i / (v + N e'),  beta = -2 m (a . c) / (v + N e')^2
    gamma = (alpha_1 S(f) + alpha_2 S(f^2) + beta S(w)) / N

Polynomials of the intensity for registration between contrasts, one for the whole image: Guimond et al., IEEE TMI
20:58-69, 2001, doi 10.1109/42.906425. Local correlation: Avants et al., Med Image Anal 12:26-41, 2008, doi
10.1016/j.media.2007.06.004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.threads import run_slabs
from medwave.engine.lncc_kernels import push_line, window_sums
from medwave.fields.filters import box_taps, clear_plane, combine_planes, filter_plane

FloatVolume = npt.NDArray[np.float32]

_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


@_compile
def _invert(start, stop, sums, fourth, count, ridge):
    """Turn ``S(f), S(f^2), S(f^3)`` and ``S(f^4)`` into S(f), S(f^2) and the three entries of (M + ridge I)^-1."""
    one = np.float32(1.0) / count
    for i in range(start, stop):
        for j in range(sums.shape[2]):
            s, ss, sss, ssss = sums[0, i, j], sums[1, i, j], sums[2, i, j], fourth[i, j]
            first, mixed, last = sums[2, i, j], sums[3, i, j], sums[4, i, j]
            for k in range(s.shape[0]):
                v1 = max(ss[k] - s[k] * s[k] * one, np.float32(0.0))
                v2 = max(ssss[k] - ss[k] * ss[k] * one, np.float32(0.0))
                v12 = sss[k] - s[k] * ss[k] * one
                # no covariance exceeds both spreads: what rounding adds must not turn the determinant negative
                inverse = np.float32(1.0) / ((v1 + ridge) * (v2 + ridge) - min(v12 * v12, v1 * v2))
                first[k] = (v2 + ridge) * inverse
                mixed[k] = -v12 * inverse
                last[k] = (v1 + ridge) * inverse


@_compile
def _moments_slab(start, stop, image, square, taps, count, ridge, sums, fourth):
    window_sums(start, stop, square, square, taps, fourth)
    window_sums(start, stop, image, square, taps, sums[:3])
    _invert(start, stop, sums, fourth[1], count, ridge)


@_compile
def _coefficients_line(sw, sww, sfw, sgw, sf, sg, first, mixed, last, weight, count, least):
    """alpha_1, alpha_2, beta, gamma in place of the four sums of one row; returns the row's part of the similarity."""
    total = np.float32(0.0)
    one = np.float32(1.0) / count
    for k in range(sw.shape[0]):
        mean = sw[k] * one
        inverse = np.float32(1.0) / (max(sww[k] - sw[k] * mean, np.float32(0.0)) + least)
        c1, c2 = sfw[k] - sf[k] * mean, sgw[k] - sg[k] * mean
        a1, a2 = first[k] * c1 + mixed[k] * c2, mixed[k] * c1 + last[k] * c2
        share = (a1 * c1 + a2 * c2) * inverse
        total += weight[k] * share
        scale = np.float32(2.0) * weight[k] * inverse
        alpha1, alpha2, beta = scale * a1, scale * a2, -scale * share
        sgw[k] = (alpha1 * sf[k] + alpha2 * sg[k]) * one + beta * mean
        sw[k] = alpha1
        sww[k] = alpha2
        sfw[k] = beta
    return total


@_compile
def _coefficients_slab(start, stop, fixed, warped, moments, weight, taps, count, least, out, similarity):
    window_sums(start, stop, warped, fixed, taps, out)
    for i in range(start, stop):
        total = 0.0
        for j in range(fixed.shape[1]):
            total += _coefficients_line(
                out[0, i, j], out[1, i, j], out[2, i, j], out[3, i, j], moments[0, i, j], moments[1, i, j],
                moments[2, i, j], moments[3, i, j], moments[4, i, j], weight[i, j], count, least,
            )  # fmt: skip
        similarity[i] = total


@_compile
def _slope_line(g, a1, a2, b, c, f, w):
    """Half the derivative by the warped intensities of one row."""
    for k in range(f.shape[0]):
        g[k] = np.float32(0.5) * ((a1[k] + a2[k] * f[k]) * f[k] + b[k] * w[k] - c[k])


@_compile
def _force_slab(start, stop, fixed, warped, coefficients, taps, out):
    depth, height, width = fixed.shape
    radius = taps.shape[0] - 1
    length = 2 * radius + 1
    row = np.zeros(width + 2 * radius, dtype=np.float32)
    rows = np.zeros((height + 2 * radius, width), dtype=np.float32)
    rings = np.zeros((4, length, height, width), dtype=np.float32)
    sums = np.empty((4, height, width), dtype=np.float32)
    slope = np.empty(width, dtype=np.float32)
    for plane in range(start - radius, stop + radius):
        slot = (plane - start + radius) % length
        for n in range(4):
            if plane < 0 or plane >= depth:
                clear_plane(rings[n, slot])
            else:
                filter_plane(coefficients[n, plane], taps, row, rows, rings[n, slot])
        i = plane - radius
        if i < start:
            continue
        for n in range(4):
            combine_planes(rings[n], i - start, taps, sums[n])
        below, above = max(i - 1, 0), min(i + 1, depth - 1)
        for j in range(height):
            down, up = max(j - 1, 0), min(j + 1, height - 1)
            _slope_line(slope, sums[0, j], sums[1, j], sums[2, j], sums[3, j], fixed[i, j], warped[i, j])
            push_line(
                slope, warped[i, j], warped[above, j], warped[below, j], warped[i, up], warped[i, down],
                out[0, i, j], out[1, i, j], out[2, i, j],
            )  # fmt: skip


@dataclass
class LocalCurve:
    """The share of the variance of warped images that a local curve of the fixed image explains.

    Args:
        fixed: ``(D, H, W)`` float32.
        weight: ``(D, H, W)`` float32, weight of each window centre (0 leaves it out).
        radius: window half-width in voxels, 1 to 4.
        ridge: e, above 0: what the curve's two coefficients cost; intensities are expected to span about 0 to 1.
            Small on purpose: f and f^2 hardly differ within a window, and a cost lets only the line through.
        least: e', the variance of the warped image below which a window counts less.
    """

    fixed: FloatVolume
    weight: FloatVolume
    radius: int = 2
    ridge: float = 3e-5
    least: float = 1e-4

    def __post_init__(self) -> None:
        self._taps = box_taps(self.radius)
        self._count = np.float32((2 * self.radius + 1) ** 3)
        self._moments = np.empty((5, *self.fixed.shape), dtype=np.float32)
        self._sums = np.empty((4, *self.fixed.shape), dtype=np.float32)
        run_slabs(
            _moments_slab, len(self.fixed), self.fixed, self.fixed * self.fixed, self._taps, self._count,
            np.float32(self.ridge) * self._count, self._moments, self._sums[:2],
        )  # fmt: skip
        self._per_plane = np.zeros(len(self.fixed))
        self._total_weight = max(float(self.weight.sum(dtype=np.float64)), 1.0)

    def force(self, warped: FloatVolume, out: FloatVolume) -> float:
        """Write the gradient by displacement into ``out`` ``(3, D, H, W)``; return the mean similarity (0 to 1)."""
        run_slabs(
            _coefficients_slab, len(self.fixed), self.fixed, warped, self._moments, self.weight, self._taps,
            self._count, np.float32(self.least) * self._count, self._sums, self._per_plane,
        )  # fmt: skip
        run_slabs(_force_slab, len(self.fixed), self.fixed, warped, self._sums, self._taps, out)
        return float(self._per_plane.sum()) / self._total_weight
