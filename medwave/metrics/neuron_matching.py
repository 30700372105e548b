"""How much of a neuron was traced, and how much of a trace is neuron: precision, recall and F1 under four rules.

Conventions
    As in :mod:`medwave.metrics.neuron_distances`. Recall is measured on the gold tree, precision on the trace. A
    failed trace (None, or without length) has precision, recall and F1 of 0 under every rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow
from scipy.spatial import KDTree

from medwave.core.errors import InputError
from medwave.core.tree import Float64Array, Tree
from medwave.core.tree_paths import resample
from medwave.core.tree_walk import common_ancestors, components, sum_to_root
from medwave.metrics.neuron_distances import (
    Nearest,
    Samples,
    comparable,
    edges_as_near,
    nearest_on_tree,
    sample_distances,
)

MOST_PAIRS = 100_000_000
"""Samples that may be matched one to one; more are refused: every million takes about 0.1 GB."""


class Score(NamedTuple):
    """Precision, recall and their harmonic mean, each 0 to 1, higher is better."""

    precision: float
    recall: float
    f1: float


class ToleranceScore(NamedTuple):
    """Scores at one tolerance, with every sample counting the same, and by the length that it stands for."""

    tolerance: float
    by_samples: Score
    by_length: Score


def score_of(precision: float, recall: float) -> Score:
    """Add the F1, which is 0 where both are 0."""
    both = precision + recall
    return Score(float(precision), float(recall), float(2 * precision * recall / both) if both > 0 else 0.0)


NOTHING = score_of(0.0, 0.0)


def tolerance_curve(
    gold: Tree,
    trace: Tree | None,
    *,
    tolerances: Iterable[float] = range(1, 11),
    step: float = 1.0,
    spacing_xyz: npt.ArrayLike = 1.0,
) -> list[ToleranceScore]:
    """Scores at several tolerances: a sample is found when it lies within the tolerance of the other tree.

    Both trees are sampled at equal steps; distances are to the edges of the other. Doubled fibres are not punished:
    :func:`one_to_one_score` does that.

    Args:
        gold: the true tree.
        trace: the tree to score.
        tolerances: distances, in voxels or the unit of ``spacing_xyz``.
        step: sampling step, same unit.
        spacing_xyz: factors of x, y, z for both trees.

    Raises:
        InputError: when the gold tree has no length, or a factor, the step or a tolerance is out of range.
    """
    gold, trace = comparable(gold, trace, spacing_xyz, step)
    limits = [_tolerance(value) for value in tolerances]
    if trace is None:
        return [ToleranceScore(limit, NOTHING, NOTHING) for limit in limits]
    there, back = sample_distances(gold, trace, step=step), sample_distances(trace, gold, step=step)
    return [curve_point(there, back, limit) for limit in limits]


def tolerance_score(
    gold: Tree, trace: Tree | None, *, tolerance: float = 2.0, step: float = 1.0, spacing_xyz: npt.ArrayLike = 1.0
) -> ToleranceScore:
    """One point of :func:`tolerance_curve`; F2 is ``by_samples.f1`` at a tolerance of 2 voxels."""
    return tolerance_curve(gold, trace, tolerances=[tolerance], step=step, spacing_xyz=spacing_xyz)[0]


def curve_point(gold_samples: Samples, trace_samples: Samples, tolerance: float) -> ToleranceScore:
    """Scores at one tolerance from samples that are measured already."""
    near = [samples.distance <= tolerance for samples in (trace_samples, gold_samples)]
    weights = trace_samples.weight, gold_samples.weight
    by_length = [float(weight[n].sum() / weight.sum()) for weight, n in zip(weights, near, strict=True)]
    return ToleranceScore(
        float(tolerance), score_of(float(near[0].mean()), float(near[1].mean())), score_of(by_length[0], by_length[1])
    )


def one_to_one_score(
    gold: Tree, trace: Tree | None, *, tolerance: float = 2.0, step: float = 1.0, spacing_xyz: npt.ArrayLike = 1.0
) -> Score:
    """Precision and recall when every sample may be matched once only: a fibre traced twice is half wrong.

    The largest one-to-one matching between the samples of both trees is found (as a flow: Dinic, Soviet Math. Dokl.
    11:1277-1280, 1970) among pairs no further apart than ``sqrt(tolerance^2 + (step / 2)^2)``: samples of parallel
    fibres may be out of step by half a step.

    Args: as :func:`tolerance_curve`.

    Raises:
        InputError: as there, or when more than :data:`MOST_PAIRS` are that near, as in a tree that fills a volume.
    """
    gold, trace = comparable(gold, trace, spacing_xyz, step)
    limit = float(np.hypot(_tolerance(tolerance), step / 2)) * (1 + 1e-9)
    if trace is None:
        return NOTHING
    sides = [KDTree(sample_distances(tree, None, step=step).positions) for tree in (gold, trace)]
    if (count := int(sides[0].count_neighbors(sides[1], limit))) > MOST_PAIRS:
        raise InputError(
            f"{count:,} pairs of samples of the gold tree and the trace lie within {tolerance:g} of each other, more "
            f"than {MOST_PAIRS:,}: one of them fills a volume; give a smaller tolerance, or a longer step"
        )
    pairs = sides[0].sparse_distance_matrix(sides[1], limit, output_type="ndarray")
    golds, traces = (side.n for side in sides)
    matched = _most_matched(pairs["i"], pairs["j"], golds, traces)
    return score_of(matched / traces, matched / golds)


def _most_matched(i: npt.NDArray[np.integer], j: npt.NDArray[np.integer], rows: int, columns: int) -> int:
    """Size of the largest matching of ``rows`` and ``columns`` that may be paired as ``(i, j)``.

    The flow through edges of capacity one, since SciPy's own matching takes exponential time where samples of one tree
    lie close to many of the other (its issue 26147).
    """
    source, sink = rows + columns, rows + columns + 1
    start = np.concatenate([np.full(rows, source), i, rows + np.arange(columns)])
    stop = np.concatenate([np.arange(rows), rows + j, np.full(columns, sink)])
    network = coo_array((np.ones(len(start), dtype=np.int32), (start, stop)), shape=(sink + 1, sink + 1))
    return int(maximum_flow(network.tocsr(), source, sink).flow_value)


def path_score(
    gold: Tree,
    trace: Tree | None,
    *,
    tolerance: float = 2.0,
    length_ratio: float = 0.2,
    step: float | None = None,
    spacing_xyz: npt.ArrayLike = 1.0,
) -> Score:
    """Precision and recall by length of the edges whose ends are connected in the other tree, too.

    An edge counts when both its ends lie within the tolerance of the other tree, and the way between their nearest
    points along that tree differs from the edge's length by ``length_ratio`` of it at most; where components of the
    other tree touch, there are several nearest points, and one way is enough. A fibre that is broken or
    wrongly connected loses the edges there. The rule follows PyNeval's "length" measure (Zhang et al. 2021,
    doi 10.3389/fninf.2021.767936), re-made from its description.

    Args:
        gold: the true tree.
        trace: the tree to score.
        tolerance: largest distance of an end from the other tree.
        length_ratio: largest relative difference of the two lengths.
        step: cut unbranched paths into equal parts of this length at most first; None takes the edges as they are.
        spacing_xyz: factors of x, y, z for both trees.

    Raises:
        InputError: as :func:`tolerance_curve`, or when the ratio is negative.
    """
    gold, trace = comparable(gold, trace, spacing_xyz)
    if not length_ratio >= 0:
        raise InputError(f"the length ratio is 0 or more, got {length_ratio}")
    limit = _tolerance(tolerance)
    if trace is None:
        return NOTHING
    return score_of(
        *(
            _connected_share(tree if step is None else resample(tree, step), other, limit, length_ratio)
            for tree, other in ((trace, gold), (gold, trace))
        )
    )


def _connected_share(tree: Tree, other: Tree, tolerance: float, length_ratio: float) -> float:
    near = nearest_on_tree(tree.positions, other)
    to_root = sum_to_root(other.parent, other.edge_lengths)
    depth = to_root[near.edge] - near.share * other.edge_lengths[near.edge]
    child = tree.edges
    above = tree.parent[child]
    length = tree.edge_lengths[child]
    way = _ways(other, near.edge[child], near.edge[above], depth[child], depth[above], to_root)
    close = (near.distance[child] <= tolerance) & (near.distance[above] <= tolerance)
    good = close & (np.abs(way - length) <= length_ratio * length + 1e-9)
    if len(other.roots) > 1:
        left = np.flatnonzero(close & ~good)
        rows, ways = _further_ways(tree, other, near, child[left], to_root)
        good[left[rows[np.abs(ways - length[left[rows]]) <= length_ratio * length[left[rows]] + 1e-9]]] = True
    return float(length[good].sum() / length.sum())


def _further_ways(
    tree: Tree, other: Tree, near: Nearest, child: npt.NDArray[np.int64], to_root: Float64Array
) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Ways along each component of the other tree that is as near as any to both ends of edges: rows and lengths."""
    if not len(child):
        return np.zeros(0, np.int64), np.zeros(0)
    label, ends = components(other.parent), []
    for node in (child, tree.parent[child]):
        row, found = edges_as_near(tree.positions[node], other, near.distance[node])
        depth = to_root[found.edge] - found.share * other.edge_lengths[found.edge]
        key = row * len(other) + label[found.edge]
        order = np.argsort(key, kind="stable")
        ends.append((key[order], found.edge[order], depth[order]))
    (key, edge, depth), (keys, edges, depths) = ends
    first, stop = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
    a = np.repeat(np.arange(len(key)), stop - first)
    b = np.arange(len(a)) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
    return key[a] // len(other), _ways(other, edge[a], edges[b], depth[a], depths[b], to_root)


def _ways(
    tree: Tree,
    edge_a: npt.NDArray[np.int64],
    edge_b: npt.NDArray[np.int64],
    depth_a: Float64Array,
    depth_b: Float64Array,
    to_root: Float64Array,
) -> Float64Array:
    """Length of the way along a tree between points on edges at given distances to the root; inf if unconnected."""
    meeting = common_ancestors(tree.parent, edge_a, edge_b)
    # where one point lies above the other, it is the meeting point itself
    turn = np.minimum(to_root[meeting], np.minimum(depth_a, depth_b))
    return np.where(meeting >= 0, depth_a + depth_b - 2 * turn, np.inf)


def _tolerance(value: float) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"a tolerance is a distance of 0 or more, got {value}")
    return float(value)
