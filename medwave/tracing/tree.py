"""Operations on traced trees: order, roots, pieces, joins, boxes, flips, and a table of branches.

Conventions
    As in :mod:`medwave.core.tree`: positions are x y z, an image is ``(D, H, W)`` = (z, y, x), voxel centres lie on
    whole numbers. No function changes its input; all are deterministic. Numbering follows the order of nodes, so
    whatever orders a tree renumbers it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.spatial import KDTree

from medwave.core.errors import InputError
from medwave.core.tree import SOMA, Float64Array, Int64Array, Tree, empty_tree
from medwave.core.tree_paths import unbranched_paths
from medwave.core.tree_walk import components, preorder, sum_to_root

# --- order and roots -------------------------------------------------------------------------------------------------


def sort_tree(tree: Tree, *, root: int | None = None) -> Tree:
    """Depth-first order, parents before children, every component hanging on its best root.

    The root of a component is the given node if it lies there, else its present root if that is a soma, else its
    first soma node, else its present root. The component of the given root comes first, then those with a soma.

    Args:
        tree: any tree.
        root: index of a node.

    Raises:
        InputError: when there is no such node.
    """
    best = _preferred_roots(tree, root)
    hung = reroot(tree, best)
    first = np.zeros(len(best), dtype=np.int64) if root is None else np.where(best == root, 0, 1)
    rank = np.lexsort((hung.roots, tree.kind[hung.roots] != SOMA, first[np.argsort(best)]))
    walk = preorder(hung.parent)
    start = np.concatenate([[0], np.cumsum(walk.size[hung.roots])])
    blocks = [walk.order[start[n] : start[n + 1]] for n in rank]
    return hung.select(np.concatenate(blocks) if blocks else [])


def reroot(tree: Tree, nodes: int | npt.ArrayLike) -> Tree:
    """Turn parents round so that the given nodes are roots; all other components stay as they are.

    Args:
        tree: any tree.
        nodes: indices of new roots, at most one per component.

    Raises:
        InputError: when a node does not exist, or two lie in one component.
    """
    chosen = np.atleast_1d(np.asarray(nodes, dtype=np.int64))
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(tree)):
        raise InputError(f"the nodes of this tree are 0 to {len(tree) - 1}; {chosen.tolist()} cannot all be roots")
    label = components(tree.parent)
    if len(np.unique(label[chosen])) < len(chosen):
        raise InputError("a component has one root; two of the given nodes lie in one component")
    roots = tree.roots.copy()
    roots[label[chosen]] = chosen
    return _with_parents(tree, _hang(len(tree), tree.edges, tree.parent[tree.edges], roots))


def _preferred_roots(tree: Tree, root: int | None) -> Int64Array:
    best = tree.roots.copy()
    label = components(tree.parent)
    somas = np.flatnonzero(tree.kind == SOMA)
    with_soma, first = np.unique(label[somas], return_index=True)
    best[with_soma] = np.where(tree.kind[best[with_soma]] == SOMA, best[with_soma], somas[first])
    if root is not None:
        if not 0 <= root < len(tree):
            raise InputError(f"the nodes of this tree are 0 to {len(tree) - 1}; {root} cannot be its root")
        best[label[root]] = root
    return best


def _hang(count: int, ends_a: Int64Array, ends_b: Int64Array, roots: Int64Array) -> Int64Array:
    """Parents of an undirected forest of ``count`` nodes that is hung up at the given roots, one per component."""
    tail = np.concatenate([ends_a, ends_b, np.full(len(roots), count)])
    head = np.concatenate([ends_b, ends_a, roots])
    graph = coo_array((np.ones(len(tail), dtype=np.int8), (tail, head)), shape=(count + 1, count + 1)).tocsr()
    above = breadth_first_order(graph, count, return_predecessors=True)[1][:count].astype(np.int64)
    return np.where(above == count, -1, above)


def _with_parents(tree: Tree, parent: Int64Array) -> Tree:
    return Tree(tree.positions, tree.radius, parent, tree.kind, tree.extra, tree.extra_names)


# --- pieces ----------------------------------------------------------------------------------------------------------


def split(tree: Tree) -> list[Tree]:
    """The components as trees of their own, in the order of their roots; the order of nodes is kept."""
    label = components(tree.parent)
    order = np.argsort(label, kind="stable")
    borders = np.cumsum(np.bincount(label, minlength=len(tree.roots)))[:-1]
    return [tree.select(nodes) for nodes in np.split(order, borders)] if len(tree) else []


def merge(trees: Iterable[Tree]) -> Tree:
    """Put trees into one forest, in order; further columns are kept when all trees have the same."""
    parts = list(trees)
    if not parts:
        return empty_tree()
    shift = np.cumsum([0] + [len(part) for part in parts[:-1]])
    names = parts[0].extra_names if len({part.extra_names for part in parts}) == 1 else ()
    return Tree(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.radius for part in parts]),
        np.concatenate([np.where(p.parent >= 0, p.parent + s, -1) for p, s in zip(parts, shift, strict=True)]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.extra[:, : len(names)] for part in parts]),
        names,
    )


def drop_duplicates(tree: Tree) -> Tree:
    """Remove nodes that lie exactly on their parent; their children hang on the node that stays."""
    lengths = tree.edge_lengths
    stays = (tree.parent < 0) | (lengths > 0)
    upward = np.append(np.where(stays, np.arange(len(tree)), tree.parent), -1)
    while not np.array_equal(upward, upward[upward]):
        upward = upward[upward]
    return _with_parents(tree, upward[tree.parent]).select(stays)


def one_type_per_branch(tree: Tree) -> Tree:
    """Give all nodes of an unbranched path its most frequent type (the smallest on a tie); somas stay somas.

    Some programs mark forks and tips by types of their own; readers such as MorphIO refuse a type that changes
    between forks. A root that is no soma takes the type of its first path.
    """
    paths = unbranched_paths(tree)
    kinds = np.unique(tree.kind)
    kind = tree.kind.copy()
    neurite = kind[paths.nodes] != SOMA
    counts = np.zeros((len(paths.top), len(kinds)), dtype=np.int64)
    np.add.at(counts, (paths.path_of[neurite], np.searchsorted(kinds, kind[paths.nodes[neurite]])), 1)
    usual = kinds[counts.argmax(axis=1)] if len(kinds) else kinds
    kind[paths.nodes[neurite]] = usual[paths.path_of[neurite]]
    first = np.unique(paths.top, return_index=True)[1]
    first = first[(tree.parent[paths.top[first]] < 0) & (kind[paths.top[first]] != SOMA) & counts[first].any(axis=1)]
    kind[paths.top[first]] = usual[first]
    return Tree(tree.positions, tree.radius, tree.parent, kind, tree.extra, tree.extra_names)


def join(tree: Tree, distance: float) -> Tree:
    """Connect components by the shortest edges between their nodes, none longer than ``distance``.

    The new edges are those of a minimum spanning tree over the components (Boruvka's method). A joined piece keeps
    the root of its first component with a soma as root, or else that of its first component.

    Args:
        tree: any tree.
        distance: longest new edge, in the unit of the positions; 0 joins nodes on the same place only.

    Raises:
        InputError: when the distance is negative or not a number.
    """
    if not distance >= 0:
        raise InputError(f"the distance of joining is 0 or more, got {distance}")
    label = components(tree.parent)
    new: list[tuple[int, int]] = []
    kd = KDTree(tree.positions) if len(tree) else None
    while kd is not None and label.max() > 0:
        links = _shortest_links(kd, label, distance)
        if not links:
            break
        group = np.arange(label.max() + 1)
        for _, a, b in links:
            one, other = sorted((int(group[label[a]]), int(group[label[b]])))
            if one != other:
                group[group == other] = one
                new.append((a, b))
        label = np.unique(group, return_inverse=True)[1][label]
    ends = np.array(new, dtype=np.int64).reshape(-1, 2)
    child = tree.edges
    by_choice = np.lexsort((tree.roots, tree.kind[tree.roots] != SOMA))  # roots with a soma first
    first = np.unique(label[tree.roots[by_choice]], return_index=True)[1]
    roots = tree.roots[by_choice][first]
    above = np.concatenate([tree.parent[child], ends[:, 1]])
    return _with_parents(tree, _hang(len(tree), np.concatenate([child, ends[:, 0]]), above, roots))


def _shortest_links(kd: KDTree, label: Int64Array, limit: float) -> list[tuple[float, int, int]]:
    """The shortest way out of every component but the largest, as (length, node, node), shortest first."""
    best: dict[int, tuple[float, int, int]] = {}
    bound = np.full(label.max() + 1, limit)
    asking = np.flatnonzero(label != np.bincount(label).argmax())
    neighbours = 4
    while len(asking):
        neighbours = min(2 * neighbours, kd.n)
        reach = bound[label[asking]].max() * (1 + 1e-9) + 1e-9  # the search leaves out what lies at its bound
        away, node = kd.query(kd.data[asking], k=neighbours, distance_upper_bound=reach)
        foreign = np.isfinite(away) & (np.append(label, -1)[node] != label[asking, None])
        found = foreign.any(axis=1)
        column = foreign.argmax(axis=1)
        for row in np.flatnonzero(found):
            length, a, b = float(away[row, column[row]]), int(asking[row]), int(node[row, column[row]])
            link = (length, min(a, b), max(a, b))
            if length <= limit and link < best.get(int(label[a]), (np.inf, 0, 0)):
                best[int(label[a])] = link
                bound[label[a]] = length
        asking = asking[~found & (away[:, -1] <= bound[label[asking]])]
    return sorted(set(best.values()))


# --- places ----------------------------------------------------------------------------------------------------------


def scale(tree: Tree, factors_xyz: npt.ArrayLike, *, radius_factor: float | None = None) -> Tree:
    """Multiply x, y and z, for example by the voxel size in micrometres.

    Args:
        tree: any tree.
        factors_xyz: one positive factor per axis, or one for all.
        radius_factor: factor of the radii; by default the smallest of the three, which is that of the image plane
            in light microscopy, where radii are measured.

    Raises:
        InputError: when a factor is not a positive number.
    """
    factors = np.broadcast_to(np.asarray(factors_xyz, dtype=np.float64), (3,))
    thick = float(factors.min() if radius_factor is None else radius_factor)
    if not (np.isfinite([*factors, thick]).all() and min(*factors, thick) > 0):
        raise InputError(f"factors of scaling are positive numbers, got {factors.tolist()} and {thick} for radii")
    return _moved(tree, tree.positions * factors, tree.radius * thick)


def translate(tree: Tree, offset_xyz: npt.ArrayLike) -> Tree:
    """Add an offset (x, y, z) to all positions."""
    return _moved(tree, tree.positions + np.asarray(offset_xyz, dtype=np.float64), tree.radius)


def flip_y(tree: Tree, height: float) -> Tree:
    """Count y from the other edge of an image of ``height`` rows: ``y -> height - 1 - y``. Its own inverse."""
    y = height - 1 - tree.positions[:, 1]
    return _moved(tree, np.column_stack([tree.positions[:, 0], y, tree.positions[:, 2]]), tree.radius)


def crop(tree: Tree, low_xyz: npt.ArrayLike, high_xyz: npt.ArrayLike) -> Tree:
    """The part of a tree inside a closed box; edges that leave it are cut on its faces.

    Pieces that lose their connection become components. New nodes on faces have the interpolated radius and the
    type and further columns of the child of their edge.

    Args:
        tree: any tree.
        low_xyz: smallest x, y, z of the box.
        high_xyz: largest x, y, z; a whole image ``(D, H, W)`` is ``(0, 0, 0)`` to ``(W - 1, H - 1, D - 1)``.

    Raises:
        InputError: when the box is empty.
    """
    low, high = np.asarray(low_xyz, dtype=np.float64), np.asarray(high_xyz, dtype=np.float64)
    if not (low <= high).all():
        raise InputError(f"a box needs low <= high on every axis, got {low.tolist()} to {high.tolist()}")
    inside = ((tree.positions >= low) & (tree.positions <= high)).all(axis=1)
    child = tree.edges
    above = tree.parent[child]
    enter, leave = _inside_part(tree.positions[child], tree.positions[above], low, high)
    cut_child = ~inside[child] & (enter < leave)  # the piece begins on a face
    cut_parent = ~inside[above] & (enter < leave)  # the piece ends on a face: a new root
    lower, upper = child[cut_child], child[cut_parent]

    share = np.concatenate([enter[cut_child], leave[cut_parent]])
    edge = np.concatenate([lower, upper])
    count = len(tree)
    parent = np.where((tree.parent >= 0) & inside & inside[tree.parent], tree.parent, -1)
    new_upper = np.full(count, -1)
    new_upper[upper] = count + len(lower) + np.arange(len(upper))
    parent[inside] = np.where(new_upper[inside] >= 0, new_upper[inside], parent[inside])
    parent_of_lower = np.where(new_upper[lower] >= 0, new_upper[lower], tree.parent[lower])
    on_face = (1 - share[:, None]) * tree.positions[edge] + share[:, None] * tree.positions[tree.parent[edge]]
    whole = Tree(
        np.concatenate([tree.positions, np.clip(on_face, low, high)]),
        np.concatenate([tree.radius, (1 - share) * tree.radius[edge] + share * tree.radius[tree.parent[edge]]]),
        np.concatenate([parent, parent_of_lower, np.full(len(upper), -1)]),
        np.concatenate([tree.kind, tree.kind[edge]]),
        np.concatenate([tree.extra, tree.extra[edge]]),
        tree.extra_names,
    )
    kept = whole.select(np.concatenate([inside, np.ones(len(edge), dtype=np.bool_)]))
    return kept.select(preorder(kept.parent).order)


def _inside_part(
    start: Float64Array, stop: Float64Array, low: Float64Array, high: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Shares (0 at the start) between which lines run inside a box; the first is larger where they never do."""
    run = stop - start
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - start) / run, (high - start) / run
    parallel = run == 0
    between = (start >= low) & (start <= high)
    enter = np.where(parallel, np.where(between, -np.inf, np.inf), np.minimum(one, other)).max(axis=1, initial=0.0)
    leave = np.where(parallel, np.where(between, np.inf, -np.inf), np.maximum(one, other)).min(axis=1, initial=1.0)
    return enter, leave


def _moved(tree: Tree, positions: Float64Array, radius: Float64Array) -> Tree:
    return Tree(positions, radius, tree.parent, tree.kind, tree.extra, tree.extra_names)


# --- tables ----------------------------------------------------------------------------------------------------------


class BranchTable(NamedTuple):
    """One row per unbranched path, in depth-first order; all arrays are ``(P,)``.

    Attributes:
        top: node from which the branch hangs.
        bottom: node at which it ends.
        component: number of its component.
        above: row of the branch on which it hangs; -1 at a root.
        order: 1 for branches that begin at a root, one more with every fork on the way.
        kind: SWC type of its last node.
        length: arc length.
        mean_radius: mean over the arc length (over the nodes where the length is 0).
        path_length: distance from the root to its end along the tree.
    """

    top: Int64Array
    bottom: Int64Array
    component: Int64Array
    above: Int64Array
    order: Int64Array
    kind: Int64Array
    length: Float64Array
    mean_radius: Float64Array
    path_length: Float64Array


def branch_table(tree: Tree) -> BranchTable:
    """Measure every unbranched path of a tree."""
    paths = unbranched_paths(tree)
    edge, above = tree.edge_lengths[paths.nodes], tree.parent[paths.nodes]
    thickness = (tree.radius[paths.nodes] + tree.radius[above]) / 2
    rows, path_of = len(paths.top), paths.path_of
    plain = np.bincount(path_of, thickness, rows) / np.maximum(np.diff(paths.starts), 1)
    weighted = np.bincount(path_of, thickness * edge, rows)
    ends_at = np.full(len(tree), -1)
    ends_at[paths.bottom] = np.arange(rows)
    fork = (tree.children_count >= 2) & (tree.parent >= 0)
    return BranchTable(
        top=paths.top,
        bottom=paths.bottom,
        component=components(tree.parent)[paths.top],
        above=ends_at[paths.top],
        order=1 + sum_to_root(tree.parent, fork).astype(np.int64)[paths.top],
        kind=tree.kind[paths.bottom],
        length=paths.length,
        mean_radius=np.divide(weighted, paths.length, out=plain, where=paths.length > 0),
        path_length=path_lengths(tree)[paths.bottom],
    )


def path_lengths(tree: Tree) -> Float64Array:
    """Distance of every node to its root along the tree, ``(N,)``."""
    return sum_to_root(tree.parent, tree.edge_lengths)


def keep_components(tree: Tree, *, min_length: float = 0.0, largest: int | None = None) -> Tree:
    """Leave out components shorter than ``min_length``, and all but the ``largest`` longest."""
    label = components(tree.parent)
    length = np.bincount(label, tree.edge_lengths, minlength=len(tree.roots))
    keep = length >= min_length
    if largest is not None:
        keep[np.argsort(-length, kind="stable")[largest:]] = False
    return tree.select(keep[label])
