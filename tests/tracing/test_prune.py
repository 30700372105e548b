"""Radii of known shapes, and each pruning step on a case made for it."""

import numpy as np
import pytest
import tubes
from scipy import ndimage

from medwave.tracing.foreground import Foreground, build_foreground
from medwave.tracing.march import Forest, geodesic_weight, grey_weighted_distance, march
from medwave.tracing.prune import Skeleton, drop_covered, prune_tips, trim_dark
from medwave.tracing.radius import estimate_radii
from medwave.tracing.segments import Segments, split_into_segments


def chain(foreground: Foreground, places: list[tuple[int, int, int]], radius: float) -> Skeleton:
    nodes = foreground.nodes_at(np.array(places)).astype(np.int64)
    return Skeleton(nodes, np.arange(len(nodes)) - 1, np.full(len(nodes), float(radius)))


@pytest.mark.parametrize("radius", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("in_plane", [True, False])
def test_the_radius_of_a_slanting_tube_is_known_to_half_a_voxel(radius: float, in_plane: bool) -> None:
    start, stop = np.array([11.3, 10.6, 4.0]), np.array([14.2, 21.1, 60.0])
    image = tubes.draw(tubes.line(tuple(start), tuple(stop), radius), shape=(27, 33, 65))
    foreground = build_foreground(image, 50, np.ones(3))
    nodes = foreground.nodes_at(np.rint(start + np.linspace(0.2, 0.8, 40)[:, None] * (stop - start)).astype(int))
    found = estimate_radii(foreground, nodes, threshold=50, in_plane=in_plane)
    assert abs(np.mean(found) - radius) <= 0.5
    assert np.abs(found - radius).max() <= 1.1


def test_radii_in_thick_slices_are_in_voxels_of_x() -> None:
    spacing = (3.0, 1.0, 1.0)
    image = tubes.draw(tubes.line((7, 16, 4), (7, 16, 60), 6.0), shape=(15, 33, 65), spacing=spacing)
    foreground = build_foreground(image, 50, np.array(spacing))
    node = foreground.nodes_at(np.array([(7, 16, 30)]))
    for in_plane in (True, False):
        assert abs(estimate_radii(foreground, node, threshold=50, in_plane=in_plane)[0] - 6) <= 1.0


def test_the_radius_ends_at_half_the_volume_where_nothing_is_dark() -> None:
    foreground = build_foreground(np.full((9, 40, 41), 99, np.uint8), 5, np.ones(3))
    middle = foreground.nodes_at(np.array([(4, 20, 20)]))
    assert estimate_radii(foreground, middle, threshold=5, in_plane=True)[0] == 20
    assert estimate_radii(foreground, middle, threshold=5, in_plane=False)[0] == 4.5


def test_each_node_may_have_its_own_threshold() -> None:
    image = np.zeros((3, 21, 21), np.uint8)
    image[:, 5:16, 5:16] = 50
    image[:, 8:13, 8:13] = 200
    foreground = build_foreground(image, 10, np.ones(3))
    node = foreground.nodes_at(np.array([(1, 10, 10)] * 2))
    assert estimate_radii(foreground, node, threshold=np.array([10, 100]), in_plane=True).tolist() == [6, 3]


@pytest.mark.parametrize("in_plane", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_radii_of_many_nodes_are_those_of_each_alone(in_plane: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(14, 40, 44)), (1.5, 4, 4))
    image = np.clip(128 + 90 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    foreground = build_foreground(image, 90, np.array([2.0, 1.0, 1.0]), connectivity=1)
    nodes = rng.choice(len(foreground), 1500)
    levels = rng.choice([90.0, 110.0, 150.0], len(nodes)) if seed % 2 else np.full(len(nodes), 100.0)
    found = estimate_radii(foreground, nodes, threshold=levels, in_plane=in_plane)
    alone = [
        estimate_radii(foreground, nodes[[n]], threshold=levels[[n]], in_plane=in_plane)[0] for n in range(len(nodes))
    ]
    assert found.tolist() == alone
    assert found.max() > 5


def test_slices_have_radii_of_their_own_in_the_plane() -> None:
    image = np.zeros((3, 41, 41), np.uint8)
    image[0], image[1:, 18:23, 18:23] = 90, 90
    foreground = build_foreground(image, 10, np.ones(3))
    nodes = foreground.nodes_at(np.array([(0, 20, 20), (1, 20, 20), (2, 20, 20)]))
    assert estimate_radii(foreground, nodes, threshold=10, in_plane=True).tolist() == [20.5, 3, 3]


@pytest.mark.parametrize("in_plane", [True, False])
def test_another_piece_is_as_dark_as_background(in_plane: bool) -> None:
    image = np.zeros((21, 41, 41), np.uint8)
    image[:, 15:26, 15:26] = 90
    alone = build_foreground(image, 10, np.ones(3), connectivity=1)
    image[:, 26:, 26:] = image[:, :15, :15] = 90  # touch it along edges
    among = build_foreground(image, 10, np.ones(3), connectivity=1)
    assert among.piece.max() == 2
    at = np.array([(10, 20, 20), (10, 24, 24)])
    one, three = (estimate_radii(f, f.nodes_at(at), threshold=10, in_plane=in_plane) for f in (alone, among))
    assert one.tolist() == three.tolist()


def y_segments(shortest: float = 5.0) -> tuple[Foreground, Forest, Segments]:
    foreground = build_foreground(tubes.draw(tubes.y_shape(3.0), shape=(24, 64, 80)), 50, np.ones(3))
    root = foreground.nodes_at(np.array([(12, 32, 8)]))
    weight = geodesic_weight(grey_weighted_distance(foreground, connectivity=2), foreground.piece)
    forest = march(foreground, weight, root, connectivity=2)
    return foreground, forest, split_into_segments(foreground, forest, shortest=shortest)


def test_coverage_keeps_the_two_arms_of_a_y_and_none_of_the_many_side_paths() -> None:
    foreground, forest, segments = y_segments(shortest=1.0)
    assert len(segments.parent) > 50
    radius = estimate_radii(foreground, segments.nodes, threshold=50, in_plane=False)
    skeleton = drop_covered(foreground, segments, radius, forest.parent)
    tips = np.setdiff1d(np.arange(len(skeleton.nodes)), skeleton.parent)
    assert len(tips) == 2
    ends = foreground.positions(skeleton.nodes[tips])
    assert sorted(np.abs(ends - np.array([[8, 12, 70], [16, 52, 70]])[:, None]).sum(axis=2).min(axis=0) < 8) == [1, 1]
    assert (skeleton.parent < np.arange(len(skeleton.nodes))).all()


def test_a_high_coverage_ratio_keeps_the_root_segment_only() -> None:
    foreground, forest, segments = y_segments()
    radius = np.full(len(segments.nodes), 60.0)
    skeleton = drop_covered(foreground, segments, radius, forest.parent, ratio=1e9)
    assert len(skeleton.nodes) == segments.start[1]


def test_a_tip_inside_the_ball_of_its_parent_goes() -> None:
    foreground = build_foreground(np.full((15, 15, 60), 100, np.uint8), 5, np.ones(3))
    skeleton = chain(foreground, [(7, 7, x) for x in range(5, 31)], 2.0)
    skeleton.radius[-2] = 6.0
    pruned = prune_tips(foreground, skeleton, joint=False)
    np.testing.assert_array_equal(pruned.nodes, skeleton.nodes[:-1])


def test_a_tip_covered_by_two_other_balls_goes_in_the_joint_step_only() -> None:
    foreground = build_foreground(np.full((15, 15, 60), 100, np.uint8), 5, np.ones(3))
    places = [(7, 7, 20), (7, 7, 24), (7, 7, 28), (7, 7, 32), (7, 7, 26)]
    nodes = foreground.nodes_at(np.array(places)).astype(np.int64)
    skeleton = Skeleton(nodes, np.array([-1, 0, 1, 2, 1]), np.array([3.0, 3.0, 3.0, 3.0, 2.0]))
    assert len(prune_tips(foreground, skeleton, joint=False).nodes) == 5
    assert prune_tips(foreground, skeleton, joint=True).nodes.tolist() == nodes[:4].tolist()


@pytest.mark.parametrize("joint", [False, True])
def test_a_thick_fibre_is_not_eaten_up_from_its_end(joint: bool) -> None:
    foreground = build_foreground(np.full((41, 41, 120), 100, np.uint8), 5, np.ones(3))
    skeleton = chain(foreground, [(20, 20, x) for x in range(20, 100)], 12.0)
    pruned = prune_tips(foreground, skeleton, joint=joint)
    assert len(skeleton.nodes) - len(pruned.nodes) <= 12


def dark_case() -> tuple[Foreground, Segments]:
    """Two segments on a stem: one with a dark tip, one with a dark third in its middle."""
    image = np.zeros((3, 3, 60), np.uint8)
    image[1, 1] = 100
    image[1, 1, 18:20] = 0
    image[1, 1, 28:33] = 0
    foreground = build_foreground(image, 10, np.ones(3), dark_rim=True)

    def run(a: int, b: int) -> list[int]:
        return foreground.nodes_at(np.array([(1, 1, x) for x in range(a, b, 1 if b > a else -1)])).tolist()

    runs = [run(9, 0), run(19, 9), run(34, 19), run(50, 34)]
    start = np.cumsum([0] + [len(r) for r in runs])
    return foreground, Segments(np.concatenate(runs), start, np.array([-1, 0, 1, 2]), np.array([9.0, 8.0, 7.0, 6.0]))


def test_dark_tips_are_cut_and_dark_segments_go_with_all_that_hangs_on_them() -> None:
    foreground, segments = dark_case()
    trimmed = trim_dark(foreground, segments)
    assert trimmed.parent.tolist() == [-1, 0]
    assert np.diff(trimmed.start).tolist() == [9, 8]
    kept = trim_dark(foreground, segments, drop_dark_segments=False)
    assert kept.parent.tolist() == [-1, 0, 1, 2]


def test_without_dark_nodes_nothing_is_trimmed() -> None:
    foreground, _, segments = y_segments()
    assert trim_dark(foreground, segments) is segments
