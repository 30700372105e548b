"""Questions about a forest of parents that need a walk over it, answered for all nodes at once.

Conventions
    ``parent`` is ``(N,)`` int64 with -1 for roots and no cycles (:class:`medwave.core.tree.Tree` guarantees it).
    Walks are done by pointer jumping: every step doubles the distance that each node looks ahead, so a chain of a
    million nodes takes twenty array operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.tree import Float64Array, Int64Array


class Preorder(NamedTuple):
    """Depth-first walk: nodes in the order of their first visit, and how many nodes hang below each.

    Attributes:
        order: ``(N,)`` nodes; roots, and children of one node, follow in the order of their indices.
        size: ``(N,)`` number of nodes of the subtree of each node, itself included (indexed by node).
    """

    order: Int64Array
    size: Int64Array


def preorder(parent: Int64Array) -> Preorder:
    """Depth-first order of a forest, parents before children.

    Every node is entered and left once. The successor of each of these 2 N events is known from its neighbours, and
    pointer jumping ranks them (Tarjan & Vishkin 1985, doi 10.1137/0214061).
    """
    count = len(parent)
    by_parent = np.argsort(parent, kind="stable")
    above = parent[by_parent]
    first_child = np.full(count, -1, dtype=np.int64)
    first = np.flatnonzero((np.diff(above, prepend=-1) != 0) & (above >= 0))
    first_child[above[first]] = by_parent[first]
    next_sibling = np.full(count, -1, dtype=np.int64)
    together = np.flatnonzero(above[1:] == above[:-1])
    next_sibling[by_parent[together]] = by_parent[together + 1]

    nodes = np.arange(count)
    end = 2 * count
    after_leaving = np.where(next_sibling >= 0, next_sibling, np.where(parent >= 0, parent + count, end))
    successor = np.concatenate([np.where(first_child >= 0, first_child, nodes + count), after_leaving, [end]])
    to_end = np.ones(end + 1, dtype=np.int64)
    to_end[end] = 0
    steps = 1
    while steps <= end:
        to_end = to_end + to_end[successor]
        successor = successor[successor]
        steps *= 2
    entered, left = end - to_end[:count], end - to_end[count:end]
    return Preorder(np.argsort(entered, kind="stable"), (left - entered + 1) // 2)


def roots_of(parent: Int64Array) -> Int64Array:
    """The root of the component of every node, ``(N,)``."""
    root = np.where(parent < 0, np.arange(len(parent)), parent)
    while True:
        higher = root[root]
        if np.array_equal(higher, root):
            return root
        root = higher


def components(parent: Int64Array) -> Int64Array:
    """Component number of every node, ``(N,)``: 0, 1, ... in the order of the indices of the roots."""
    return np.searchsorted(np.flatnonzero(parent < 0), roots_of(parent)).astype(np.int64)


def sum_to_root(parent: Int64Array, values: npt.ArrayLike) -> Float64Array:
    """Sum of the values of a node and all its ancestors, for every node, ``(N,)``.

    With the lengths of edges as values this is the path length to the root; with ones, depth + 1.
    """
    total = np.append(np.asarray(values, dtype=np.float64), 0.0)
    upward = np.append(parent, -1)
    while (upward >= 0).any():
        total = total + np.where(upward >= 0, total[upward], 0.0)
        upward = np.where(upward >= 0, upward[upward], -1)
    return total[:-1]


def sum_below(walk: Preorder, values: npt.ArrayLike) -> Float64Array:
    """Sum of the values of a node and all nodes below it, for every node, ``(N,)``."""
    running = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64)[walk.order])])
    place = np.empty(len(walk.order), dtype=np.int64)
    place[walk.order] = np.arange(len(walk.order))
    return running[place + walk.size] - running[place]


def common_ancestors(parent: Int64Array, first: npt.ArrayLike, second: npt.ArrayLike) -> Int64Array:
    """Lowest common ancestor of each pair of nodes; -1 where a pair lies in two components.

    Args:
        parent: ``(N,)``.
        first: ``(M,)`` nodes; a node counts as its own ancestor.
        second: ``(M,)`` nodes.
    """
    a, b = np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    depth = sum_to_root(parent, np.ones(len(parent))).astype(np.int64)
    lifts = [np.append(parent, -1)]  # lifts[k] goes up 2**k nodes; the last entry, also index -1, is above all roots
    while (lifts[-1] >= 0).any():
        lifts.append(lifts[-1][lifts[-1]])
    swap = depth[a] < depth[b]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    rise = depth[a] - depth[b]
    for k, lift in enumerate(lifts):
        a = np.where((rise >> k) & 1 == 1, lift[a], a)
    for lift in reversed(lifts):
        apart = lift[a] != lift[b]
        a, b = np.where(apart, lift[a], a), np.where(apart, lift[b], b)
    return np.where(a == b, a, lifts[0][a])
