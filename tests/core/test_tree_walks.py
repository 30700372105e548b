"""The tree type, its walks and its paths: laws on random forests and answers known by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import InputError
from medwave.core.tree import Tree, empty_tree, nodes_without_root
from medwave.core.tree_paths import densify, node_lengths, resample, topology, unbranched_paths
from medwave.core.tree_walk import common_ancestors, components, preorder, roots_of, sum_below, sum_to_root


def plain_tree(positions: object, parent: object) -> Tree:
    """A tree of radius 1 and type 0."""
    count = len(np.asarray(parent))
    return Tree(positions, np.ones(count), np.asarray(parent), np.zeros(count, dtype=int))


def y_tree() -> Tree:
    """Stem of 10 along x, then two arms of 5: along y in one edge, along z in five."""
    positions = [[0, 0, 0], [10, 0, 0], [10, 5, 0]] + [[10, 0, z] for z in range(1, 6)]
    return plain_tree(positions, [-1, 0, 1, 1, 3, 4, 5, 6])


@st.composite
def forests(draw: st.DrawFn, max_nodes: int = 40) -> Tree:
    """Random forests in a random order of nodes, with some nodes on one place."""
    count = draw(st.integers(1, max_nodes))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([1, 3, max_nodes]))  # 1 makes chains, large values bushes
    parent = np.array([-1] + [max(-1, i - 1 - random.integers(0, reach)) for i in range(1, count)])
    parent[random.random(count) < 0.1] = -1
    shuffled = random.permutation(count)
    mixed = np.empty(count, dtype=int)
    mixed[shuffled] = np.where(parent >= 0, shuffled[parent], -1)
    positions = random.integers(0, 9, size=(count, 3)) + random.choice([0, 0.25], size=(count, 3))
    return Tree(positions, random.random(count), mixed, random.integers(0, 5, count))


def way_up(tree: Tree, node: int) -> list[int]:
    nodes = [node]
    while tree.parent[nodes[-1]] >= 0:
        nodes.append(int(tree.parent[nodes[-1]]))
    return nodes


# --- the type --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parent": [1, 2, 0]}, "circle"),
        ({"parent": [-1, 1, 0]}, "circle"),
        ({"parent": [-1, 0, 3]}, "hangs on node 3"),
        ({"parent": [-1, 0, -2]}, "hangs on node -2"),
        ({"parent": [-1.0, 0.0, 1.0]}, "whole numbers"),
        ({"radius": [1, -1, 1]}, "0 or more"),
        ({"radius": [1, np.nan, 1]}, "finite"),
        ({"positions": [[0, 0, 0], [1, 1, np.inf], [2, 2, 2]]}, "finite"),
        ({"positions": [[0, 0], [1, 1], [2, 2]]}, "shape"),
        ({"kind": [1, 1]}, "shape"),
        ({"extra": [[1.0], [2.0], [3.0]]}, "extra"),
        ({"extra_names": ("level",)}, "extra"),
    ],
)
def test_a_tree_that_is_no_forest_is_refused(change: dict, words: str) -> None:
    good = {"positions": np.zeros((3, 3)), "radius": np.ones(3), "parent": [-1, 0, 1], "kind": [0, 0, 0]}
    assert len(Tree(**good)) == 3
    with pytest.raises(InputError, match=words):
        Tree(**(good | change))


def test_a_tree_keeps_its_own_read_only_copy() -> None:
    positions = np.zeros((2, 3))
    tree = plain_tree(positions, [-1, 0])
    positions[0] = 5
    assert tree.positions[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        tree.positions[0] = 1


def test_an_empty_tree_answers_every_question() -> None:
    tree = empty_tree()
    assert len(tree) == 0
    assert tree == tree.select([])
    assert topology(tree) == (0, 0, 0, 0, 0, 0, 0, 0.0)
    assert resample(tree, 1.0) == tree
    assert densify(tree).shape == (0, 3)
    assert len(components(tree.parent)) == 0


def test_the_columns_follow_the_nodes_that_are_selected() -> None:
    tree = Tree(np.eye(3), [1, 2, 3], [-1, 0, 1], [1, 2, 3], [[7.0], [8.0], [9.0]], ("level",))
    part = tree.select([2, 1])
    assert part.parent.tolist() == [1, -1]
    assert part.extra.tolist() == [[9.0], [8.0]]
    assert tree.select(np.array([True, False, True])).parent.tolist() == [-1, -1]


def test_circles_are_found_with_all_that_hangs_on_them() -> None:
    assert nodes_without_root([1, 0, -1, 2, 0]).tolist() == [0, 1, 4]


# --- walks -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(forests())
def test_walks_agree_with_walking(tree: Tree) -> None:
    ways = [way_up(tree, node) for node in range(len(tree))]
    walk = preorder(tree.parent)
    children = {n: [c for c in range(len(tree)) if tree.parent[c] == n] for n in range(-1, len(tree))}

    def depth_first(node: int) -> list[int]:
        return [node] + [below for child in children[node] for below in depth_first(child)]

    assert walk.order.tolist() == [n for root in children[-1] for n in depth_first(root)]
    assert walk.size.tolist() == [len(depth_first(n)) for n in range(len(tree))]
    assert roots_of(tree.parent).tolist() == [way[-1] for way in ways]
    assert np.unique(components(tree.parent)).tolist() == list(range(len(tree.roots)))
    np.testing.assert_allclose(sum_to_root(tree.parent, tree.radius), [tree.radius[way].sum() for way in ways])
    below = [tree.radius[depth_first(n)].sum() for n in range(len(tree))]
    np.testing.assert_allclose(sum_below(walk, tree.radius), below)


@settings(deadline=None, max_examples=40)
@given(forests())
def test_common_ancestors_are_the_first_that_two_ways_share(tree: Tree) -> None:
    a, b = np.divmod(np.arange(len(tree) ** 2), len(tree))
    found = common_ancestors(tree.parent, a, b)
    for first, second, ancestor in zip(a, b, found, strict=True):
        shared = [n for n in way_up(tree, first) if n in way_up(tree, second)]
        assert ancestor == (shared[0] if shared else -1)


def test_a_chain_as_long_as_a_whole_brain_axon_is_walked() -> None:
    count = 200_000
    parent = np.arange(count) - 1
    assert (preorder(parent).order == np.arange(count)).all()
    assert sum_to_root(parent, np.ones(count))[-1] == count


# --- paths -----------------------------------------------------------------------------------------------------------


def test_the_paths_of_a_y() -> None:
    paths = unbranched_paths(y_tree())
    assert paths.top.tolist() == [0, 1, 1]
    assert paths.bottom.tolist() == [1, 2, 7]
    assert paths.length.tolist() == [10, 5, 5]
    assert topology(y_tree()) == (8, 1, 1, 2, 3, 1, 3, 20.0)


@settings(deadline=None, max_examples=60)
@given(forests(), st.sampled_from([0.3, 1.0, 4.0, 100.0]))
def test_resampling_keeps_key_nodes_and_makes_equal_steps(tree: Tree, step: float) -> None:
    new = resample(tree, step)
    before, after = topology(tree), topology(new)
    assert (after.roots, after.forks, after.tips, after.ends) == (before.roots, before.forks, before.tips, before.ends)
    assert after.length <= before.length + 1e-9  # chords are not longer than arcs
    old_keys = tree.positions[(tree.parent < 0) | (tree.children_count != 1)]
    new_keys = new.positions[(new.parent < 0) | (new.children_count != 1)]
    np.testing.assert_array_equal(old_keys[np.lexsort(old_keys.T)], new_keys[np.lexsort(new_keys.T)])
    assert new.edge_lengths.max() <= step + 1e-9
    assert (new.parent < np.arange(len(new))).all()  # parents first


def test_resampling_a_straight_line_is_linear_in_arc_length() -> None:
    tree = Tree([[0, 0, 0], [1, 0, 0], [10, 0, 0]], [0, 1, 10], [-1, 0, 1], [1, 2, 3], [[1], [2], [3]], ("level",))
    new = resample(tree, 2.5)
    np.testing.assert_allclose(new.positions[:, 0], [0, 2.5, 5, 7.5, 10])
    np.testing.assert_allclose(new.radius, [0, 2.5, 5, 7.5, 10])
    assert new.kind.tolist() == [1, 3, 3, 3, 3]
    assert new.extra.ravel().tolist() == [1, 3, 3, 3, 3]


@pytest.mark.parametrize("step", [0, -1, np.nan, np.inf])
def test_a_step_that_is_no_length_is_refused(step: float) -> None:
    with pytest.raises(InputError, match="step"):
        resample(y_tree(), step)


def test_densify_counts_of_the_specification() -> None:
    for length, points in [(10, 11), (0, 1), (0.4, 1), (0.5, 2), (1, 2), (1.49, 2), (1.5, 3)]:
        line = densify(plain_tree([[0, 0, 0], [length, 0, 0]], [-1, 0]))
        assert len(line) == points, length
        assert line[0, 0] == length
        assert line[-1, 0] == (0 if points > 1 else length)
    np.testing.assert_allclose(np.diff(densify(plain_tree([[0, 0, 0], [10, 0, 0]], [-1, 0]))[:, 0]), -1)


@settings(deadline=None, max_examples=30)
@given(forests())
def test_nodes_stand_for_the_whole_length(tree: Tree) -> None:
    assert node_lengths(tree).sum() == pytest.approx(tree.length)
