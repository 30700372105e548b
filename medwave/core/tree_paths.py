"""Lengths along a tree: unbranched paths, samples at equal steps, and counts of forks and tips.

Conventions
    As in :mod:`medwave.core.tree`; all lengths in the unit of the tree's positions.
    Key nodes are roots, forks (two children or more) and tips. An unbranched path runs from a key node down to the
    next one. A component of one node has no path, no length and no samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medwave.core.errors import InputError
from medwave.core.tree import Float64Array, Int64Array, Tree
from medwave.core.tree_walk import preorder


class Paths(NamedTuple):
    """The unbranched paths of a tree, in depth-first order.

    Attributes:
        nodes: all nodes with a parent, path by path, each path from its top downwards (its top node left out).
        starts: ``(P + 1,)``: path ``p`` is ``nodes[starts[p] : starts[p + 1]]``.
        top: ``(P,)`` key node from which each path hangs.
        bottom: ``(P,)`` key node at which it ends: the last of its nodes.
        length: ``(P,)``.
    """

    nodes: Int64Array
    starts: Int64Array
    top: Int64Array
    bottom: Int64Array
    length: Float64Array

    @property
    def path_of(self) -> Int64Array:
        """For each entry of ``nodes`` the number of its path."""
        return np.repeat(np.arange(len(self.top)), np.diff(self.starts))


class Topology(NamedTuple):
    """Counts of a tree. ``forks`` and ``tips`` look down from the root; ``junctions`` and ``ends`` do not depend on it.

    Attributes:
        nodes: number of nodes.
        roots: nodes without parent (= components).
        forks: nodes with two children or more.
        tips: nodes with a parent and no child.
        branches: unbranched paths.
        junctions: nodes with three neighbours or more.
        ends: nodes with one neighbour.
        length: sum of all edges.
    """

    nodes: int
    roots: int
    forks: int
    tips: int
    branches: int
    junctions: int
    ends: int
    length: float


def unbranched_paths(tree: Tree) -> Paths:
    """Cut a tree at its key nodes."""
    walk = preorder(tree.parent).order  # nodes of one path follow each other in it
    nodes = walk[tree.parent[walk] >= 0]
    is_key = (tree.parent < 0) | (tree.children_count != 1)
    first = np.flatnonzero(is_key[tree.parent[nodes]])
    starts = np.append(first, len(nodes)).astype(np.int64)
    length = np.add.reduceat(tree.edge_lengths[nodes], first) if len(first) else np.zeros(0)
    return Paths(nodes, starts, tree.parent[nodes[first]], nodes[starts[1:] - 1], length)


def topology(tree: Tree) -> Topology:
    """Count nodes, components, forks, tips and branches, and add up the length."""
    children = tree.children_count
    has_parent = tree.parent >= 0
    neighbours = children + has_parent
    return Topology(
        nodes=len(tree),
        roots=len(tree.roots),
        forks=int((children >= 2).sum()),
        tips=int((has_parent & (children == 0)).sum()),
        branches=len(unbranched_paths(tree).top),
        junctions=int((neighbours >= 3).sum()),
        ends=int((neighbours == 1).sum()),
        length=tree.length,
    )


def resample(tree: Tree, step: float) -> Tree:
    """Put nodes at equal distances along every unbranched path; key nodes stay where they are.

    A path of length L is cut into ``ceil(L / step)`` equal parts, so neighbours lie at most ``step`` apart along it.
    The radius is interpolated linearly in arc length; type and further columns come from the old node below.

    Args:
        tree: any tree; components of one node are kept.
        step: largest arc length between neighbours, in the unit of the positions.

    Returns:
        The new tree in depth-first order.

    Raises:
        InputError: when the step is not a positive number.
    """
    if not (np.isfinite(step) and step > 0):
        raise InputError(f"the step of resampling is a positive length, got {step}")
    paths = unbranched_paths(tree)
    parts = np.maximum(1, np.ceil(paths.length / step - 1e-9)).astype(np.int64)
    path = np.repeat(np.arange(len(parts)), parts)
    rank = np.arange(len(path)) - np.repeat(np.cumsum(parts) - parts, parts)
    below, fraction = _places(tree, paths, path, (rank + 1) / parts[path])
    above = tree.parent[below]

    def between(values: Float64Array) -> Float64Array:
        t = fraction.reshape((-1,) + (1,) * (values.ndim - 1))
        return (1 - t) * values[above] + t * values[below]

    roots = tree.roots
    source = np.concatenate([roots, below])
    new_place = np.full(len(tree), -1, dtype=np.int64)
    new_place[roots] = np.arange(len(roots))
    new_place[paths.bottom] = len(roots) + np.cumsum(parts) - 1
    parent = np.where(rank == 0, new_place[paths.top[path]], len(roots) + np.arange(len(path)) - 1)
    sampled = Tree(
        np.concatenate([tree.positions[roots], between(tree.positions)]),
        np.concatenate([tree.radius[roots], between(tree.radius)]),
        np.concatenate([np.full(len(roots), -1), parent]),
        tree.kind[source],
        tree.extra[source],
        tree.extra_names,
    )
    return sampled.select(preorder(sampled.parent).order)


def _places(tree: Tree, paths: Paths, path: Int64Array, share: Float64Array) -> tuple[Int64Array, Float64Array]:
    """Where the share (0 to 1] of the length of a path lies: the node below, and the fraction of its edge."""
    edge = tree.edge_lengths[paths.nodes]
    reached = np.cumsum(edge)
    before_path = (reached - edge)[paths.starts[:-1]] if len(path) else np.zeros(0)
    target = before_path[path] + share * paths.length[path]
    entry = np.clip(np.searchsorted(reached, target), paths.starts[path], paths.starts[path + 1] - 1)
    entry = np.where(share >= 1, paths.starts[path + 1] - 1, entry)
    into = target - (reached - edge)[entry]
    fraction = np.divide(into, edge[entry], out=np.ones(len(entry)), where=edge[entry] > 0)
    return paths.nodes[entry], np.where(share >= 1, 1.0, np.clip(fraction, 0.0, 1.0))


def densify(tree: Tree) -> Float64Array:
    """Points along all edges, about one per unit of length: the samples of Vaa3D's neuron distance.

    An edge of length d gives ``floor(d + 1.5)`` equally spaced points, both ends among them; one point, the child,
    when d is below 0.5. Shared nodes come once per edge that touches them.

    Returns:
        ``(M, 3)`` positions, edge by edge.
    """
    child = tree.edges
    count = np.floor(tree.edge_lengths[child] + 1.5).astype(np.int64)
    edge = np.repeat(child, count)
    rank = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    share = rank / np.repeat(np.maximum(count - 1, 1), count)
    start, stop = tree.positions[edge], tree.positions[tree.parent[edge]]
    return (1 - share[:, None]) * start + share[:, None] * stop


def node_lengths(tree: Tree) -> Float64Array:
    """Length that each node stands for, ``(N,)``: half of every edge that touches it. Sums to the tree's length."""
    half = tree.edge_lengths / 2
    child = tree.edges
    return half + np.bincount(tree.parent[child], weights=half[child], minlength=len(tree))
