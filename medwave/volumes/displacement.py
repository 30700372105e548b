"""Displacement fields as ITK, ANTs and 3D Slicer read them.

Conventions
    In memory: ``(3, D, H, W)`` float32, component i along array axis i, in voxels of the grid, ``x = p + u(p)``.
    On disk: 5-D NIfTI ``(D, H, W, 1, 3)`` with intent 1007, vectors in LPS mm, float32. Files with intent 1006, which
    NIfTI gives to displacements, hold RAS mm: ITK and Slicer turn x and y of these when they read them.
    Vectors are rounded to multiples of 2**-10 mm (about a micrometre; the error is at most half of that, some
    ten-thousandths of a voxel): their last bits are then zero, and the file is a third smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import RAS_TO_LPS, Float64Array, Grid
from medwave.core.threads import run_slabs
from medwave.volumes.nifti import VECTOR_INTENT, Decoded, decode_nifti, is_nifti, is_orthogonal, stream_nifti

STEPS_PER_MM = np.float32(1024)
SLAB_VOXELS = 1 << 20
_SAMPLES = 1 << 15
_RAS_INTENT = 1006
DISPLACEMENT_INTENTS = (_RAS_INTENT, VECTOR_INTENT)

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredField:
    """A displacement field as ITK's files hold it, for several of them.

    Attributes:
        vectors: ``(W, H, D, 3)`` float32, LPS mm, rounded: the last axis of the grid is the slowest.
        grid: the grid ``(D, H, W)``.
        box: the voxels that move, with a rim of one where the grid has room; None when none moves.
    """

    vectors: Float32Array
    grid: Grid
    box: tuple[slice, slice, slice] | None

    @property
    def sample(self) -> Float32Array:
        """Some of its values other than 0, ``(N,)``."""
        values = self.vectors.ravel()
        some = values[:: max(1, values.size // _SAMPLES) | 1]  # an odd step: in turn all three components
        return some[some != 0]


def stored_field(displacement_voxels: npt.NDArray[Any], grid: Grid, *, path: StrPath) -> StoredField:
    """Turn a displacement ``(3, D, H, W)`` in voxels of its grid into vectors for :func:`write_field` and composites.

    Args:
        displacement_voxels: the field.
        grid: the grid it lies on.
        path: the file that errors name.

    Raises:
        GeometryError: when the shapes differ, or the axes of the grid are not at right angles.
        InputError: when a displacement is NaN or infinite.
    """
    from medwave.volumes.lps_kernel import lps_vectors  # numba takes half a second to import

    check_field(path, displacement_voxels, grid)
    depth, height, width = grid.shape
    vectors = np.empty((width, height, depth, 3), np.float32)
    moves = np.zeros((width, depth + height), bool)
    rows = (lps_matrix(grid) * float(STEPS_PER_MM)).astype(np.float32)
    field = np.ascontiguousarray(displacement_voxels, dtype=np.float32)
    run_slabs(lps_vectors, width, field, rows, STEPS_PER_MM, vectors, moves)
    if not moves.any():
        return StoredField(vectors, grid, None)
    anywhere = moves.any(axis=0)
    d, h, w = (_with_rim(axis) for axis in (anywhere[:depth], anywhere[depth:], moves.any(axis=1)))
    return StoredField(vectors, grid, (d, h, w))


def _with_rim(moves: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(moves)
    return slice(max(0, int(places[0]) - 1), min(len(moves), int(places[-1]) + 2))


def write_field(path: StrPath, displacement_voxels: npt.NDArray[Any] | StoredField, grid: Grid) -> None:
    """Write a displacement field as ``.nii.gz`` or ``.nii`` (LPS mm, 5-D, intent 1007).

    Args:
        path: where to write; an existing file is replaced.
        displacement_voxels: ``(3, D, H, W)``, in voxels of the grid, or what :func:`stored_field` made of it.
        grid: the grid it lies on.

    Raises:
        GeometryError: when the shapes differ, or the axes of the grid are not at right angles.
        InputError: when a displacement is NaN or infinite.
        OutputError: when it cannot be written.
    """
    stored = as_stored(path, displacement_voxels, grid)
    stream_nifti(
        path,
        (stored.vectors[part, ..., axis] for axis in range(3) for part in last_axis_slabs(grid.shape)),
        shape=(*grid.shape, 1, 3),
        dtype=np.float32,
        affine=grid.affine,
        intent=VECTOR_INTENT,
        sample=stored.sample,
    )


def as_stored(path: StrPath, field: npt.NDArray[Any] | StoredField, grid: Grid) -> StoredField:
    """The field itself when it is stored already, else what :func:`stored_field` makes of it; errors as there."""
    return field if isinstance(field, StoredField) else stored_field(field, grid, path=path)


def read_field(path: StrPath) -> tuple[Float32Array, Grid]:
    """Read a displacement field as ITK does (ANTs' ``Warp.nii.gz``, greedy's warps and medwave's own).

    Returns:
        ``(3, D, H, W)`` float32 in voxels of the grid, and the grid.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is not NIfTI, or is damaged.
        GeometryError: when it is not a field of 3-vectors, or its grid is unusable.
        InputError: when a displacement is NaN or infinite.
    """
    file = input_file(path)
    if not is_nifti(file):
        raise GeometryError(f"{file}: a displacement field is a 5-D NIfTI file (.nii.gz or .nii)")
    return field_of(file, decode_nifti(file))


def field_of(file: Path, decoded: Decoded) -> tuple[Float32Array, Grid]:
    """What :func:`read_field` returns, from a decoded file."""
    shape = decoded.values.shape
    if len(shape) != 5 or shape[3:] != (1, 3) or decoded.intent not in DISPLACEMENT_INTENTS:
        raise GeometryError(
            f"{file}: a displacement field is a 5-D NIfTI file (D, H, W, 1, 3) with intent 1007 in LPS mm, or 1006 in "
            f"RAS mm, got shape {shape} with intent {decoded.intent}; fields of FSL and SPM need converting first"
        )
    try:
        grid = Grid(shape[:3], decoded.affine)
    except GeometryError as error:
        raise GeometryError(f"{file}: {error}") from None
    components = [decoded.values[..., 0, c] for c in range(3)]
    if decoded.intent == _RAS_INTENT:
        components[:2] = (np.negative(values, dtype=np.float32) for values in components[:2])
    field = vectors_to_voxels(components, grid)
    check_finite(file, field)
    return field, grid


def check_field(path: StrPath, displacement_voxels: npt.NDArray[Any], grid: Grid) -> None:
    """Refuse a field that does not fit its grid, holds NaN or infinity, or lies on a grid that ITK cannot express."""
    if displacement_voxels.shape != (3, *grid.shape):
        raise GeometryError(
            f"{path}: a displacement is (3, D, H, W) on its grid, got {displacement_voxels.shape} for {grid.shape}"
        )
    if not is_orthogonal(grid.affine):
        raise GeometryError(
            f"{path}: the axes of the grid are not at right angles, which ITK's files cannot express; "
            "resample the fixed image to an unsheared grid first"
        )
    check_finite(path, displacement_voxels)


def lps_matrix(grid: Grid) -> Float64Array:
    """The 3x3 matrix from voxel displacements of a grid to LPS mm."""
    return np.asarray((RAS_TO_LPS @ grid.affine)[:3, :3])


def vectors_to_voxels(components_lps: list[npt.NDArray[Any]], grid: Grid) -> Float32Array:
    """LPS mm components, each ``(D, H, W)``, as displacements ``(3, D, H, W)`` in voxels of the grid."""
    inverse = np.linalg.inv(lps_matrix(grid)).astype(np.float32)
    field = np.zeros((3, *grid.shape), np.float32)
    for component, values in enumerate(components_lps):
        contiguous = np.ascontiguousarray(values, dtype=np.float32)
        for axis in range(3):
            if inverse[axis, component]:
                field[axis] += inverse[axis, component] * contiguous
    return field


def last_axis_slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices along the last of three axes, of about a million voxels each."""
    depth = max(1, SLAB_VOXELS // (shape[0] * shape[1]))
    for start in range(0, shape[2], depth):
        yield slice(start, min(start + depth, shape[2]))


def check_finite(path: StrPath, field: npt.NDArray[Any]) -> None:
    """Refuse a field of which a displacement is NaN or infinite."""
    if not (np.isfinite(field.min()) and np.isfinite(field.max())):
        raise InputError(f"{path}: displacements are finite, this field holds NaN or infinity")
