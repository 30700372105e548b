"""What is traced, seen in boxes: a volume, or the fibre that a network found in one.

A source is a few plain values, so that it travels to the workers of a cluster, which open its files themselves, once
per process. Boxes count from the corner of the part that is traced.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.cubes import Box
from medwave.cubes.plan import Triple
from medwave.tracing.grey import BRIGHTEST_SHARE, GreyScale, brightest_rank, fixed_scale, image_scale
from medwave.volumes import LazyVolume, open_stack
from medwave.volumes.location import stamp

FIBRE_SHARE = 1e-3
"""Of the voxels of an image, those whose contrast counts as full where it is traced together with probabilities."""

_WHOLE_VOXELS = 1 << 26
_SLAB_VOXELS = 1 << 24
_SIDE = 256


@dataclass(frozen=True)
class Stack:
    """A volume on disk: where, and how it is opened."""

    path: str
    channel: int = 0
    level: int = 0
    axes: str | None = None
    spacing: tuple[float, float, float] | None = None

    def open(self) -> LazyVolume:
        """The volume; opened once per process, and anew when its file was replaced: workers outlive a run."""
        with _opening:
            key = self, stamp(self.path)
            if key not in _opened:
                while len(_opened) >= _KEPT:
                    _opened.pop(next(iter(_opened)))
                _opened[key] = open_stack(
                    self.path, channel=self.channel, level=self.level, axes=self.axes, spacing_um=self.spacing
                )
            return _opened[key]


_KEPT = 4
_opened: dict[tuple[Stack, Any], LazyVolume] = {}
_opening = threading.Lock()


@contextlib.contextmanager
def stacks() -> Iterator[None]:
    """Lets go of the files of this process at the end."""
    try:
        yield
    finally:
        with _opening:
            while _opened:
                _opened.popitem()[1].close()


@dataclass(frozen=True)
class _PartOfStack:
    stack: Stack
    start: Triple
    shape: Triple

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ``values``."""
        return self.stack.open().dtype

    def _read(self, stack: Stack, box: Box) -> npt.NDArray[Any]:
        z, y, x = (slice(a + s, b + s) for a, b, s in zip(box.start, box.stop, self.start, strict=True))
        return stack.open().read((z, y, x))


@dataclass(frozen=True)
class VolumeSource(_PartOfStack):
    """A volume, or a part of it, that is traced as it is.

    Attributes:
        stack: the volume.
        start, shape: the part.
        kind: "image", "mask" or "probability".
    """

    kind: str

    @property
    def top_share(self) -> float | None:
        """The share of all values that lie above the scale; None when it does not depend on values."""
        return None if fixed_scale(self.dtype, self.kind) else BRIGHTEST_SHARE

    def values(self, box: Box) -> npt.NDArray[Any]:
        """The values of a box."""
        return self._read(self.stack, box)

    def scale(self, low: float, top: float) -> GreyScale:
        """From the smallest value and the one that :attr:`top_share` of all exceed."""
        return fixed_scale(self.dtype, self.kind) or image_scale(low, top)

    def grey(self, box: Box, scale: GreyScale) -> npt.NDArray[np.uint8]:
        """The grey values of a box."""
        return scale.grey(self.values(box))

    @property
    def shown(self) -> Stack:
        """Where that is not stored, all grey values are one."""
        return self.stack


@dataclass(frozen=True)
class FibreSource(_PartOfStack):
    """Grey values above the background where a network found fibre, by themselves or with the probability; else 0.

    By themselves they are on a scale that :data:`~medwave.tracing.grey.BRIGHTEST_SHARE` of the voxels exceed; with the
    probability, which is multiplied by their root, one that :data:`FIBRE_SHARE` exceed.

    Attributes:
        stack: the image.
        start, shape: the part.
        probability: OME-Zarr, 0 to 255.
        threshold: probability of fibre, 0 to 1.
        background: value of the image.
        both: with the probability.
        mask: OME-Zarr, 0 in pieces of fibre that are left out; none are where it is not given.
    """

    probability: str
    threshold: float
    background: float
    both: bool
    mask: str | None = None

    @property
    def top_share(self) -> float:
        """As for :class:`VolumeSource`."""
        return FIBRE_SHARE if self.both else BRIGHTEST_SHARE

    def values(self, box: Box) -> npt.NDArray[Any]:
        """Values of the image that tell its scale."""
        image = self._read(self.stack, box)
        if self.both:
            return image
        kind = self.dtype.kind
        least = 0 if kind in "bu" else np.iinfo(self.dtype).min if kind == "i" else np.finfo(self.dtype).min
        return np.where(self._fibre(box)[1], image, self.dtype.type(least))

    def scale(self, low: float, top: float) -> GreyScale:
        """As for :class:`VolumeSource`."""
        # where fewer voxels are brighter than the background, all of them count as full, whatever their values
        contrast = max(top - self.background, 0.0) or float(np.spacing(max(abs(self.background), 1e-30)))
        return GreyScale(self.background, self.background + contrast, "linear")

    def grey(self, box: Box, scale: GreyScale) -> npt.NDArray[np.uint8]:
        """As for :class:`VolumeSource`."""
        probability, inside = self._fibre(box)
        grey = np.zeros(probability.shape, np.uint8)
        if inside.any():
            image = self._read(self.stack, box)[inside].astype(np.float64)
            seen = np.clip((image - scale.low) / (scale.high - scale.low), 0, 1)
            if self.both:
                seen = np.sqrt(seen) * (probability[inside] / 255.0)
            grey[inside] = np.rint(seen * 255.0)
        return grey

    @property
    def shown(self) -> Stack:
        """As for :class:`VolumeSource`."""
        return Stack(self.probability)

    def whole(self) -> npt.NDArray[np.uint8]:
        """All grey values at once, on the scale of all values."""
        everything = Box((0, 0, 0), self.shape)
        values = self.values(everything)
        rank = brightest_rank(values.size, self.top_share)
        return self.grey(everything, self.scale(0.0, float(np.partition(values, rank, axis=None)[rank])))

    def _fibre(self, box: Box) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        probability = self._read(self.shown, box)
        inside = probability > self.threshold * 255
        if self.mask is not None:
            inside &= self._read(Stack(self.mask), box) > 0
        return probability, inside


Source = VolumeSource | FibreSource


def block_size(source: Source) -> Triple:
    """Size of boxes that cost little to read: of 64 million voxels where the volume is stored in planes, else 256^3.

    What is traced does not depend on it.
    """
    shape, opened = source.shape, source.stack.open()
    plane = shape[1] * shape[2]
    if shape[0] * plane <= _WHOLE_VOXELS:
        return shape
    if opened.chunks[1:] == opened.shape[1:]:
        return max(1, _SLAB_VOXELS // plane), shape[1], shape[2]
    return _SIDE, _SIDE, _SIDE


def is_stored(stack: Stack, start: Triple, shape: Triple, size: Triple) -> npt.NDArray[np.bool_]:
    """Which blocks of a part of a volume, in the order of their voxels, have a voxel that its store holds.

    All of them, where it does not tell. The voxels of the others have one and the same value.

    Args:
        start, shape: the part.
        size: of blocks.
    """
    opened = stack.open()
    counts = tuple(-(-n // step) for n, step in zip(shape, size, strict=True))
    stored = opened.stored() if opened.stored else None
    if stored is None:
        return np.ones(int(np.prod(counts)), bool)
    there = np.zeros(counts, bool)
    for box in stored:
        first = [max(s.start - a, 0) // step for s, a, step in zip(box, start, size, strict=True)]
        last = [(s.stop - a - 1) // step + 1 for s, a, step in zip(box, start, size, strict=True)]
        there[tuple(slice(f, max(n, 0)) for f, n in zip(first, last, strict=True))] = True
    return there.reshape(-1)
