"""Any transform on disk as one small object that maps points.

Conventions
    Points are ``(..., 3)`` RAS+ mm. Steps are in the order in which they are applied to a point, which is the
    reverse of the order in an ITK composite file. A field is interpolated linearly and is zero outside its grid
    (more than half a voxel beyond its outermost voxel centres), as in ITK.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import Float64Array, Grid, transform_points
from medwave.volumes.displacement import Float32Array, check_finite, field_of, vectors_to_voxels
from medwave.volumes.freesurfer import read_lta, read_register_dat, register_dat_matrix
from medwave.volumes.fsl import field_of as fsl_field_of
from medwave.volumes.fsl import four_by_four, read_flirt
from medwave.volumes.itk import grid_affine, linear_matrix, load_transform
from medwave.volumes.nifti import decode_nifti, is_nifti

POINTS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class LinearStep:
    """``x -> matrix x``, 4x4 RAS+ mm."""

    matrix_ras: Float64Array

    def apply(self, points_mm: Float64Array) -> Float64Array:
        """Map points ``(N, 3)``."""
        return transform_points(self.matrix_ras, points_mm)


@dataclass(frozen=True)
class FieldStep:
    """``x -> x + u(x)`` with u ``(3, D, H, W)`` in voxels of its grid."""

    displacement_voxels: Float32Array
    grid: Grid

    def apply(self, points_mm: Float64Array) -> Float64Array:
        """Map points ``(N, 3)``."""
        from scipy.ndimage import map_coordinates  # a third of a second to import

        voxels = self.grid.to_voxels(points_mm)
        inside = ((voxels >= -0.5) & (voxels <= np.asarray(self.grid.shape) - 0.5)).all(axis=-1)
        at = voxels[inside].T
        shift = np.stack(
            [map_coordinates(u, at, order=1, mode="nearest", output=np.float64) for u in self.displacement_voxels], -1
        )
        moved = np.array(points_mm, dtype=np.float64)
        moved[inside] += shift @ self.grid.affine[:3, :3].T
        return moved


@dataclass(frozen=True)
class SpatialTransform:
    """A chain of linear and field steps, applied to points from first to last."""

    steps: tuple[LinearStep | FieldStep, ...]

    @property
    def linear(self) -> Float64Array | None:
        """The 4x4 matrix (RAS+ mm) that the chain is, or None when a step bends space."""
        steps = self.merged().steps
        return steps[0].matrix_ras if len(steps) == 1 and isinstance(steps[0], LinearStep) else None

    def merged(self) -> SpatialTransform:
        """The same map with linear steps that follow each other made one; never without steps."""
        steps: list[LinearStep | FieldStep] = []
        for step in self.steps or (LinearStep(np.eye(4)),):
            if isinstance(step, LinearStep) and steps and isinstance(steps[-1], LinearStep):
                step = LinearStep(step.matrix_ras @ steps.pop().matrix_ras)
            steps.append(step)
        return SpatialTransform(tuple(steps))

    def apply_points_mm(self, points_ras: npt.ArrayLike) -> Float64Array:
        """Map points ``(..., 3)``, RAS+ mm to RAS+ mm."""
        points = np.asarray(points_ras, dtype=np.float64)
        flat = points.reshape(-1, 3)
        result = np.empty_like(flat)
        for start in range(0, len(flat), POINTS_AT_ONCE):
            chunk = flat[start : start + POINTS_AT_ONCE]
            for step in self.steps:
                chunk = step.apply(chunk)
            result[start : start + POINTS_AT_ONCE] = chunk
        return result.reshape(points.shape)


def read_transform(path: StrPath, *, fixed: Grid | None = None, moving: Grid | None = None) -> SpatialTransform:
    """Read a linear transform, a displacement field, or a composite of such, of ITK, FSL or FreeSurfer.

    Args:
        path: what it is, is seen in the file. ITK and ANTs: ``.tfm``, ``.txt``, ``.mat``, ``.h5``, or a field as
            ``.nii.gz`` or ``.nii``. FSL: the matrix of flirt (any name), or a field ``(D, H, W, 3)``. FreeSurfer:
            ``.lta``, ``register.dat``.
        fixed, moving: grids of the two images. FSL's matrices and ``register.dat`` mean nothing without them, FSL's
            fields nothing without ``moving``.

    Returns:
        The map from fixed to moving points, its steps in the order of application.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is none of these, or is damaged.
        GeometryError: when it is not 3-D, cannot be inverted though it is linear, or holds another kind of transform,
            such as a B-spline.
        InputError: when a displacement is NaN or infinite, or a grid is needed that was not given.
    """
    file = input_file(path)
    if is_nifti(file):
        decoded = decode_nifti(file)
        if decoded.values.ndim != 4 or decoded.values.shape[3] != 3:
            return SpatialTransform((FieldStep(*field_of(file, decoded)),))
        field, grid, matrix = fsl_field_of(file, decoded, _needed(file, "a field of FSL", moving=moving)[0])
        return SpatialTransform((FieldStep(field, grid), LinearStep(matrix)))
    text = _beginning(file)
    if file.suffix.lower() == ".lta" or ("nxforms" in text and "type" in text):
        return SpatialTransform((LinearStep(read_lta(file, fixed, moving)),))
    if four_by_four(text) is not None:
        grids = _needed(file, "a matrix of FLIRT", fixed=fixed, moving=moving)
        return SpatialTransform((LinearStep(read_flirt(file, *grids)),))
    if file.suffix.lower() == ".dat" or register_dat_matrix(text) is not None:
        grids = _needed(file, "a register.dat", fixed=fixed, moving=moving)
        return SpatialTransform((LinearStep(read_register_dat(file, *grids)),))
    return SpatialTransform(tuple(_steps(file, load_transform(file))))


def _beginning(file: Path) -> str:
    """The first characters of a text file; empty for a binary one."""
    with file.open("rb") as stream:
        content = stream.read(1 << 16)
    return "" if b"\0" in content else content.decode("utf-8", errors="replace")


def _needed(file: Path, what: str, **grids: Grid | None) -> list[Grid]:
    missing = [name for name, grid in grids.items() if grid is None]
    if missing:
        raise InputError(
            f"{file}: {what} counts mm in the voxels of its images; give the {' and the '.join(missing)} "
            f"image ({', '.join(f'--{name}' for name in missing)} of medwave convert-transform makes an ITK file of it)"
        )
    return [grid for grid in grids.values() if grid is not None]


def _steps(path: StrPath, transform: Any) -> list[LinearStep | FieldStep]:
    import SimpleITK as sitk

    if transform.IsLinear():
        return [LinearStep(linear_matrix(path, transform))]
    transform = transform.Downcast()
    if isinstance(transform, sitk.CompositeTransform):
        order = reversed(range(transform.GetNumberOfTransforms()))
        return [step for n in order for step in _steps(path, transform.GetNthTransform(n))]
    if isinstance(transform, sitk.DisplacementFieldTransform):
        image = transform.GetDisplacementField()
        vectors = sitk.GetArrayViewFromImage(image)
        grid = Grid(image.GetSize(), grid_affine(image))
        field = vectors_to_voxels([vectors[..., c].T for c in range(3)], grid)
        check_finite(path, field)
        return [FieldStep(field, grid)]
    raise GeometryError(
        f"{path}: linear transforms and displacement fields are known, this is a {transform.GetName()}; "
        "convert it to a displacement field, for example with SimpleITK's TransformToDisplacementField"
    )
