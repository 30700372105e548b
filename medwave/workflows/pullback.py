"""Resampling through any chain of transforms onto any grid, by compiled loops.

A chain of linear maps and displacement fields is brought once to the form ``T(p) = M(p + d(p))`` for the voxels p of
one grid; every image and label map is then read at these places. Where the chain begins with a field on that very
grid, as what ``medwave register`` writes does, nothing is interpolated but the image.

Conventions
    ``M`` is 4x4 RAS+ mm, world of the grid -> world of the image; d is ``(3, D, H, W)`` float32 in voxels of the grid.
    Outside an image, more than half a voxel beyond its outer voxel centres, values are zero, as in ITK.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.geometry import Float64Array, Grid, Volume
from medwave.volumes import LinearStep, SpatialTransform
from medwave.workflows.pair import resample, resample_labels

FloatVolume = npt.NDArray[np.float32]

_SAME_GRID_VOXELS = 1e-4  # NIfTI headers are float32
_POSITIONS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Pullback:
    """Places ``M(p + d(p))`` for the voxels p of a grid; see the module.

    Attributes:
        grid: where results lie.
        matrix: M.
        shift_voxels: d, or None where it is zero.
    """

    grid: Grid
    matrix: Float64Array
    shift_voxels: FloatVolume | None

    @classmethod
    def through(cls, transform: SpatialTransform, grid: Grid) -> Pullback:
        """The places that a transform gives the voxels of a grid; it maps points of the grid to points of an image."""
        matrix, shift = np.eye(4), None
        for step in transform.steps:
            if isinstance(step, LinearStep):
                matrix = step.matrix_ras @ matrix
                continue
            if shift is None and np.array_equal(matrix, np.eye(4)) and step.grid.matches(grid, _SAME_GRID_VOXELS):
                shift = np.ascontiguousarray(step.displacement_voxels, dtype=np.float32)
                continue
            read = [resample(Volume(u, step.grid), matrix, grid, shift) for u in step.displacement_voxels]
            turn = np.linalg.inv((matrix @ grid.affine)[:3, :3]) @ step.grid.affine[:3, :3]
            moved = np.tensordot(turn.astype(np.float32), np.stack(read), axes=1)
            shift = moved if shift is None else shift + moved
        return cls(grid, matrix, shift)

    def nearest_linear(self, where: npt.NDArray[np.bool_]) -> Float64Array:
        """The linear map nearest to ``M(p + d(p))`` over some voxels ``(D, H, W)``, by least squares, 4x4 RAS+ mm."""
        if self.shift_voxels is None:
            return self.matrix
        voxels = np.stack(np.nonzero(where), axis=1).astype(np.float64)
        ones = np.ones((len(voxels), 1))
        fitted, _, rank, _ = np.linalg.lstsq(
            np.hstack([voxels, ones]), voxels + self.shift_voxels[:, where].T, rcond=None
        )
        if rank < 4 or np.linalg.det(fitted[:3]) < 0.01:  # voxels in a plane, a field that mirrors or flattens
            return self.matrix
        inner = np.vstack([fitted.T, (0, 0, 0, 1)])
        return np.asarray(self.matrix @ self.grid.affine @ inner @ np.linalg.inv(self.grid.affine))

    def with_matrix(self, matrix: Float64Array) -> Pullback:
        """The same places as ``N(p + e(p))`` by another linear map N: its field e holds what N does not."""
        turn = np.linalg.inv(matrix @ self.grid.affine) @ self.matrix @ self.grid.affine
        if np.allclose(turn, np.eye(4), rtol=0, atol=1e-9):
            return self
        at = np.indices(self.grid.shape, dtype=np.float32)
        moved = at if self.shift_voxels is None else at + self.shift_voxels
        shift = np.tensordot(turn[:3, :3], moved, axes=1) + turn[:3, 3].reshape(3, 1, 1, 1) - at
        return Pullback(self.grid, matrix, shift.astype(np.float32))

    def image(self, volume: Volume, interpolation: str = "linear") -> Volume:
        """An image on the grid.

        Args:
            volume: the image.
            interpolation: ``"linear"``; ``"cubic"``, a cubic B-spline through the voxels, mirrored at the edges;
                ``"nearest"``, which keeps the dtype. The others give float32.
        """
        if interpolation == "nearest":
            data = resample_labels(volume, self.matrix, self.grid, self.shift_voxels)
        elif interpolation == "cubic":
            data = self._cubic(volume)
        else:
            data = resample(volume, self.matrix, self.grid, self.shift_voxels)
        return Volume(data, self.grid, volume.name)

    def labels(self, volume: Volume, interpolation: str = "nearest") -> Volume:
        """A label map on the grid, of the same dtype.

        Args:
            volume: the label map.
            interpolation: ``"nearest"``, or ``"label"``: each label's indicator is read linearly and the largest
                wins, which gives smoother outlines.
        """
        if interpolation == "nearest":
            return self.image(volume, "nearest")
        import torch  # takes two seconds, which all other ways do without

        from medwave.fields import sample

        # torch gathers no uint16, uint32 or uint64
        labels = torch.from_numpy(np.ascontiguousarray(volume.data, dtype=np.int64))[None, None]
        out = np.empty(self.grid.shape, dtype=volume.data.dtype)
        for planes, at in self._positions(volume.grid):
            found = sample(labels, torch.from_numpy(at)[None], interpolation="label", padding="zeros")
            out[planes] = found[0, 0].numpy()
        return Volume(out, self.grid, volume.name)

    def _cubic(self, volume: Volume) -> FloatVolume:
        from scipy import ndimage

        coefficients = ndimage.spline_filter(np.asarray(volume.data, np.float32), 3, np.float32, mode="mirror")
        reach = np.asarray(volume.grid.shape).reshape(3, 1, 1, 1) - 0.5
        out = np.empty(self.grid.shape, dtype=np.float32)
        for planes, at in self._positions(volume.grid):
            inside = ((at >= -0.5) & (at <= reach)).all(axis=0)
            values = ndimage.map_coordinates(coefficients, at, np.float32, order=3, mode="mirror", prefilter=False)
            out[planes] = values * inside
        return out

    def _positions(self, image: Grid) -> Iterator[tuple[slice, Any]]:
        """Voxel coordinates ``(3, n, H, W)`` of the places in an image, a few planes of the grid at a time."""
        voxels = np.linalg.inv(image.affine) @ self.matrix @ self.grid.affine
        depth, height, width = self.grid.shape
        count = max(1, _POSITIONS_AT_ONCE // (height * width))
        for start in range(0, depth, count):
            planes = slice(start, min(start + count, depth))
            at = np.indices((planes.stop - start, height, width), dtype=np.float64)
            at[0] += start
            if self.shift_voxels is not None:
                at += self.shift_voxels[:, planes]
            yield planes, np.tensordot(voxels[:3, :3], at, axes=1) + voxels[:3, 3].reshape(3, 1, 1, 1)
