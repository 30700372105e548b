"""Trees as voxels: exact round cones for tubes, and centre lines.

Each edge of a tree is a round cone: the union of all balls whose centre runs along the edge and whose radius runs
linearly between the radii of its ends. A voxel is inside when its centre lies within that union, grown by ``slack``.
The nearest voxel of every point of every edge is set as well, so that no tube breaks up between planes, however thin.

Arrays are ``(z, y, x)``; positions are ``(x, y, z)`` voxels, as in SWC files. ``spacing`` ``(z, y, x)`` is the size of
a voxel in the unit of the radii (1 for isotropic voxels): positions count voxels, distances count that unit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.tree import Tree

_compile = compiler(error_model="numpy")


def draw_tubes(
    tree: Tree,
    shape: tuple[int, int, int],
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    slack: float = 0.25,
    least_radius: float = 0.0,
) -> npt.NDArray[np.bool_]:
    """Mask of the tubes of a tree.

    Args:
        tree: positions in voxels, radii in units of ``spacing``.
        shape: of the volume, ``(z, y, x)``; what lies outside is dropped.
        spacing: voxel size ``(z, y, x)`` in units of the radii.
        slack: added to every radius (a quarter voxel is what voxel centres miss of a tube on average).
        least_radius: smaller radii, also 0 for unknown, are drawn as this.
    """
    mask = draw_centre_lines(tree, shape)
    starts, ends, first, second = _edges(tree, np.maximum(tree.radius, least_radius) + slack)
    _draw_cones(mask, starts, ends, first, second, np.asarray(spacing, dtype=np.float64))
    return mask


def draw_centre_lines(tree: Tree, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Mask of the voxels that the edges of a tree pass through (nearest voxel of points a third of a voxel apart)."""
    mask = np.zeros(shape, dtype=np.bool_)
    starts, ends, _, _ = _edges(tree, tree.radius)
    _draw_lines(mask, starts, ends)
    return mask


def _edges(tree: Tree, radius: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Ends (z, y, x) and radii of all edges; a node without any edge counts as an edge of no length."""
    child = np.flatnonzero(tree.parent >= 0)
    lonely = np.setdiff1d(np.flatnonzero(tree.parent < 0), tree.parent[child])
    child = np.concatenate([child, lonely])
    parent = np.where(tree.parent[child] < 0, child, tree.parent[child])
    places = np.ascontiguousarray(tree.positions[:, ::-1])
    return places[child], places[parent], radius[child], radius[parent]


@_compile
def _draw_lines(mask, starts, ends):
    for e in range(len(starts)):
        length = np.sqrt(((starts[e] - ends[e]) ** 2).sum())
        steps = int(np.ceil(3 * length)) + 1
        for s in range(steps + 1):
            t = s / steps
            z = int(np.floor(starts[e, 0] + t * (ends[e, 0] - starts[e, 0]) + 0.5))
            y = int(np.floor(starts[e, 1] + t * (ends[e, 1] - starts[e, 1]) + 0.5))
            x = int(np.floor(starts[e, 2] + t * (ends[e, 2] - starts[e, 2]) + 0.5))
            if 0 <= z < mask.shape[0] and 0 <= y < mask.shape[1] and 0 <= x < mask.shape[2]:
                mask[z, y, x] = True


@_compile
def _draw_cones(mask, starts, ends, first, second, spacing):
    for e in range(len(starts)):
        reach = max(first[e], second[e])
        low = np.empty(3, np.int64)
        high = np.empty(3, np.int64)
        for axis in range(3):
            a, b = min(starts[e, axis], ends[e, axis]), max(starts[e, axis], ends[e, axis])
            low[axis] = max(0, int(np.floor(a - reach / spacing[axis])))
            high[axis] = min(mask.shape[axis], int(np.ceil(b + reach / spacing[axis])) + 1)
        axis_vector = (ends[e] - starts[e]) * spacing
        length = np.sqrt((axis_vector**2).sum())
        for z in range(low[0], high[0]):
            dz = (z - starts[e, 0]) * spacing[0]
            for y in range(low[1], high[1]):
                dy = (y - starts[e, 1]) * spacing[1]
                for x in range(low[2], high[2]):
                    if mask[z, y, x]:
                        continue
                    dx = (x - starts[e, 2]) * spacing[2]
                    along = 0.0
                    if length > 0:
                        along = (dz * axis_vector[0] + dy * axis_vector[1] + dx * axis_vector[2]) / length
                    aside = np.sqrt(max(dz * dz + dy * dy + dx * dx - along * along, 0.0))
                    if _in_round_cone(along, aside, length, first[e], second[e]):
                        mask[z, y, x] = True


@_compile
def _in_round_cone(along, aside, length, r0, r1):
    """Whether a point lies in the union of balls along an edge, in the plane of the edge.

    The ball about the point ``s`` of the edge has radius ``r0 + (r1 - r0) s / length``. The ball that reaches furthest
    towards the point has its centre where the surface normal meets the axis: ``s = along + aside * slope`` with the
    slope of the tangent cone; clipping s to the edge leaves the balls at the ends.
    """
    if length <= abs(r1 - r0):  # one end's ball contains all the others
        s = length if r1 > r0 else 0.0
    else:
        sine = (r1 - r0) / length
        s = along + aside * sine / np.sqrt(1 - sine * sine)
        s = min(max(s, 0.0), length)
    radius = max(r0, r1) if length == 0 else r0 + (r1 - r0) * s / length
    return (along - s) ** 2 + aside**2 <= radius * radius
