"""Grids and volumes: where voxels lie in the world.

Conventions
    Arrays keep the axis order of the file as nibabel gives it: ``data[i, j, k]``. Axis 0 is called D, axis 1 H,
    axis 2 W in tensor shapes ``(N, C, D, H, W)``, whatever anatomical direction they have.
    ``affine`` is a 4x4 float64 matrix from voxel indices to millimetres in RAS+ (NIfTI, MONAI).
    ITK files use LPS: negate the first two world axes (:data:`RAS_TO_LPS`).
    Points are arrays ``(..., 3)``; a voxel index names the centre of the voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError

Float64Array = npt.NDArray[np.float64]
Shape3 = tuple[int, int, int]

RAS_TO_LPS: Float64Array = np.diag([-1.0, -1.0, 1.0, 1.0])
"""World change of axes between RAS+ and LPS+ (its own inverse)."""


def transform_points(matrix: npt.ArrayLike, points: npt.ArrayLike) -> Float64Array:
    """Apply a 4x4 matrix to points ``(..., 3)``."""
    m = np.asarray(matrix, dtype=np.float64)
    p = np.asarray(points, dtype=np.float64)
    return p @ m[:3, :3].T + m[:3, 3]


@dataclass(frozen=True)
class Grid:
    """A regular 3-D grid: number of voxels per array axis and the voxel-to-world matrix (RAS+, mm).

    Raises:
        GeometryError: when the shape is not 3-D and positive, or the affine is singular or not finite.
    """

    shape: Shape3
    affine: Float64Array

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a grid has three axes of at least one voxel each, got shape {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("a grid needs a finite 4x4 affine")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-9:  # of directions, whatever the unit
            raise GeometryError("the affine of a grid is singular (zero voxel size or two parallel axes)")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    @property
    def spacing_mm(self) -> Float64Array:
        """Voxel size along each array axis in mm, shape ``(3,)``."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic mm."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def center_mm(self) -> Float64Array:
        """World position of the middle of the grid, RAS+ mm, shape ``(3,)``."""
        return self.to_mm((np.asarray(self.shape) - 1) / 2)

    @property
    def orientation(self) -> str:
        """Three letters: the anatomical direction in which each array axis grows, such as ``"LAS"``.

        The nearest assignment of array axes to world axes is taken; an oblique grid has a nearest one too.
        """
        direction = self.affine[:3, :3] / self.spacing_mm
        letters = ["", "", ""]
        free_world = {0, 1, 2}
        for axis in sorted(range(3), key=lambda a: -float(np.abs(direction[:, a]).max())):
            world = max(free_world, key=lambda w: abs(float(direction[w, axis])))
            free_world.discard(world)
            letters[axis] = ("RAS" if direction[world, axis] > 0 else "LPI")[world]
        return "".join(letters)

    def to_mm(self, voxels: npt.ArrayLike) -> Float64Array:
        """World points (RAS+, mm) of voxel coordinates ``(..., 3)``."""
        return transform_points(self.affine, voxels)

    def to_voxels(self, points_mm: npt.ArrayLike) -> Float64Array:
        """Voxel coordinates of world points (RAS+, mm) ``(..., 3)``."""
        return transform_points(np.linalg.inv(self.affine), points_mm)

    def holds(self, points_mm: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether world points (RAS+, mm) ``(..., 3)`` lie in a voxel of this grid."""
        voxels = self.to_voxels(points_mm)
        return np.asarray(((voxels >= -0.5) & (voxels <= np.array(self.shape) - 0.5)).all(axis=-1))

    def matches(self, other: Grid, tolerance_voxels: float = 1e-2) -> bool:
        """Whether both grids have the same shape and the same corners to ``tolerance_voxels``."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        drift = other.to_voxels(self.to_mm(corners)) - corners
        return bool(np.abs(drift).max() <= tolerance_voxels)

    def crop(self, start: npt.ArrayLike, shape: tuple[int, ...]) -> Grid:
        """The part of this grid of the given shape whose first voxel is ``start`` (may lie outside: padding)."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(np.asarray(start, dtype=np.float64))
        return Grid((shape[0], shape[1], shape[2]), affine)

    def describe(self) -> str:
        """One line for people: shape, spacing, orientation."""
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing_mm)
        return f"{' x '.join(map(str, self.shape))} voxels of {spacing} mm, {self.orientation}"


@dataclass(frozen=True)
class Volume:
    """A scalar 3-D image or label map: values ``(D, H, W)`` and the grid they lie on.

    Attributes:
        data: array of any real or integer dtype, in the axis order of the file; kept in the byte order of this machine.
        grid: where the voxels lie.
        name: what to call it in messages and reports (usually the file name).

    Raises:
        GeometryError: when the array is not of the grid's shape.
    """

    data: npt.NDArray[np.generic]
    grid: Grid
    name: str = "volume"

    def __post_init__(self) -> None:
        if tuple(self.data.shape) != self.grid.shape:
            raise GeometryError(f"{self.name}: data of shape {self.data.shape} on a grid of shape {self.grid.shape}")
        if not self.data.dtype.isnative:  # as nibabel gives those of MGZ; compiled loops take no other
            object.__setattr__(self, "data", self.data.astype(self.data.dtype.newbyteorder("=")))
