"""TeraFly and TeraStitcher folders: a volume as a grid of tiles, read tile by tile.

Conventions
    ``RES(YxXxZ)/Y/Y_X/Y_X_Z.tif``: the numbers in the names of folders and tiles tell where a tile lies, in tenths of
    a micrometre. They give the order of the tiles, and the voxel size where each axis has several; tiles touch. A
    folder with several ``RES`` is read at its finest. Tiles may also be v3draw.

Source: Bria et al., TeraFly: real-time three-dimensional visualization and annotation of terabytes of
multidimensional volumetric images, Nature Methods 13:192 (2016), doi:10.1038/nmeth.3720.
"""

from __future__ import annotations

import bisect
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, VolumeFormatError
from medwave.core.files import StrPath
from medwave.volumes.open import open_stack
from medwave.volumes.stack import Box, LazyVolume, Shape3, Spacing, check_channel

_RESOLUTION = re.compile(r"RES\((\d+)x(\d+)x(\d+)\)")
_ENDINGS = (".tif", ".tiff", ".v3draw", ".raw", ".v3dpbd")


def is_terafly(path: StrPath) -> bool:
    """Whether a folder is one of TeraFly: it holds resolutions, or rows of columns of tiles."""
    folder = Path(path)
    return folder.is_dir() and (bool(_resolutions(folder)) or bool(_tiles(folder)))


def open_terafly(path: StrPath, *, channel: int = 0) -> LazyVolume:
    """Open a folder of tiles.

    Raises:
        VolumeFormatError: when it has no tiles, or lacks some.
        GeometryError: when tiles do not fit together.
    """
    folder = Path(path)
    found = _resolutions(folder)
    root = found[-1] if found else folder
    tiles = _tiles(root)
    if not tiles:
        raise VolumeFormatError(f"{root}: no tiles Y/Y_X/Y_X_Z.tif are there; name a TeraFly folder")
    offsets = [sorted({place[axis] for place in tiles}) for axis in range(3)]
    missing = [place for place in itertools.product(*offsets) if place not in tiles]
    if missing:
        z, y, x = missing[0]
        raise VolumeFormatError(
            f"{root}: {len(missing)} tiles are missing, first {y:06d}_{x:06d}_{z:06d}; copy the folder again"
        )
    sizes = [[_size(tiles, offsets, axis, n) for n in range(len(offsets[axis]))] for axis in range(3)]
    edges = [[0, *itertools.accumulate(axis)] for axis in sizes]
    first = tiles[offsets[0][0], offsets[1][0], offsets[2][0]]
    with open_stack(first, channel=channel) as tile:
        dtype, channels = tile.dtype, tile.channels
        inner = tile.shape
    check_channel(str(root), channel, channels)

    def fetch(box: Box) -> npt.NDArray[Any]:
        out = np.empty([s.stop - s.start for s in box], dtype)
        spans = [
            range(bisect.bisect_right(edge, s.start) - 1, bisect.bisect_left(edge, s.stop))
            for edge, s in zip(edges, box, strict=True)
        ]
        for at in itertools.product(*spans):
            place = tuple(offset[n] for offset, n in zip(offsets, at, strict=True))
            low = [edge[n] for edge, n in zip(edges, at, strict=True)]
            high = [edge[n + 1] for edge, n in zip(edges, at, strict=True)]
            inside = [slice(max(s.start, a) - a, min(s.stop, b) - a) for s, a, b in zip(box, low, high, strict=True)]
            target = tuple(
                slice(p.start + a - s.start, p.stop + a - s.start) for p, a, s in zip(inside, low, box, strict=True)
            )
            out[target] = _read(tiles[place], channel, (high, low), dtype, inside)  # type: ignore[index]
        return out

    z, y, x = (edge[-1] for edge in edges)
    return LazyVolume(
        folder, (z, y, x), dtype, fetch, chunks=inner, spacing_um=_spacing(offsets, sizes), channels=channels
    )


def _read(path: Path, channel: int, bounds: Any, dtype: np.dtype[Any], box: Any) -> npt.NDArray[Any]:
    expected = tuple(b - a for b, a in zip(*bounds, strict=True))
    with open_stack(path, channel=channel) as tile:
        if tile.shape != expected or tile.dtype != dtype:
            raise GeometryError(
                f"{path}: a tile of {expected} {dtype.name} belongs here, this is {tile.shape} {tile.dtype.name}"
            )
        return tile.read(box)


def _resolutions(folder: Path) -> list[Path]:
    """Folders of resolutions, the finest last."""
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _RESOLUTION.fullmatch(path.name))]
    return [path for _, path in sorted((int(m[1]) * int(m[2]) * int(m[3]), p) for m, p in found)]


def _tiles(root: Path) -> dict[Shape3, Path]:
    """Tiles by their numbers (z, y, x)."""
    found: dict[Shape3, Path] = {}
    for row in root.iterdir():
        if not (row.name.isdecimal() and row.is_dir()):
            continue
        for column in row.iterdir():
            if not (re.fullmatch(rf"{row.name}_\d+", column.name) and column.is_dir()):
                continue
            for tile in column.iterdir():
                match = re.fullmatch(rf"{column.name}_(\d+)", tile.name.split(".")[0])
                if match and tile.name.lower().endswith(_ENDINGS):
                    y, x = map(int, column.name.split("_"))
                    found[int(match[1]), y, x] = tile
    return found


def _size(tiles: dict[Shape3, Path], offsets: list[list[int]], axis: int, number: int) -> int:
    """Voxels along an axis of the tiles that lie at one of its places."""
    place = [axis_offsets[0] for axis_offsets in offsets]
    place[axis] = offsets[axis][number]
    with open_stack(tiles[place[0], place[1], place[2]]) as tile:
        return tile.shape[axis]


def _spacing(offsets: list[list[int]], sizes: list[list[int]]) -> Spacing | None:
    """Micrometres, where an axis has two tiles or more to tell; the others are unknown, and then all are."""
    if any(len(axis) < 2 for axis in offsets):
        return None
    z, y, x = ((axis[1] - axis[0]) / 10 / size[0] for axis, size in zip(offsets, sizes, strict=True))
    return z, y, x
