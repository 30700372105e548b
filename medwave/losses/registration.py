"""Similarity of two images, and regularity of a displacement.

Conventions
    Images are ``(N, 1, D, H, W)``, displacements ``(N, 3, D, H, W)`` in voxels. Every loss is a module that returns a
    scalar to minimise: the mean over the batch of one value per item. Similarities take ``(warped, fixed, weights)``;
    ``weights`` ``(N, 1, D, H, W)``, zero or more, says how much each voxel counts (a mask, a lesion left out); weights
    that are all zero give a loss of 0.
    Arithmetic is float32 (float64 for float64 inputs), also under autocast and for half-precision images.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medwave.core.errors import GeometryError, InputError
from medwave.losses.windows import window_count, window_sum

_TINY = 1e-12
_MI_BLOCK = 1 << 16  # voxels whose bin weights are held at once


class LocalNCC(nn.Module):
    """Minus the mean squared local correlation coefficient of two images, between -1 and 0.

    At each voxel the squared Pearson correlation ``c^2 / (v_w v_f + epsilon)`` of the two images in a window around it
    (Cachier et al. 2003, doi 10.1016/S1077-3142(03)00002-X; Avants et al. 2008, doi 10.1016/j.media.2007.06.004). It
    does not change when an image is scaled, shifted or inverted, globally or slowly over space. Windows are cut at the
    border and at zero weights, and normalised by what is left.

    Args:
        radius: of the window in voxels; 4 means 9 x 9 x 9.
        epsilon: how much local variance counts as structure; both images are first brought to global variance 1, so
            that it does not depend on intensity units.

    Raises:
        InputError: when ``radius`` is below 1 or ``epsilon`` is not positive.
    """

    def __init__(self, radius: int = 4, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        if radius < 1 or epsilon <= 0:
            raise InputError(f"LocalNCC needs radius >= 1 and epsilon > 0, got {radius} and {epsilon}")
        self.radius = radius
        self.epsilon = epsilon

    def forward(self, warped: Tensor, fixed: Tensor, weights: Tensor | None = None) -> Tensor:
        """The loss; raises GeometryError when shapes do not fit."""
        warped, fixed, weights = _prepare(warped, fixed, weights)
        with torch.autocast(warped.device.type, enabled=False):
            return -_average(self._squared_correlation(warped, fixed, weights), weights).mean()

    def _squared_correlation(self, warped: Tensor, fixed: Tensor, weights: Tensor | None) -> Tensor:
        count = window_count(fixed, self.radius) if weights is None else window_sum(weights, self.radius) + _TINY

        def local_mean(values: Tensor) -> Tensor:
            return window_sum(values if weights is None else values * weights, self.radius) / count

        w, f = _standardise(warped, weights), _standardise(fixed, weights)
        mean_w, mean_f = local_mean(w), local_mean(f)
        covariance = local_mean(w * f) - mean_w * mean_f
        variance_w = (local_mean(w * w) - mean_w * mean_w).clamp_min(0)
        variance_f = (local_mean(f * f) - mean_f * mean_f).clamp_min(0)
        return covariance * covariance / (variance_w * variance_f + self.epsilon)


class GlobalMI(nn.Module):
    """Minus the mutual information of two images, in nats, from a smooth joint histogram.

    Each intensity spreads over the bins with Gaussian weights that sum to one (Parzen windows; Viola and Wells 1997,
    doi 10.1023/A:1007958904918). The bins of an image lie between its own minimum and maximum: clip outliers first.
    Fits images of different contrast. Memory grows with the number of voxels, not with voxels times bins.

    Args:
        bins: per image.
        sigma_bins: width of the Gaussian, in bins.
        normalized: the loss is minus ``(H(w) + H(f)) / H(w, f)`` instead, between -2 and -1, which depends less on how
            much of the images overlaps (Studholme et al. 1999, doi 10.1016/S0031-3203(98)00091-0).

    Raises:
        InputError: when there are fewer than two bins or ``sigma_bins`` is not positive.
    """

    def __init__(self, bins: int = 32, *, sigma_bins: float = 0.5, normalized: bool = False) -> None:
        super().__init__()
        if bins < 2 or sigma_bins <= 0:
            raise InputError(f"GlobalMI needs two bins or more and sigma_bins > 0, got {bins} and {sigma_bins}")
        self.bins = bins
        self.sigma_bins = sigma_bins
        self.normalized = normalized

    def forward(self, warped: Tensor, fixed: Tensor, weights: Tensor | None = None) -> Tensor:
        """The loss; raises GeometryError when shapes do not fit."""
        warped, fixed, weights = _prepare(warped, fixed, weights)
        with torch.autocast(warped.device.type, enabled=False):
            joint = self._joint_histogram(self._to_bins(warped), self._to_bins(fixed), weights)
            both = _entropy(joint.flatten(1))
            apart = _entropy(joint.sum(dim=1)) + _entropy(joint.sum(dim=2))
            if self.normalized:
                return -(apart / both.clamp_min(_TINY)).mean()
            return -(apart - both).mean()

    def _to_bins(self, image: Tensor) -> Tensor:
        """Intensities in bins, ``(N, M)``: the minimum at 0, the maximum at ``bins - 1``."""
        values = image.flatten(1)
        low, high = values.detach().aminmax(dim=1, keepdim=True)
        return (values - low) * ((self.bins - 1) / (high - low).clamp_min(_TINY))

    def _joint_histogram(self, a: Tensor, b: Tensor, weights: Tensor | None) -> Tensor:
        """``(N, bins, bins)``, sums to one; bin weights are made again for the backward pass instead of kept."""
        amounts = torch.ones_like(b) if weights is None else weights.flatten(1)
        joint = a.new_zeros(a.shape[0], self.bins, self.bins)
        blocks = (torch.split(values, _MI_BLOCK, dim=1) for values in (a, b, amounts))
        for block in zip(*blocks, strict=True):
            joint = joint + checkpoint(self._block_histogram, *block, use_reentrant=False, preserve_rng_state=False)
        return joint / amounts.sum(dim=1).clamp_min(_TINY).view(-1, 1, 1)

    def _block_histogram(self, a: Tensor, b: Tensor, amounts: Tensor) -> Tensor:
        centers = torch.arange(self.bins, device=a.device, dtype=a.dtype)
        shares_a, shares_b = (
            torch.softmax((values[..., None] - centers).square() * (-0.5 / self.sigma_bins**2), dim=-1)
            for values in (a, b)
        )
        return shares_a.transpose(1, 2) @ (shares_b * amounts[..., None])


class MINDSSC(nn.Module):
    """Mean squared difference of self-similarity descriptors: compares structure, whatever the contrast.

    A descriptor holds, for the twelve pairs of face neighbours (at ``dilation`` voxels) that do not face each other,
    ``exp(-d / v)`` of the mean squared difference ``d`` of the patches around the two, with ``v`` the mean of the
    twelve (Heinrich et al. 2013, doi 10.1007/978-3-642-40811-3_24); the most similar pair is set to one. Needs memory
    for some dozens of images of the input's size: use it at reduced resolution.

    Args:
        radius: of the patches, in voxels.
        dilation: distance of the neighbours, in voxels.

    Raises:
        InputError: when ``radius`` is negative or ``dilation`` is below 1.
    """

    def __init__(self, radius: int = 2, *, dilation: int = 2) -> None:
        super().__init__()
        if radius < 0 or dilation < 1:
            raise InputError(f"MINDSSC needs radius >= 0 and dilation >= 1, got {radius} and {dilation}")
        self.radius = radius
        self.dilation = dilation

    def forward(self, warped: Tensor, fixed: Tensor, weights: Tensor | None = None) -> Tensor:
        """The loss; raises GeometryError when shapes do not fit."""
        warped, fixed, weights = _prepare(warped, fixed, weights)
        difference = self.descriptors(warped) - self.descriptors(fixed)
        return _average(difference.square().mean(dim=1, keepdim=True), weights).mean()

    def descriptors(self, image: Tensor) -> Tensor:
        """The twelve channels of an image ``(N, 1, D, H, W)``, each in (0, 1]: ``(N, 12, D, H, W)``."""
        image, _, _ = _prepare(image, image, None)
        with torch.autocast(image.device.type, enabled=False):
            neighbours = self._neighbours(image)
            count = window_count(image, self.radius)
            distance = torch.cat(
                [
                    window_sum((neighbours[one] - neighbours[other]).square(), self.radius) / count
                    for one, other in combinations(neighbours, 2)
                    if one[0] != other[0]
                ],
                dim=1,
            )
            variance = distance.mean(dim=1, keepdim=True)
            typical = variance.mean(dim=(1, 2, 3, 4), keepdim=True)
            variance = torch.minimum(torch.maximum(variance, 1e-3 * typical), 1e3 * typical)
            return torch.exp((distance.amin(dim=1, keepdim=True) - distance) / (variance + _TINY * typical + 1e-30))

    def _neighbours(self, image: Tensor) -> dict[tuple[int, int], Tensor]:
        """The image seen from each of the six face neighbours, by axis and side."""
        step = self.dilation
        padded = F.pad(image, [step] * 6, mode="replicate")
        shifted = {}
        for axis, side in product(range(3), (-1, 1)):
            view = padded
            for a, n in enumerate(image.shape[2:]):
                view = view.narrow(2 + a, step + side * step if a == axis else step, n)
            shifted[axis, side] = view
        return shifted


class Smoothness(nn.Module):
    """How strongly a displacement varies from voxel to voxel: mean power of its derivatives, in mm per mm.

    Derivatives are forward differences of the displacement in mm over the voxel distance in mm, averaged over the
    components, the axes and the voxels. ``order=1, power=2`` is diffusion, ``order=1, power=1`` total variation,
    ``order=2, power=2`` bending energy (all second derivatives, in 1/mm; Rueckert et al. 1999, doi 10.1109/42.796284).

    Args:
        spacing_mm: voxel size along each array axis.
        power: to which the absolute derivatives are raised.
        order: 1 for first, 2 for second derivatives.

    Raises:
        GeometryError: when a voxel size is not positive.
        InputError: for another order, or a power below one.
    """

    spacing_mm: Tensor

    def __init__(self, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0), *, power: float = 2, order: int = 1) -> None:
        super().__init__()
        spacing = torch.tensor([float(s) for s in spacing_mm])
        if spacing.shape != (3,) or not bool((spacing > 0).all()):
            raise GeometryError(f"spacing_mm is one positive voxel size per array axis, got {tuple(spacing_mm)}")
        if order not in (1, 2) or power < 1:
            raise InputError(f"Smoothness needs order 1 or 2 and power >= 1, got {order} and {power}")
        self.register_buffer("spacing_mm", spacing, persistent=False)
        self.power = power
        self.order = order

    def forward(self, displacement: Tensor) -> Tensor:
        """The loss of ``(N, 3, D, H, W)``; raises GeometryError for another layout."""
        if displacement.ndim != 5 or displacement.shape[1] != 3:
            raise GeometryError(f"a displacement is (N, 3, D, H, W), got {tuple(displacement.shape)}")
        field = _exact(displacement)
        with torch.autocast(field.device.type, enabled=False):
            terms = [
                self._mean_power(field, axes) for axes in product(range(3), repeat=self.order) if _wide(field, axes)
            ]
            return torch.stack(terms).sum() / 3**self.order if terms else field.sum() * 0

    def _mean_power(self, field: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Mean over voxels and components of one derivative; units enter after the mean, where they cost nothing."""
        spacing = self.spacing_mm.to(field)
        for axis in axes:
            field = field.diff(dim=2 + axis)
        raised = field.square() if self.power == 2 else field.abs().pow(self.power)
        units = (spacing / spacing[list(axes)].prod()).pow(self.power)
        return (raised.mean(dim=(0, 2, 3, 4)) * units).mean()


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _prepare(warped: Tensor, fixed: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both images and the weights in one exact dtype, once their shapes are known to fit."""
    if warped.ndim != 5 or warped.shape[1] != 1 or warped.shape != fixed.shape:
        raise GeometryError(
            f"two images (N, 1, D, H, W) of one shape are compared, got {tuple(warped.shape)} and {tuple(fixed.shape)}"
        )
    dtype = torch.promote_types(_exact(warped).dtype, _exact(fixed).dtype)
    if weights is not None:
        if weights.shape[1:] != fixed.shape[1:] or weights.shape[0] not in (1, fixed.shape[0]):
            raise GeometryError(
                f"weights have the shape of the images, {tuple(fixed.shape)} (or N = 1), got {tuple(weights.shape)}"
            )
        weights = weights.to(dtype).expand_as(fixed)
    return warped.to(dtype), fixed.to(dtype), weights


def _average(values: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean of each item, ``(N, 1, 1, 1, 1)``."""
    over = (1, 2, 3, 4)
    if weights is None:
        return values.mean(dim=over, keepdim=True)
    total = weights.sum(dim=over, keepdim=True).clamp_min(_TINY)
    return (values * weights).sum(dim=over, keepdim=True) / total


def _standardise(image: Tensor, weights: Tensor | None) -> Tensor:
    """The image with mean 0 and variance 1 in each item: sums of squares then lose no digits to an offset."""
    centered = image - _average(image, weights)
    return centered * torch.rsqrt(_average(centered.square(), weights) + 1e-20)


def _wide(field: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether the grid has enough voxels to difference along the axes."""
    return all(field.shape[2 + axis] > axes.count(axis) for axis in axes)


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * torch.log(shares + _TINY)).sum(dim=-1)
