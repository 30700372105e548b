"""Lines of a tree: within the tolerance of all its nodes, whole at forks, and few."""

import base64

import numpy as np
import pytest

from medwave.core.tree import SOMA, UNDEFINED, Tree, empty_tree
from medwave.core.tree_paths import topology
from medwave.metrics import nearest_on_tree
from medwave.reports.tree_lines import packed, part_of, svg_path, thinned, tree_lines
from medwave.transforms.neurons import grow_tree

SHAPE = (40, 120, 120)


def as_tree(lines) -> Tree:
    """The lines as a tree of unconnected paths."""
    parent = np.arange(len(lines.points)) - 1
    parent[lines.starts[:-1]] = -1
    return Tree(lines.points, lines.radius, parent, np.full(len(parent), UNDEFINED))


@pytest.mark.parametrize("tolerance", [0.05, 0.5, 2.0])
def test_no_node_is_further_away_than_the_tolerance(tolerance):
    tree = grow_tree(SHAPE, seed=1)
    lines = tree_lines(tree, tolerance=tolerance)
    assert nearest_on_tree(tree.positions, as_tree(lines)).distance.max() <= tolerance + 1e-9
    assert len(lines) == topology(tree).branches
    assert len(lines.points) < len(tree) + 2 * len(lines)


def test_a_straight_line_keeps_its_ends_only():
    line = np.stack([np.linspace(0, 9, 10), np.linspace(0, 18, 10)], axis=1)
    assert thinned(line, 1e-6).tolist() == [0, 9]
    line[4] += (0, 1)
    assert 4 in thinned(line, 0.2)
    assert thinned(line[:2], 0.0).tolist() == [0, 1]


def test_a_loop_that_ends_where_it_began_is_kept():
    angle = np.linspace(0, 2 * np.pi, 40)
    assert len(thinned(np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.05)) > 8


def test_too_many_points_are_thinned_harder():
    tree = grow_tree(SHAPE, seed=1)
    assert len(tree_lines(tree, tolerance=1e-6, most_points=300).points) <= max(300, 2 * topology(tree).branches)


def test_somata_are_known_and_their_radius_is_not_drawn_as_a_tube():
    tree = grow_tree(SHAPE, seed=2)
    lines = tree_lines(tree, tolerance=0.1)
    assert lines.somata.tolist() == [[*tree.positions[0], tree.radius[0]]]
    assert lines.radius.max() < tree.radius[0]


def test_part_of_takes_the_chosen_pieces():
    x = np.arange(6.0)
    kind = np.array([SOMA, *[UNDEFINED] * 5])
    zigzag = np.stack([x, x % 2, 0 * x], axis=1)
    lines = tree_lines(Tree(zigzag, np.ones(6), np.arange(6) - 1, kind), tolerance=0.01, value=x)
    part = part_of(lines, np.array([True, True, False, False, True, True]))
    assert part.points[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert part.starts.tolist() == [0, 3, 5]
    assert part.order.tolist() == [1, 1]
    assert part.value.tolist() == [0, 1, 2, 4, 5]
    nothing = part_of(lines, np.zeros(6, bool))
    assert len(nothing) == len(nothing.points) == 0
    assert svg_path(nothing, np.zeros(0), np.zeros(0)) == ""


def test_svg_path_says_the_same_points():
    x = np.array([0.0, 3, 3, 10])
    tree = Tree(np.stack([x, x[::-1], 0 * x], axis=1), np.ones(4), np.arange(4) - 1, np.zeros(4, int))
    lines = tree_lines(tree, tolerance=0.01)
    assert svg_path(lines, lines.points[:, 0], lines.points[:, 1]) == "M0 10l3-7 7-3"


def test_an_empty_tree_has_no_lines():
    lines = tree_lines(empty_tree(), tolerance=1.0)
    assert len(lines) == 0
    assert lines.starts.tolist() == [0]


def test_packed_numbers_are_little_endian():
    assert base64.b64decode(packed([1, 256], "u2")) == b"\x01\x00\x00\x01"
