"""Probabilities, masks and volumes as layers of napari, read where napari looks at them.

A store whose name begins with ``mask`` or ``labels`` becomes a labels layer, any other one image layer per channel;
all resolutions of an OME-Zarr that are volumes go along. Layers are views of what is on disk: to paint in a mask,
duplicate its layer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError
from medwave.core.files import StrPath
from medwave.volumes import LazyVolume, open_stack
from medwave.volumes.ome_zarr import find_image, first_place, is_zarr

Layer = tuple[Any, dict[str, Any], str]
Paths = str | Sequence[str]

ENDINGS = (".zarr", ".v3draw", ".v3dpbd")
LABELS = ("mask", "labels")
"""How the names of stores begin whose values are labels."""
_MADE = ("probability", "mask")
"""How the names of stores begin that lie on another volume, by their translation; others begin at 0, as trees count."""


class VolumeView:
    """A :class:`medwave.volumes.LazyVolume` that is indexed like a numpy array ``(Z, Y, X)``.

    Integers and slices read the box that they span and no more; other indices read the whole volume.
    """

    ndim = 3

    def __init__(self, volume: LazyVolume) -> None:
        self._volume = volume
        self.shape, self.dtype = volume.shape, volume.dtype

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.shape
        return z * y * x

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self._volume.read().astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        asked = np.broadcast_to(np.zeros((), self.dtype), self.shape)[index]  # numpy's own rules, without the memory
        parts = index if isinstance(index, tuple) else (index,)
        if asked.size == 0:
            return np.array(asked)
        if not all(part is Ellipsis or isinstance(part, slice | int | np.integer) for part in parts):
            return np.asarray(self)[index]
        at = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
        after = parts[at + 1 :]
        parts = (*parts[:at], *[slice(None)] * (self.ndim - at - len(after)), *after)
        spans = [_span(part, n) for part, n in zip(parts, self.shape, strict=True)]
        return self._volume.read([box for box, _ in spans])[tuple(within for _, within in spans)]


def _span(part: slice | int, n: int) -> tuple[slice, slice | int]:
    """The smallest slice of step 1 that holds a part of an axis, and where the part lies within it."""
    if not isinstance(part, slice):
        place = range(n)[operator.index(part)]
        return slice(place, place + 1), 0
    places = range(n)[part]
    first, last = sorted((places[0], places[-1]))
    return slice(first, last + 1), slice(None, None, places.step)


def get_store_reader(path: Paths) -> Callable[[Paths], list[Layer]] | None:
    """What reads a store or several, or None where the name is none of :data:`ENDINGS`."""
    return read_stores if all(name.lower().rstrip("/").endswith(ENDINGS) for name in listed(path)) else None


def read_stores(path: Paths) -> list[Layer]:
    """The layers of stores: OME-Zarr, plain 3-D zarr arrays, Vaa3D's raw and packed volumes.

    Raises:
        MedwaveError: as :func:`medwave.volumes.open_stack`.
    """
    return [layer for name in listed(path) for layer in _layers(name)]


def listed(path: Paths) -> list[str]:
    """What napari hands to a reader, as a list of names."""
    return [str(path)] if isinstance(path, str | Path) else [str(name) for name in path]


def shift_of(name: StrPath, scale: Sequence[float]) -> tuple[float, ...]:
    """Where voxel 0 of a probability or mask lies, along z, y, x in the unit of its scale."""
    return tuple(place * step for place, step in zip(first_place(name), scale, strict=True))


def _layers(name: str) -> list[Layer]:
    image = find_image(Path(name)) if is_zarr(name) else None
    levels = range(len(image["datasets"]) if image else 1)
    with open_stack(name) as first:
        channels, spacing, whole = first.channels, first.spacing_um, np.issubdtype(first.dtype, np.integer)
    stem = Path(name).name.split(".")[0]
    kind = "labels" if whole and stem.startswith(LABELS) else "image"
    layers: list[Layer] = []
    for channel in range(channels):
        views = _views(name, channel, levels)
        said: dict[str, Any] = {"name": stem if channels == 1 else f"{stem}, channel {channel}", "scale": (1.0,) * 3}
        if spacing is not None:
            said |= {"scale": spacing, "metadata": {"spacing_um": spacing}}
        if image and stem.startswith(_MADE):
            said["translate"] = shift_of(name, said["scale"])
        if kind == "image" and stem.startswith("probability"):
            said |= {"colormap": "magma", "blending": "additive", "contrast_limits": (0, 255)}
        data = views if len(views) > 1 else views[0]
        layers.append((data, said | {"multiscale": len(views) > 1}, kind))
    return layers


def _views(name: str, channel: int, levels: range) -> list[VolumeView]:
    """The levels of a channel, up to one that has a single slice."""
    views: list[VolumeView] = []
    for level in levels:
        try:
            views.append(VolumeView(open_stack(name, channel=channel, level=level)))
        except GeometryError:
            if not views:
                raise
            break
    return views
