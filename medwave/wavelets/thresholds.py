"""Thresholds on detail bands: small coefficients are noise more often than not, large ones are edges.

Conventions
    Layers take details of any shape; the learned one ``(N, C, 2 ** ndim - 1, ...)``, which is what a level of
    :class:`medwave.wavelets.Pyramid` holds and ``bands[:, :, 1:]`` of one transform, so that
    ``pyramid.map_details(layer)`` denoises. Thresholds are in units of the coefficients: under the orthonormal
    filters white noise has the same deviation in every band as in the signal.

References
    Donoho & Johnstone (1994), doi:10.1093/biomet/81.3.425. Donoho (1995), doi:10.1109/18.382009.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from medwave.core.errors import InputError
from medwave.wavelets.filters import band_names

SHRINKAGES = ("hard", "soft", "learned")
"""What can be done with details: those not above a value become 0; all move towards 0 by it; the same, learned."""


class LearnedShrinkage(nn.Module):
    """Soft threshold with one learned, positive value per channel and detail band.

    Args:
        channels: of the features.
        value: start value, above zero.
        ndim: number of spatial axes.

    Attributes:
        raw: parameter ``(channels, 2 ** ndim - 1, 1, ...)`` whose softplus is the threshold.

    Raises:
        InputError: for a value that is not above zero, or infinite.
    """

    def __init__(self, channels: int, value: float, ndim: int = 3) -> None:
        super().__init__()
        if not 0 < value < math.inf:
            raise InputError(f"a threshold to learn from must be above 0 and finite, got {value}")
        start = value + math.log(-math.expm1(-value))  # inverse of softplus
        self.raw = nn.Parameter(torch.full((channels, len(band_names(ndim)) - 1, *[1] * ndim), start))

    @property
    def threshold(self) -> torch.Tensor:
        """The values, of the shape of ``raw``."""
        return F.softplus(self.raw)

    def forward(self, details: torch.Tensor) -> torch.Tensor:
        """Details ``(N, C, 2 ** ndim - 1, ...)``, each moved towards zero by the value, not past it."""
        value = self.threshold.to(details.dtype)
        return details - details.clamp(-value, value)


def shrinkage(kind: str, value: float, channels: int = 1, ndim: int = 3) -> nn.Module:
    """A member of :data:`SHRINKAGES` as a layer.

    Args:
        kind: ``hard``, ``soft`` or ``learned``.
        value: the threshold, or where learning starts.
        channels: of the features, for ``learned``; the other two know no channels.
        ndim: number of spatial axes, for ``learned``.

    Raises:
        InputError: for another name, a negative value, or zero as a start value to learn from.

    >>> shrinkage("soft", 0.5)(torch.tensor([-2.0, 0.25, 1.0]))
    tensor([-1.5000,  0.0000,  0.5000])
    """
    if kind not in SHRINKAGES:
        raise InputError(f"threshold is one of {', '.join(SHRINKAGES)}, got {kind!r}")
    if not 0 <= value < float("inf") or (kind == "learned" and value == 0):
        raise InputError(f"a threshold must be at least 0 (above 0 to be learned) and finite, got {value}")
    if kind == "learned":
        return LearnedShrinkage(channels, value, ndim)
    return nn.Hardshrink(value) if kind == "hard" else nn.Softshrink(value)
