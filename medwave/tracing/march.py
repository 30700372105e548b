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
from medwave.tracing.foreground import BACKGROUND, OUTSIDE, Foreground
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
def _shortest_paths(flat, lookup, dark, weight, share_from, share_to, steps, lengths, cost, parent, order):
    """Settle all nodes that can be reached from those with finite ``cost``; returns how many were settled."""
    count = len(flat)
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
        for k in range(len(steps)):
            other = lookup[flat[node] + steps[k]]
            if other < 0 or (dark[node] and dark[other]):
                continue
            reached = cost[node] + (share_from * weight[node] + share_to * weight[other]) * lengths[k]
            if reached < cost[other]:
                cost[other] = reached
                parent[other] = node
                size = push_or_raise(heap, place, cost, size, other)
    return settled


@compiler()
def _seed_distance(flat, lookup, image, dark, kind, steps, lengths, cost):
    """Give each unreached node the cost of coming straight from a neighbour voxel of ``kind``."""
    for node in range(len(flat)):
        if cost[node] < np.inf:
            continue
        if dark[node]:
            cost[node] = image[flat[node]]
            continue
        for k in range(len(steps)):
            place = flat[node] + steps[k]
            if lookup[place] == kind:
                cost[node] = min(cost[node], image[place] + image[flat[node]] * lengths[k])


def grey_weighted_distance(foreground: Foreground, *, connectivity: int, in_plane: bool = False) -> np.ndarray:
    """Grey-weighted distance transform: (N,) float64, large inside thick and bright structures.

    The value at v is the least, over all paths from a background voxel b to v, of I(b) plus the sum of
    I(voxel) x step length along the path. Voxels outside the volume are background only for nodes that no other
    background reaches (a component that fills the volume, or its slice).

    Args:
        connectivity: 1, 2 or 3 axes may change in one step.
        in_plane: march in each slice by itself (soma search).
    """
    flat, lookup, image = foreground.flat, foreground.lookup, foreground.image
    steps, lengths = foreground.neighbours(connectivity, in_plane=in_plane)
    count = len(flat)
    cost = np.full(count, np.inf)
    parent, order = np.empty(count, np.int64), np.empty(count, np.int32)
    free, weight = np.zeros(count, bool), foreground.value.astype(np.float64)
    for kind in (BACKGROUND, OUTSIDE):
        _seed_distance(flat, lookup, image, foreground.dark, kind, steps, lengths, cost)
        _shortest_paths(flat, lookup, free, weight, 0.0, 1.0, steps, lengths, cost, parent, order)
        if np.isfinite(cost).all():
            break
    return cost


def geodesic_weight(field: np.ndarray, *, steepness: float = 10.0) -> np.ndarray:
    """G = exp(steepness (1 - a)^2) with a = ``field`` scaled to [0, 1] by its extremes; 1 at the brightest node."""
    low, high = float(field.min()), float(field.max())
    if high <= low:
        return np.ones(len(field))
    return np.exp(steepness * (1.0 - (field.astype(np.float64) - low) / (high - low)) ** 2)


def march(foreground: Foreground, weight: np.ndarray, roots: np.ndarray, *, connectivity: int) -> Forest:
    """The over-complete initial trees: each node's cheapest path from any of ``roots`` (node numbers).

    A step costs the mean ``weight`` of its two ends times its length. A step between two dark nodes is refused.
    """
    steps, lengths = foreground.neighbours(connectivity)
    count = len(foreground.flat)
    cost, parent, order = np.full(count, np.inf), np.full(count, -1, np.int64), np.empty(count, np.int32)
    cost[roots] = 0.0
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    settled = _shortest_paths(
        foreground.flat, foreground.lookup, foreground.dark, weight, 0.5, 0.5, steps, lengths, cost, parent, order
    )
    return Forest(parent, order[:settled], cost)
