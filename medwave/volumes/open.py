"""Opening a volume of microscopy, whatever its format.

Conventions
    Axes are (z, y, x) from here on; a file with x first (NIfTI, v3draw, NRRD) is turned, nothing is flipped.
    Only the ending of the name chooses the reader, and the reader then refuses content of another kind: no file is
    ever handed on to a second one that might misread it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medwave.core.errors import InputError, MissingFileError, VolumeFormatError
from medwave.core.files import StrPath, input_file
from medwave.volumes.location import is_url, location
from medwave.volumes.stack import LazyVolume, Spacing, check_channel, check_spacing_um

TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8", ".lsm")
V3D_ENDINGS = (".v3draw", ".raw", ".vaa3draw", ".v3dpbd")
WHOLE_ENDINGS = (".nii", ".nii.gz", ".mgh", ".mgz", ".nrrd", ".nhdr", ".mha", ".mhd")


def open_stack(
    path: StrPath,
    *,
    channel: int = 0,
    level: int = 0,
    axes: str | None = None,
    spacing_um: Sequence[float] | None = None,
) -> LazyVolume:
    """Open a volume for reading boxes of it.

    Args:
        path: a multi-page TIFF (ImageJ, OME and BigTIFF too), a folder of numbered slices, a folder of TeraFly,
            ``.v3draw``, ``.v3dpbd``, a folder with OME-Zarr (NGFF 0.4 or 0.5) or a plain 3-D zarr array, or NIfTI, MGZ,
            NRRD and MetaImage. ``.v3dpbd`` and the last four are read whole; all others only where boxes are asked for.
            Zarr is read from URLs too (:mod:`medwave.volumes.location`).
        channel: which channel, counted from 0.
        level: which resolution of an OME-Zarr, 0 being the finest.
        axes: what the axes of a TIFF mean when its own labels are wrong or absent, in file order, such as ``"ZYX"``
            for slices labelled as time points, or ``"CZYX"``.
        spacing_um: voxel size along z, y, x in micrometres, in place of what the file says. OME-Zarr without units
            and TIFF without metadata of ImageJ, OME or LSM say nothing.

    Returns:
        The volume, axes (z, y, x).

    Raises:
        MissingFileError: when there is no such file or folder.
        VolumeFormatError: when it is not a volume of a known format, or is damaged.
        GeometryError: when it is not one 3-D volume, or its voxel sizes are unusable.
        InputError: when the channel, the level or the axes do not fit.
        MissingPackageError: when a zarr store is opened without zarr.
    """
    spacing = None if spacing_um is None else check_spacing_um(str(path), spacing_um)
    volume = _open(location(path), channel, level, axes, spacing)
    volume.spacing_um = spacing or volume.spacing_um
    volume.reopen = functools.partial(
        open_stack, path, channel=channel, level=level, axes=axes, spacing_um=volume.spacing_um
    )
    return volume


def is_stack(path: StrPath) -> bool:
    """Whether the name is one that :func:`open_stack` reads: a known ending, a folder, or a URL."""
    return is_url(path) or Path(path).is_dir() or str(path).lower().endswith(TIFF_ENDINGS + V3D_ENDINGS + WHOLE_ENDINGS)


def _open(path: Path, channel: int, level: int, axes: str | None, spacing_um: Spacing | None) -> LazyVolume:
    if is_url(path):
        from medwave.volumes.ome_zarr import open_zarr

        if axes is not None:
            raise InputError(f"{path}: axes are given for TIFF files only; leave them out")
        return open_zarr(path, channel=channel, level=level, spacing_um=spacing_um)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder; check the name")
    name = path.name.lower()
    if axes is not None and not name.endswith(TIFF_ENDINGS):
        raise InputError(f"{path}: axes are given for TIFF files only; leave them out")
    if path.is_dir():
        from medwave.volumes.ome_zarr import is_zarr, open_zarr

        if is_zarr(path) or name.endswith(".zarr"):
            return open_zarr(path, channel=channel, level=level, spacing_um=spacing_um)
    if level != 0:
        raise InputError(f"{path}: only an OME-Zarr has resolution levels; leave level at 0")
    if path.is_dir():
        from medwave.volumes.slices import open_slices
        from medwave.volumes.terafly import is_terafly, open_terafly

        if is_terafly(path):
            return open_terafly(path, channel=channel)

        check_channel(str(path), channel, 1)
        return open_slices(path)
    input_file(path)
    if name.endswith(TIFF_ENDINGS):
        from medwave.volumes.tiff import open_tiff

        return open_tiff(path, channel=channel, axes=axes)
    if name.endswith(V3D_ENDINGS):
        from medwave.volumes.v3draw import open_v3d

        return open_v3d(path, channel=channel)
    if name.endswith(WHOLE_ENDINGS):
        check_channel(str(path), channel, 1)
        return _read_whole(path)
    raise VolumeFormatError(
        f"{path}: volumes are read from {', '.join(TIFF_ENDINGS + V3D_ENDINGS + WHOLE_ENDINGS)} files, from folders "
        "of numbered slices and from OME-Zarr folders; convert it to one of these"
    )


def _read_whole(path: Path) -> LazyVolume:
    """An image of the other formats of this room: the array is turned to (z, y, x), mm become micrometres.

    In NRRD the units of the header count: microscopes write micrometres, which ITK reads as mm.
    """
    from medwave.volumes.nrrd import nrrd_units_um
    from medwave.volumes.read import read_volume

    volume = read_volume(path, dtype=None)
    steps = volume.grid.affine[:3, :3] * nrrd_units_um(path)[:, None]
    spacing_um = np.linalg.norm(steps, axis=0)[::-1].tolist()
    return LazyVolume.from_array(volume.data.T, name=path, spacing_um=spacing_um)
