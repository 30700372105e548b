"""What may pull at the refinement beside its pair of images: further channels, and landmarks.

Channels are further images of the same two subjects on the same grid. The similarity is the mean over all channels by
their weights, and so is the force. Landmarks are points that belong together: at each iteration, each adds a bump
towards its place, as high as what is left of its way, at most one step, and as wide as its reach; where bumps overlap
their mean is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.engine.loops import Loops
from medwave.engine.pyramid import block_means

FloatVolume = npt.NDArray[np.float32]
_REACH_SIGMAS = 3.0
_LEAST_SIGMA_VOXELS = 1.5


@dataclass(frozen=True)
class Channel:
    """Further images of the two subjects.

    Attributes:
        fixed, moving: ``(D, H, W)`` each.
        weight: how much they count beside the first pair's 1.
        missing: ``(D, H, W)`` bool, where one of them has no voxel: no window may touch them. None for nowhere.
    """

    fixed: FloatVolume
    moving: FloatVolume
    weight: float = 1.0
    missing: npt.NDArray[np.bool_] | None = None

    def coarser(self, factor: int, radius: int) -> Channel:
        """The same at a scale, with windows of this half-width that would touch missing voxels missing too."""
        images = block_means(self.fixed, factor), block_means(self.moving, factor)
        return Channel(*images, self.weight, None if self.missing is None else touched(self.missing, factor, radius))


def touched(excluded: npt.NDArray[np.bool_], factor: int, radius: int) -> npt.NDArray[np.bool_]:
    """Voxels of a scale whose windows of this half-width touch an excluded voxel."""
    from scipy import ndimage  # a third of a second to import, which pairs without masks are spared

    return np.asarray(ndimage.maximum_filter(block_means(excluded.astype(np.float32), factor), size=2 * radius + 1) > 0)


@dataclass(frozen=True)
class Landmarks:
    """Points that belong together, ``(N, 3)`` voxel coordinates of the grid of the refinement.

    Attributes:
        places: in the fixed image.
        targets: where the displacement shall take them: ``p + u(p)``.
        reach_voxels: standard deviation of the bumps.
        weight: share of a step that they may take, 0 to 1.
    """

    places: npt.NDArray[np.float64]
    targets: npt.NDArray[np.float64]
    reach_voxels: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.places.ndim != 2 or self.places.shape[1] != 3 or self.places.shape != self.targets.shape:
            raise GeometryError(f"landmarks are (N, 3) and as many, got {self.places.shape} and {self.targets.shape}")
        if not 0 <= self.weight <= 1 or self.reach_voxels <= 0:
            raise InputError(
                f"landmarks have a weight of 0 to 1 and a reach above 0, got {self.weight} and {self.reach_voxels}"
            )

    def coarser(self, factor: int) -> Landmarks:
        """The same on a grid of voxels ``factor`` times larger whose first outer faces coincide."""
        places, targets = ((points - (factor - 1) / 2) / factor for points in (self.places, self.targets))
        return Landmarks(places, targets, max(self.reach_voxels / factor, _LEAST_SIGMA_VOXELS), self.weight)


def without(loops: Loops, counts: Any, left_out: npt.NDArray[np.bool_] | None) -> Any:
    """A weight with 0 where voxels are left out; itself where none are."""
    return counts if left_out is None else loops.upload(np.where(left_out, np.float32(0), loops.download(counts)))


class FurtherChannels:
    """The force of further channels at one scale."""

    def __init__(
        self, loops: Loops, channels: Sequence[Channel], metric: str, radius: int, counts: Any, force_limit: float
    ) -> None:
        self.loops = loops
        whole = 1.0 + sum(channel.weight for channel in channels)
        self.first_share = 1.0 / whole
        self.parts = [
            (loops.upload(c.moving),
             loops.similarity(metric, loops.upload(c.fixed), without(loops, counts, c.missing), radius, force_limit),
             c.weight / whole)
            for c in channels
        ]  # fmt: skip
        self.warped, self.force = loops.empty(*counts.shape), loops.empty(3, *counts.shape)

    def join(self, field: Any, update: Any, value: float) -> float:
        """Turn the force and similarity of the first channel into those of all, the force in place."""
        update *= self.first_share
        value *= self.first_share
        for moving, similarity, share in self.parts:
            self.loops.warp(moving, field, self.warped)
            value += share * similarity.force(self.warped, self.force)
            self.force *= share
            update += self.force
        return value


class LandmarkPull:
    """The pull of landmarks at one scale."""

    def __init__(self, loops: Loops, landmarks: Landmarks, step_voxels: float, shape: tuple[int, ...]) -> None:
        self.loops, self.landmarks, self.step = loops, landmarks, step_voxels
        self.corners = _corners(landmarks.places, shape)
        boxes = [_bump(place, landmarks.reach_voxels, shape) for place in landmarks.places]
        crowd = np.zeros(shape, dtype=np.float32)
        for box, bump in boxes:
            crowd[box] += bump
        np.maximum(crowd, 1, out=crowd)
        self.boxes = [(box, bump / crowd[box]) for box, bump in boxes]

    def left(self, field: Any) -> npt.NDArray[np.float64]:
        """What is left of each landmark's way, ``(N, 3)`` voxels."""
        index, weights = self.corners
        values = self.loops.download(field[:, index[0], index[1], index[2]])
        moved = (values * weights).sum(axis=-1).T
        return np.asarray(self.landmarks.targets - self.landmarks.places - moved)

    def add(self, field: Any, update: Any) -> None:
        """Add the pull to an update, in place."""
        left = self.left(field)
        lengths = np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-12)
        steps = (self.landmarks.weight * left * np.minimum(1, self.step / lengths)).astype(np.float32)
        for (box, bump), step in zip(self.boxes, steps, strict=True):
            update[(slice(None), *box)] += self.loops.upload(step[:, None, None, None] * bump)


def _corners(places: npt.NDArray[np.float64], shape: tuple[int, ...]) -> tuple[Any, npt.NDArray[np.float32]]:
    """The eight voxels about each place, ``(3, N, 8)``, and their trilinear weights ``(N, 8)``; clamped to the grid."""
    inside = np.clip(places, 0, np.asarray(shape) - 1)
    low = np.minimum(np.floor(inside).astype(np.int64), np.maximum(np.asarray(shape) - 2, 0))
    part = inside - low
    steps = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    index = np.minimum(low[:, None] + steps, np.asarray(shape) - 1)
    weights = np.where(steps == 1, part[:, None], 1 - part[:, None]).prod(axis=2)
    return np.moveaxis(index, -1, 0), weights.astype(np.float32)


def _bump(
    place: npt.NDArray[np.float64], sigma: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], FloatVolume]:
    """A Gaussian of height 1 about a place, and the box it fills; the box is empty where it lies outside the grid."""
    lines, box = [], []
    for at, n in zip(place, shape, strict=True):
        start = int(np.clip(np.floor(at - _REACH_SIGMAS * sigma), 0, n))
        stop = int(np.clip(np.ceil(at + _REACH_SIGMAS * sigma) + 1, start, n))
        lines.append(np.exp(-0.5 * ((np.arange(start, stop) - at) / sigma) ** 2))
        box.append(slice(start, stop))
    return tuple(box), np.einsum("i,j,k->ijk", *lines).astype(np.float32)
