"""Where the cubes of a volume lie, and the blocks in which their assembled prediction is written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from medwave.core.errors import GeometryError

Triple = tuple[int, int, int]

REFERENCE_SIZE: Triple = (32, 128, 128)
REFERENCE_STRIDE: Triple = (24, 96, 96)
"""The tiling of Li & Shen, Bioinformatics 38:809 (2022), doi 10.1093/bioinformatics/btab716: a quarter overlaps."""


@dataclass(frozen=True, order=True)
class Box:
    """A box of voxels ``[start, stop)``, ``(z, y, x)``."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        """Voxels along each axis."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index an array of the whole volume."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def overlap(self, other: Box) -> Box | None:
        """The common part, or None."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            return None
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def within(self, outer: Box) -> tuple[slice, slice, slice]:
        """To index an array of the box ``outer``."""
        z, y, x = (slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, outer.start, strict=True))
        return z, y, x


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds some boxes, of which there is one at least."""
    corners = [(box.start, box.stop) for box in boxes]
    z, y, x = (min(start[axis] for start, _ in corners) for axis in range(3))
    d, h, w = (max(stop[axis] for _, stop in corners) for axis in range(3))
    return Box((z, y, x), (d, h, w))


@dataclass(frozen=True)
class CubePlan:
    """Cubes of one size at regular steps; the last of an axis is shifted back to end on the border.

    An axis shorter than the cube has one cube that reaches beyond the volume (to be padded when it is cut).

    Attributes:
        shape: the volume.
        size: the cubes.
        stride: distance between starts; the difference to ``size`` overlaps.
        margin: how far the cubes reach beyond the volume before and after it, so that none ends at its border.

    Raises:
        GeometryError: when a number is not positive, or cubes would leave gaps.
    """

    shape: Triple
    size: Triple = REFERENCE_SIZE
    stride: Triple = REFERENCE_STRIDE
    margin: Triple = (0, 0, 0)

    def __post_init__(self) -> None:
        for name in ("shape", "size", "stride"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise GeometryError(f"cube plan: {name} is three positive numbers (z, y, x), got {value}")
        if min(self.margin) < 0:
            raise GeometryError(f"cube plan: a margin is not negative, got {self.margin}")
        if any(step > size for step, size in zip(self.stride, self.size, strict=True)):
            raise GeometryError(f"cube plan: a stride {self.stride} over the size {self.size} would leave gaps")

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Starts of the cubes along each axis."""
        z, y, x = (_starts(*axis) for axis in zip(self.shape, self.size, self.stride, self.margin, strict=True))
        return z, y, x

    def __len__(self) -> int:
        z, y, x = (len(axis) for axis in self.starts)
        return z * y * x

    def __iter__(self) -> Iterator[Box]:
        for z, y, x in itertools.product(*self.starts):
            yield self._cube(z, y, x)

    def touching(self, box: Box) -> list[Box]:
        """The cubes that share a voxel with a box, in order."""
        axes = [
            [s for s in starts if s < stop and s + size > start]
            for starts, size, start, stop in zip(self.starts, self.size, box.start, box.stop, strict=True)
        ]
        return [self._cube(z, y, x) for z, y, x in itertools.product(*axes)]

    def blocks(self, size: Triple) -> list[Box]:
        """Boxes of at most ``size`` that cover the volume once, in order."""
        axes = [
            [(start, min(start + step, length)) for start in range(0, length, step)]
            for length, step in zip(self.shape, size, strict=True)
        ]
        return [
            Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
            for z, y, x in itertools.product(*axes)
        ]  # fmt: skip

    def _cube(self, z: int, y: int, x: int) -> Box:
        return Box((z, y, x), (z + self.size[0], y + self.size[1], x + self.size[2]))


def _starts(length: int, size: int, stride: int, margin: int) -> tuple[int, ...]:
    starts, end = [-margin], length + margin
    while starts[-1] + size < end:
        starts.append(starts[-1] + stride)
    starts[-1] = max(-margin, end - size)
    return tuple(starts)
