"""Writing OME-Zarr block by block, and its pyramid afterwards, in memory of a few chunks whatever the volume.

Conventions
    Axes (z, y, x), one channel. Every chunk is a file of its own that appears when it is complete, so a process that is
    killed leaves whole chunks only. Blocks that share no chunk may be written at the same time.
    Each level halves the axes that are longer than a chunk and whose voxels are less than twice as long as the
    shortest of these: thick slices are kept until the voxels are about cubes. A voxel of a level covers its 1, 2, 4
    or 8 voxels of the level before, and its centre lies in the middle of theirs (``translation``).

References
    OME-NGFF 0.4 and 0.5: https://ngff.openmicroscopy.org; Moore et al., Nature Methods 18:1496, 2021,
    doi:10.1038/s41592-021-01326-w.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, MedwaveError, OutputError
from medwave.core.files import StrPath, check_folder_of
from medwave.volumes.location import is_url, location, patiently, put_json, remove_store
from medwave.volumes.ome_zarr import (
    find_image,
    first_place,
    is_zarr,
    name_chunks,
    open_array,
    open_zarr,
    read_array,
    zarr_package,
)
from medwave.volumes.stack import Box, Shape3, Spacing, check_box, check_dtype, check_shape, check_spacing_um

VERSIONS = ("0.4", "0.5")
METHODS = ("mean", "max")


class OmeZarrImage:
    """The finest level of an OME-Zarr image that is being written.

    Attributes:
        path: the folder of the image.
        shape, chunks: voxels along z, y, x.
        files: voxels of what is stored as one file: a shard, or a chunk.
        dtype: type of the values.
        spacing_um: voxel size along z, y, x in micrometres, or None.
        offset_voxels: where its translation puts voxel 0 along z, y, x, in voxels.
    """

    def __init__(self, path: StrPath) -> None:
        """Open an existing one, such as a run that was interrupted."""
        with open_zarr(path) as volume:
            self.path, self.shape, self.dtype = location(path), volume.shape, volume.dtype
            self.chunks, self.spacing_um = volume.chunks, volume.spacing_um
        self.offset_voxels = first_place(path)
        self._array = open_array(_level_paths(self.path)[0], "r+")
        z, y, x = (self._array.shards or self._array.chunks)[-3:]
        self.files: Shape3 = (z, y, x)
        if self._array.ndim != 3:
            raise InputError(f"{path}: only images with axes z, y, x are written to, this has {self._array.ndim} axes")

    def write(self, box: Sequence[slice], block: npt.NDArray[Any]) -> None:
        """Write the values of a box.

        Raises:
            GeometryError: when the box reaches outside.
            InputError: when the block is not of the box's shape and the image's type.
            OutputError: when it cannot be written.
        """
        inside = check_box(str(self.path), self.shape, box)
        shape = tuple(s.stop - s.start for s in inside)
        if block.shape != shape or block.dtype != self.dtype:
            raise InputError(
                f"{self.path}: a block of {shape} {self.dtype.name} is needed, got {block.shape} {block.dtype.name}"
            )
        _write_array(self.path, self._array, inside, block)

    def read(self, box: Sequence[slice] | None = None) -> npt.NDArray[Any]:
        """The values of a box as they are by now; what was never written is 0."""
        return read_array(self.path, self._array, check_box(str(self.path), self.shape, box))


def create_ome_zarr(
    path: StrPath,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    *,
    chunks: Sequence[int] = (64, 64, 64),
    shards: Sequence[int] | None = None,
    spacing_um: Sequence[float] | None = None,
    offset_voxels: Spacing = (0.0, 0.0, 0.0),
    levels: int | None = None,
    version: str = "0.4",
    overwrite: bool = False,
) -> OmeZarrImage:
    """Make an OME-Zarr image whose blocks are then written one by one; see :func:`build_pyramid` for the end.

    Args:
        path: the folder or URL to make, by custom ending in ``.ome.zarr``.
        shape: voxels along z, y, x.
        dtype: integer or float type.
        chunks: voxels of a chunk along z, y, x.
        shards: voxels of a file along z, y, x that holds many chunks, rounded up to whole chunks; one chunk a file
            when left out. Shards need NGFF 0.5, and blocks that share one may not be written at the same time.
        spacing_um: voxel size along z, y, x, or None when unknown.
        offset_voxels: where voxel 0 lies along z, y, x, in voxels; an image made from a coarser level of another has
            the ``offset_voxels`` of :class:`medwave.volumes.LazyVolume` of that level, and then lies on the other.
        levels: how many resolutions at most; one chunk that holds the whole volume is the last in any case.
        version: NGFF "0.4" (zarr v2, which most viewers read) or "0.5" (zarr v3).
        overwrite: replace an OME-Zarr that is there.

    Raises:
        InputError: when the version or levels are unknown, or shards meet NGFF 0.4.
        GeometryError: when shape, chunks or spacing are unusable.
        OutputError: when it is there already, or cannot be written.
        MissingPackageError: when zarr is not installed.
    """
    zarr_package()
    folder = location(path)
    size, kind = check_shape(str(folder), shape), check_dtype(str(folder), dtype)
    block = _check_chunks(folder, size, chunks)
    spacing = None if spacing_um is None else check_spacing_um(str(folder), spacing_um)
    if version not in VERSIONS:
        raise InputError(f'{folder}: the NGFF version is "0.4" or "0.5", got "{version}"')
    if shards is not None and version == "0.4":
        raise InputError(f"{folder}: only NGFF 0.5 has shards; leave them out, or ask for version 0.5")
    if levels is not None and levels < 1:
        raise InputError(f"{folder}: an image has at least one level, got {levels}")
    _clear(folder, overwrite)
    factors = _factors(size, block, spacing, levels)
    with _written(folder):
        if not is_url(folder):
            folder.mkdir()
        for level, factor in enumerate(factors):
            reduced = _reduced(size, factor)
            files = None if shards is None else _shards(folder, reduced, block, shards)
            _create_array(folder / str(level), reduced, kind, block, files, version)
        _write_metadata(folder, factors, spacing, offset_voxels, version)
    return OmeZarrImage(folder)


def build_pyramid(path: StrPath, *, method: str = "mean") -> None:
    """Fill the coarser levels from the finest; blocks without a stored chunk are passed over.

    Args:
        path: an image made by :func:`create_ome_zarr`.
        method: "mean" for images and probabilities (integers are rounded), "max" so that thin things stay in a mask.

    Raises:
        InputError: when the method is unknown.
        OutputError: when it cannot be written.
    """
    for level, shape in list(enumerate(level_shapes(path)))[1:]:
        fill_level(path, level, [slice(0, n) for n in shape], method=method)


def level_shapes(path: StrPath) -> list[Shape3]:
    """Voxels along z, y, x of each level of an image made by :func:`create_ome_zarr`, the finest first."""
    shapes = []
    for level in _level_paths(location(path)):
        z, y, x = open_array(level, "r").shape
        shapes.append((z, y, x))
    return shapes


def fill_level(path: StrPath, level: int, box: Sequence[slice], *, method: str = "mean") -> None:
    """Fill a box of a level from the level before, as :func:`build_pyramid` does all of it.

    Args:
        path: an image made by :func:`create_ome_zarr`.
        level: 1 or more.
        box: begins and ends at files of the level (shards, or chunks), or at its border.
        method: as for :func:`build_pyramid`.

    Raises:
        InputError: when the method or the level is unknown.
        GeometryError: when the box reaches outside.
        OutputError: when it cannot be written.
    """
    if method not in METHODS:
        raise InputError(f'{path}: a level is the "mean" or "max" of the one before, got "{method}"')
    paths = _level_paths(location(path))
    if not 1 <= level < len(paths):
        raise InputError(f"{path}: levels 1 to {len(paths) - 1} are made of others, got {level}")
    fine, coarse = open_array(paths[level - 1], "r"), open_array(paths[level], "r+")
    factor = [math.ceil(a / b) for a, b in zip(fine.shape, coarse.shape, strict=True)]
    for file in _blocks(check_box(str(path), coarse.shape, box), coarse.shards or coarse.chunks):
        values = None
        for part in _blocks(file, coarse.chunks):
            source = tuple(
                slice(s.start * f, min(s.stop * f, n)) for s, f, n in zip(part, factor, fine.shape, strict=True)
            )
            if _stored(paths[level - 1], fine, source):
                if values is None:
                    values = np.zeros([s.stop - s.start for s in file], coarse.dtype)
                inside = tuple(slice(p.start - f.start, p.stop - f.start) for p, f in zip(part, file, strict=True))
                values[inside] = _reduce(read_array(paths[level - 1], fine, source), factor, method)
        if values is not None:
            _write_array(paths[level], coarse, file, values)


def _check_chunks(folder: Path, shape: Shape3, chunks: Sequence[int]) -> Shape3:
    if len(chunks) != 3 or min(chunks) < 1:
        raise GeometryError(f"{folder}: chunks are three sizes along z, y and x of at least 1, got {tuple(chunks)}")
    z, y, x = (min(int(c), n) for c, n in zip(chunks, shape, strict=True))
    return z, y, x


def _clear(folder: Path, overwrite: bool) -> None:
    if not is_url(folder):
        check_folder_of(folder)
    if not (is_zarr(folder) if is_url(folder) else folder.exists()):
        return
    if not (overwrite and is_zarr(folder)):
        way_out = "choose another name" if overwrite else "choose another name or ask to overwrite it"
        raise OutputError(f"{folder}: it exists already; {way_out}")
    with _written(folder):
        remove_store(folder)


def _factors(shape: Shape3, chunks: Shape3, spacing: Spacing | None, levels: int | None) -> list[Shape3]:
    """How many voxels of level 0 one of each level covers along z, y, x."""
    factors = [(1, 1, 1)]
    while levels is None or len(factors) < levels:
        sizes = [s * f for s, f in zip(spacing or (1.0, 1.0, 1.0), factors[-1], strict=True)]
        long = [n > c for n, c in zip(_reduced(shape, factors[-1]), chunks, strict=True)]
        if not any(long):
            break
        shortest = min(s for s, open_axis in zip(sizes, long, strict=True) if open_axis)
        step = [2 if ok and s < 2 * shortest else 1 for s, ok in zip(sizes, long, strict=True)]
        z, y, x = (f * n for f, n in zip(factors[-1], step, strict=True))
        factors.append((z, y, x))
    return factors


def _reduced(shape: Shape3, factor: Shape3) -> Shape3:
    z, y, x = (math.ceil(n / f) for n, f in zip(shape, factor, strict=True))
    return z, y, x


def _shards(folder: Path, shape: Shape3, chunks: Shape3, shards: Sequence[int]) -> Shape3:
    """Whole chunks that make up a shard, no more than the array has."""
    if len(shards) != 3 or min(shards) < 1:
        raise GeometryError(f"{folder}: shards are three sizes along z, y and x of at least 1, got {tuple(shards)}")
    z, y, x = (c * -(-min(int(s), n) // c) for s, n, c in zip(shards, shape, chunks, strict=True))
    return z, y, x


def _create_array(
    path: Path, shape: Shape3, dtype: np.dtype[Any], chunks: Shape3, shards: Shape3 | None, version: str
) -> None:
    zarr = zarr_package()
    old = version == "0.4"
    if old:
        from numcodecs import Blosc

        compressor = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)
    else:
        compressor = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    zarr.create_array(
        str(path),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=[compressor],
        fill_value=0,
        zarr_format=2 if old else 3,
        chunk_key_encoding={"name": "v2" if old else "default", "separator": "/"},
        dimension_names=None if old else ("z", "y", "x"),
    )


def _write_metadata(
    folder: Path, factors: list[Shape3], spacing: Spacing | None, offset: Spacing, version: str
) -> None:  # fmt: skip
    """The group's metadata, as NGFF asks for them; written last: without them a store is unfinished."""
    unit = {} if spacing is None else {"unit": "micrometer"}
    datasets = []
    for level, factor in enumerate(factors):
        voxel = spacing or (1.0, 1.0, 1.0)
        scale = {"type": "scale", "scale": [s * f for s, f in zip(voxel, factor, strict=True)]}
        places = [s * (o + (f - 1) / 2) for s, o, f in zip(voxel, offset, factor, strict=True)]
        centre = {"type": "translation", "translation": places}
        datasets.append({"path": str(level), "coordinateTransformations": [scale, centre]})
    image: dict[str, Any] = {
        "name": folder.name.split(".")[0],
        "axes": [{"name": name, "type": "space", **unit} for name in "zyx"],
        "datasets": datasets,
    }
    if version == "0.4":
        put_json(folder / ".zattrs", {"multiscales": [{"version": version, **image}]})
        put_json(folder / ".zgroup", {"zarr_format": 2})
    else:
        attributes = {"ome": {"version": version, "multiscales": [image]}}
        put_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _level_paths(folder: Path) -> list[Path]:
    image = find_image(folder)
    if image is None:
        raise InputError(f"{folder}: an OME-Zarr image is needed, this is a plain array; use create_ome_zarr")
    return [folder / str(dataset["path"]) for dataset in image["datasets"]]


def _write_array(path: Path, array: Any, box: Box, values: npt.NDArray[Any]) -> None:
    with _written(path):
        patiently(path, name_chunks(array, box), lambda: array.set_basic_selection(box, values))


def _blocks(box: Box, chunks: Sequence[int]) -> Iterator[Box]:
    """The parts of a box that begins at a chunk, chunk by chunk."""
    axes = [[slice(a, min(a + c, s.stop)) for a in range(s.start, s.stop, c)] for s, c in zip(box, chunks, strict=True)]
    yield from itertools.product(*axes)  # type: ignore[misc]


def _stored(root: Path, array: Any, box: Sequence[slice]) -> bool:
    """Whether any chunk of a box may be stored: its file is there."""
    files = array.shards or array.chunks
    spans = [range(s.start // c, math.ceil(s.stop / c)) for s, c in zip(box, files, strict=True)]
    return any((root / array.metadata.encode_chunk_key(at)).exists() for at in itertools.product(*spans))


def _reduce(values: npt.NDArray[Any], factor: Sequence[int], method: str) -> npt.NDArray[Any]:
    """Each voxel from its ``factor`` block; a block that the border cuts is filled up with its last values."""
    short = [(0, -n % f) for n, f in zip(values.shape, factor, strict=True)]
    whole = np.pad(values, short, mode="edge") if np.any(short) else values
    first, *others = (
        whole[tuple(slice(at, None, f) for at, f in zip(corner, factor, strict=True))]
        for corner in itertools.product(*map(range, factor))
    )
    if method == "max":
        largest = first.copy()
        for other in others:
            np.maximum(largest, other, out=largest)
        return largest
    mean = first.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    for other in others:
        mean += other
    mean /= 1 + len(others)
    return (np.rint(mean) if values.dtype.kind in "iu" else mean).astype(values.dtype)


@contextlib.contextmanager
def _written(path: StrPath) -> Iterator[None]:
    try:
        yield
    except MedwaveError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); check the free space and permissions") from error
