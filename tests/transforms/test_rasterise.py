"""Round cones against brute force, tubes without holes, and what lies outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medwave.core.tree import Tree
from medwave.transforms import draw_centre_lines, draw_tubes

SHAPE = (18, 20, 22)


def chain(positions, radii):
    count = len(positions)
    return Tree(np.array(positions, float), np.array(radii, float), np.arange(count) - 1, np.full(count, 3))


def brute_force(tree, shape, spacing, slack):
    """The union of many balls along every edge, tested voxel by voxel."""
    z, y, x = np.indices(shape).astype(float)
    mask = np.zeros(shape, bool)
    for node, parent in enumerate(tree.parent):
        if parent < 0:
            continue
        for t in np.linspace(0, 1, 400):
            px, py, pz = (1 - t) * tree.positions[node] + t * tree.positions[parent]
            radius = (1 - t) * tree.radius[node] + t * tree.radius[parent] + slack
            distance = ((z - pz) * spacing[0]) ** 2 + ((y - py) * spacing[1]) ** 2 + ((x - px) * spacing[2]) ** 2
            mask |= distance <= radius**2
    return mask


coordinate = st.floats(2, 16)
point = st.tuples(coordinate, coordinate, coordinate)


@settings(deadline=None, max_examples=25)
@given(point, point, st.floats(0.3, 5), st.floats(0.3, 5), st.sampled_from([(1, 1, 1), (2.5, 1, 1), (1, 0.8, 1.3)]))
def test_a_round_cone_is_the_union_of_its_balls(a, b, r0, r1, spacing):
    tree = chain([a, b], [r0, r1])
    expected = brute_force(tree, SHAPE, spacing, 0.25)
    drawn = draw_tubes(tree, SHAPE, spacing=spacing)
    lines = draw_centre_lines(tree, SHAPE)
    assert (expected <= drawn).all()
    grown = brute_force(tree, SHAPE, spacing, 0.27)  # 400 balls leave scallops of a hundredth of a voxel
    assert (drawn <= (grown | lines)).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(point, min_size=2, max_size=5), st.floats(0.0, 0.4))
def test_a_tube_is_one_piece_however_thin(points, radius):
    tree = chain(points, [radius] * len(points))
    for mask in (draw_tubes(tree, SHAPE, slack=0.0), draw_centre_lines(tree, SHAPE)):
        assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1


def test_radius_of_a_straight_tube_is_known():
    tree = chain([(1, 10, 9), (20, 10, 9)], [3.0, 3.0])
    mask = draw_tubes(tree, SHAPE, slack=0.25)
    assert mask[:, :, 11].sum() == sum((dz * dz + dy * dy) <= 3.25**2 for dz in range(-4, 5) for dy in range(-4, 5))


def test_what_lies_outside_is_dropped_and_not_clamped_to_the_border():
    outside = chain([(-9, -9, -9), (-5, -5, -5)], [1, 1])
    assert not draw_tubes(outside, SHAPE).any()
    crossing = chain([(-10, 10, 9), (10, 10, 9)], [1, 1])
    assert draw_tubes(crossing, SHAPE)[9, 10, :11].all()


def test_axis_order_is_x_last():
    tree = chain([(3, 5, 7), (3, 5, 7.2)], [0.1, 0.1])
    assert np.argwhere(draw_tubes(tree, SHAPE, slack=0.0)).tolist() == [[7, 5, 3]]


@pytest.mark.parametrize("radius", [0.0, 2.0])
def test_a_single_node_is_a_ball_of_at_least_one_voxel(radius):
    mask = draw_tubes(chain([(8, 8, 8)], [radius]), SHAPE, slack=0.0)
    assert mask[8, 8, 8]
    assert mask.sum() == (1 if radius == 0 else 33)
