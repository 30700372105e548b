"""Any transform on disk as one small object that maps points.

Conventions
    Points are ``(..., 3)`` RAS+ mm. Steps are in the order in which they are applied to a point, which is the
    reverse of the order in an ITK composite file. A field is interpolated linearly and is zero outside its grid
    (more than half a voxel beyond its outermost voxel centres), as in ITK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.ndimage import map_coordinates

from medwave.core.errors import GeometryError
from medwave.core.files import StrPath
from medwave.core.geometry import Float64Array, Grid, transform_points
from medwave.volumes.displacement import Float32Array, read_field, vectors_to_voxels
from medwave.volumes.itk import affine_from_itk, grid_affine, load_transform
from medwave.volumes.nifti import is_nifti

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


def read_transform(path: StrPath) -> SpatialTransform:
    """Read a linear transform, a displacement field, or a composite of such.

    Args:
        path: ITK ``.tfm``, ``.txt``, ``.mat`` or ``.h5`` file, or a field as ``.nii.gz`` or ``.nii``.

    Returns:
        The transform with its steps in the order of application.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is none of these, or is damaged.
        GeometryError: when it is not 3-D, or holds another kind of transform, such as a B-spline.
        InputError: when a displacement is NaN or infinite.
    """
    if is_nifti(path):
        return SpatialTransform((FieldStep(*read_field(path)),))
    return SpatialTransform(tuple(_steps(path, load_transform(path))))


def _steps(path: StrPath, transform: Any) -> list[LinearStep | FieldStep]:
    if transform.IsLinear():
        return [LinearStep(affine_from_itk(transform))]
    transform = transform.Downcast()
    if isinstance(transform, sitk.CompositeTransform):
        order = reversed(range(transform.GetNumberOfTransforms()))
        return [step for n in order for step in _steps(path, transform.GetNthTransform(n))]
    if isinstance(transform, sitk.DisplacementFieldTransform):
        image = transform.GetDisplacementField()
        vectors = sitk.GetArrayViewFromImage(image)
        grid = Grid(image.GetSize(), grid_affine(image))
        return [FieldStep(vectors_to_voxels([vectors[..., c].T for c in range(3)], grid), grid)]
    raise GeometryError(
        f"{path}: linear transforms and displacement fields are known, this is a {transform.GetName()}; "
        "convert it to a displacement field, for example with SimpleITK's TransformToDisplacementField"
    )
