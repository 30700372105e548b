"""Volumes of any type on the grey scale 0 .. 255 that tracing works on, and the automatic threshold.

8-bit values stay as they are. Others are scaled linearly, from the smallest value to a top that one voxel in 100 000
may exceed: these saturate, so that a few hot voxels cannot press everything else into a few grey levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medwave.core.errors import GeometryError, InputError

BRIGHTEST_SHARE = 1e-5
BACKGROUND_SIGMAS = 4.0
LEAST_CONTRAST = 2.0
"""Grey levels: backgrounds set to zero and then compressed hold values of 1 and 2 that mean nothing."""


@dataclass(frozen=True)
class GreyVolume:
    """A volume on the grey scale.

    Attributes:
        grey: (D, H, W) uint8.
        low, high: values of the volume that became 0 and 255.
    """

    grey: np.ndarray
    low: float
    high: float

    def level(self, value: float) -> float:
        """The grey level, not rounded, of a value of the volume."""
        return (value - self.low) / (self.high - self.low) * 255.0

    def value(self, level: float) -> float:
        """The value of the volume at a grey level."""
        return self.low + level / 255.0 * (self.high - self.low)


def to_grey(volume: np.ndarray, kind: str) -> GreyVolume:
    """Scale ``volume`` (D, H, W) of ``kind`` "image", "mask" or "probability".

    Raises:
        GeometryError: not three axes, or an axis without voxels.
        InputError: a type that holds no numbers, values that are not finite, one value everywhere, or probabilities
            outside 0 .. 1.
    """
    volume = np.asarray(volume)
    if volume.ndim != 3 or volume.size == 0:
        raise GeometryError(f"tracing needs a volume with the axes (z, y, x), all longer than 0; got {volume.shape}")
    if volume.dtype.kind not in "buif":
        raise InputError(f"tracing needs a volume of numbers, got type {volume.dtype}")
    if kind == "mask" or volume.dtype == bool:
        _check_finite(volume)
        return GreyVolume(np.where(volume != 0, np.uint8(255), np.uint8(0)), 0.0, 1.0)
    if kind == "probability":
        return _from_probability(volume)
    if volume.dtype == np.uint8:
        return GreyVolume(np.ascontiguousarray(volume), 0.0, 255.0)
    _check_finite(volume)
    low, high = float(volume.min()), _robust_top(volume)
    if high <= low:
        raise InputError(f"the volume has the value {low:g} everywhere: there is nothing to trace")
    return GreyVolume(_scaled(volume, low, high), low, high)


def _from_probability(volume: np.ndarray) -> GreyVolume:
    if volume.dtype == np.uint8:
        return GreyVolume(np.ascontiguousarray(volume), 0.0, 1.0)
    _check_finite(volume)
    if volume.dtype.kind != "f" or volume.min() < 0 or volume.max() > 1:
        raise InputError(
            f"probabilities are unsigned bytes, or floating point numbers from 0 to 1; got {volume.dtype} from "
            f"{volume.min():g} to {volume.max():g}. Other values can be traced as an image."
        )
    return GreyVolume(_scaled(volume, 0.0, 1.0), 0.0, 1.0)


def _check_finite(volume: np.ndarray) -> None:
    if volume.dtype.kind == "f" and not all(np.isfinite(part).all() for part in volume):
        raise InputError("the volume holds NaN or infinite values: replace them, for example by 0")


def _robust_top(volume: np.ndarray) -> float:
    """The value that at most one voxel in 100 000 exceeds."""
    rank = volume.size - 1 - int(volume.size * BRIGHTEST_SHARE)
    return float(np.partition(volume, rank, axis=None)[rank])


def _scaled(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    grey = np.empty(volume.shape, np.uint8)
    for z, part in enumerate(volume):
        grey[z] = np.clip(np.rint((part.astype(np.float64) - low) * (255.0 / (high - low))), 0, 255)
    return grey


def automatic_threshold(grey: np.ndarray) -> float:
    """Background mean + 4 standard deviations, and at least 2 levels above the mean.

    Background is found by clipping: mean and deviation of all values up to a threshold give the next threshold, until
    it stays. The first one comes from median and median deviation, so up to half of the volume may be fibre. The
    rule holds for flat, noisy and zeroed backgrounds.
    """
    counts = np.bincount(grey.reshape(-1), minlength=256).astype(np.float64)
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
