"""Volumes of any type on the grey scale 0 .. 255 that tracing works on, and the automatic threshold.

8-bit values stay as they are. Others are scaled linearly, from the smallest value to a top that one voxel in 100 000
may exceed: these saturate, so that a few hot voxels cannot press everything else into a few grey levels. A threshold
that is asked for divides the values themselves: those in its grey level come to lie on the right side of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medwave.core.errors import GeometryError, InputError

BRIGHTEST_SHARE = 1e-5
BACKGROUND_SIGMAS = 4.0
LEAST_CONTRAST = 2.0
"""Grey levels: backgrounds set to zero and then compressed hold values of 1 and 2 that mean nothing."""


@dataclass(frozen=True)
class GreyScale:
    """How values of a volume become grey values.

    Attributes:
        low, high: values that become 0 and 255.
        rule: "same": values are grey values already; "mask": 255 where not 0; "linear": from low to high.
        cut: value above which exactly those lie that become grey values above its level; only for "linear".
    """

    low: float
    high: float
    rule: Literal["same", "mask", "linear"]
    cut: float | None = None

    def grey(self, volume: np.ndarray) -> np.ndarray:
        """Values (D, H, W) as grey values, uint8."""
        if self.rule == "same":
            return np.ascontiguousarray(volume)
        if self.rule == "mask":
            return np.where(volume != 0, np.uint8(255), np.uint8(0))
        grey = np.empty(volume.shape, np.uint8)
        for z, part in enumerate(volume):
            values = part.astype(np.float64)
            scaled = (values - self.low) * (255.0 / (self.high - self.low))
            grey[z] = np.clip(np.rint(scaled), 0, 255)
            if self.cut is not None:
                level = int(np.clip(self.threshold_level(self.cut), 0, 254))
                grey[z] = np.where(values > self.cut, np.maximum(grey[z], level + 1), np.minimum(grey[z], level))
        return grey

    def level(self, value: float) -> float:
        """The grey level, not rounded, of a value of the volume."""
        return (value - self.low) / (self.high - self.low) * 255.0

    def threshold_level(self, value: float) -> float:
        """The level of a threshold; below 255 on a linear scale, where some values above it become 255."""
        level = self.level(value)
        return min(level, 254.0) if self.rule == "linear" and math.isfinite(level) else level

    def value(self, level: float) -> float:
        """The value of the volume at a grey level."""
        return self.low + level / 255.0 * (self.high - self.low)


@dataclass(frozen=True)
class GreyVolume:
    """A volume on the grey scale.

    Attributes:
        grey: (D, H, W) uint8.
        scale: of its values.
    """

    grey: np.ndarray
    scale: GreyScale


def to_grey(volume: np.ndarray, kind: str, threshold: float | None = None) -> GreyVolume:
    """Scale ``volume`` (D, H, W) of ``kind`` "image", "mask" or "probability".

    Args:
        threshold: value to which the scale is exact, if any.

    Raises:
        GeometryError: not three axes, or an axis without voxels.
        InputError: a type that holds no numbers, values that are not finite, one value everywhere, or probabilities
            outside 0 .. 1.
    """
    volume = np.asarray(volume)
    if volume.ndim != 3 or volume.size == 0:
        raise GeometryError(f"tracing needs a volume with the axes (z, y, x), all longer than 0; got {volume.shape}")
    scale = fixed_scale(volume.dtype, kind)
    check_finite(volume)
    if scale is None:
        scale = image_scale(float(volume.min()), _robust_top(volume))
    elif scale.rule == "linear":
        check_probabilities(volume.dtype, float(volume.min()), float(volume.max()))
    scale = cut_at(scale, threshold)
    return GreyVolume(scale.grey(volume), scale)


def cut_at(scale: GreyScale, threshold: float | None) -> GreyScale:
    """The scale with a threshold to which it is exact; others than linear ones are so already."""
    exact = threshold is not None and math.isfinite(threshold) and scale.rule == "linear"
    return replace(scale, cut=threshold) if exact else scale


def fixed_scale(dtype: np.dtype, kind: str) -> GreyScale | None:
    """The scale that a kind of volume has whatever its values are; None when it depends on them.

    Raises:
        InputError: a type that holds no numbers, or no probabilities.
    """
    if dtype.kind not in "buif":
        raise InputError(f"tracing needs a volume of numbers, got type {dtype}")
    if kind == "mask" or dtype.kind == "b":
        return GreyScale(0.0, 1.0, "mask")
    if kind == "probability":
        return GreyScale(0.0, 1.0, "same" if dtype == np.uint8 else "linear")
    return GreyScale(0.0, 255.0, "same") if dtype == np.uint8 else None


def image_scale(low: float, top: float) -> GreyScale:
    """The scale of an image from its smallest value and the one that :data:`BRIGHTEST_SHARE` of its voxels exceed.

    Raises:
        InputError: when these are one value.
    """
    if top <= low:
        raise InputError(f"the volume has the value {low:g} everywhere: there is nothing to trace")
    return GreyScale(low, top, "linear")


def check_probabilities(dtype: np.dtype, low: float, high: float) -> None:
    """Refuse what are no probabilities.

    Args:
        low, high: the smallest and the largest value.
    """
    if dtype.kind != "f" or low < 0 or high > 1:
        raise InputError(
            f"probabilities are unsigned bytes, or floating point numbers from 0 to 1; got {dtype} from {low:g} to "
            f"{high:g}. Other values can be traced as an image."
        )


def check_finite(volume: np.ndarray) -> None:
    """Refuse NaN and infinite values."""
    if volume.dtype.kind == "f" and not all(np.isfinite(part).all() for part in volume):
        raise InputError("the volume holds NaN or infinite values: replace them, for example by 0")


def _robust_top(volume: np.ndarray) -> float:
    """The value that at most one voxel in 100 000 exceeds."""
    rank = brightest_rank(volume.size)
    return float(np.partition(volume, rank, axis=None)[rank])


def brightest_rank(voxels: int, share: float = BRIGHTEST_SHARE) -> int:
    """How many voxels lie below the value that at most a share of all exceeds."""
    return voxels - 1 - int(voxels * share)


def automatic_threshold(grey: np.ndarray) -> float:
    """Background mean + 4 standard deviations, and at least 2 levels above the mean.

    Background is found by clipping: mean and deviation of all values up to a threshold give the next threshold, until
    it stays. The first one comes from median and median deviation, so up to half of the volume may be fibre. The
    rule holds for flat, noisy and zeroed backgrounds.
    """
    return threshold_of_counts(np.bincount(grey.reshape(-1), minlength=256))


def threshold_of_counts(counts: np.ndarray) -> float:
    """The automatic threshold of (256,) counts of grey values."""
    counts = counts.astype(np.float64)
    levels = np.arange(256.0)
    median = _weighted_median(levels, counts)
    deviation = 1.4826 * _weighted_median(np.abs(levels - median), counts)
    threshold = median + max(BACKGROUND_SIGMAS * deviation, LEAST_CONTRAST)
    for _ in range(100):
        weight = np.where(levels <= threshold, counts, 0.0)
        mean = (weight * levels).sum() / weight.sum()
        deviation = np.sqrt((weight * (levels - mean) ** 2).sum() / weight.sum())
        previous, threshold = threshold, mean + max(BACKGROUND_SIGMAS * deviation, LEAST_CONTRAST)
        if threshold == previous:
            break
    return float(min(threshold, 255.0))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
