"""The trees of connected pieces of foreground, each piece by itself.

What a piece becomes depends on its own voxels, on the options and on the size of the volume alone: costs are scaled by
its own extremes, and balls and radii see no other piece. So pieces may be traced in one go, one by one, or in any
groups, on as many machines: the trees are the same, bit for bit. What compares pieces with each other comes afterwards
(:mod:`medwave.tracing.forest`).

Conventions: positions are packed as in :mod:`medwave.tracing.foreground`; radii and depths are in voxels of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from medwave.core.tree_walk import components
from medwave.tracing.foreground import Foreground, selected
from medwave.tracing.march import Forest, geodesic_weight, grey_weighted_distance, march
from medwave.tracing.options import TraceOptions
from medwave.tracing.prune import Skeleton, drop_covered, prune_tips, trim_dark
from medwave.tracing.radius import estimate_radii
from medwave.tracing.roots import find_somata, thickest_nodes
from medwave.tracing.segments import split_into_segments

GIVEN, FOUND, THICKEST = 0, 1, 2
"""Kinds of roots: asked for, a blob that a soma fits into, the thickest place of a piece without either."""


@dataclass(frozen=True)
class PieceTrees:
    """Trees of some pieces.

    Attributes:
        place: (n,) int64 positions of nodes.
        radius: (n,) float64.
        parent: (n,) int64 index of the node before; -1 at roots.
        root: (R,) int64 positions of all roots, also of those without a branch.
        root_kind: (R,) int8 GIVEN, FOUND or THICKEST.
        depth: (R,) float64, of roots of one kind the largest comes first.
        top: (R,) int64 index of the node at the root, -1 where it has no branch.
        thickness: (R,) float64 radius at the root before it was measured at half the brightness, 0 without a branch.
        middle: (R,) float64 the middle one of such radii in the tree, 0 without a branch.
    """

    place: np.ndarray
    radius: np.ndarray
    parent: np.ndarray
    root: np.ndarray
    root_kind: np.ndarray
    depth: np.ndarray
    top: np.ndarray
    thickness: np.ndarray
    middle: np.ndarray


def merge_pieces(parts: Sequence[PieceTrees]) -> PieceTrees:
    """The trees of several groups of pieces as one."""
    columns = {each.name: [getattr(part, each.name) for part in parts] for each in fields(PieceTrees)}
    shift = np.cumsum([0] + [len(part.place) for part in parts])
    for name in ("parent", "top"):
        moved = [np.where(column >= 0, column + s, -1) for column, s in zip(columns[name], shift, strict=False)]
        columns[name] = moved
    return PieceTrees(**{name: np.concatenate(column) for name, column in columns.items()})


def large_pieces(foreground: Foreground, options: TraceOptions, given: np.ndarray) -> Foreground:
    """The foreground without its small pieces; one that holds a given root stays.

    Args:
        given: (n,) positions of roots, in these pieces or not.
    """
    stays = foreground.voxels_of_pieces() >= options.smallest_component_voxels
    stays[foreground.piece[np.searchsorted(foreground.place, given[np.isin(given, foreground.place)])]] = True
    return selected(foreground, stays[foreground.piece], connectivity=options.connectivity)


def trace_pieces(
    foreground: Foreground, given: np.ndarray, radius_level: float, options: TraceOptions
) -> PieceTrees:  # fmt: skip
    """Trace all pieces of a foreground.

    Args:
        given: (n,) positions of all roots that were asked for, the first one first, in these pieces or not.
        radius_level: grey level at or below which voxels are outside a fibre, for choosing between branches.
    """
    roots, kind, depth = _roots(foreground, given, options)
    forest = march(foreground, _weight(foreground, options), roots, connectivity=options.connectivity)
    skeleton = _pruned(foreground, forest, radius_level, options)
    half = np.maximum(radius_level, foreground.value[skeleton.nodes] / 2)
    radius = estimate_radii(foreground, skeleton.nodes, threshold=half, in_plane=options.radius_in_plane)
    tops = np.flatnonzero(skeleton.parent < 0)
    tree_of = np.full(len(foreground), -1, np.int64)
    tree_of[skeleton.nodes[tops]] = np.arange(len(tops))
    tree = tree_of[roots]
    there = tree >= 0
    top, thickness, middle = np.full(len(roots), -1, np.int64), np.zeros(len(roots)), np.zeros(len(roots))
    top[there] = tops[tree[there]]
    thickness[there] = skeleton.radius[top[there]]
    middle[there] = _middle_radii(skeleton)[tree[there]]
    return PieceTrees(
        foreground.place[skeleton.nodes], radius, skeleton.parent, foreground.place[roots], kind, depth, top, thickness,
        middle,
    )  # fmt: skip


def _roots(
    foreground: Foreground, given: np.ndarray, options: TraceOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots with their kinds and depths: those given and found, and the thickest place of each piece without either."""
    here = np.flatnonzero(np.isin(given, foreground.place))
    asked = np.searchsorted(foreground.place, given[here])
    found, found_depth = np.empty(0, np.int64), np.empty(0)
    if options.soma_radius is not None:
        found, found_depth = find_somata(foreground, options.soma_radius)
        new = ~np.isin(found, asked)
        found, found_depth = found[new], found_depth[new]
    thickest, depth = thickest_nodes(foreground, connectivity=options.connectivity)
    alone = ~np.isin(foreground.piece[thickest], foreground.piece[np.concatenate([asked, found])])
    parts = (asked, found, thickest[alone])
    kind = np.repeat(np.array([GIVEN, FOUND, THICKEST], np.int8), [len(part) for part in parts])
    return np.concatenate(parts), kind, np.concatenate([-here.astype(float), found_depth, depth[alone]])


def _weight(foreground: Foreground, options: TraceOptions) -> np.ndarray:
    """(N,) cost of a step of length 1 at each node."""
    if options.cost == "log_probability":
        return -np.log((foreground.value + 0.5) / 256.0)
    if options.cost == "brightness":
        return geodesic_weight(foreground.value, foreground.piece)
    depth = grey_weighted_distance(foreground, connectivity=options.connectivity)
    return geodesic_weight(depth, foreground.piece)


def _pruned(foreground: Foreground, forest: Forest, radius_level: float, options: TraceOptions) -> Skeleton:
    segments = split_into_segments(foreground, forest, shortest=options.shortest_segment)
    segments = trim_dark(foreground, segments, drop_dark_segments=options.drop_dark_segments)
    if not len(segments.parent):
        return Skeleton(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    radius = estimate_radii(foreground, segments.nodes, threshold=radius_level, in_plane=options.radius_in_plane)
    skeleton = drop_covered(foreground, segments, radius, forest.parent, ratio=options.coverage_ratio)
    skeleton = prune_tips(foreground, skeleton, joint=False)
    return prune_tips(foreground, skeleton, joint=True)


def _middle_radii(skeleton: Skeleton) -> np.ndarray:
    """Median radius of the nodes of each tree, in the order of roots (the upper one of two)."""
    label = components(skeleton.parent)
    by_size = np.lexsort((skeleton.radius, label))
    sizes = np.bincount(label)
    return skeleton.radius[by_size[np.cumsum(sizes) - sizes + sizes // 2]]
