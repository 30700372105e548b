"""What a job asks of an image beyond being readable, and the nearest RAS+ axis order without interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath
from medwave.core.geometry import Grid, Volume
from medwave.core.orientation import canonical_axes, reorient, reorient_grid
from medwave.volumes.nifti import frames_apart_mm, is_nifti, is_orthogonal

_DOUBTFUL_VOXELS = 0.1  # rounding in headers stays far below


def check_image(volume: Volume) -> None:
    """Refuse an image that no registration can use.

    Raises:
        InputError: when all values are equal, or one is not finite.
        GeometryError: when an axis has fewer than three voxels, or its axes are not at right angles (ITK files cannot
            say that).
    """
    if min(volume.grid.shape) < 3:
        found = "a single slice" if min(volume.grid.shape) == 1 else "two slices"
        raise GeometryError(
            f"{volume.name}: a 3-D image is needed, this one is {found} ({volume.grid.describe()}); "
            "stack at least three slices to a volume"
        )
    if not is_orthogonal(volume.grid.affine):
        raise GeometryError(
            f"{volume.name}: the axes of the grid are not at right angles, which ITK's formats cannot express; "
            "resample the image to an unsheared grid first"
        )
    if not (np.isfinite(volume.data.min()) and np.isfinite(volume.data.max())):
        raise InputError(f"{volume.name}: image values are finite, some are NaN or infinite; replace them first")
    if volume.data.min() == volume.data.max():
        raise InputError(
            f"{volume.name}: an image with contrast is needed, all voxels are {volume.data.flat[0]}; "
            "check that it is the right file, and its masking and scaling"
        )


def doubtful_frame(path: StrPath, grid: Grid) -> str:
    """What to tell of a NIfTI file that other programs see at another place; empty where they do not.

    Args:
        path: a file of any format.
        grid: what was read from it.
    """
    apart_mm = frames_apart_mm(Path(path)) if is_nifti(path) else 0.0
    if apart_mm < _DOUBTFUL_VOXELS * grid.spacing_mm.min():
        return ""
    return (
        f"{path}: its sform and qform lie up to {apart_mm:.3g} mm apart. medwave takes the sform, as nibabel, FSL and "
        "FreeSurfer do; ITK, ANTs and 3D Slicer take the qform, and see results at another place. Make both the same "
        "(fslorient -copysform2qform FILE)"
    )


def canonical(volume: Volume) -> Volume:
    """The volume with axes permuted and flipped to the nearest RAS+ order; nothing is interpolated.

    The way back is ``medwave.core.orientation.invert_axes(*canonical_axes(volume.grid.affine))``.
    """
    axes = canonical_axes(volume.grid.affine)
    return Volume(reorient(volume.data, *axes), reorient_grid(volume.grid, *axes), volume.name)
