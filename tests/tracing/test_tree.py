"""Operations on trees: laws on random forests, answers known by hand, and the two real traced neurons."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import SOMA, Tree, empty_tree
from medwave.core.tree_walk import components
from medwave.tracing import (
    branch_table,
    check_alignment,
    crop,
    drop_duplicates,
    flip_y,
    join,
    keep_components,
    merge,
    one_type_per_branch,
    path_lengths,
    reroot,
    resample,
    scale,
    sort_tree,
    split,
    topology,
    translate,
)
from medwave.volumes.swc import read_swc


@st.composite
def forests(draw: st.DrawFn, max_nodes: int = 30) -> Tree:
    """Random forests in a random order of nodes, on a coarse grid so that distances tie and nodes coincide."""
    count = draw(st.integers(1, max_nodes))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([1, 3, max_nodes]))
    parent = np.array([-1] + [max(-1, i - 1 - random.integers(0, reach)) for i in range(1, count)])
    parent[random.random(count) < 0.15] = -1
    shuffled = random.permutation(count)
    mixed = np.empty(count, dtype=int)
    mixed[shuffled] = np.where(parent >= 0, shuffled[parent], -1)
    return Tree(random.integers(0, 7, size=(count, 3)), random.random(count), mixed, random.integers(0, 4, count))


def line(length: float, *, y: float = 0.0, nodes: int = 2) -> Tree:
    """A straight line along x of equal edges, radius 1."""
    positions = np.zeros((nodes, 3))
    positions[:, 0], positions[:, 1] = np.linspace(0, length, nodes), y
    return Tree(positions, np.ones(nodes), np.arange(nodes) - 1, np.full(nodes, 2))


def undirected(tree: Tree) -> set[frozenset[tuple[float, ...]]]:
    """All edges as pairs of (position, radius)."""
    nodes = [tuple(row) for row in np.column_stack([tree.positions, tree.radius]).tolist()]
    return {frozenset((nodes[c], nodes[tree.parent[c]])) for c in tree.edges}


# --- order and roots -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(forests(), st.integers(0, 1000))
def test_sorting_changes_order_and_direction_only(tree: Tree, draw: int) -> None:
    root = draw % len(tree)
    for new in (sort_tree(tree), sort_tree(tree, root=root)):
        assert undirected(new) == undirected(tree)
        assert (new.parent < np.arange(len(new))).all()
        assert (np.diff(components(new.parent)) >= 0).all()  # components are blocks
        assert sort_tree(new) == new or root is not None
    np.testing.assert_array_equal(new.positions[0], tree.positions[root])
    assert sort_tree(sort_tree(tree)) == sort_tree(tree)


def test_sorting_roots_a_tree_at_its_soma() -> None:
    tree = Tree(np.eye(3), [1, 2, 3], [-1, 0, 1], [2, 2, SOMA])
    new = sort_tree(tree)
    assert new.kind.tolist() == [SOMA, 2, 2]
    assert new.parent.tolist() == [-1, 0, 1]
    assert sort_tree(tree, root=1).parent.tolist() == [-1, 0, 0]
    other = merge([line(3), tree])
    assert sort_tree(other).kind.tolist() == [SOMA, 2, 2, 2, 2]


@settings(deadline=None, max_examples=40)
@given(forests(), st.integers(0, 1000))
def test_going_to_another_root_and_back_is_identity(tree: Tree, draw: int) -> None:
    node = draw % len(tree)
    there = reroot(tree, node)
    assert there.parent[node] == -1
    assert undirected(there) == undirected(tree)
    own_root = tree.roots[components(tree.parent)[node]]
    assert reroot(there, own_root) == tree


def test_roots_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="0 to 1"):
        reroot(line(3), 2)
    with pytest.raises(InputError, match="one component"):
        reroot(line(3), [0, 1])
    with pytest.raises(InputError, match="cannot be its root"):
        sort_tree(line(3), root=-1)


# --- pieces ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(forests())
def test_splitting_and_merging_keep_everything(tree: Tree) -> None:
    pieces = split(tree)
    assert all(len(piece.roots) == 1 for piece in pieces)
    assert undirected(merge(pieces)) == undirected(tree)
    assert len(merge(pieces)) == len(tree)
    assert merge(split(sort_tree(tree))) == sort_tree(tree)


def test_the_longest_components_are_kept() -> None:
    tree = merge([line(3), line(9), line(5)])
    assert keep_components(tree, largest=1).length == 9
    assert keep_components(tree, min_length=4).length == 14
    assert keep_components(tree, min_length=100) == empty_tree()
    assert split(empty_tree()) == []
    assert merge([]) == empty_tree()


@settings(deadline=None, max_examples=40)
@given(forests())
def test_dropping_duplicates_leaves_no_edge_without_length(tree: Tree) -> None:
    new = drop_duplicates(tree)
    assert (new.edge_lengths[new.edges] > 0).all()
    assert new.length == pytest.approx(tree.length)
    assert len(new.roots) == len(tree.roots)
    assert drop_duplicates(new) == new


@settings(deadline=None, max_examples=60)
@given(forests(), st.sampled_from([0.0, 1.0, 2.0, np.inf]))
def test_joining_adds_a_minimum_spanning_tree_of_short_edges(tree: Tree, distance: float) -> None:
    new = join(tree, distance)
    np.testing.assert_array_equal(new.positions, tree.positions)
    label = components(tree.parent)
    count = label.max() + 1
    between = cdist(tree.positions, tree.positions)
    closest = np.full((count, count), np.inf)
    np.minimum.at(closest, (label[:, None], label[None, :]), between)
    weights = np.where((closest <= distance) & ~np.eye(count, dtype=bool), closest + 1, 0)  # 0 would mean "no edge"
    spanning = minimum_spanning_tree(weights)
    assert len(new.roots) == count - spanning.nnz
    assert new.length - tree.length == pytest.approx(spanning.sum() - spanning.nnz)
    assert undirected(tree) <= undirected(new)


def test_joining_bridges_a_gap_within_reach_only() -> None:
    tree = merge([line(10, nodes=11), translate(line(10, nodes=11), [13, 0, 0])])
    assert join(tree, 2.9).parent.tolist() == tree.parent.tolist()
    assert topology(join(tree, 3.0))[:4] == (22, 1, 0, 1)
    with pytest.raises(InputError, match="distance"):
        join(tree, -1)
    assert join(empty_tree(), 5) == empty_tree()


def test_a_joined_tree_hangs_on_the_soma() -> None:
    soma = Tree([[12, 0, 0], [15, 0, 0]], [3, 1], [-1, 0], [SOMA, 2])
    new = join(merge([line(10), soma]), 5)
    assert new.roots.tolist() == [2]


def test_types_that_mark_forks_and_tips_give_way_to_the_type_of_the_branch() -> None:
    positions = [[x, 0, 0] for x in range(6)] + [[5, 1, 0], [5, 2, 0], [5, 0, 1]]
    tree = Tree(positions, np.ones(9), [-1, 0, 1, 2, 3, 4, 5, 6, 5], [3, 3, 3, 3, 3, 5, 2, 6, 6])
    assert one_type_per_branch(tree).kind.tolist() == [3, 3, 3, 3, 3, 3, 2, 2, 6]
    soma = Tree(positions[:4], np.ones(4), [-1, 0, 1, 2], [SOMA, SOMA, 3, 3])
    assert one_type_per_branch(soma) == soma


# --- places ----------------------------------------------------------------------------------------------------------


def test_a_crossing_line_is_cut_on_both_faces() -> None:
    tree = Tree([[-5, 1, 1], [15, 1, 1]], [0, 4], [-1, 0], [0, 2])
    new = crop(tree, (0, 0, 0), (10, 2, 2))
    np.testing.assert_allclose(new.positions, [[0, 1, 1], [10, 1, 1]])
    np.testing.assert_allclose(new.radius, [1, 3])
    assert new.parent.tolist() == [-1, 0]
    assert crop(tree, (0, 5, 0), (10, 9, 2)) == empty_tree()


@settings(deadline=None, max_examples=60)
@given(forests(), st.integers(0, 6), st.integers(0, 6), st.booleans())
def test_the_slabs_of_a_tree_have_its_whole_length(tree: Tree, a: int, b: int, between_nodes: bool) -> None:
    cut = (a + b) / 2 + 0.125 * between_nodes
    low, high = np.full(3, -1.0), np.full(3, 8.0)
    parts = [crop(tree, low, [cut, 8, 8]), crop(tree, [cut, -1, -1], high)]
    on_face = tree.edges[
        (tree.positions[tree.edges, 0] == cut) & (tree.positions[tree.parent[tree.edges], 0] == cut)
    ]  # belongs to both closed boxes
    assert sum(p.length for p in parts) == pytest.approx(tree.length + tree.edge_lengths[on_face].sum())
    assert sort_tree(crop(tree, low, high)).length == pytest.approx(tree.length)
    for part, face in zip(parts, (parts[0].positions[:, 0] <= cut, parts[1].positions[:, 0] >= cut), strict=True):
        assert face.all()
        assert crop(part, low, high).length == pytest.approx(part.length)


def test_scaling_and_flipping() -> None:
    tree = Tree([[1, 2, 3], [4, 5, 6]], [1, 2], [-1, 0], [0, 0])
    micrometres = scale(tree, [0.5, 0.5, 2])
    np.testing.assert_allclose(micrometres.positions, [[0.5, 1, 6], [2, 2.5, 12]])
    np.testing.assert_allclose(micrometres.radius, [0.5, 1])
    assert scale(micrometres, [2, 2, 0.5], radius_factor=2) == tree
    assert flip_y(tree, 10).positions[:, 1].tolist() == [7, 4]
    assert flip_y(flip_y(tree, 10), 10) == tree
    with pytest.raises(InputError, match="positive"):
        scale(tree, [1, 0, 1])
    with pytest.raises(InputError, match="box"):
        crop(tree, (0, 0, 0), (-1, 1, 1))


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_branches_of_a_tree_with_two_forks() -> None:
    positions = [[0, 0, 0], [4, 0, 0], [4, 3, 0], [8, 0, 0], [8, 2, 0], [8, 0, 1]]
    tree = Tree(positions, [0, 2, 2, 4, 4, 4], [-1, 0, 1, 1, 3, 3], [1, 3, 3, 3, 2, 2])
    table = branch_table(tree)
    assert table.top.tolist() == [0, 1, 1, 3, 3]
    assert table.bottom.tolist() == [1, 2, 3, 4, 5]
    assert table.above.tolist() == [-1, 0, 0, 2, 2]
    assert table.order.tolist() == [1, 2, 2, 3, 3]
    assert table.kind.tolist() == [3, 3, 3, 2, 2]
    assert table.length.tolist() == [4, 3, 4, 2, 1]
    assert table.mean_radius.tolist() == [1, 2, 3, 4, 4]
    assert table.path_length.tolist() == [4, 7, 8, 10, 9]
    assert path_lengths(tree).tolist() == [0, 4, 7, 8, 10, 9]


@settings(deadline=None, max_examples=30)
@given(forests())
def test_branches_add_up_to_the_tree(tree: Tree) -> None:
    table = branch_table(tree)
    assert table.length.sum() == pytest.approx(tree.length)
    assert len(table.top) == topology(tree).branches
    inner = table.above >= 0
    assert (table.order[inner] == table.order[table.above[inner]] + 1).all()
    np.testing.assert_allclose(table.path_length[inner], (table.path_length[table.above] + table.length)[inner])


# --- alignment and real neurons --------------------------------------------------------------------------------------


def test_a_tree_off_its_image_is_reported() -> None:
    image = np.zeros((20, 30, 40), dtype=np.uint8)
    image[5, 4, 3:30] = 200
    tree = Tree([[3, 4, 5], [29, 4, 5]], [1, 1], [-1, 0], [0, 0])
    good = check_alignment(tree, image)
    assert good.best == ""
    assert good.aligned
    assert good.values[""] == 200
    assert good.inside == 1
    assert check_alignment(flip_y(tree, 30), image)[:2] == ("y", False)
    assert not check_alignment(tree, np.full_like(image, 7)).aligned
    with pytest.raises(InputError, match="outside"):
        check_alignment(translate(tree, [1000, 0, 0]), image)
    with pytest.raises(InputError, match="without edges"):
        check_alignment(empty_tree(), image)
    with pytest.raises(GeometryError, match="D, H, W"):
        check_alignment(tree, image[0])


@pytest.mark.data
@pytest.mark.parametrize("name", ["neuron_a", "neuron_b"])
def test_the_real_neurons_lie_on_their_images(data_folder: Path, name: str) -> None:
    tree = read_swc(data_folder / "neurons" / "real_traced" / f"{name}.swc")
    image = tifffile.imread(data_folder / "neurons" / "real_traced" / f"{name}.tif")
    found = check_alignment(tree, image)
    assert found.aligned
    assert found.values[""] > 5 * max(value for flips, value in found.values.items() if flips)
    assert check_alignment(flip_y(tree, image.shape[1]), image).best == "y"
    part = crop(tree, (0, 0, 0), np.array(image.shape[::-1]) - 1)
    assert part.length == pytest.approx(found.inside * tree.length, rel=0.01)
    joined = join(drop_duplicates(tree), 30.0)
    assert len(joined.roots) < len(tree.roots) or len(tree.roots) == 1
    smooth = resample(tree, 10.0)
    assert topology(smooth)[1:4] == topology(tree)[1:4]
    assert 0.9 * tree.length < smooth.length <= tree.length
