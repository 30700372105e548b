"""Where trees start: given somata, blobs that look like somata, or the thickest place of each component."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.tracing.foreground import Foreground
from medwave.tracing.march import grey_weighted_distance

FARTHEST_FOREGROUND = 10.0
"""A given root may lie this far from the foreground, in voxels of x."""


def thickest_nodes(foreground: Foreground, label: np.ndarray, *, connectivity: int) -> np.ndarray:
    """One node per component: that of the largest grey-weighted distance within its slice, largest first.

    Args:
        label: (N,) component of each node.
    """
    depth = grey_weighted_distance(foreground, connectivity=connectivity, in_plane=True)
    by_depth = np.argsort(-depth, kind="stable")
    _, first = np.unique(label[by_depth], return_index=True)
    return by_depth[np.sort(first)]


def nodes_near(foreground: Foreground, positions: np.ndarray) -> np.ndarray:
    """The foreground node nearest to each of (n, 3) ``positions`` (z, y, x); a node is named once.

    Raises:
        InputError: a position is not finite, or farther than ten voxels from any foreground.
    """
    everywhere = foreground.positions(np.arange(len(foreground.flat))) * foreground.spacing
    found: list[int] = []
    for position in np.asarray(positions, dtype=np.float64).reshape(-1, 3):
        distance = np.sqrt(((everywhere - position * foreground.spacing) ** 2).sum(axis=1))
        node = int(np.argmin(distance)) if np.isfinite(position).all() else -1
        if node < 0 or distance[node] > FARTHEST_FOREGROUND:
            raise InputError(
                f"the root (z, y, x) = {tuple(float(p) for p in position)} is not within {FARTHEST_FOREGROUND:g} "
                "voxels of any foreground: check the order of its axes, or lower the threshold"
            )
        if node not in found:
            found.append(node)
    return np.array(found, dtype=np.int64)


def find_somata(foreground: Foreground, radius: float) -> np.ndarray:
    """Middle nodes of all blobs into which a ball of ``radius`` (voxels of x) fits, the largest first."""
    marks = np.zeros(foreground.shape, dtype=bool)
    marks.reshape(-1)[foreground.flat[~foreground.dark]] = True
    depth = ndimage.distance_transform_edt(marks, sampling=foreground.spacing)
    blobs, count = ndimage.label(depth >= radius)
    middles = ndimage.maximum_position(depth, blobs, np.arange(1, count + 1))
    middles.sort(key=lambda middle: (-depth[middle], middle))
    return foreground.nodes_at(np.array(middles, dtype=np.int64).reshape(-1, 3) - 1).astype(np.int64)
