"""The loops of the refinement on torch operators: for a GPU, and as the oracle of the compiled loops.

Same conventions and same numbers (to rounding) as :class:`medwave.engine.loops.CpuLoops`: zeros outside the grid in
filters, border values outside the moving image, central differences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medwave.engine.loops import Similarity
from medwave.engine.mi_force import BINS, mutual_information_table
from medwave.engine.unfold import LEAST, REACH, ROUNDS, SIGMA_VOXELS
from medwave.fields.filters import box_taps, gaussian_taps
from medwave.fields.jacobian import jacobian_determinant
from medwave.fields.sampling import warp


def _filter(channels: Tensor, taps: npt.NDArray[np.float32]) -> Tensor:
    """Separable symmetric filter of ``(C, D, H, W)``, zeros outside.

    By shifted sums: a convolution on a GPU may round its products to ten bits (TF32).
    """
    for axis in range(1, 4):
        size, total = channels.shape[axis], float(taps[0]) * channels
        for t, tap in enumerate(taps[1:size].tolist(), 1):
            total.narrow(axis, t, size - t).add_(channels.narrow(axis, 0, size - t), alpha=tap)
            total.narrow(axis, 0, size - t).add_(channels.narrow(axis, t, size - t), alpha=tap)
        channels = total
    return channels


def _slope(image: Tensor) -> Tensor:
    """Half the central difference along each axis, ``(3, D, H, W)``; one-sided at the border."""
    slopes = []
    for axis in range(3):
        ahead = torch.cat([image.narrow(axis, 1, image.shape[axis] - 1), image.narrow(axis, -1, 1)], axis)
        behind = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, image.shape[axis] - 1)], axis)
        slopes.append(0.5 * (ahead - behind))
    return torch.stack(slopes)


class _LocalCorrelation:
    """See :class:`medwave.engine.lncc_kernels.LocalCorrelation`."""

    def __init__(
        self, fixed: Tensor, weight: Tensor, radius: int, epsilon: float = 1e-7, limit: float = np.inf
    ) -> None:
        self.fixed, self.weight, self.taps, self.limit = fixed, weight, box_taps(radius), limit
        self.count = float((2 * radius + 1) ** 3)
        self.epsilon = epsilon * self.count**2
        self.sum, self.variance = self._moments(fixed)
        self.total_weight = max(float(weight.sum(dtype=torch.float64)), 1.0)

    def _moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        total, square = _filter(torch.stack([image, image * image]), self.taps)
        return total, (square - total * total / self.count).clamp_min(0)

    def force(self, warped: Tensor, out: Tensor) -> float:
        total, variance = self._moments(warped)
        product = _filter((self.fixed * warped)[None], self.taps)[0] - self.sum * total / self.count
        inverse = 1.0 / (self.variance * variance + self.epsilon)
        alpha = 2.0 * self.weight * product * inverse
        beta = -alpha * product * self.variance * inverse
        gamma = (alpha * self.sum + beta * total) / self.count
        a, b, c = _filter(torch.stack([alpha, beta, gamma]), self.taps)
        force = (a * self.fixed + b * warped - c) * _slope(warped)
        out.copy_(force / (1.0 + force.square().sum(0).sqrt() / self.limit))
        return float((self.weight * product * product * inverse).sum(dtype=torch.float64)) / self.total_weight


class _LocalCurve:
    """See :class:`medwave.engine.curve_kernels.LocalCurve`."""

    def __init__(self, fixed: Tensor, weight: Tensor, radius: int, ridge: float = 3e-5, least: float = 1e-4) -> None:
        self.weight, self.taps, self.count = weight, box_taps(radius), float((2 * radius + 1) ** 3)
        self.ridge, self.least = ridge * self.count, least * self.count
        self.basis = torch.stack([fixed, fixed * fixed])
        one, two = self.basis
        self.sums = _filter(self.basis, self.taps)
        v1, v2, v12 = (
            _filter(torch.stack([two, two * two, one * two]), self.taps)
            - torch.stack([self.sums[0] ** 2, self.sums[1] ** 2, self.sums[0] * self.sums[1]]) / self.count
        )
        v1, v2 = v1.clamp_min(0), v2.clamp_min(0)
        inverse = 1.0 / ((v1 + self.ridge) * (v2 + self.ridge) - torch.minimum(v12 * v12, v1 * v2))
        self.first, self.mixed, self.last = (v2 + self.ridge) * inverse, -v12 * inverse, (v1 + self.ridge) * inverse
        self.total_weight = max(float(weight.sum(dtype=torch.float64)), 1.0)

    def force(self, warped: Tensor, out: Tensor) -> float:
        total, square, *products = _filter(torch.stack([warped, warped**2, *(self.basis * warped)]), self.taps)
        inverse = 1.0 / ((square - total * total / self.count).clamp_min(0) + self.least)
        c1, c2 = (p - s * total / self.count for p, s in zip(products, self.sums, strict=True))
        a1, a2 = self.first * c1 + self.mixed * c2, self.mixed * c1 + self.last * c2
        share = self.weight * (a1 * c1 + a2 * c2) * inverse
        alpha1, alpha2 = (2.0 * self.weight * inverse * a for a in (a1, a2))
        beta = -2.0 * share * inverse
        gamma = (alpha1 * self.sums[0] + alpha2 * self.sums[1] + beta * total) / self.count
        one, two, b, c = _filter(torch.stack([alpha1, alpha2, beta, gamma]), self.taps)
        out.copy_((one * self.basis[0] + two * self.basis[1] + b * warped - c) * _slope(warped))
        return float(share.sum(dtype=torch.float64)) / self.total_weight


class _GlobalMutualInformation:
    """See :class:`medwave.engine.mi_force.GlobalMutualInformation`."""

    def __init__(self, fixed: Tensor, weight: Tensor) -> None:
        self.bins = (fixed.clamp(0, 1) * (BINS - 4)).round().long()
        self.weight = weight

    def force(self, warped: Tensor, out: Tensor) -> float:
        position = (warped * (BINS - 4)).clamp(0, BINS - 4 - 1e-3)
        first = position.floor().long()
        t = position - first
        splines = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6]
        slopes = [-((1 - t) ** 2), (3 * t - 4) * t, (2 - 3 * t) * t + 1, t * t]
        cell = self.bins * BINS + first
        histogram = torch.zeros(BINS * BINS, dtype=torch.float64, device=warped.device)
        for n, spline in enumerate(splines):
            histogram.index_add_(0, (cell + n).flatten(), (self.weight * spline).flatten().double())
        value, table = mutual_information_table(histogram.view(BINS, BINS).cpu().numpy())
        derivative = torch.as_tensor(table, device=warped.device).flatten()
        force = sum(derivative[cell + n] * slope for n, slope in enumerate(slopes))
        out.copy_(0.5 * force * self.weight * _slope(warped))
        return value


class TorchLoops:
    """The operations of :class:`medwave.engine.loops.Loops` on tensors of one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def upload(self, array: npt.NDArray[np.float32]) -> Tensor:
        if self.device.type != "cuda":
            return torch.from_numpy(np.array(array, dtype=np.float32, order="C")).to(self.device)
        pinned = torch.empty(array.shape, dtype=torch.float32, pin_memory=True)  # kept by torch for the next time
        pinned.numpy()[...] = array
        return pinned.to(self.device, non_blocking=True)

    def download(self, array: Tensor) -> npt.NDArray[np.float32]:
        if array.device.type != "cuda":
            return array.cpu().numpy()
        pinned = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        return pinned.copy_(array).numpy()

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def coarsen(self, image: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return image
        beyond = [(0, -n % factor) for n in reversed(image.shape)]
        blocks = F.pad(image[None, None], [n for pair in beyond for n in pair], mode="replicate")
        while factor > 1:  # by halves: a sum of hundreds in float32 would round
            step = 2 if factor % 2 == 0 else factor
            blocks, factor = F.avg_pool3d(blocks, step), factor // step
        return blocks[0, 0]

    def enlarge(self, field: Tensor, shape: tuple[int, ...], ratio: int) -> Tensor:
        if ratio == 1:
            return field
        fine = F.interpolate(field[None], scale_factor=ratio, mode="trilinear", align_corners=False)[0]
        return (ratio * fine[:, : shape[0], : shape[1], : shape[2]]).contiguous()

    def folded(self, field: Tensor, least: float) -> Tensor:
        """1 where the determinant of the Jacobian is below ``least``, else 0: ``(D, H, W)`` float32."""
        return (jacobian_determinant(field[None])[0, 0] < least).float()

    def unfold(self, field: Tensor) -> Tensor:
        """See :func:`medwave.engine.unfold.unfold`."""
        if min(field.shape[1:]) < 2:
            return field
        softer = None
        for _ in range(ROUNDS):
            folds = self.folded(field, LEAST)
            if not folds.any():
                break
            near = _filter(folds[None], box_taps(REACH)) > 0
            softer = self.empty(*field.shape) if softer is None else softer
            self.smooth(field, SIGMA_VOXELS, softer)
            field = torch.where(near, softer, field)
        return field

    def similarity(self, metric: str, fixed: Tensor, weight: Tensor, radius: int, limit: float = np.inf) -> Similarity:
        if metric == "mi":
            return _GlobalMutualInformation(fixed, weight)
        if metric == "curve":
            return _LocalCurve(fixed, weight, radius)
        return _LocalCorrelation(fixed, weight, radius, limit=limit)

    def warp(self, image: Tensor, field: Tensor, out: Tensor) -> None:
        out.copy_(warp(image[None, None], field[None])[0, 0])

    def smooth(self, field: Tensor, sigma_voxels: float, out: Tensor) -> None:
        out.copy_(_filter(field, gaussian_taps(sigma_voxels)))

    def largest_length(self, field: Tensor) -> float:
        return float(field.square().sum(0).max().sqrt())

    def compose(self, outer: Tensor, inner: Tensor, scale: float, out: Tensor) -> None:
        step = scale * inner
        out.copy_(step + warp(outer[None], step[None])[0])
