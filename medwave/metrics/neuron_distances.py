"""Distances between two trees of a neuron: ESA, DSA and PDS as Vaa3D defines them, and what they rest on.

Conventions
    Trees are :class:`medwave.core.tree.Tree`, positions x y z. ``spacing_xyz`` multiplies the positions of both first:
    give the voxel size to measure anisotropic images in micrometres; thresholds and steps then are in that unit.
    Distances go from points of one tree to the nearest point on an EDGE of the other, not to its nearest node.
    A tree without length (no tree, no node, one node, isolated nodes, all nodes on one place) has no distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from medwave.core.errors import InputError
from medwave.core.tree import Float64Array, Int64Array, Tree
from medwave.core.tree_paths import densify, node_lengths, resample

_PAIRS_AT_ONCE = 1 << 20  # point-edge pairs measured in one go: 100 MB at most

_SAME = 1e-9  # distances that differ by less are one

MOST_SAMPLES = 10_000_000
"""A tree of more is refused: every million takes about 0.9 GB. The axon of a whole brain has a million micrometres."""


class Nearest(NamedTuple):
    """The nearest points of a tree to some points.

    Attributes:
        distance: ``(M,)``.
        edge: ``(M,)`` child node of the edge on which the nearest point lies.
        share: ``(M,)`` where on that edge: 0 at the child, 1 at the parent.
    """

    distance: Float64Array
    edge: Int64Array
    share: Float64Array


class TreeDistances(NamedTuple):
    """Distances of a trace from its gold tree and back; lower is better, all are ``nan`` for a failed trace.

    Attributes:
        esa: entire structure average: mean distance, averaged over both directions.
        dsa: different structure average: mean over the points at the threshold or beyond, 0 if there are none.
        pds: percentage of different structure: share of such points, 0 to 1, averaged over both directions.
        esa_gold_to_trace: what the trace misses.
        esa_trace_to_gold: what it invents.
        dsa_gold_to_trace: 0 where no point is at the threshold.
        dsa_trace_to_gold: 0 where no point is at the threshold.
        pds_gold_to_trace: share of gold points at the threshold or beyond.
        pds_trace_to_gold: share of trace points at the threshold or beyond.
        max_distance: the smaller of the two directed maxima.
    """

    esa: float
    dsa: float
    pds: float
    esa_gold_to_trace: float
    esa_trace_to_gold: float
    dsa_gold_to_trace: float
    dsa_trace_to_gold: float
    pds_gold_to_trace: float
    pds_trace_to_gold: float
    max_distance: float


class Samples(NamedTuple):
    """Points at equal steps along a tree and how far each lies from another tree.

    Attributes:
        positions: ``(M, 3)``.
        weight: ``(M,)`` length that each stands for; sums to the length of the resampled tree.
        distance: ``(M,)`` to the nearest edge of the other tree; ``inf`` if that has no length.
        edge: ``(M,)`` child node of that edge; -1 if there is none.
    """

    positions: Float64Array
    weight: Float64Array
    distance: Float64Array
    edge: Int64Array


def tree_distances(
    gold: Tree, trace: Tree | None, *, threshold: float = 2.0, spacing_xyz: npt.ArrayLike = 1.0
) -> TreeDistances:
    """ESA, DSA and PDS between two trees (Peng et al. 2010, doi 10.1038/nbt.1612).

    Every edge of length d gives ``floor(d + 1.5)`` equally spaced points; from each the distance to the nearest edge
    of the other tree is taken. Swapping the trees swaps the directed values and leaves the rest.

    Args:
        gold: the true tree.
        trace: the tree to score; None or a tree without length is a failed trace.
        threshold: distance from which a point counts as different; 2 voxels by convention.
        spacing_xyz: factors of x, y, z for both trees.

    Raises:
        InputError: when the gold tree has no length, or a factor is not positive.
    """
    gold, trace = comparable(gold, trace, spacing_xyz)
    if trace is None:
        return TreeDistances(*[np.nan] * len(TreeDistances._fields))
    there = nearest_on_tree(densify(gold), trace).distance
    back = nearest_on_tree(densify(trace), gold).distance
    far = [d[d >= threshold] for d in (there, back)]
    esa = [float(d.mean()) for d in (there, back)]
    dsa = [float(d.mean()) if len(d) else 0.0 for d in far]
    pds = [len(f) / len(d) for f, d in zip(far, (there, back), strict=True)]
    sides = [d for d, f in zip(dsa, far, strict=True) if len(f)]
    return TreeDistances(
        esa=sum(esa) / 2,
        dsa=sum(sides) / len(sides) if sides else 0.0,
        pds=sum(pds) / 2,
        esa_gold_to_trace=esa[0],
        esa_trace_to_gold=esa[1],
        dsa_gold_to_trace=dsa[0],
        dsa_trace_to_gold=dsa[1],
        pds_gold_to_trace=pds[0],
        pds_trace_to_gold=pds[1],
        max_distance=float(min(there.max(), back.max())),
    )


def comparable(
    gold: Tree, trace: Tree | None, spacing_xyz: npt.ArrayLike = 1.0, step: float = 1.0
) -> tuple[Tree, Tree | None]:
    """Both trees in the units of comparison, and None for a trace that counts as failed.

    Args:
        gold, trace, spacing_xyz: as :func:`tree_distances`.
        step: at which the trees are to be sampled; other measures sample them at 1.

    Raises:
        InputError: when the gold tree has no length, a factor is not positive, or a tree would have more than
            :data:`MOST_SAMPLES`.
    """
    factors = np.asarray(spacing_xyz, dtype=np.float64)
    if factors.shape not in ((), (1,), (3,)) or not (np.isfinite(factors).all() and (factors > 0).all()):
        raise InputError(f"the spacing is one positive number or three (x, y, z), got {spacing_xyz!r}")
    if not gold.length > 0:
        raise InputError("the gold tree has no length: nothing can be compared with it; check the file")
    true, made = _scaled(gold, factors), None if trace is None else _scaled(trace, factors)
    made = made if made is not None and made.length > 0 else None
    for name, tree in (("gold tree", true), ("trace", made)):
        if tree is not None and max(tree.length, tree.length / step if step > 0 else 0) > MOST_SAMPLES:
            raise InputError(
                f"the {name} is {tree.length:.3g} long: sampled at each {min(step, 1):g} it has more than "
                f"{MOST_SAMPLES:,} points; give positions in voxels or micrometres (a spacing of 0.001 brings "
                "nanometres to micrometres), or a longer step"
            )
    return true, made


def _scaled(tree: Tree, factors: Float64Array) -> Tree:
    return Tree(tree.positions * factors, tree.radius, tree.parent, tree.kind)


def nearest_on_tree(points: npt.ArrayLike, tree: Tree) -> Nearest:
    """The exact nearest point on the edges of a tree, for many points.

    Edges are cut into pieces no longer than the mean edge. A KD-tree of the piece centres proposes candidates, the
    distance to their edges is exact, and more candidates are asked for until no other piece can be nearer.

    Args:
        points: ``(M, 3)``.
        tree: a tree with at least one edge.

    Raises:
        InputError: when the tree has no edge.
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    edge, start, stop, centres, reach = _pieces(tree)
    found = Nearest(np.zeros(len(places)), np.zeros(len(places), dtype=np.int64), np.zeros(len(places)))
    waiting, candidates = np.arange(len(places)), 8
    while len(waiting):
        candidates = min(candidates, len(edge))
        again = []
        for rows in np.array_split(waiting, -(-len(waiting) * candidates // _PAIRS_AT_ONCE)):
            away, piece = centres.query(places[rows], k=np.arange(1, candidates + 1))
            distance, along = _to_edges(places[rows, None], start[piece], stop[piece])
            best = distance.argmin(axis=1)
            pick = np.arange(len(rows)), best
            found.distance[rows], found.share[rows], found.edge[rows] = distance[pick], along[pick], edge[piece[pick]]
            again.append(rows[(away[:, -1] - reach < distance[pick]) & (candidates < len(edge))])
        waiting, candidates = np.concatenate(again), 4 * candidates
    return found


def edges_as_near(points: Float64Array, tree: Tree, distance: Float64Array) -> tuple[Int64Array, Nearest]:
    """All edges of a tree that are as near to points as the nearest one.

    Args:
        points: ``(M, 3)``.
        tree: a tree with at least one edge.
        distance: ``(M,)`` of the nearest edge.

    Returns:
        The row of the point that each of them is near to, and the nearest points on them.
    """
    edge, start, stop, centres, reach = _pieces(tree)
    balls = centres.query_ball_point(points, distance + reach + _SAME)
    row = np.repeat(np.arange(len(points)), [len(ball) for ball in balls])
    piece = np.concatenate([np.array(ball, dtype=np.int64) for ball in balls])
    away, share = _to_edges(points[row], start[piece], stop[piece])
    _, first = np.unique(np.column_stack([row, edge[piece]]), axis=0, return_index=True)  # a long edge is many pieces
    first = first[away[first] <= distance[row[first]] + _SAME]
    return row[first], Nearest(away[first], edge[piece[first]], share[first])


def _pieces(tree: Tree) -> tuple[Int64Array, Float64Array, Float64Array, KDTree, float]:
    """Edges cut into pieces: the edge of each and its ends, the centres, and how far from these a piece reaches."""
    child = tree.edges
    if not len(child):
        raise InputError("a tree without edges has no nearest point")
    length = tree.edge_lengths[child]
    count = np.maximum(1, np.ceil(length / (length.mean() or 1.0))).astype(np.int64)
    edge = np.repeat(child, count)
    share = (np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / np.repeat(count, count)
    start, stop = tree.positions[edge], tree.positions[tree.parent[edge]]
    centres = KDTree(start + share[:, None] * (stop - start))
    return edge, start, stop, centres, float((length / count).max() / 2)


def _to_edges(points: Float64Array, start: Float64Array, stop: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Distances of points to edges, and the share of the edge (0 at the start) where the nearest point lies."""
    run = stop - start
    square = (run**2).sum(axis=-1)
    along = ((points - start) * run).sum(axis=-1)
    share = np.clip(np.divide(along, square, out=np.zeros_like(along), where=square > 0), 0.0, 1.0)
    return np.linalg.norm(points - start - share[..., None] * run, axis=-1), share


def sample_distances(tree: Tree, other: Tree | None, *, step: float = 1.0) -> Samples:
    """Sample a tree at equal steps and measure how far each sample lies from another tree.

    Args:
        tree: the tree to sample; isolated nodes are left out.
        other: the tree to measure from; None if there is none.
        step: largest distance of neighbours along the tree.
    """
    fine = resample(tree, step)
    linked = (fine.parent >= 0) | (fine.children_count > 0)
    positions, weight = fine.positions[linked], node_lengths(fine)[linked]
    if other is None or not other.length > 0:
        return Samples(positions, weight, np.full(len(weight), np.inf), np.full(len(weight), -1))
    near = nearest_on_tree(positions, other)
    return Samples(positions, weight, near.distance, near.edge)
