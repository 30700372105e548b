"""Where trees start: given somata, blobs that look like somata, or the thickest place of each piece."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.tracing.foreground import Foreground, selected, unpack
from medwave.tracing.march import grey_weighted_distance

FARTHEST_FOREGROUND = 10.0
"""A given root may lie this far from the foreground, in voxels of x."""

_TILE = 64
"""Voxels along each side of what is looked at together for somata."""


def thickest_nodes(foreground: Foreground, *, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """(P,) the node of each piece with the largest grey-weighted distance within its slice, and that distance."""
    depth = grey_weighted_distance(foreground, connectivity=connectivity, in_plane=True)
    by_depth = np.lexsort((-depth, foreground.piece))
    first = by_depth[np.flatnonzero(np.diff(foreground.piece[by_depth], prepend=-1))]
    return first, depth[first]


def nearest_voxels(place: np.ndarray, roots: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxel nearest to each of (n, 3) ``roots`` (z, y, x): its position, and its distance in voxels of x.

    Args:
        place: (N,) ascending positions of foreground voxels; of equally near ones the first counts.

    Returns:
        (n,) int64, -1 where there is none, and (n,) float64, infinite there.
    """
    nearest, distance = np.full(len(roots), -1, np.int64), np.full(len(roots), np.inf)
    everywhere = unpack(place) * spacing
    for i, root in enumerate(roots):
        if len(place) and np.isfinite(root).all():
            away = np.sqrt(((everywhere - root * spacing) ** 2).sum(axis=1))
            node = int(np.argmin(away))
            nearest[i], distance[i] = place[node], away[node]
    return nearest, distance


def given_roots(roots: np.ndarray, nearest: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The foreground voxels at (n, 3) given ``roots`` (z, y, x), from what :func:`nearest_voxels` found; none twice.

    Raises:
        InputError: a position is not finite, or farther than ten voxels from any foreground.
    """
    found: list[int] = []
    for root, place, away in zip(roots.tolist(), nearest.tolist(), distance.tolist(), strict=True):
        if not away <= FARTHEST_FOREGROUND:
            raise InputError(
                f"the root (z, y, x) = {tuple(root)} is not within {FARTHEST_FOREGROUND:g} voxels of any foreground: "
                "check the order of its axes, or lower the threshold"
            )
        if place not in found:
            found.append(place)
    return np.array(found, dtype=np.int64)


def find_somata(foreground: Foreground, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Middle nodes of all blobs into which a ball of ``radius`` (voxels of x) fits, and their depths.

    The ball lies within one piece and within the volume. The volume is looked at in tiles that hold foreground.
    """
    found = [_blob_middles(foreground, piece, radius) for piece in _large_pieces(foreground, radius)]
    nodes = np.concatenate([each[0] for each in found]) if found else np.empty(0, np.int64)
    depth = np.concatenate([each[1] for each in found]) if found else np.empty(0)
    return nodes, depth


def _large_pieces(foreground: Foreground, radius: float) -> np.ndarray:
    """Pieces with as many bright voxels as the ball has."""
    half = np.floor(radius / foreground.spacing).astype(int)
    grid = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in half], indexing="ij"), axis=-1)
    ball = (np.sqrt(((grid * foreground.spacing) ** 2).sum(axis=-1)) < radius).sum()
    return np.flatnonzero(np.bincount(foreground.piece[~foreground.dark], minlength=1) >= ball)


def _blob_middles(foreground: Foreground, piece: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The deepest node of each blob of a piece, and its depth."""
    fg = foreground
    nodes = np.flatnonzero((fg.piece == piece) & ~fg.dark)
    at = fg.positions(nodes)
    inner = np.zeros(len(fg), bool)
    inner[nodes[_depths(at, at, radius, fg.spacing) >= radius]] = True
    if not inner.any():
        return np.empty(0, np.int64), np.empty(0)
    core, number = selected(fg, inner, connectivity=1), np.flatnonzero(inner)
    middles, depths = [], []
    for blob in range(int(core.piece.max()) + 1):
        own = number[core.piece == blob]
        where = fg.positions(own)
        extent = ((where.max(axis=0) - where.min(axis=0) + 1) * fg.spacing).min()  # the deepest ball is no wider
        depth = _depths(at, where, radius + extent, fg.spacing)
        middles.append(own[int(np.argmax(depth))])
        depths.append(depth.max())
    return np.array(middles, np.int64), np.array(depths)


def _depths(at: np.ndarray, where: np.ndarray, farthest: float, spacing: np.ndarray) -> np.ndarray:
    """Distance of voxels ``where`` to the nearest voxel that is not among ``at``; right up to ``farthest``.

    Both are (n, 3) voxels (z, y, x) in their order. They are looked at in tiles.
    """
    depth = np.empty(len(where))
    reach = np.ceil(farthest / spacing).astype(np.int64) + 1
    tile = where // _TILE
    order = np.lexsort(tile.T[::-1])
    for part in np.split(order, np.flatnonzero((np.diff(tile[order], axis=0) != 0).any(axis=1)) + 1):
        low, high = where[part].min(axis=0) - reach, where[part].max(axis=0) + reach + 1
        near = at[np.searchsorted(at[:, 0], low[0]) : np.searchsorted(at[:, 0], high[0])]
        near = near[((near >= low) & (near < high)).all(axis=1)] - low
        marks = np.zeros(tuple(high - low), bool)
        marks[tuple(near.T)] = True
        if marks.all():
            depth[part] = np.inf
        else:
            depth[part] = ndimage.distance_transform_edt(marks, sampling=spacing)[tuple((where[part] - low).T)]
    return depth
