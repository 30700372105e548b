"""Smooth the voxel staircase off a tree (APP2, step 7)."""

from __future__ import annotations

import numpy as np

from medwave.core.tree import Tree
from medwave.core.tree_paths import unbranched_paths

WINDOW = {-2: 1.0, -1: 2.0, 0: 3.0, 1: 2.0, 2: 1.0}


def smooth(tree: Tree) -> Tree:
    """Average positions and radii along each unbranched path with the weights 1, 2, 3, 2, 1.

    Roots, forks and tips stay; near them the window loses the part that lies beyond.
    """
    paths = unbranched_paths(tree)
    sizes = np.diff(paths.starts) + 1
    first = np.cumsum(sizes) - sizes
    line = np.empty(int(sizes.sum()), dtype=np.int64)  # each path with its top node before it
    is_top = np.zeros(len(line), dtype=bool)
    is_top[first] = True
    line[is_top], line[~is_top] = paths.top, paths.nodes
    begin, end = np.repeat(first, sizes), np.repeat(first + sizes, sizes)
    values = np.column_stack([tree.positions, tree.radius])[line]
    total, weight = np.zeros_like(values), np.zeros(len(line))
    place = np.arange(len(line))
    for shift, share in WINDOW.items():
        there = np.flatnonzero((place + shift >= begin) & (place + shift < end))
        total[there] += share * values[there + shift]
        weight[there] += share
    inner = np.flatnonzero((place > begin) & (place < end - 1))
    result = np.column_stack([tree.positions, tree.radius])
    result[line[inner]] = total[inner] / weight[inner, None]
    return Tree(result[:, :3], result[:, 3], tree.parent, tree.kind, tree.extra, tree.extra_names)
