"""Transforms of FSL: FLIRT matrices and displacement fields as FNIRT, convertwarp and applywarp use them.

Conventions
    FSL counts mm along the voxel axes of an image, from the centre of its first voxel. Where the axes of a file are
    right-handed (determinant of its affine above 0, "neurological") the first one counts from its other end. These
    coordinates know nothing of sform or qform, so each file here needs the grids of both images. ITK and FSL point
    opposite ways: a FLIRT matrix sends points of the moving image (``-in``) to points of the fixed one (``-ref``);
    here and in ITK, matrices send fixed points to moving points.
    A displacement field is NIfTI ``(D, H, W, 3)`` on the fixed grid, float32, intent 2006. A relative one (written
    here; ``--rel`` in FSL) adds to the FSL coordinates of the fixed image and gives those of the moving one; an
    absolute one gives them at once. No header tells which: the one under which volume changes less is taken.
    The voxel sizes are those of the affine. An image that has neither sform nor qform is right-handed here (as ITK
    places it) but left-handed in FSL: give it a header first. FSL also takes every number for mm: files that give
    metres or micrometres are to be rewritten in mm before FSL sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, OutputError, VolumeFormatError
from medwave.core.files import StrPath, input_file, write_text
from medwave.core.geometry import Float64Array, Grid
from medwave.volumes.displacement import Float32Array, last_axis_slabs
from medwave.volumes.nifti import Decoded, decode_nifti, stream_nifti

FIELD_INTENT = 2006
_COEFFICIENT_INTENTS = (2007, 2008, 2009, 2016, 2017)


def fsl_matrix(grid: Grid) -> Float64Array:
    """The 4x4 matrix from voxels of a grid to FSL's mm."""
    sizes = grid.spacing_mm
    matrix = np.diag([*sizes, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        matrix[0, 0], matrix[0, 3] = -sizes[0], (grid.shape[0] - 1) * sizes[0]
    return matrix


def fsl_to_ras(grid: Grid) -> Float64Array:
    """The 4x4 matrix from FSL's mm in an image to RAS+ mm."""
    return np.asarray(grid.affine @ np.linalg.inv(fsl_matrix(grid)))


def read_flirt(path: StrPath, fixed: Grid, moving: Grid) -> Float64Array:
    """Read a FLIRT matrix (``flirt -in MOVING -ref FIXED -omat``) as 4x4 RAS+ mm, fixed to moving points.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it does not hold four rows of four numbers.
        GeometryError: when the matrix cannot be inverted.
    """
    matrix = four_by_four(input_file(path).read_text(encoding="utf-8", errors="replace"))
    if matrix is None:
        raise VolumeFormatError(f"{path}: a FLIRT matrix is four lines of four numbers, the last 0 0 0 1")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise GeometryError(f"{path}: the matrix cannot be inverted; a FLIRT matrix maps space one to one")
    return np.asarray(fsl_to_ras(moving) @ np.linalg.inv(matrix) @ np.linalg.inv(fsl_to_ras(fixed)))


def write_flirt(path: StrPath, matrix_ras: Float64Array, fixed: Grid, moving: Grid) -> None:
    """Write a 4x4 matrix (RAS+ mm, fixed to moving points) for ``flirt -in MOVING -ref FIXED -applyxfm -init``.

    Raises:
        OutputError: when it cannot be written.
    """
    matrix = np.linalg.inv(fsl_to_ras(fixed)) @ np.linalg.inv(matrix_ras) @ fsl_to_ras(moving)
    write_text(path, "".join("  ".join(f"{value:.12g}" for value in row) + "\n" for row in matrix))


def four_by_four(text: str) -> Float64Array | None:
    """The affine matrix that a text consists of, or None when it is something else."""
    try:
        rows = [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
    except ValueError:
        return None
    if len(rows) != 4 or any(len(row) != 4 for row in rows):
        return None
    matrix = np.array(rows)
    return matrix if np.isfinite(matrix).all() and np.allclose(matrix[3], [0, 0, 0, 1]) else None


def read_fsl_field(path: StrPath, moving: Grid) -> tuple[Float32Array, Grid, Float64Array]:
    """Read a displacement field of FSL.

    Returns:
        ``(u, grid, A)`` with ``T(x) = A(x + u(x))``: u ``(3, D, H, W)`` float32 in voxels of the fixed grid, that
        grid, and A (4x4 RAS+ mm), the linear map that equal FSL coordinates of both images make.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is not NIfTI, or is damaged.
        GeometryError: when it is not such a field, such as one of spline coefficients.
        InputError: when a displacement is NaN or infinite.
    """
    return field_of(Path(path), decode_nifti(input_file(path)), moving)


def field_of(path: Path, decoded: Decoded, moving: Grid) -> tuple[Float32Array, Grid, Float64Array]:
    """What :func:`read_fsl_field` returns, from a decoded file."""
    shape = decoded.values.shape
    if decoded.intent in _COEFFICIENT_INTENTS:
        raise GeometryError(
            f"{path}: holds spline coefficients; make a field of it first: "
            f"fnirtfileutils --in={path} --ref=FIXED --out=field --withaff"
        )
    if len(shape) != 4 or shape[3] != 3:
        raise GeometryError(f"{path}: a displacement field of FSL is 4-D NIfTI (D, H, W, 3), got shape {shape}")
    try:
        grid = Grid(shape[:3], decoded.affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    if not np.isfinite(decoded.values).all():
        raise InputError(f"{path}: displacements are finite, this field holds NaN or infinity")
    own = fsl_matrix(grid)
    absolute = _is_absolute(decoded.values, own, grid)
    field = np.empty((3, *grid.shape), dtype=np.float32)
    for axis, component in enumerate(field):
        values = np.asarray(decoded.values[..., axis], dtype=np.float64)
        component[:] = ((values - _along(own, axis, grid)) if absolute else values) / own[axis, axis]
    return field, grid, np.asarray(fsl_to_ras(moving) @ own @ np.linalg.inv(grid.affine))


def _is_absolute(values: npt.NDArray[np.generic], own: Float64Array, grid: Grid) -> bool:
    """Whether ``(D, H, W, 3)`` as positions keep volume better than as steps, by the linear maps nearest to both."""
    box = tuple(slice(None, None, max(1, n // 24)) for n in grid.shape)
    found = np.asarray(values[box], dtype=np.float64).reshape(-1, 3)
    at = np.stack([_along(own, axis, grid)[box].ravel() for axis in range(3)] + [np.ones(len(found))], axis=1)
    fitted, *_ = np.linalg.lstsq(at, found, rcond=None)
    as_positions, as_steps = fitted[:3], fitted[:3] + np.eye(3)
    change = [abs(np.log(max(abs(np.linalg.det(m)), 1e-12))) for m in (as_positions, as_steps)]
    return bool(change[0] < change[1])


def write_fsl_field(
    path: StrPath, matrix_ras: Float64Array, displacement_voxels: npt.NDArray[np.float32] | None, fixed: Grid,
    moving: Grid,
) -> None:  # fmt: skip
    """Write ``T(x) = A(x + u(x))`` as one relative field: ``applywarp --rel -w PATH -i MOVING -r FIXED``.

    Args:
        path: name ending in ``.nii.gz`` or ``.nii``.
        matrix_ras: A, 4x4 RAS+ mm, fixed to moving points.
        displacement_voxels: u, ``(3, D, H, W)`` in voxels of the fixed grid, or None for the affine alone.
        fixed, moving: the grids of the two images.

    Raises:
        OutputError: when it cannot be written.
    """
    if not str(path).lower().endswith((".nii.gz", ".nii")):
        raise OutputError(f"{path}: a field of FSL is written as NIfTI; end the name in .nii.gz or .nii")
    own = fsl_matrix(fixed)
    whole = np.linalg.inv(fsl_to_ras(moving)) @ matrix_ras @ fixed.affine  # voxels of fixed -> FSL mm of moving
    stream_nifti(
        path, _slabs(whole, own, displacement_voxels, fixed), shape=(*fixed.shape, 3), dtype=np.float32,
        affine=fixed.affine, intent=FIELD_INTENT,
    )  # fmt: skip


def _slabs(
    whole: Float64Array, own: Float64Array, field: npt.NDArray[np.float32] | None, grid: Grid
) -> Iterator[Float32Array]:
    for row, own_row in zip(whole[:3], own[:3], strict=True):
        slope = row - own_row
        for part in last_axis_slabs(grid.shape):
            values = np.full((*grid.shape[:2], part.stop - part.start), slope[3])
            for axis in range(3):
                places = np.arange(part.start, part.stop) if axis == 2 else np.arange(grid.shape[axis])
                values += slope[axis] * places.reshape([-1 if a == axis else 1 for a in range(3)])
                if field is not None and row[axis]:
                    values += row[axis] * field[axis][..., part]
            yield values.astype(np.float32).T


def _along(own: Float64Array, axis: int, grid: Grid) -> Float64Array:
    """FSL's coordinate along an axis, shaped to broadcast over the grid."""
    line = own[axis, axis] * np.arange(grid.shape[axis]) + own[axis, 3]
    return np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(3)]), grid.shape)
