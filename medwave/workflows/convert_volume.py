"""Convert a volume of any microscopy format to OME-Zarr with a pyramid, in memory that does not grow with it.

The volume is copied in bands: whole files of the store along z and y, all of x, and as many rows as fit in
:data:`BAND_BYTES`. A page of a TIFF that holds more rows than a band is decoded once for each band. The store grows
under another name and appears when it is complete.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, OutputError
from medwave.core.files import StrPath, check_folder_of
from medwave.cubes.plan import Triple
from medwave.engine.fibres import blocks_within
from medwave.volumes import LazyVolume, OmeZarrImage, create_ome_zarr, fill_level, level_shapes, open_stack
from medwave.volumes.location import is_url, location, remove_store
from medwave.workflows.options_neurons import ConvertVolumeOptions

BAND_BYTES = 1 << 28
"""Values that are read at a time, but for stores whose one row of files takes more."""


def convert_volume(
    volume: StrPath, output: StrPath, *, options: ConvertVolumeOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:  # fmt: skip
    """Convert a volume.

    Args:
        volume: anything :func:`medwave.volumes.open_stack` opens.
        output: the OME-Zarr to make, a folder or a URL; its name ends in ``.zarr``.
        options: all options.
        on_progress: told voxels done and in all, the pyramid left out.

    Returns:
        Where it is.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume, or a store that is there or cannot be written.
    """
    how = options or ConvertVolumeOptions()
    target = location(output)
    if not target.name.endswith(".zarr"):
        raise InputError(f"{output}: the name of a zarr store ends in .zarr, by custom .ome.zarr")
    with open_stack(
        volume, channel=how.channel, level=how.level, axes=how.axes, spacing_um=how.spacing
    ) as opened, _appearing(target) as partial:  # fmt: skip
        image = create_ome_zarr(
            partial, opened.shape, opened.dtype, chunks=(how.chunk,) * 3, spacing_um=opened.spacing_um,
            offset_voxels=opened.offset_voxels, shards=(how.shard,) * 3 if how.shard else None,
            version="0.5" if how.shard else how.ngff,
        )  # fmt: skip
        _copy(opened, image, on_progress)
        for level, shape in list(enumerate(level_shapes(partial)))[1:]:
            fill_level(partial, level, [slice(0, n) for n in shape], method=how.pyramid)
    return target


def _copy(volume: LazyVolume, image: OmeZarrImage, on_progress: Callable[[int, int], None] | None) -> None:
    done, total = 0, math.prod(volume.shape)
    for box in blocks_within(volume.shape, size=band(volume.shape, image.files, volume.dtype.itemsize)):
        image.write(box.slices, volume.read(box.slices))
        done += math.prod(box.shape)
        if on_progress:
            on_progress(done, total)


def band(shape: Triple, files: Triple, itemsize: int) -> Triple:
    """Size of the bands that are copied at a time: whole files."""
    z, y, x = files
    width = -(-shape[2] // x) * x
    rows = max(1, BAND_BYTES // (z * width * itemsize) // y) * y
    if z * rows * width * itemsize > 2 * BAND_BYTES:  # not even one row of files fits: fewer columns of them
        width = max(1, BAND_BYTES // (z * rows * itemsize) // x) * x
    return z, rows, width


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Any]:
    """A name beside the target to write to; an object store, which knows no renaming, is written in place.

    Raises:
        OutputError: when the target is there, or its folder is not.
    """
    if target.exists():
        raise OutputError(f"{target}: it exists already; choose another name")
    if is_url(target):
        try:
            yield target
        except BaseException:
            remove_store(target)
            raise
        return
    check_folder_of(target)
    partial = target.with_name(f".medwave-{secrets.token_hex(8)}.zarr")
    try:
        yield partial
        partial.rename(target)
    finally:
        remove_store(partial)
