"""Radii of tree nodes from the image (APP2, step 6), for any voxel shape.

Around a node, voxels are visited by distance. In shells one voxel of x wide, voxels at or below the threshold are
counted; the first shell where more than 0.1 % of the box scanned so far are dark ends the search, and the radius is
the distance of the nearest dark voxel of that shell (APP2 reports the whole number of the shell instead, about half
a voxel more). Dark is also what does not belong to the node's piece. Voxels outside the volume say nothing; the radius
is at most half the smallest axis searched.

The nearest dark voxel of all is at most a step nearer than that of a node a step away, so that what is nearer is not
looked at again: nodes are taken in the order of their voxels, and a wide place costs its rim, not its area.
"""

from __future__ import annotations

import numpy as np

from medwave.core.compiler import compiler
from medwave.tracing.foreground import Foreground, coordinates, node_at

DARK_SHARE = 0.001


def estimate_radii(
    foreground: Foreground, nodes: np.ndarray, *, threshold: np.ndarray | float, in_plane: bool
) -> np.ndarray:
    """(n,) float64 radii of ``nodes`` in voxels of x, at least 0.5.

    Args:
        threshold: grey value, one for all or one per node; voxels at or below it are outside the fibre.
        in_plane: search only the node's slice (a disc), as light microscopes blur along z.
    """
    sizes = np.array(foreground.shape) * foreground.spacing
    largest = max(1.0, float(min(sizes[1:] if in_plane else sizes)) / 2)
    radii, order = np.full(len(nodes), np.nan), np.argsort(nodes, kind="stable")
    levels = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (len(nodes),))
    reach = min(8.0, largest)
    while True:
        open_nodes = order[np.isnan(radii[order])]
        last = reach >= largest
        offsets, distances, allowed = _visiting_order(foreground.spacing, reach, in_plane)
        radii[open_nodes] = _first_dark(
            nodes[open_nodes], foreground.place, *foreground.index, foreground.value, foreground.piece,
            np.array(foreground.shape), foreground.spacing, offsets, distances, allowed, levels[open_nodes],
            reach if last else np.nan, in_plane,
        )  # fmt: skip
        if last or not np.isnan(radii).any():
            return np.maximum(radii, 0.5)
        reach = min(2 * reach, largest)


def _visiting_order(spacing: np.ndarray, reach: float, in_plane: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves (K, 3) and distances (K,) within ``reach`` by distance, and per shell the allowed number of dark voxels."""
    half = np.floor(reach / spacing).astype(int)
    if in_plane:
        half[0] = 0
    grid = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in half], indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.sqrt(((grid * spacing) ** 2).sum(axis=1))
    inside = np.flatnonzero((distance <= reach) & (distance > 0))
    inside = inside[np.argsort(distance[inside], kind="stable")]
    shells = np.arange(int(np.ceil(reach)) + 1)
    boxes = np.prod(2 * np.minimum(np.floor(shells[:, None] / spacing), half) + 1, axis=1)
    return grid[inside].astype(np.int64), distance[inside], DARK_SHARE * boxes


@compiler()
def _first_dark(
    nodes, place, table, bricks, corner, value, piece, shape, spacing, offsets, distances, allowed, threshold, if_never,
    in_plane,
):  # fmt: skip
    """Distance of the nearest dark voxel of the first shell with too many; ``if_never`` where there is no such."""
    radii = np.full(len(nodes), if_never)
    clear, before = 0.0, (0, 0, 0)  # how far no voxel is dark about the node before
    for i in range(len(nodes)):
        z, y, x = coordinates(place[nodes[i]])
        own = piece[nodes[i]]
        if i > 0 and threshold[i] <= threshold[i - 1]:  # else more may be dark; another piece was dark itself
            a, b, c = (z - before[0]) * spacing[0], (y - before[1]) * spacing[1], (x - before[2]) * spacing[2]
            clear = 0.0 if in_plane and a != 0 else clear - np.sqrt(a * a + b * b + c * c) - 1e-9
        else:
            clear = 0.0
        before = z, y, x
        first = np.searchsorted(distances, clear)
        clear = distances[-1] if len(distances) else 0.0
        shell, dark, nearest = 0, 0, 0.0
        for k in range(first, len(distances)):
            if distances[k] > shell:
                if dark > allowed[shell]:
                    break
                shell, dark = int(np.ceil(distances[k])), 0
            u, v, w = z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]
            if u < 1 or v < 1 or w < 1 or u > shape[0] or v > shape[1] or w > shape[2]:
                continue
            node = node_at(u, v, w, table, bricks, corner)
            if node < 0 or piece[node] != own or value[node] <= threshold[i]:
                if dark == 0:
                    nearest = distances[k]
                dark += 1
                clear = min(clear, distances[k])
        if dark > allowed[shell]:
            radii[i] = nearest
    return radii
