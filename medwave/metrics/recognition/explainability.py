"""Do channels mean something: does each stay at one part of the face, and which.

Conventions
    Maps are activations ``(n, C, h, w)`` after their ReLU (negative values count as 0) for ``n`` images of
    ``image_shape`` pixels. Positions are (row, column) in pixels of the image, centres of pixels at whole numbers;
    the first map pixel begins where the first image pixel does. Landmarks are ``(n, parts, 2)`` likewise. A map of
    zeros says nothing: its height is 0, its other numbers are NaN, and it is left out.

Source
    Location instability and part interpretability: Zhang, Wu, Zhu, CVPR 2018, arXiv 1710.00935.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from medwave.core.errors import GeometryError, InputError
from medwave.metrics.recognition.arrays import BoolArray, Float64Array, IntArray, finite, to_numpy


class ChannelPeaks(NamedTuple):
    """What is kept of the maps; parts made of different images are put together by :meth:`join`.

    Attributes:
        positions: ``(n, C, 2)`` of the largest value.
        heights: ``(n, C)``, that value.
        concentration: ``(n, C)``, share of the energy (squared values) within ``n / 8`` map pixels of the peak, where
            ``n`` is the side of a square of the map's area.
        entropy: ``(n, C)``, of the energy over the positions, in nats.
        image_shape: rows and columns of the images.
    """

    positions: Float64Array
    heights: Float64Array
    concentration: Float64Array
    entropy: Float64Array
    image_shape: tuple[int, int]

    @staticmethod
    def join(parts: Sequence[ChannelPeaks]) -> ChannelPeaks:
        """All images of several parts; raises GeometryError for none, or other channels or images."""
        if len({(p.heights.shape[1], p.image_shape) for p in parts}) != 1:
            raise GeometryError("peaks of one set of channels and one image size are joined, and one part at least")
        arrays = (np.concatenate(kind) for kind in zip(*(p[:4] for p in parts), strict=True))
        return ChannelPeaks(*arrays, parts[0].image_shape)


def channel_peaks(maps: Any, image_shape: tuple[int, int]) -> ChannelPeaks:
    """Where and how sharply each channel fires on each image.

    Raises:
        GeometryError: when maps have other axes.
        InputError: for NaN or infinity.
    """
    values = np.maximum(finite(maps, 4, "maps (n, channels, h, w)"), 0)
    count, channels, height, width = values.shape
    flat = values.reshape(count, channels, -1)
    peak = flat.argmax(axis=2)
    row, column = np.divmod(peak, width)
    scale = np.array([image_shape[0] / height, image_shape[1] / width])
    positions = (np.stack([row, column], axis=2) + 0.5) * scale - 0.5
    energy = np.square(flat)
    total = energy.sum(axis=2, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = energy / total
        entropy = -np.where(share > 0, share * np.log(share), share).sum(axis=2)
    rows, columns = np.divmod(np.arange(height * width), width)
    near = np.hypot(row[..., None] - rows, column[..., None] - columns) <= np.sqrt(height * width) / 8
    return ChannelPeaks(
        np.where(total > 0, positions, np.nan),
        flat.max(axis=2),
        np.where(near, share, 0 * share).sum(axis=2),
        np.maximum(entropy, 0),
        (int(image_shape[0]), int(image_shape[1])),
    )


def location_instability(peaks: ChannelPeaks, landmarks: Any, *, top: int = 100) -> Float64Array:
    """How much the distance of a channel's peak from each landmark varies over images.

    Args:
        peaks: of the images.
        landmarks: ``(n, parts, 2)``.
        top: images per channel that count, those on which it fires most.

    Returns:
        ``(C,)``: standard deviation over those images of distance over image diagonal, mean over the landmarks; NaN
        for a channel that fires on fewer than two. The mean over channels is the usual figure; lower is better.

    Raises:
        GeometryError: when landmarks do not fit the peaks.
        InputError: when ``top`` is below 2, or landmarks are not finite.
    """
    if top < 2:
        raise InputError(f"a variation needs two images or more, got top = {top}")
    distances = _distances(peaks, landmarks) / np.hypot(*peaks.image_shape)
    found = np.full(peaks.heights.shape[1], np.nan)
    for channel, heights in enumerate(peaks.heights.T):
        strongest = np.argsort(-heights, kind="stable")[: min(top, np.count_nonzero(heights > 0))]
        if len(strongest) > 1:
            found[channel] = distances[strongest, channel].std(axis=0).mean()
    return found


class PartAssignment(NamedTuple):
    """Which part each channel is nearest to.

    Attributes:
        part: ``(C,)``, landmark that is nearest to its peak on most images, -1 for a channel that never fires.
        purity: ``(C,)``, share of images (where it fires) with that part, NaN likewise.
        distinct: number of different parts that channels are assigned to.
    """

    part: IntArray
    purity: Float64Array
    distinct: int


def part_assignment(peaks: ChannelPeaks, landmarks: Any) -> PartAssignment:
    """Assign channels to parts by their peaks; errors as in :func:`location_instability`."""
    distances = _distances(peaks, landmarks)
    fires = peaks.heights > 0
    nearest = np.where(fires[..., None], distances, np.inf).argmin(axis=2)
    counts = np.stack([((nearest == p) & fires).sum(axis=0) for p in range(distances.shape[2])], axis=1)
    total = counts.sum(axis=1)
    part = np.where(total > 0, counts.argmax(axis=1), -1)
    purity = np.divide(counts.max(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    return PartAssignment(part, purity, len(np.unique(part[part >= 0])))


@dataclass(frozen=True)
class PartOverlap:
    """Pixels that channels and parts share, summed over images; overlaps of different images add up.

    Attributes:
        shared: ``(C, parts)``, pixels in both the thresholded map and the part.
        either: ``(C, parts)``, pixels in one of them at least.
    """

    shared: IntArray
    either: IntArray

    def __add__(self, other: PartOverlap) -> PartOverlap:
        return PartOverlap(self.shared + other.shared, self.either + other.either)

    @property
    def iou(self) -> Float64Array:
        """Intersection over union ``(C, parts)``; 0 where there is neither."""
        return np.divide(self.shared, self.either, out=np.zeros(self.shared.shape), where=self.either > 0)

    def interpretable(self, at_least: float = 0.2) -> float:
        """Share of channels whose overlap with some part is above ``at_least``."""
        return float(np.mean(self.iou.max(axis=1) > at_least))

    def mean_best(self) -> float:
        """Overlap of each channel with its best part, mean over the channels."""
        return float(self.iou.max(axis=1).mean())


def part_overlap(maps: Any, masks: Any, thresholds: Any) -> PartOverlap:
    """Compare where channels fire with where parts are.

    Maps are brought to the size of the masks linearly; a channel fires where it is above its threshold. A usual one is
    a high quantile of the channel over all images and positions (0.995 in network dissection), the same for all calls.

    Args:
        maps: ``(n, C, h, w)``.
        masks: ``(n, parts, H, W)`` boolean.
        thresholds: ``(C,)``.

    Raises:
        GeometryError: when shapes do not fit.
        InputError: for NaN or infinity, or masks that are not boolean.
    """
    values = finite(maps, 4, "maps (n, channels, h, w)")
    parts = to_numpy(masks)
    if parts.ndim != 4 or len(parts) != len(values):
        raise GeometryError(f"masks are ({len(values)}, parts, H, W) for these maps, got {parts.shape}")
    if parts.dtype != np.bool_:
        raise InputError(f"masks must be boolean, got {parts.dtype}")
    levels = finite(thresholds, 1, "thresholds (channels,)")
    if len(levels) != values.shape[1]:
        raise GeometryError(f"there is one threshold for each of {values.shape[1]} channels, got {len(levels)}")
    fires = _fires(values, levels, (parts.shape[2], parts.shape[3]))
    shared = np.zeros((fires.shape[1], parts.shape[1]), dtype=np.int64)
    for image, where in zip(fires, parts, strict=True):
        flat = where.reshape(len(where), -1).astype(np.float64)
        shared += np.rint(image.reshape(len(image), -1).astype(np.float64) @ flat.T).astype(np.int64)
    sizes = fires.sum(axis=(0, 2, 3))[:, None] + parts.sum(axis=(0, 2, 3))
    return PartOverlap(shared, sizes - shared)


def _fires(values: Float64Array, levels: Float64Array, shape: tuple[int, int]) -> BoolArray:
    larger = F.interpolate(torch.from_numpy(values), size=shape, mode="bilinear", align_corners=False)
    return larger.numpy() > levels[:, None, None]


def _distances(peaks: ChannelPeaks, landmarks: Any) -> Float64Array:
    """Of each peak from each landmark, in pixels, ``(n, C, parts)``."""
    points = finite(landmarks, 3, "landmarks (n, parts, 2)")
    if len(points) != len(peaks.heights) or points.shape[2] != 2 or not points.shape[1]:
        raise GeometryError(f"landmarks are ({len(peaks.heights)}, parts, 2) for these peaks, got {points.shape}")
    return np.linalg.norm(peaks.positions[:, :, None] - points[:, None], axis=3)
