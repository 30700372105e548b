"""Where the subject of an image is: its threshold, frame, body, and the slices that show most of it.

Conventions
    Arrays are ``(D, H, W)`` with axes of any meaning, here R, A, S; spacing in mm per axis. All answers come from
    every n-th voxel: they place frames and masks of pictures, they measure nothing.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from medwave.core import masks
from medwave.reports.colours import FloatArray
from medwave.reports.grey_values import Array, finite, sample, smooth

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SEARCH_SHARE = 0.15
"""How far from the centre a slice may lie, as a share of the subject's extent along that axis."""

CLOSING_SHARE = 0.03
"""Radius of the clefts that belong to the body, as a share of the subject's largest extent: fissures and sulci."""

BODY_CELLS = 80
"""Cells of the body mask along the subject's largest extent."""


class Foreground:
    """The part of an image above Otsu's threshold.

    Attributes:
        threshold: grey level that separates subject and background.
        body_level: half way from the background to the threshold.
        low, high: first voxel and one past the last of the frame, per axis.
        centre: voxel of the centre of mass, per axis.
    """

    def __init__(self, array: Array, spacing_mm: Float64Array) -> None:
        self._array, self._spacing_mm = array, spacing_mm
        thin = sample(array)
        self.threshold = otsu_threshold(thin)
        background = thin[thin <= self.threshold]
        dark = float(np.median(background)) if background.size else self.threshold
        self.body_level = (dark + self.threshold) / 2
        self.low, self.high, self.centre = _extent(thin > self.threshold, array.shape)

    def telling_slice(self, axis: int) -> int:
        """Index of the slice across ``axis`` that shows most, near the centre.

        Candidates lie within 15 % of the extent around the centre. The best one has the largest product of its
        foreground, of the sum of its gradients, and of a weight that falls to 0 at the ends of that range. It avoids
        slices that run inside a cleft, such as the one between the hemispheres.
        """
        centre = int(self.centre[axis])
        reach = int(SEARCH_SHARE * (self.high[axis] - self.low[axis]))
        step = max(1, -(-reach // 12))
        offsets = sorted(range(-(reach // step) * step, reach + 1, step), key=abs)
        offsets = [o for o in offsets if 0 <= centre + o < self._array.shape[axis]]
        scores = [self._content(axis, centre + o) * (1 - (o / (reach + 1)) ** 2) for o in offsets]
        return centre + offsets[int(np.argmax(scores))]

    def _content(self, axis: int, index: int) -> float:
        """How much a slice shows: foreground area times sum of the gradients, bright spots cut off."""
        cut = sample(np.moveaxis(self._array, axis, 0)[index], at_most=64)
        if min(cut.shape) < 2:
            return 0.0
        inside = cut > self.threshold
        if not inside.any():
            return 0.0
        capped = np.minimum(cut, np.percentile(cut[inside], 95))
        slopes = np.hypot(*np.gradient(capped))
        return float(np.mean(inside) * np.mean(slopes, dtype=np.float64))

    def body(self, axis: int, index: int, box: tuple[tuple[int, int], tuple[int, int]]) -> FloatArray:
        """How far inside the body the voxels of a part of one slice are; its outline is at 0.5.

        Args:
            axis: axis that is cut.
            index: voxel along that axis.
            box: half-open voxel ranges along the two other axes, in their order.
        """
        steps, cells = self._body
        places = [np.arange(*span) for span in box]
        places.insert(axis, np.array([index]))
        for along, (place, step) in enumerate(zip(places, steps, strict=True)):
            cells = _between(cells, np.minimum(place / step, cells.shape[along] - 1.0), along)
        return cells.squeeze(axis)

    @functools.cached_property
    def _body(self) -> tuple[tuple[int, ...], FloatArray]:
        """Steps in voxels and the closed mask on every n-th voxel, slightly smoothed, so that its outline is even."""
        extent_mm = float(np.max((self.high - self.low) * self._spacing_mm))
        steps = tuple(max(1, round(extent_mm / BODY_CELLS / s)) for s in self._spacing_mm)
        cell_mm = self._spacing_mm * steps
        thin = finite(self._array[tuple(slice(None, None, n) for n in steps)])
        inside = keep_large_parts(smooth(thin, (0.5, 0.5, 0.5)) > self.body_level)
        closed = close_clefts(inside, CLOSING_SHARE * extent_mm, cell_mm)
        return steps, smooth(closed.astype(np.float32), (0.7, 0.7, 0.7))


def keep_large_parts(inside: BoolArray, share: float = 0.02) -> BoolArray:
    """The connected parts that have at least this share of the largest one's voxels."""
    parts, count = masks.parts(inside)
    if count < 2:
        return inside
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= share * sizes.max())[parts] & inside


def close_clefts(inside: BoolArray, radius_mm: float, spacing_mm: Float64Array) -> BoolArray:
    """Morphological closing by a ball, holes filled. The world beyond the array counts as empty."""
    pad = [int(np.ceil(radius_mm / s)) + 1 for s in spacing_mm]
    padded = np.pad(inside, [(p, p) for p in pad])
    if not padded.any():
        return inside
    closed = ~_grown(~_grown(padded, radius_mm, spacing_mm), radius_mm, spacing_mm)
    filled = masks.filled(closed | padded)
    return filled[tuple(slice(p, p + n) for p, n in zip(pad, inside.shape, strict=True))]


def _grown(mask: BoolArray, radius_mm: float, spacing_mm: Float64Array) -> BoolArray:
    """The mask and all within a ball about its voxels: a union of copies, fewer than a distance transform costs."""
    reach = [int(radius_mm / s) for s in spacing_mm]
    padded = np.pad(mask, [(r, r) for r in reach])
    grown = mask.copy()
    for a, b in np.ndindex(2 * reach[0] + 1, 2 * reach[1] + 1):
        left = radius_mm**2 - ((a - reach[0]) * spacing_mm[0]) ** 2 - ((b - reach[1]) * spacing_mm[1]) ** 2
        if left < 0:
            continue
        half = int(np.sqrt(left) / spacing_mm[2])
        for c in range(reach[2] - half, reach[2] + half + 1):
            grown |= padded[a : a + mask.shape[0], b : b + mask.shape[1], c : c + mask.shape[2]]
    return grown


def _between(array: FloatArray, at: Float64Array, axis: int) -> FloatArray:
    """Linear interpolation along one axis at positions within it."""
    low = at.astype(int)
    high = np.minimum(low + 1, array.shape[axis] - 1)
    share = np.expand_dims((at - low).astype(np.float32), [a for a in range(array.ndim) if a != axis])
    below, above = np.take(array, low, axis), np.take(array, high, axis)
    return below + share * (above - below)


def otsu_threshold(values: FloatArray) -> float:
    """The grey level that separates two classes best (N. Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    low, high = np.percentile(values, (0.1, 99.5))
    if not high > low:
        return float(low)
    counts, edges = np.histogram(values, bins=128, range=(float(low), float(high)))
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_below = np.cumsum(counts * middle) / np.maximum(below, 1)
    mean_above = (np.sum(counts * middle) - np.cumsum(counts * middle)) / np.maximum(above, 1)
    return float(edges[1:][np.argmax(below * above * (mean_below - mean_above) ** 2)])


def _extent(inside: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First voxel, one past the last and centre of a thinned mask, in voxels of the full array of the given shape."""
    if not inside.any():
        inside = np.ones_like(inside)
    low, high, centre = np.zeros(3), np.zeros(3), np.zeros(3)
    for axis, length in enumerate(shape):
        step = -(-length // inside.shape[axis])
        profile = inside.sum(axis=tuple(a for a in range(3) if a != axis)) / inside.sum()
        share = np.cumsum(profile)
        low[axis] = np.searchsorted(share, 0.002) * step
        high[axis] = min((np.searchsorted(share, 0.998) + 1) * step, length)
        centre[axis] = min(round(float(profile @ np.arange(len(profile))) * step), length - 1)
    return low, high, centre
