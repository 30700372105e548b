"""A simplified DIADEM score: are the forks and tips of the gold tree there, and connected as they should be?

Conventions
    As in :mod:`medwave.metrics.neuron_distances`. This is NOT the program of the DIADEM challenge: it follows the
    published idea (Gillette, Brown & Ascoli 2011, doi 10.1007/s12021-011-9117-y) by the rules below, so its values
    are to be compared with each other only.

Rules
    1. Compared are junctions (three neighbours or more) and ends (one neighbour), without the roots.
    2. Lengths are measured on both trees resampled to ``path_step``, so that a jagged and a smooth trace of one fibre
       are equally long.
    3. The trace is hung up at its node nearest to the gold root, however far; so is the nearest of its other components
       for every further root of the gold tree, at a root of its own where several nodes are as near. Roots correspond
       to each other.
    4. Gold nodes are visited from the root outwards. One is matched when an unmatched node of the trace lies within
       ``xy_tolerance`` in the plane and ``z_tolerance`` in depth, and when, for some matched gold node (or root)
       above it, the partner of that lies above the candidate with a way between of the same length: in xy and in z
       separately, the difference is at most ``path_error`` of the gold length, or the tolerance if that is more. The
       nearest candidate and the nearest matched node above are tried first, so that one wrong or missing fork does
       not fail all that lies beyond it.
    5. A gold node weighs the number of ends at or below it. An unmatched node of the trace weighs the number of
       unmatched ends at or below it.
    6. Score = weight of matched gold nodes / (weight of all gold nodes + weight of unmatched trace nodes).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from medwave.core.errors import InputError
from medwave.core.tree import Float64Array, Int64Array, Tree
from medwave.core.tree_paths import resample
from medwave.core.tree_walk import components, preorder, sum_below, sum_to_root
from medwave.metrics.neuron_distances import comparable

_ROOT_STEP = 1.0  # both get nodes at least this dense first, so that one of the trace lies near the gold root


class Diadem(NamedTuple):
    """The score, 0 to 1, higher is better, and the weights it is made of."""

    score: float
    matched_weight: float
    gold_weight: float
    excess_weight: float


class _Side(NamedTuple):
    """One tree made ready: its walk, its key nodes from the roots outwards, lengths to the root in xy and z."""

    tree: Tree
    place: Int64Array
    size: Int64Array
    keys: Int64Array
    is_end: npt.NDArray[np.bool_]
    to_root: Float64Array
    below: Float64Array


def simplified_diadem(
    gold: Tree,
    trace: Tree | None,
    *,
    xy_tolerance: float = 2.0,
    z_tolerance: float = 2.0,
    path_error: float = 0.05,
    path_step: float = 10.0,
    spacing_xyz: npt.ArrayLike = 1.0,
) -> Diadem:
    """Share of the gold tree's branching that the trace has, by the rules of this module.

    Args:
        gold: the true tree; its roots matter.
        trace: the tree to score; a failed one (None, without length) scores 0.
        xy_tolerance: largest distance in the plane of two nodes that match.
        z_tolerance: largest distance in depth.
        path_error: largest relative difference of two path lengths.
        path_step: sampling step at which lengths are measured.
        spacing_xyz: factors of x, y, z for both trees.

    Raises:
        InputError: when the gold tree has no length, or a factor, step or tolerance is out of range.
    """
    gold, trace = comparable(gold, trace, spacing_xyz)
    limits = np.array([xy_tolerance, z_tolerance, path_error])
    if not (np.isfinite(limits).all() and (limits >= 0).all()):
        raise InputError(f"tolerances and the path error are numbers of 0 or more, got {limits.tolist()}")
    true = _side(resample(resample(gold, _ROOT_STEP), path_step))
    gold_weight = float(true.below[true.keys].sum())
    if trace is None:
        return Diadem(0.0, 0.0, gold_weight, 0.0)
    hung, pairs = _hung_like(true.tree, resample(trace, _ROOT_STEP))
    made = _side(resample(hung, path_step))
    renumbered = dict(zip(hung.roots.tolist(), made.tree.roots.tolist(), strict=True))  # resampling keeps their order
    roots = {root: renumbered[node] for root, node in pairs.items()}
    partner = _partners(true, made, roots, limits)
    matched = float(sum(true.below[node] for node in true.keys if partner[node] >= 0))
    lost = np.setdiff1d(made.keys, partner)
    lost_ends = np.zeros(len(made.tree))
    lost_ends[lost[made.is_end[lost]]] = 1
    excess = float(sum_below(preorder(made.tree.parent), lost_ends)[lost].sum())
    return Diadem(matched / (gold_weight + excess), matched, gold_weight, excess)


def _side(tree: Tree) -> _Side:
    walk = preorder(tree.parent)
    place = np.argsort(walk.order)
    neighbours = tree.children_count + (tree.parent >= 0)
    key = (tree.parent >= 0) & (neighbours != 2)
    run = np.zeros((len(tree), 3))
    run[tree.edges] = tree.positions[tree.edges] - tree.positions[tree.parent[tree.edges]]
    lengths = np.hypot(run[:, 0], run[:, 1]), np.abs(run[:, 2])
    is_end = (neighbours == 1) & (tree.parent >= 0)
    return _Side(
        tree,
        place,
        walk.size,
        walk.order[key[walk.order]],
        is_end,
        np.column_stack([sum_to_root(tree.parent, length) for length in lengths]),
        sum_below(walk, is_end),
    )


def _hung_like(gold: Tree, trace: Tree) -> tuple[Tree, dict[int, int]]:
    """Turn the trace so that its roots lie nearest to those of the gold tree; also which root belongs to which."""
    label = components(trace.parent)
    parent = trace.parent.copy()
    pairs: dict[int, int] = {}
    free = np.ones(len(trace), dtype=np.bool_)
    for root in gold.roots:
        if not free.any():
            break
        away = np.where(free, np.linalg.norm(trace.positions - gold.positions[root], axis=1), np.inf)
        node = int(away.argmin())
        if len(gold.roots) > 1:  # components that touch there are told apart by their roots
            node = min(np.flatnonzero(away == away[node]).tolist(), key=lambda near: trace.parent[near] >= 0)
        free &= label != label[node]
        pairs[int(root)] = node
        above, current = -1, node
        while current >= 0:  # turn the parents round on the way to the old root
            parent[current], above, current = above, current, int(parent[current])
    return Tree(trace.positions, trace.radius, parent, trace.kind), pairs


def _partners(true: _Side, made: _Side, roots: dict[int, int], limits: Float64Array) -> Int64Array:
    """The node of the trace that each gold node is matched with, -1 without."""
    partner = np.full(len(true.tree), -1, dtype=np.int64)
    for root, node in roots.items():
        partner[root] = node
    if not len(made.keys):
        return partner
    free = np.zeros(len(made.tree), dtype=np.bool_)
    free[made.keys] = True
    spots = KDTree(made.tree.positions[made.keys])
    reach = float(np.hypot(limits[0], limits[1])) * (1 + 1e-9)
    for node in true.keys:
        ancestors = _matched_above(true.tree, int(node), partner)
        here = true.tree.positions[node]
        near = made.keys[spots.query_ball_point(here, reach)]
        apart = made.tree.positions[near] - here
        fits = free[near] & (np.hypot(apart[:, 0], apart[:, 1]) <= limits[0]) & (np.abs(apart[:, 2]) <= limits[1])
        order = np.lexsort((near, np.linalg.norm(apart, axis=1)))
        for candidate in near[order][fits[order]]:
            if any(_same_way(true, made, (int(node), a), (int(candidate), int(partner[a])), limits) for a in ancestors):
                partner[node], free[candidate] = candidate, False
                break
    return partner


def _matched_above(tree: Tree, node: int, partner: Int64Array) -> list[int]:
    found = []
    while (node := int(tree.parent[node])) >= 0:
        if partner[node] >= 0:
            found.append(node)
    return found


def _same_way(
    true: _Side, made: _Side, gold_ends: tuple[int, int], trace_ends: tuple[int, int], limits: Float64Array
) -> bool:
    node, above = trace_ends
    if not made.place[above] < made.place[node] < made.place[above] + made.size[above]:
        return False
    gold_way = true.to_root[gold_ends[0]] - true.to_root[gold_ends[1]]
    trace_way = made.to_root[node] - made.to_root[above]
    return bool((np.abs(trace_way - gold_way) <= np.maximum(limits[2] * gold_way, limits[:2]) + 1e-9).all())
