"""Values at places of a volume that need not be in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import numpy as np

_TILES_KEPT = 64


class GreyVoxels(Protocol):
    """A volume (D, H, W) of grey values, or others.

    Attributes:
        shape: of the volume.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume."""

    def at(self, places: np.ndarray) -> np.ndarray:
        """(n,) values at (n, 3) voxels (z, y, x) within the volume."""

    def box(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Voxels from ``low`` up to ``high``, both (3,) and within the volume."""


class VoxelsInMemory:
    """The voxels of an array."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume."""
        return self.image.shape

    def at(self, places: np.ndarray) -> np.ndarray:
        """As for :class:`GreyVoxels`."""
        return self.image[tuple(places.T)]

    def box(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """As for :class:`GreyVoxels`."""
        return self.image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


class VoxelsInTiles:
    """Voxels that are read tile by tile where they are asked for; the last few tiles are kept.

    Args:
        read: gives the voxels of a box, three slices.
        shape: of the volume.
        side: voxels along each side of a tile.
    """

    def __init__(
        self, read: Callable[[tuple[slice, slice, slice]], np.ndarray], shape: tuple[int, int, int], side: int = 64
    ) -> None:
        self._read, self._shape, self.side = read, shape, side
        self._tiles: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume."""
        return self._shape

    def at(self, places: np.ndarray) -> np.ndarray:
        """As for :class:`GreyVoxels`."""
        values: np.ndarray | None = None
        tile = places // self.side
        order = np.lexsort(tile.T[::-1])
        cuts = np.flatnonzero((np.diff(tile[order], axis=0) != 0).any(axis=1)) + 1
        for part in np.split(order, cuts) if len(order) else []:
            inside = places[part] - tile[part[0]] * self.side
            found = self._tile(tuple(map(int, tile[part[0]])))[tuple(inside.T)]
            values = np.empty(len(places), found.dtype) if values is None else values
            values[part] = found
        return np.empty(0, np.uint8) if values is None else values

    def box(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """As for :class:`GreyVoxels`."""
        grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
        return self.at(grid.reshape(-1, 3)).reshape(grid.shape[:3])

    def _tile(self, at: tuple[int, ...]) -> np.ndarray:
        if at not in self._tiles:
            start = [n * self.side for n in at]
            z, y, x = (slice(a, min(a + self.side, n)) for a, n in zip(start, self._shape, strict=True))
            self._tiles[at] = self._read((z, y, x))
        self._tiles.move_to_end(at)
        while len(self._tiles) > _TILES_KEPT:
            self._tiles.popitem(last=False)
        return self._tiles[at]
