"""Shortest paths over the foreground: the grey-weighted distance transform and the fast-marching tree.

One compiled Dijkstra serves both. A step of length s (voxels of x) from node u to node v costs
``(a w(u) + b w(v)) s``: (a, b) = (0, 1) with the grey value as weight gives the grey-weighted distance transform,
(1/2, 1/2) with the geodesic weight gives the tree. Ties go to the node that comes first in the volume.

Sources: Xiao and Peng, APP2, Bioinformatics 29:1448 (2013), doi 10.1093/bioinformatics/btt170; Dijkstra, Numerische
Mathematik 1:269 (1959), doi 10.1007/BF01386390.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medwave.core.compiler import compiler
from medwave.tracing.foreground import Foreground, coordinates, neighbour_steps, node_at
from medwave.tracing.heap import pop, push_or_raise


@dataclass(frozen=True)
class Forest:
    """Shortest-path trees that cover the reached nodes.

    Attributes:
        parent: (N,) int64, the node before each node on its path; -1 at roots and nodes that were not reached.
        order: (M,) int32, reached nodes by ascending cost: parents come before their children.
        cost: (N,) float64, path cost from the root; inf where not reached.
    """

    parent: np.ndarray
    order: np.ndarray
    cost: np.ndarray


@compiler()
def _shortest_paths(
    nodes, table, bricks, corner, dark, weight, share_from, share_to, steps, lengths, cost, parent, order
):  # fmt: skip
    """Settle all nodes that can be reached from those with finite ``cost``; returns how many were settled.

    ``nodes`` are their positions.
    """
    count = len(nodes)
    heap = np.empty(count, np.int32)
    place = np.full(count, -1, np.int32)
    size = 0
    for node in range(count):
        if cost[node] < np.inf:
            size = push_or_raise(heap, place, cost, size, node)
    settled = 0
    while size > 0:
        node, size = pop(heap, place, cost, size)
        order[settled] = node
        settled += 1
        z, y, x = coordinates(nodes[node])
        for k in range(len(steps)):
            other = node_at(z + steps[k, 0], y + steps[k, 1], x + steps[k, 2], table, bricks, corner)
            if other < 0 or (dark[node] and dark[other]):
                continue
            reached = cost[node] + (share_from * weight[node] + share_to * weight[other]) * lengths[k]
            if reached < cost[other]:
                cost[other] = reached
                parent[other] = node
                size = push_or_raise(heap, place, cost, size, other)
    return settled


@compiler()
def _seed_distance(nodes, table, bricks, corner, value, dark, shape, beyond, steps, lengths, cost):
    """Give each unreached node the cost of coming straight from a neighbour that is no node and costs nothing.

    Such neighbours lie within the volume or, with ``beyond``, outside it.
    """
    for node in range(len(nodes)):
        if cost[node] < np.inf:
            continue
        if dark[node]:
            cost[node] = value[node]
            continue
        z, y, x = coordinates(nodes[node])
        for k in range(len(steps)):
            u, v, w = z + steps[k, 0], y + steps[k, 1], x + steps[k, 2]
            outside = u < 1 or v < 1 or w < 1 or u > shape[0] or v > shape[1] or w > shape[2]
            if outside == beyond and node_at(u, v, w, table, bricks, corner) < 0:
                cost[node] = min(cost[node], value[node] * lengths[k])


def grey_weighted_distance(foreground: Foreground, *, connectivity: int, in_plane: bool = False) -> np.ndarray:
    """Grey-weighted distance transform: (N,) float64, large inside thick and bright structures.

    The value at v is the least, over all paths from a voxel b that is no node to v, of I(b) plus the sum of
    I(voxel) x step length along the path; dark nodes have their own grey value. Voxels outside the volume count for
    nodes only that no other background reaches (a piece that fills the volume, or its slice).

    Args:
        connectivity: that of the foreground.
        in_plane: march in each slice by itself (soma search); I(b) is 0 then.
    """
    fg = foreground
    steps, lengths = neighbour_steps(fg.spacing, connectivity, in_plane=in_plane)
    count = len(fg)
    cost = np.full(count, np.inf) if in_plane else np.where(fg.dark, fg.value, fg.edge)
    parent, order = np.empty(count, np.int64), np.empty(count, np.int32)
    free, weight, shape = np.zeros(count, bool), fg.value.astype(np.float64), np.array(fg.shape)
    for beyond in (False, True):
        if in_plane or beyond:
            _seed_distance(fg.place, *fg.index, fg.value, fg.dark, shape, beyond, steps, lengths, cost)
        _shortest_paths(fg.place, *fg.index, free, weight, 0.0, 1.0, steps, lengths, cost, parent, order)
        if np.isfinite(cost).all():
            break
    return cost


def geodesic_weight(field: np.ndarray, piece: np.ndarray, *, steepness: float = 10.0) -> np.ndarray:
    """G = exp(steepness (1 - a)^2) with a = ``field`` scaled to [0, 1] by the extremes of each piece.

    1 at the brightest node of a piece, and everywhere where all are alike.
    """
    count = int(piece.max()) + 1 if len(piece) else 0
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    values = field.astype(np.float64)
    np.minimum.at(low, piece, values)
    np.maximum.at(high, piece, values)
    range_ = high - low
    share = (values - low[piece]) / np.where(range_ > 0, range_, 1.0)[piece]
    return np.where((range_ > 0)[piece], np.exp(steepness * (1.0 - share) ** 2), 1.0)


def march(foreground: Foreground, weight: np.ndarray, roots: np.ndarray, *, connectivity: int) -> Forest:
    """The over-complete initial trees: each node's cheapest path from any of ``roots`` (node numbers).

    A step costs the mean ``weight`` of its two ends times its length. A step between two dark nodes is refused.
    """
    fg = foreground
    steps, lengths = neighbour_steps(fg.spacing, connectivity)
    count = len(fg)
    cost, parent, order = np.full(count, np.inf), np.full(count, -1, np.int64), np.empty(count, np.int32)
    cost[roots] = 0.0
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    settled = _shortest_paths(
        fg.place, *fg.index, fg.dark, weight, 0.5, 0.5, steps, lengths, cost, parent, order
    )  # fmt: skip
    return Forest(parent, order[:settled], cost)
