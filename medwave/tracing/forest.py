"""From the trees of pieces to one forest: what compares trees with each other.

Trees are ranked: those of given roots first, then those of somata by size, then the others by thickness. Roots that are
thick enough are somata. Gaps between trees are bridged, by reading the volume where they are; roots move to ends, and
the staircase of voxels is smoothed off.
"""

from __future__ import annotations

import numpy as np

from medwave.core.errors import InputError
from medwave.core.tree import SOMA, UNDEFINED, Tree
from medwave.core.tree_paths import resample, unbranched_paths
from medwave.core.tree_walk import components
from medwave.tracing.bridge import bridge_gaps
from medwave.tracing.foreground import unpack
from medwave.tracing.options import TraceOptions
from medwave.tracing.pieces import THICKEST, PieceTrees
from medwave.tracing.smooth import smooth
from medwave.tracing.tree import branch_table, reroot, scale
from medwave.tracing.voxels import GreyVoxels

SOMA_CONTRAST = 3.0
"""A root found by itself counts as a soma when it is this many times as thick as the middle node of its tree..."""

SOMA_SHARE = 0.5
"""... and has this share of the thickness of the thickest root: a bouton beside a cell is no second cell."""


def assemble(pieces: PieceTrees, grey: GreyVoxels, spacing: np.ndarray, options: TraceOptions) -> Tree:
    """The forest of all pieces of a volume, x y z in voxels of it, radii in voxels of x.

    Args:
        grey: the volume.
        spacing: (3,) voxel size along z, y, x in voxels of x.

    Raises:
        InputError: when no piece is large enough, or no branch long enough.
    """
    _check(pieces, options)
    tree = _ranked(pieces, spacing, options)
    if options.bridge_distance > 0:
        limits = {"distance": options.bridge_distance, "angle_degrees": options.bridge_angle_degrees}
        tree = bridge_gaps(tree, grey, spacing=spacing, **limits)
    in_first = components(tree.parent) == components(tree.parent)[0]  # node 0 is the first root, joined or not
    tree = tree.select(in_first if options.trees == "one" else np.argsort(~in_first, kind="stable"))
    tree = smooth(_roots_at_ends(tree))
    if options.resample_step > 0:
        tree = resample(tree, options.resample_step)
    return scale(tree, 1.0 / spacing[::-1], radius_factor=1.0)


def _check(pieces: PieceTrees, options: TraceOptions) -> None:
    if not len(pieces.root):
        raise InputError(
            f"no connected piece of foreground has {options.smallest_component_voxels} voxels or more: lower the "
            "smallest component or the threshold, or check that the volume is the right one"
        )
    if not len(pieces.place):
        raise InputError(
            f"no branch is {options.shortest_segment:g} voxels of full brightness long: lower the shortest segment or "
            "the threshold, or check that the volume is the right one"
        )


def _ranked(pieces: PieceTrees, spacing: np.ndarray, options: TraceOptions) -> Tree:
    """All trees in the order of their roots, somata marked; in voxels of x along all axes."""
    order = np.lexsort((pieces.root, -pieces.depth, pieces.root_kind))
    if options.trees == "one" and pieces.top[order[0]] < 0:
        raise InputError(
            f"no branch at the root is {options.shortest_segment:g} voxels of full brightness long: give another root, "
            "or lower the shortest segment or the threshold"
        )
    order = order[pieces.top[order] >= 0]
    top, thick = pieces.top[order], pieces.thickness[order]
    if (pieces.root_kind != THICKEST).any():
        is_soma = pieces.root_kind[order] != THICKEST
    else:
        is_soma = thick >= np.maximum(SOMA_CONTRAST * pieces.middle[order], SOMA_SHARE * thick.max())
    kind = np.full(len(pieces.place), UNDEFINED)
    kind[top[is_soma]] = SOMA
    label = components(pieces.parent)
    rank = np.empty(len(order), dtype=np.int64)
    rank[label[top]] = np.arange(len(order))
    positions = (unpack(pieces.place) * spacing)[:, ::-1]
    return Tree(positions, pieces.radius, pieces.parent, kind).select(np.argsort(rank[label], kind="stable"))


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
