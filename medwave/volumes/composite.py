"""Affine and displacement field in one ITK composite file.

Conventions
    Forward, fixed to moving points: ``T(x) = A(x + u(x))``: the field first, then the affine.
    Inverse, moving to fixed points: ``T_inv(y) = p + u_inv(p)`` with ``p = A^-1(y)``: the inverse affine first.
    ITK applies the transform that comes last in the file first. Vectors are rounded as in
    :mod:`medwave.volumes.displacement`, so that a composite and its field file agree to the bit.
    Outside the field ITK takes the displacement as zero: the field is cropped to the box where it is not zero, with
    a rim of one zero voxel so that interpolation stays continuous. :mod:`medwave.volumes.hdf5` says why the file is
    not written by SimpleITK.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, OutputError
from medwave.core.files import StrPath, atomic_path
from medwave.core.geometry import RAS_TO_LPS, Float64Array, Grid
from medwave.volumes.affine import AFFINE_SUFFIXES, write_affine
from medwave.volumes.displacement import Float32Array, StoredField, as_stored
from medwave.volumes.hdf5 import PackedFloats, Tree, write_tree
from medwave.volumes.itk import affine_parameters
from medwave.volumes.spatial import LinearStep, SpatialTransform


def write_composite(
    path: StrPath, matrix_ras: Float64Array, displacement_voxels: npt.NDArray[Any] | StoredField | None, grid: Grid
) -> None:
    """Write the fixed-to-moving transform ``T(x) = A(x + u(x))`` as ``.h5``.

    ``SimpleITK.Resample(moving, fixed, SimpleITK.ReadTransform(path))`` is then the warped image.

    Args:
        path: name ending in ``.h5``; an existing file is replaced.
        matrix_ras: A, 4x4 RAS+ mm, fixed to moving points.
        displacement_voxels: u, ``(3, D, H, W)`` in voxels of the grid, or
            :func:`medwave.volumes.displacement.stored_field` of it, or None for the affine alone.
        grid: the fixed grid.

    Raises:
        GeometryError: when the matrix, the shapes or the grid are unusable.
        InputError: when a displacement is NaN or infinite.
        OutputError: when it cannot be written.
    """
    _write(path, [_affine_entry(matrix_ras), _field_entry(path, displacement_voxels, grid)])


def write_inverse_composite(
    path: StrPath,
    matrix_ras: Float64Array,
    inverse_displacement_voxels: npt.NDArray[Any] | StoredField | None,
    grid: Grid,
) -> None:
    """Write the moving-to-fixed transform ``T_inv(y) = p + u_inv(p)``, ``p = A^-1(y)``, as ``.h5``.

    Args:
        path: name ending in ``.h5``; an existing file is replaced.
        matrix_ras: A itself (fixed to moving points), the same matrix as for :func:`write_composite`.
        inverse_displacement_voxels: u_inv, ``(3, D, H, W)`` in voxels of the fixed grid, or None.
        grid: the fixed grid.

    Raises:
        GeometryError, InputError, OutputError: as for :func:`write_composite`.
    """
    _affine_entry(matrix_ras)  # refuses what cannot be inverted
    inverse = np.linalg.inv(np.asarray(matrix_ras, dtype=np.float64))
    _write(path, [_field_entry(path, inverse_displacement_voxels, grid), _affine_entry(inverse)])


def write_transform(path: StrPath, transform: SpatialTransform) -> None:
    """Write any chain of linear and field steps: ``.h5`` as it is, a linear one also as ``.tfm``, ``.txt``, ``.mat``.

    Nothing is resampled: each field stays on its own grid; linear steps that follow each other become one.

    Raises:
        GeometryError, InputError: when a step is unusable, or has no form in the file that is named.
        OutputError: when it cannot be written.
    """
    steps = transform.merged().steps
    if Path(path).suffix.lower() in AFFINE_SUFFIXES:
        if len(steps) != 1 or not isinstance(steps[0], LinearStep):
            raise GeometryError(f"{path}: this transform bends space; end the name in .h5, or in .nii.gz for one field")
        write_affine(path, steps[0].matrix_ras)
        return
    entries = [
        _affine_entry(step.matrix_ras) if isinstance(step, LinearStep)
        else _field_entry(path, step.displacement_voxels, step.grid) for step in steps
    ]  # fmt: skip
    if not any(entries):
        entries = [_affine_entry(np.eye(4))]  # ITK refuses a composite of nothing
    _write(path, entries[::-1])


def _write(path: StrPath, entries: list[Tree | None]) -> None:
    if Path(path).suffix.lower() != ".h5":
        raise OutputError(f"{path}: a composite transform is written as .h5")
    group: Tree = {"0": {"TransformType": "CompositeTransform_double_3_3"}}
    for entry in entries:
        if entry is not None:
            group[str(len(group))] = entry
    with atomic_path(path) as partial, partial.open("w+b") as file:
        write_tree(file, {"TransformGroup": group})


def _affine_entry(matrix_ras: Float64Array) -> Tree:
    return {
        "TransformType": "AffineTransform_double_3_3",
        "TransformFixedParameters": np.zeros(3),
        "TransformParameters": affine_parameters(matrix_ras),
    }


def _field_entry(path: StrPath, field: npt.NDArray[Any] | StoredField | None, grid: Grid) -> Tree | None:
    """The entry of a field, or None when nothing moves."""
    if field is None:
        return None
    stored = as_stored(path, field, grid)
    if stored.box is None:
        return None
    d, h, w = stored.box
    part = grid.crop([s.start for s in stored.box], tuple(s.stop - s.start for s in stored.box))
    lps = RAS_TO_LPS @ part.affine
    direction = lps[:3, :3] / part.spacing_mm
    direction[np.abs(direction) < np.finfo(np.float64).tiny] = 0.0  # on subnormal numbers ITK's decomposition fails
    return {
        "TransformType": "DisplacementFieldTransform_double_3_3",
        "TransformFixedParameters": np.concatenate([part.shape, lps[:3, 3], part.spacing_mm, direction.ravel()]),
        "TransformParameters": PackedFloats(3 * math.prod(part.shape), _planes(stored.vectors[w, h, d]), stored.sample),
    }


def _planes(vectors: Float32Array) -> Iterator[Float32Array]:
    """Planes of LPS vectors in ITK's order of parameters: components fastest, then the first, second, third axis."""
    for plane in vectors:
        yield np.ascontiguousarray(plane)
