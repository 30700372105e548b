"""Normalised mutual information of two images under a matrix, with its gradient, as compiled loops.

Samples are points of the fixed image with a bin each; the moving image is interpolated linearly and spread over bins
by a cubic B-spline (Mattes et al., IEEE TMI 22:120-128, 2003, doi 10.1109/TMI.2003.809072). Normalised mutual
information ``(H(F) + H(M)) / H(F, M)`` (Studholme et al., Pattern Recognition 32:71-86, 1999, doi
10.1016/S0031-3203(98)00091-0) changes little with the size of the overlap. Samples that fall outside the moving
image, or on a voxel of it that is NaN, are left out. Sums run over a fixed number of chunks, so a result does not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.threads import run_slabs

_CHUNKS = 16
_SAMPLES_PER_THREAD = 8192
_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


@_compile
def _joint_histogram(start, stop, points, bins, moving, matrix, histograms, inside):  # type: ignore[no-untyped-def]
    """Accumulate the joint histogram of chunks ``[start, stop)``; count the samples that fall on moving voxels."""
    depth, height, width = moving.shape
    count = points.shape[0]
    for chunk in range(start, stop):
        histogram = histograms[chunk]
        for p in range(count * chunk // histograms.shape[0], count * (chunk + 1) // histograms.shape[0]):
            px, py, pz = points[p, 0], points[p, 1], points[p, 2]
            z = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]
            y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]
            x = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3]
            if not (0 <= z < depth - 1 and 0 <= y < height - 1 and 0 <= x < width - 1):
                continue
            a, b, c = int(z), int(y), int(x)
            z -= a
            y -= b
            x -= c
            v00 = moving[a, b, c] + x * (moving[a, b, c + 1] - moving[a, b, c])
            v01 = moving[a, b + 1, c] + x * (moving[a, b + 1, c + 1] - moving[a, b + 1, c])
            v10 = moving[a + 1, b, c] + x * (moving[a + 1, b, c + 1] - moving[a + 1, b, c])
            v11 = moving[a + 1, b + 1, c] + x * (moving[a + 1, b + 1, c + 1] - moving[a + 1, b + 1, c])
            v0 = v00 + y * (v01 - v00)
            v = v0 + z * (v10 + y * (v11 - v10) - v0)
            if not v >= 0:
                continue
            m = int(v)
            t = v - m
            row = histogram[bins[p]]
            row[m] += (1 - t) ** 3 / 6
            row[m + 1] += (3 * t**3 - 6 * t**2 + 4) / 6
            row[m + 2] += (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
            row[m + 3] += t**3 / 6
            inside[chunk] += 1


@_compile
def _joint_histograms(start, stop, points, bins, moving, matrices, histograms, inside):  # type: ignore[no-untyped-def]
    """The joint histograms of all samples under each matrix of ``[start, stop)``."""
    for n in range(start, stop):
        _joint_histogram(0, 1, points, bins, moving, matrices[n], histograms[n : n + 1], inside[n : n + 1])


@_compile
def _matrix_gradient(start, stop, points, bins, moving, matrix, table, gradients):  # type: ignore[no-untyped-def]
    """Accumulate d(similarity)/d(matrix) of chunks, given its derivative ``table`` by histogram entries."""
    depth, height, width = moving.shape
    count = points.shape[0]
    for chunk in range(start, stop):
        gradient = gradients[chunk]
        for p in range(count * chunk // gradients.shape[0], count * (chunk + 1) // gradients.shape[0]):
            px, py, pz = points[p, 0], points[p, 1], points[p, 2]
            z = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]
            y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]
            x = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3]
            if not (0 <= z < depth - 1 and 0 <= y < height - 1 and 0 <= x < width - 1):
                continue
            a, b, c = int(z), int(y), int(x)
            z -= a
            y -= b
            x -= c
            d00 = moving[a, b, c + 1] - moving[a, b, c]
            d01 = moving[a, b + 1, c + 1] - moving[a, b + 1, c]
            d10 = moving[a + 1, b, c + 1] - moving[a + 1, b, c]
            d11 = moving[a + 1, b + 1, c + 1] - moving[a + 1, b + 1, c]
            v00 = moving[a, b, c] + x * d00
            v01 = moving[a, b + 1, c] + x * d01
            v10 = moving[a + 1, b, c] + x * d10
            v11 = moving[a + 1, b + 1, c] + x * d11
            v0 = v00 + y * (v01 - v00)
            v1 = v10 + y * (v11 - v10)
            v = v0 + z * (v1 - v0)
            if not v >= 0:
                continue
            m = int(v)
            t = v - m
            row = table[bins[p]]
            slope = (
                -row[m] * (1 - t) ** 2 / 2
                + row[m + 1] * (3 * t**2 - 4 * t) / 2
                + row[m + 2] * (-3 * t**2 + 2 * t + 1) / 2
                + row[m + 3] * t**2 / 2
            )
            dx0 = d00 + y * (d01 - d00)
            gx = slope * (dx0 + z * (d10 + y * (d11 - d10) - dx0))
            gy = slope * ((v01 - v00) + z * ((v11 - v10) - (v01 - v00)))
            gz = slope * (v1 - v0)
            gradient[0, 0] += gz * px
            gradient[0, 1] += gz * py
            gradient[0, 2] += gz * pz
            gradient[0, 3] += gz
            gradient[1, 0] += gy * px
            gradient[1, 1] += gy * py
            gradient[1, 2] += gy * pz
            gradient[1, 3] += gy
            gradient[2, 0] += gx * px
            gradient[2, 1] += gx * py
            gradient[2, 2] += gx * pz
            gradient[2, 3] += gx


def quantise(values: npt.NDArray[np.floating], low: float, high: float, bins: int) -> npt.NDArray[np.float32]:
    """Scale intensities so that ``[low, high]`` (clipped) spans the ``bins - 4`` inner bins of the B-spline.

    The result is an index into bins: what is not a number becomes 0.
    """
    scaled = (np.asarray(values, dtype=np.float32) - np.float32(low)) * np.float32((bins - 4) / max(high - low, 1e-12))
    return np.fmin(np.fmax(scaled, np.float32(0)), np.nextafter(np.float32(bins - 4), np.float32(0)))


@dataclass(frozen=True)
class MutualInformation:
    """NMI of fixed samples and a moving image, as a function of the matrix between them.

    Attributes:
        points_mm: ``(P, 3)`` float64 positions of the samples in the fixed world.
        fixed_bins: ``(P,)`` int64 bin of each sample.
        moving: ``(D, H, W)`` float32 from :func:`quantise`; NaN where a voxel does not count.
        moving_affine: 4x4, moving voxels -> moving world mm.
        bins: number of bins.
        least_overlap: below this share of samples inside the moving image the value is pulled down to 1 (unrelated).
    """

    points_mm: npt.NDArray[np.float64]
    fixed_bins: npt.NDArray[np.int64]
    moving: npt.NDArray[np.float32]
    moving_affine: npt.NDArray[np.float64]
    bins: int
    least_overlap: float = 0.5

    @property
    def _threads(self) -> int:
        """As many as have enough to do."""
        return max(1, len(self.points_mm) // _SAMPLES_PER_THREAD)

    @cached_property
    def _to_moving_voxels(self) -> npt.NDArray[np.float64]:
        return np.linalg.inv(self.moving_affine)

    def _voxel_matrix(self, matrix_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.ascontiguousarray((self._to_moving_voxels @ matrix_mm)[:3])

    def _histogram(self, voxel_matrix: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
        histograms = np.zeros((_CHUNKS, self.bins, self.bins))
        inside = np.zeros(_CHUNKS, dtype=np.int64)
        arguments = (self.points_mm, self.fixed_bins, self.moving, voxel_matrix, histograms, inside)
        run_slabs(_joint_histogram, _CHUNKS, *arguments, most=self._threads)
        return histograms.sum(axis=0), float(inside.sum()) / len(self.points_mm)

    def thinned(self, most_samples: int) -> MutualInformation:
        """The same on every n-th sample, as many as fit under ``most_samples``."""
        every = -(-len(self.points_mm) // most_samples)
        return replace(
            self, points_mm=np.ascontiguousarray(self.points_mm[::every]), fixed_bins=self.fixed_bins[::every].copy()
        )

    def value(self, matrix_mm: npt.NDArray[np.float64]) -> float:
        """NMI (1 = unrelated, 2 = each determines the other) under a 4x4 fixed world -> moving world matrix."""
        histogram, overlap = self._histogram(self._voxel_matrix(matrix_mm))
        return self._score(histogram, overlap)[0]

    def values(
        self, matrices_mm: Sequence[npt.NDArray[np.float64]] | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """:meth:`value` of many matrices, ``(N,)``."""
        voxel_matrices = np.ascontiguousarray((self._to_moving_voxels @ np.asarray(matrices_mm))[:, :3])
        histograms = np.zeros((len(voxel_matrices), self.bins, self.bins))
        inside = np.zeros(len(voxel_matrices), dtype=np.int64)
        arguments = (self.points_mm, self.fixed_bins, self.moving, voxel_matrices, histograms, inside)
        run_slabs(_joint_histograms, len(voxel_matrices), *arguments)
        totals = histograms.sum(axis=(1, 2))
        joint = histograms / np.where(totals > 0, totals, 1.0)[:, None, None]
        fixed, moving = joint.sum(axis=2), joint.sum(axis=1)
        together, *apart = ((p * np.log(p + 1e-12)).reshape(len(p), -1).sum(axis=1) for p in (joint, fixed, moving))
        scores = -sum(apart) / np.maximum(-together, 1e-9)
        trust = np.minimum(1.0, inside / len(self.points_mm) / self.least_overlap)
        return np.asarray(np.where(totals > 0, 1.0 + (scores - 1.0) * trust, 1.0))

    def value_and_gradient(self, matrix_mm: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """NMI and its derivative by the upper 3x4 part of the matrix."""
        voxel_matrix = self._voxel_matrix(matrix_mm)
        histogram, overlap = self._histogram(voxel_matrix)
        score, table = self._score(histogram, overlap)
        gradients = np.zeros((_CHUNKS, 3, 4))
        arguments = (self.points_mm, self.fixed_bins, self.moving, voxel_matrix, table, gradients)
        run_slabs(_matrix_gradient, _CHUNKS, *arguments, most=self._threads)
        return score, self._to_moving_voxels[:3, :3].T @ gradients.sum(axis=0)

    def _score(self, histogram: npt.NDArray[np.float64], overlap: float) -> tuple[float, npt.NDArray[np.float64]]:
        """NMI and its derivative by the entries of the (unnormalised) histogram."""
        total = histogram.sum()
        if total <= 0:
            return 1.0, np.zeros_like(histogram)
        joint = histogram / total
        log_joint = np.log(joint + 1e-12)
        log_fixed = np.log(joint.sum(axis=1) + 1e-12)[:, None]
        log_moving = np.log(joint.sum(axis=0) + 1e-12)[None, :]
        entropy = max(-float((joint * log_joint).sum()), 1e-9)
        score = -float((joint * (log_fixed + log_moving)).sum()) / entropy
        table = (score * log_joint - log_fixed - log_moving) / (entropy * total)
        trust = min(1.0, overlap / self.least_overlap)
        return 1.0 + (score - 1.0) * trust, table * trust


@dataclass(frozen=True)
class MeanInformation:
    """Weighted mean of the NMI of several pairs of images of the same two subjects, with the methods of one.

    Attributes:
        parts: one for each pair.
        weights: how much each counts, above 0.
    """

    parts: tuple[MutualInformation, ...]
    weights: tuple[float, ...]

    def _mean(self, values: Sequence[Any]) -> Any:
        return sum(w * v for w, v in zip(self.weights, values, strict=True)) / sum(self.weights)

    def thinned(self, most_samples: int) -> MeanInformation:
        """The same on fewer samples of each pair."""
        return replace(self, parts=tuple(part.thinned(most_samples) for part in self.parts))

    def value(self, matrix_mm: npt.NDArray[np.float64]) -> float:
        """The mean."""
        return float(self._mean([part.value(matrix_mm) for part in self.parts]))

    def most(self, matrix_mm: npt.NDArray[np.float64]) -> float:
        """NMI of the pair that tells most."""
        return max(part.value(matrix_mm) for part in self.parts)

    def values(self, matrices_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """:meth:`value` of many matrices, ``(N,)``."""
        return np.asarray(self._mean([part.values(matrices_mm) for part in self.parts]))

    def value_and_gradient(self, matrix_mm: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """The mean and its derivative by the upper 3x4 part of the matrix."""
        scores, gradients = zip(*(part.value_and_gradient(matrix_mm) for part in self.parts), strict=True)
        return float(self._mean(scores)), np.asarray(self._mean(gradients))
