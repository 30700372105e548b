"""Trace neurons in a volume: APP2 (all-path pruning) with physical lengths, many trees and bridged gaps.

A volume becomes foreground by a threshold; cheapest paths from the roots cover it with trees; the trees are cut into
segments of which only those stay that the image supports and no stronger one explains; radii are measured, broken
pieces joined, and the staircase of voxels smoothed off.

Conventions: volumes are (z, y, x); trees are x y z in voxels of the volume, the first voxel at 0, radii in voxels of
x. Inside this module trees are in voxels of x along all axes. Equal inputs give equal trees, bit for bit.

Source: Xiao and Peng, APP2: automatic tracing of 3D neuron morphology based on hierarchical pruning of a
gray-weighted image distance-tree, Bioinformatics 29:1448 (2013), doi 10.1093/bioinformatics/btt170.
"""

from __future__ import annotations

import numpy as np

from medwave.core.errors import InputError
from medwave.core.tree import SOMA, UNDEFINED, Tree
from medwave.core.tree_paths import resample, unbranched_paths
from medwave.core.tree_walk import components
from medwave.tracing.bridge import bridge_gaps
from medwave.tracing.foreground import Foreground, build_foreground, label_components
from medwave.tracing.grey import GreyVolume, automatic_threshold, to_grey
from medwave.tracing.guard import check_foreground
from medwave.tracing.march import Forest, geodesic_weight, grey_weighted_distance, march
from medwave.tracing.options import TraceOptions
from medwave.tracing.prune import Skeleton, drop_covered, prune_tips, trim_dark
from medwave.tracing.radius import estimate_radii
from medwave.tracing.roots import find_somata, nodes_near, thickest_nodes
from medwave.tracing.segments import split_into_segments
from medwave.tracing.smooth import smooth
from medwave.tracing.tree import branch_table, reroot, scale

SOMA_CONTRAST = 3.0
"""A root found by itself counts as a soma when it is this many times as thick as the middle node of its tree..."""

SOMA_SHARE = 0.5
"""... and has this share of the thickness of the thickest root: a bouton beside a cell is no second cell."""


def trace(volume_zyx: np.ndarray, *, options: TraceOptions | None = None) -> Tree:
    """Trace the fibres of a volume.

    Args:
        volume_zyx: (D, H, W), any type of number; what its values mean is ``options.kind``.
        options: all settings; the defaults suit a bright neuron on a dark background.

    Returns:
        A forest, x y z in voxels of the volume, radii in voxels of x. The first tree holds the first root. Roots at
        somata have the kind SOMA, all other nodes are UNDEFINED.

    Raises:
        GeometryError: the volume has not three axes, or no voxels.
        InputError: unusable values, nothing above the threshold, more foreground than can be traced (the message
            says how much, and a better threshold), a given root far from any foreground, or no branch long enough.
    """
    options = options or TraceOptions()
    grey, level, radius_level = _grey_levels(np.asarray(volume_zyx), options)
    spacing = np.array(options.spacing, dtype=np.float64) / options.spacing[2]
    foreground = build_foreground(grey.grey, level, spacing, dark_rim=options.cross_gaps)
    roots, somata = _roots(foreground, options)
    forest = march(foreground, _weight(foreground, options), roots, connectivity=options.connectivity)
    skeleton = _prune(foreground, forest, radius_level, options)
    tree = _as_tree(foreground, skeleton, radius_level, roots, somata, options)
    if options.bridge_distance > 0:
        limits = {"distance": options.bridge_distance, "angle_degrees": options.bridge_angle_degrees}
        tree = bridge_gaps(tree, grey.grey, spacing=spacing, **limits)
    in_first = components(tree.parent) == components(tree.parent)[0]  # node 0 is the first root, joined or not
    tree = tree.select(in_first if options.trees == "one" else np.argsort(~in_first, kind="stable"))
    tree = smooth(_roots_at_ends(tree))
    if options.resample_step > 0:
        tree = resample(tree, options.resample_step)
    return scale(tree, 1.0 / spacing[::-1], radius_factor=1.0)


def _grey_levels(volume: np.ndarray, options: TraceOptions) -> tuple[GreyVolume, float, float]:
    """The volume on the grey scale, its threshold and the threshold of radii as grey levels; both checked."""
    grey = to_grey(volume, options.kind)
    is_mask = options.kind == "mask" or volume.dtype == bool
    if is_mask:
        level = 0.0
    elif options.threshold is not None:
        level = grey.level(options.threshold)
    elif options.kind == "probability":
        level = grey.level(0.5)
    else:
        level = automatic_threshold(grey.grey)
    if not np.isfinite(level) or level < 0:
        raise InputError(f"the threshold {options.threshold} lies below all values of the volume")
    check_foreground(grey, level, largest_share=options.largest_foreground_share, is_mask=is_mask)
    radius_level = level if options.radius_threshold is None or is_mask else grey.level(options.radius_threshold)
    return grey, level, radius_level


def _roots(foreground: Foreground, options: TraceOptions) -> tuple[np.ndarray, np.ndarray]:
    """All roots, somata first, then by thickness; and which of them are somata for certain."""
    steps, _ = foreground.neighbours(options.connectivity)
    label = label_components(foreground.flat, foreground.lookup, foreground.dark, steps)
    somata = np.empty(0, dtype=np.int64)
    if options.roots is not None:
        somata = nodes_near(foreground, np.array(options.roots))
    if options.soma_radius is not None:
        found = find_somata(foreground, options.soma_radius)
        somata = np.concatenate([somata, found[~np.isin(found, somata)]])
    if options.trees == "one" and options.bridge_distance == 0 and len(somata):
        return somata[:1], somata[:1]
    large = np.bincount(label) >= options.smallest_component_voxels
    large[label[somata]] = False
    thickest = thickest_nodes(foreground, label, connectivity=options.connectivity)
    roots = np.concatenate([somata, thickest[large[label[thickest]]]])
    if len(roots) == 0:
        raise InputError(
            f"no connected piece of foreground has {options.smallest_component_voxels} voxels or more: lower the "
            "smallest component or the threshold, or check that the volume is the right one"
        )
    if options.trees == "one" and options.bridge_distance == 0:
        roots = roots[:1]
    return roots, somata


def _weight(foreground: Foreground, options: TraceOptions) -> np.ndarray:
    """(N,) cost of a step of length 1 at each node."""
    if options.cost == "log_probability":
        return -np.log((foreground.value + 0.5) / 256.0)
    if options.cost == "brightness":
        return geodesic_weight(foreground.value)
    return geodesic_weight(grey_weighted_distance(foreground, connectivity=options.connectivity))


def _prune(foreground: Foreground, forest: Forest, radius_level: float, options: TraceOptions) -> Skeleton:
    segments = split_into_segments(foreground, forest, shortest=options.shortest_segment)
    segments = trim_dark(foreground, segments, drop_dark_segments=options.drop_dark_segments)
    if len(segments.parent) == 0:
        raise InputError(
            f"no branch is {options.shortest_segment:g} voxels of full brightness long: lower the shortest segment or "
            "the threshold, or check that the volume is the right one"
        )
    radius = estimate_radii(foreground, segments.nodes, threshold=radius_level, in_plane=options.radius_in_plane)
    skeleton = drop_covered(foreground, segments, radius, forest.parent, ratio=options.coverage_ratio)
    skeleton = prune_tips(foreground, skeleton, joint=False)
    return prune_tips(foreground, skeleton, joint=True)


def _as_tree(
    foreground: Foreground,
    skeleton: Skeleton,
    radius_level: float,
    roots: np.ndarray,
    somata: np.ndarray,
    options: TraceOptions,
) -> Tree:
    """The skeleton with radii at half of the local brightness, somata marked, trees in the order of their roots.

    In voxels of x.
    """
    half = np.maximum(radius_level, foreground.value[skeleton.nodes] / 2)
    radius = estimate_radii(foreground, skeleton.nodes, threshold=half, in_plane=options.radius_in_plane)
    positions = (foreground.positions(skeleton.nodes) * foreground.spacing)[:, ::-1]
    kind = np.full(len(radius), UNDEFINED)
    tops = np.flatnonzero(skeleton.parent < 0)
    if len(somata):
        is_soma = np.isin(skeleton.nodes[tops], somata)
    else:
        thick = skeleton.radius[tops]
        is_soma = thick >= np.maximum(SOMA_CONTRAST * _middle_radii(skeleton), SOMA_SHARE * thick.max())
    kind[tops[is_soma]] = SOMA
    rank = np.empty(len(foreground.flat), dtype=np.int64)
    rank[roots] = np.arange(len(roots))
    rank = rank[skeleton.nodes[tops]][components(skeleton.parent)]
    if options.trees == "one" and rank.min() > 0:
        raise InputError(
            f"no branch at the root is {options.shortest_segment:g} voxels of full brightness long: give another root, "
            "or lower the shortest segment or the threshold"
        )
    return Tree(positions, radius, skeleton.parent, kind).select(np.argsort(rank, kind="stable"))


def _roots_at_ends(tree: Tree) -> Tree:
    """Move each root that lies inside a branch and is no soma to the end of the thickest of its last branches.

    A root beside a branch, nearer to a fork than its own radius, is inside it too: it goes, and the fork stays.
    """
    paths = unbranched_paths(tree)
    beside = (tree.parent[paths.top] < 0) & (tree.kind[paths.top] != SOMA) & (tree.children_count[paths.top] == 1)
    beside &= (tree.children_count[paths.bottom] > 1) & (paths.length <= tree.radius[paths.top])
    gone = np.zeros(len(tree), dtype=bool)
    gone[paths.top[beside]] = True
    gone[paths.nodes[beside[paths.path_of]]] = True
    gone[paths.bottom[beside]] = False
    tree = tree.select(~gone)

    roots = tree.roots
    astray = (tree.kind[roots] != SOMA) & (tree.children_count[roots] > 1)
    table = branch_table(tree)
    last = np.flatnonzero((tree.children_count[table.bottom] == 0) & astray[table.component])
    last = last[np.lexsort((last, -table.mean_radius[last], table.component[last]))]
    first = np.diff(table.component[last], prepend=-1) != 0
    return reroot(tree, table.bottom[last[first]])


def _middle_radii(skeleton: Skeleton) -> np.ndarray:
    """Median radius of the nodes of each tree, in the order of roots (the upper one of two)."""
    label = components(skeleton.parent)
    by_size = np.lexsort((skeleton.radius, label))
    sizes = np.bincount(label)
    return skeleton.radius[by_size[np.cumsum(sizes) - sizes + sizes // 2]]
