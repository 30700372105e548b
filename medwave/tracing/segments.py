"""Hierarchical segments of the over-complete tree (APP2, step 4).

The strength of a node is the grey-weighted length of the path to its farthest tip: the sum of I/255 x step length.
Each tip owns the path upward for as long as it is the strongest descendant; that path is a segment. Segments are
disjoint and cover the tree; the strength of a segment is that of its top node. (Vaa3D counts voxels, not lengths:
a diagonal fibre is shorter there than the same fibre along an axis.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medwave.core.compiler import compiler
from medwave.tracing.foreground import Foreground
from medwave.tracing.march import Forest


@dataclass(frozen=True)
class Segments:
    """Segments by descending strength, each a run of nodes from its tip to its top.

    Attributes:
        nodes: (n,) int64 node numbers of all segments, one after the other.
        start: (S+1,) int64; segment i is ``nodes[start[i]:start[i + 1]]``.
        parent: (S,) int64, the segment that owns the node above the top; -1 for root segments.
        strength: (S,) float64, in voxels of full brightness.
    """

    nodes: np.ndarray
    start: np.ndarray
    parent: np.ndarray
    strength: np.ndarray


@compiler()
def _strengths(order, parent, length, value):
    """Strength of each node and its strongest child (-1: a tip)."""
    strength = np.zeros(len(parent))
    best_child = np.full(len(parent), -1, np.int64)
    for i in range(len(order) - 1, -1, -1):
        node = order[i]
        strength[node] += value[node] / 255.0 * length[node]
        above = parent[node]
        if above >= 0 and (best_child[above] < 0 or strength[node] > strength[above]):
            strength[above] = strength[node]
            best_child[above] = node
    return strength, best_child


@compiler()
def _owners(order, best_child):
    """The tip that owns each node."""
    owner = np.full(len(best_child), -1, np.int64)
    for i in range(len(order) - 1, -1, -1):
        node = order[i]
        child = best_child[node]
        owner[node] = node if child < 0 else owner[child]
    return owner


@compiler()
def _runs(tips, tops, parent):
    """Segments as runs of nodes from tip to top."""
    start = np.zeros(len(tips) + 1, np.int64)
    for i in range(len(tips)):
        size = 1
        node = tips[i]
        while node != tops[i]:
            node = parent[node]
            size += 1
        start[i + 1] = start[i] + size
    nodes = np.empty(start[-1], np.int64)
    for i in range(len(tips)):
        node = tips[i]
        for j in range(start[i], start[i + 1]):
            nodes[j] = node
            node = parent[node]
    return nodes, start


def split_into_segments(foreground: Foreground, forest: Forest, *, shortest: float) -> Segments:
    """Cut the trees of ``forest`` into segments and keep those at least ``shortest`` strong.

    Every ancestor of a kept segment is at least as strong, so the kept segments still form trees.
    """
    parent, order = forest.parent, forest.order
    strength, best_child = _strengths(order, parent, _step_lengths(foreground, parent), foreground.value)
    owner = _owners(order, best_child)
    is_top = (parent[order] < 0) | (best_child[np.maximum(parent[order], 0)] != order)
    tops = order[is_top].astype(np.int64)
    tops = tops[strength[tops] >= shortest]
    tops = tops[np.argsort(-strength[tops], kind="stable")]
    number = np.full(len(parent), -1, np.int64)
    number[owner[tops]] = np.arange(len(tops))
    above = parent[tops]
    above_segment = np.where(above >= 0, number[owner[np.maximum(above, 0)]], -1)
    nodes, start = _runs(owner[tops], tops, parent)
    return Segments(nodes, start, above_segment, strength[tops])


def _step_lengths(foreground: Foreground, parent: np.ndarray) -> np.ndarray:
    """(N,) float64 length of the step from each node to its parent, in voxels of x; 1 at roots."""
    lengths, child = np.ones(len(parent)), np.flatnonzero(parent >= 0)
    moves = (foreground.positions(child) - foreground.positions(parent[child])) * foreground.spacing
    lengths[child] = np.sqrt((moves**2).sum(axis=1))
    return lengths
