"""OME-Zarr images (NGFF 0.4 on zarr v2, NGFF 0.5 on zarr v3) and plain zarr arrays, read chunk by chunk.

Conventions
    The axes of the store are found by the names that its metadata give them, in any order; boxes are (z, y, x). Axes of
    a plain array that have no names are z, y, x.
    The voxel size is the product of the scales of the resolution and of the image, in micrometres; a store whose axes
    have no unit of length does not tell its voxel size. A chunk that is not there holds the fill value.
    Levels lie where their translations say, one without at 0; micrometres count from the centre of voxel 0 of level 0.

References
    OME-NGFF 0.4 and 0.5: https://ngff.openmicroscopy.org; Moore et al., Nature Methods 18:1496, 2021,
    doi:10.1038/s41592-021-01326-w.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, VolumeFormatError
from medwave.core.files import StrPath
from medwave.core.optional import require
from medwave.volumes.location import METADATA_FILES, is_url, location, patiently, reached
from medwave.volumes.stack import (
    Box,
    LazyVolume,
    Spacing,
    check_channel,
    check_shape,
    check_spacing_um,
    micrometres,
    one_line,
)


def zarr_package() -> ModuleType:
    """The zarr package, or the pip line that brings it."""
    return require("zarr", extra="large", purpose="reading and writing OME-Zarr")


def is_zarr(path: StrPath) -> bool:
    """Whether the folder or URL is a zarr store."""
    with reached(path):
        return any((location(path) / name).is_file() for name in METADATA_FILES)


def open_zarr(
    path: StrPath, *, channel: int = 0, level: int = 0, spacing_um: Spacing | None = None
) -> LazyVolume:  # fmt: skip
    """Open one channel of one resolution of an OME-Zarr image, or a plain 3-D zarr array.

    Args:
        path: a folder or URL.
        channel, level: which.
        spacing_um: voxel size along z, y, x in micrometres, in place of what the metadata say.

    Raises:
        VolumeFormatError: when it is not a zarr store, its metadata are unusable, or an array is missing.
        GeometryError: when it is not one 3-D volume.
        InputError: when it lacks the channel or the level.
        MissingPackageError: when zarr is not installed.
    """
    zarr_package()
    folder = location(path)
    with reached(path):
        image = find_image(folder)
    if image is None:
        check_channel(str(folder), channel, 1)
        if level != 0:
            raise InputError(f"{folder}: a plain zarr array has one resolution, level {level} is asked for; use 0")
        array = open_array(folder, "r")
        names = _dimensions(array) if array.ndim == 3 else "?" * array.ndim
        return _volume(folder, folder, array, names, 0, spacing_um, (0.0, 0.0, 0.0))
    datasets = image["datasets"]
    if not 0 <= level < len(datasets):
        raise InputError(f"{folder}: level {level} is asked for, the levels are 0 to {len(datasets) - 1}; choose one")
    axes = _axes(folder, image)
    where = folder / str(datasets[level]["path"])
    array = open_array(where, "r")
    if array.ndim != len(axes):
        raise VolumeFormatError(
            f"{folder}: the metadata name {len(axes)} axes, the array has shape {array.shape}; write it again"
        )
    names = "".join(axis["name"].lower() if len(axis["name"]) == 1 else "?" for axis in axes)
    placing = _placing(folder, image, datasets[level], axes)
    offset = placing.from_voxel(_placing(folder, image, datasets[0], axes).places)
    spacing_um = spacing_um or _spacing(folder, placing.sizes, axes)
    return _volume(folder, where, array, names, channel, spacing_um, offset)


def _dimensions(array: Any) -> str:
    """The axes of a plain 3-D array as zarr v3 or xarray name them; z, y, x where they do not."""
    said = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    names = "".join(map(str, said)).lower() if isinstance(said, list | tuple) else ""
    return names if sorted(names) == ["x", "y", "z"] else "zyx"


def first_place(path: StrPath) -> Spacing:
    """Where voxel 0 of level 0 of an OME-Zarr image lies by its translation: along z, y, x, in voxels.

    Raises:
        VolumeFormatError: when it is not a zarr store, or its metadata are unusable.
    """
    folder = location(path)
    with reached(path):
        image = find_image(folder)
    if image is None:
        return 0.0, 0.0, 0.0
    return _placing(folder, image, image["datasets"][0], _axes(folder, image)).from_voxel((0.0, 0.0, 0.0))


def open_array(path: Path, mode: Any) -> Any:
    """Open a zarr array.

    Raises:
        VolumeFormatError: when there is none, or its metadata are damaged.
    """
    zarr = zarr_package()
    if not is_zarr(path):
        raise VolumeFormatError(f"{path}: the array is missing from the store; copy the whole folder again")
    try:
        return zarr.open_array(str(path), mode=mode)
    except Exception as error:  # zarr, its codecs and json fail in many ways
        raise VolumeFormatError(
            f"{path}: not a usable zarr array ({one_line(error)}); copy the store or write it again"
        ) from None


def read_array(path: Path, array: Any, places: tuple[slice | int, ...]) -> npt.NDArray[Any]:
    """The values of a part of an array.

    Raises:
        UnreachableError: when its URL does not answer, naming the chunks.
    """
    return np.asarray(patiently(path, name_chunks(array, places), lambda: array[places]))


def name_chunks(array: Any, places: tuple[slice | int, ...]) -> str:
    """The names of the files in which a part of an array is stored: the first, and the last where there are more."""
    files = array.shards or array.chunks
    ends = [(s.start, s.stop - 1) if isinstance(s, slice) else (s, s) for s in places]
    first, last = (
        array.metadata.encode_chunk_key(tuple(at // n for at, n in zip(side, files, strict=True)))
        for side in zip(*ends, strict=True)
    )
    return f"chunk {first}" if first == last else f"chunks {first} to {last}"


def find_image(folder: Path) -> dict[str, Any] | None:
    """The first ``multiscales`` entry of an OME-Zarr group, or None for a plain array.

    Raises:
        VolumeFormatError: when it is neither.
    """
    try:
        attributes, is_array = _attributes(folder)
    except (OSError, ValueError) as error:
        raise VolumeFormatError(f"{folder}: its metadata cannot be read ({one_line(error)}); copy it again") from None
    ome = attributes.get("ome", attributes)
    images = ome.get("multiscales") if isinstance(ome, dict) else None
    if isinstance(images, list) and images and isinstance(images[0], dict) and images[0].get("datasets"):
        if not all("path" in dataset for dataset in _objects(folder, images[0], "datasets")):
            raise VolumeFormatError(f"{folder}: each dataset has the path of its array; correct the metadata")
        return images[0]
    if is_array:
        return None
    raise VolumeFormatError(
        f"{folder}: not an OME-Zarr image, its metadata have no multiscales; name the image inside it (such as "
        f"{folder.name}/0), or write it as NGFF 0.4 or 0.5"
    )


def _attributes(folder: Path) -> tuple[dict[str, Any], bool]:
    """The attributes of a zarr node and whether it is an array."""
    if (folder / "zarr.json").is_file():
        node = _object(json.loads((folder / "zarr.json").read_text(encoding="utf-8")))
        return _object(node.get("attributes", {})), node.get("node_type") == "array"
    if not is_zarr(folder):
        raise ValueError("no zarr.json, .zattrs, .zgroup or .zarray is there")
    file = folder / ".zattrs"
    attributes = _object(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    return attributes, (folder / ".zarray").is_file()


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _objects(folder: Path, holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects; empty where it is left out."""
    values = holder.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise VolumeFormatError(f"{folder}: {name} is a list of objects, got {values}; correct the metadata")
    return values


def _axes(folder: Path, image: dict[str, Any]) -> list[dict[str, Any]]:
    named = image.get("axes")
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in named] if isinstance(named, list) else []
    if not axes or not all(isinstance(axis, dict) and isinstance(axis.get("name"), str) for axis in axes):
        raise VolumeFormatError(f"{folder}: the metadata name no axes; write it again as NGFF 0.4 or 0.5")
    for axis in axes:
        if not isinstance(axis.get("unit") or "", str):
            raise VolumeFormatError(f"{folder}: units are names, got {axis['unit']}; correct the metadata")
    return axes


class _Placing(NamedTuple):
    """Size of a voxel of a level and place of its voxel 0, along z, y, x, in the units of the axes."""

    sizes: Spacing
    places: Spacing

    def from_voxel(self, other: Spacing) -> Spacing:
        """How far voxel 0 lies from another place, in voxels."""
        z, y, x = (
            (place - start) / size if size else 0.0
            for size, place, start in zip(self.sizes, self.places, other, strict=True)
        )
        return z, y, x


def _placing(
    folder: Path, image: dict[str, Any], dataset: dict[str, Any], axes: list[dict[str, Any]]
) -> _Placing:  # fmt: skip
    """What the transformations of a level say, which come before those of the image."""
    sizes, places = dict.fromkeys("zyx", 1.0), dict.fromkeys("zyx", 0.0)
    for holder in (dataset, image):
        for step in _objects(folder, holder, "coordinateTransformations"):
            kind = step.get("type")
            if kind not in ("scale", "translation"):
                continue
            numbers = step.get(kind)
            if not isinstance(numbers, list) or len(numbers) != len(axes) or not all(map(_is_number, numbers)):
                raise VolumeFormatError(
                    f"{folder}: a {kind} has one number per axis, got {numbers}; correct the metadata"
                )
            for name, number in zip((axis["name"].lower() for axis in axes), numbers, strict=True):
                if name not in sizes:
                    continue
                if kind == "scale":
                    sizes[name] *= float(number)
                    places[name] *= float(number)
                else:
                    places[name] += float(number)
    return _Placing((sizes["z"], sizes["y"], sizes["x"]), (places["z"], places["y"], places["x"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _spacing(folder: Path, sizes: Spacing, axes: list[dict[str, Any]]) -> Spacing | None:
    """Micrometres along z, y, x, or None when an axis has no unit of length."""
    units = {axis["name"].lower(): micrometres(axis.get("unit")) for axis in axes}
    scales = [units.get(name) for name in "zyx"]
    if None in scales:
        return None
    return check_spacing_um(str(folder), [size * float(scale or 0) for size, scale in zip(sizes, scales, strict=True)])


def _volume(
    folder: Path, where: Path, array: Any, names: str, channel: int, spacing_um: Spacing | None, offset: Spacing
) -> LazyVolume:
    said = f"the array has shape {array.shape}, axes {','.join(names)}"
    if not all(name in names for name in "zyx"):
        raise GeometryError(f"{folder}: a 3-D volume with axes z, y and x is needed, {said}; stack its slices")
    sizes = dict(zip(names, array.shape, strict=True))
    if any(n > 1 for name, n in sizes.items() if name not in "zyxc"):
        raise GeometryError(f"{folder}: one volume is needed, {said}; extract one volume from it")
    channels = sizes.get("c", 1)
    check_channel(str(folder), channel, channels)
    shape = check_shape(str(folder), [sizes[a] for a in "zyx"])
    chunks = dict(zip(names, array.chunks, strict=True))
    kept = [name for name in names if name in "zyx"]

    def fetch(box: Box) -> npt.NDArray[Any]:
        places: dict[str, slice | int] = dict(zip("zyx", box, strict=True))
        places["c"] = channel
        part = read_array(where, array, tuple(places.get(name, 0) for name in names))
        return part.transpose([kept.index(a) for a in "zyx"])

    def stored() -> list[Box]:
        files = dict(zip(names, array.shards or array.chunks, strict=True))
        sizes = [(files[a], n) for a, n in zip("zyx", shape, strict=True)]
        places = sorted({tuple(place[names.index(a)] for a in "zyx") for place in _places(where, array.ndim)})
        inside = [[(i * f, min((i + 1) * f, n)) for i, (f, n) in zip(at, sizes, strict=True)] for at in places]
        return [(slice(*z), slice(*y), slice(*x)) for z, y, x in inside if all(a < b for a, b in (z, y, x))]

    blocks = [min(chunks[a], n) for a, n in zip("zyx", shape, strict=True)]
    listed = None if str(where).startswith(("http://", "https://")) else stored  # a web server lists nothing
    return LazyVolume(
        folder, shape, array.dtype, fetch, chunks=blocks, spacing_um=spacing_um, offset_voxels=offset,
        channels=channels, stored=listed,
    )  # fmt: skip


def _places(where: Path, axes: int) -> Iterator[tuple[int, ...]]:
    """Where in their grid the chunks (or shards) of an array lie that are there, by the names of their files."""
    if is_url(where):
        root, names = where.path, where.fs.find(where.path)  # type: ignore[attr-defined]
    else:
        root, names = where.as_posix(), (path.as_posix() for path in where.rglob("*") if path.is_file())
    for name in names:
        words = re.split(r"[./]", name[len(root) :].strip("/"))
        words = words[1:] if words[0] == "c" else words  # the custom of zarr v3
        if len(words) == axes and all(word.isdecimal() for word in words):
            yield tuple(map(int, words))
