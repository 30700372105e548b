"""Transforms by where they come from: a result in memory, the folder of a run, or files of ITK, FSL, FreeSurfer.

A chain maps points of the space it starts in (fixed) to points of the space it ends in (moving); images go the other
way. Points pass through its parts from first to last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import Float64Array, Grid, Volume
from medwave.fields.inversion_kernel import invert_array
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_transform, read_volume
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import RunFolder

if TYPE_CHECKING:
    from medwave.workflows.register import Registration

GridSource = Grid | Volume | StrPath

_NO_GRID = (
    "a grid is needed, which this transform does not tell; give an image on it (--reference; of convert-transform "
    "--fixed, or --moving with --inverse)"
)


@dataclass(frozen=True)
class Chain:
    """A map of points, and the grids of the images at both ends where they are known.

    Attributes:
        transform: from fixed to moving points.
        fixed, moving: grid of the image in the space it starts in, and of that in the space it ends in.
        inverse: from moving to fixed points, where a run has stored it.
    """

    transform: SpatialTransform
    fixed: Grid | None = None
    moving: Grid | None = None
    inverse: SpatialTransform | None = None

    def turned_round(self) -> tuple[Chain, float]:
        """The inverse, and the largest error in voxels that it leaves: as a run stored it, else found step by step."""
        if self.inverse is not None:
            return Chain(self.inverse, self.moving, self.fixed, self.transform), 0.0
        back, residual = inverted(self.transform)
        return Chain(back, self.moving, self.fixed, self.transform), residual

    def start(self, reference: GridSource | None = None) -> Grid:
        """The grid to work on in the space of the start: the one asked for, the fixed one, or that of the first field.

        Raises:
            InputError: when there is none.
        """
        if reference is not None:
            return grid_of(reference)
        first = self.transform.steps[0] if self.transform.steps else None
        grid = self.fixed or (first.grid if isinstance(first, FieldStep) else None)
        if grid is None:
            raise InputError(_NO_GRID)
        return grid

    def whole(self, reference: GridSource | None = None) -> Grid:
        """The grid of one field that holds the whole chain, which says nothing beyond it.

        As :meth:`start`, but a field among other steps does not count: files keep the part of it that moves, and what
        comes before it may lead elsewhere.

        Raises:
            InputError: when there is none.
        """
        if reference is None and self.fixed is None and len(self.transform.steps) > 1:
            raise InputError(_NO_GRID)
        return self.start(reference)


def load_chain(
    source: Registration | SpatialTransform | StrPath, *,
    fixed: GridSource | None = None, moving: GridSource | None = None,
) -> Chain:  # fmt: skip
    """A transform from wherever it is.

    Args:
        source: what :func:`medwave.register` returned, a transform, a folder that ``medwave register`` wrote, or a
            file that :func:`medwave.volumes.read_transform` reads.
        fixed, moving: images or grids at its two ends, for files that do not tell.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError: for unusable inputs.
    """
    grids = [None if each is None else grid_of(each) for each in (fixed, moving)]
    if isinstance(source, SpatialTransform):
        return Chain(source, *grids)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.is_dir():
            return Chain(read_transform(input_file(path), fixed=grids[0], moving=grids[1]), *grids)
        run = RunFolder(path)
        ends = grids[0] or run.fixed_grid, grids[1] or run.moving_grid
        return Chain(_moving_steps(run.fixed_to_moving), *ends, _moving_steps(run.moving_to_fixed))
    ends = grids[0] or source.fixed.grid, grids[1] or source.moving.grid
    return Chain(_moving_steps(source.transform), *ends, _moving_steps(source.inverse_transform))


def _moving_steps(transform: SpatialTransform) -> SpatialTransform:
    """Without fields that move nothing, as a run without a deformable part has: linear is then seen to be linear."""
    steps = (s for s in transform.steps if not isinstance(s, FieldStep) or s.displacement_voxels.any())
    return SpatialTransform(tuple(steps))


def joined(chains: Sequence[Chain]) -> Chain:
    """First the first, then the next: ``T(x) = T_n(...T_1(x))``.

    Raises:
        InputError: when there is none.
    """
    if not chains:
        raise InputError("no transform is given; name the folder of a run, or transform files")
    steps = tuple(step for chain in chains for step in chain.transform.steps)
    return Chain(SpatialTransform(steps).merged(), chains[0].fixed, chains[-1].moving)


def inverted(transform: SpatialTransform) -> tuple[SpatialTransform, float]:
    """The inverse of a chain, step by step from the last, and the largest error in voxels that the fields leave.

    A field is inverted on its own grid. One that does not vanish at its border (a whole transform in one field) is
    split first into the affine nearest to it and the rest, so that its inverse has room: the affine then also holds
    beyond the grid, where the field itself says nothing.
    """
    back: list[LinearStep | FieldStep] = []
    worst = 0.0
    for step in reversed(transform.steps):
        if isinstance(step, LinearStep):
            back.append(LinearStep(np.linalg.inv(step.matrix_ras)))
            continue
        matrix, field = _split(step)
        found, residual = invert_array(field, tolerance_voxels=1e-3)
        worst = max(worst, float(residual.max()))
        if not np.array_equal(matrix, np.eye(4)):
            back.append(LinearStep(np.linalg.inv(matrix)))
        back.append(FieldStep(found, step.grid))
    return SpatialTransform(tuple(back)).merged(), worst


def whole_displacement(transform: SpatialTransform, grid: Grid) -> FieldStep:
    """A chain as one field ``T(x) = x + u(x)`` on a grid."""
    pullback = Pullback.through(transform, grid)
    voxels = np.linalg.inv(grid.affine) @ pullback.matrix @ grid.affine
    return FieldStep(_followed(voxels, pullback.shift_voxels, grid.shape), grid)


def grid_of(source: GridSource) -> Grid:
    """The grid of an image, a file, or the grid itself."""
    if isinstance(source, Grid):
        return source
    return (source if isinstance(source, Volume) else read_volume(source, dtype=None)).grid


def _split(step: FieldStep) -> tuple[Float64Array, np.ndarray]:
    """A and v with ``x + u(x) = A(x + v(x))``; A is the identity where u vanishes at the border."""
    u = np.ascontiguousarray(step.displacement_voxels, dtype=np.float32)
    faces = [u.take(end, axis).reshape(3, -1) for axis in (1, 2, 3) for end in (0, -1)]
    if max(float(np.abs(face).max()) for face in faces) < 0.5 or min(step.grid.shape) < 2:
        return np.eye(4), u
    every = [max(1, n // 24) for n in step.grid.shape]
    box = tuple(slice(None, None, n) for n in every)
    at = np.stack([i[box].ravel() for i in np.indices(step.grid.shape)], axis=1).astype(np.float64)
    moved = at + np.stack([c[box].ravel() for c in u], axis=1)
    fitted, *_ = np.linalg.lstsq(np.column_stack([at, np.ones(len(at))]), moved, rcond=None)
    voxels = np.eye(4)
    voxels[:3] = fitted.T
    rest = _followed(np.linalg.inv(voxels), u, step.grid.shape)
    return np.asarray(step.grid.affine @ voxels @ np.linalg.inv(step.grid.affine)), rest


def _followed(voxels: Float64Array, field: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """The displacement of ``M(p + u(p))``, M and u in voxels: float32 ``(3, D, H, W)``."""
    out = np.empty((3, *shape), dtype=np.float32)
    for row in range(3):
        total = np.full(shape, voxels[row, 3])
        for axis, n in enumerate(shape):
            line = (voxels[row, axis] - (row == axis)) * np.arange(n)
            total += line.reshape([-1 if a == axis else 1 for a in range(3)])
            if field is not None and voxels[row, axis]:
                total += voxels[row, axis] * field[axis]
        out[row] = total
    return out
