"""The heap, the march and the distance transform against SciPy and brute force; components and segments by law."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from medwave.tracing.foreground import Foreground, build_foreground, pack, unpack
from medwave.tracing.heap import pop, push_or_raise
from medwave.tracing.march import geodesic_weight, grey_weighted_distance, march
from medwave.tracing.segments import split_into_segments

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.5, 1.0)]


def random_image(seed: int, shape: tuple[int, int, int] = (5, 6, 7), levels: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)


def edges_between(marks: np.ndarray, connectivity: int, spacing: tuple[float, float, float], *, in_plane: bool = False):
    """All (from, to, length) of neighbouring voxels that are both in ``marks``; flat indices, written as loops."""
    result = []
    for here in np.argwhere(marks):
        for move in np.ndindex(3, 3, 3):
            step = np.array(move) - 1
            there = here + step
            if not 1 <= abs(step).sum() <= connectivity or (in_plane and step[0]):
                continue
            if (there < 0).any() or (there >= marks.shape).any() or not marks[tuple(there)]:
                continue
            length = np.sqrt(((step * spacing) ** 2).sum())
            result.append((np.ravel_multi_index(here, marks.shape), np.ravel_multi_index(there, marks.shape), length))
    a, b, length = zip(*result, strict=True) if result else ((), (), ())
    return np.array(a, int), np.array(b, int), np.array(length, float)


def plain_weight(foreground: Foreground) -> np.ndarray:
    """The same scale for all pieces."""
    return geodesic_weight(foreground.value, np.zeros(len(foreground), np.int32))


def node_places(foreground: Foreground, shape: tuple[int, int, int]) -> np.ndarray:
    return np.ravel_multi_index(tuple(foreground.positions(np.arange(len(foreground))).T), shape)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 9)), max_size=60))
@settings(deadline=None, max_examples=50)
def test_the_heap_gives_items_by_key_then_number(updates: list[tuple[int, int]]) -> None:
    heap, place, key = np.empty(20, np.int32), np.full(20, -1, np.int32), np.full(20, np.inf)
    size = 0
    for item, value in updates:
        if value < key[item]:
            key[item] = value
            size = push_or_raise(heap, place, key, size, item)
    expected = [(value, item) for item, value in enumerate(key) if np.isfinite(value)]
    heapq.heapify(expected)
    while expected:
        item, size = pop(heap, place, key, size)
        assert (key[item], item) == heapq.heappop(expected)
    assert size == 0
    assert (place == -1).all()


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_costs_of_the_march_are_those_of_scipy(connectivity: int, spacing: tuple[float, float, float]) -> None:
    image = random_image(connectivity)
    foreground = build_foreground(image, 60, np.array(spacing))
    weight = plain_weight(foreground)
    roots = np.array([3, 40])
    forest = march(foreground, weight, roots, connectivity=connectivity)

    places = node_places(foreground, image.shape)
    by_place = np.full(image.size, np.nan)
    by_place[places] = weight
    a, b, length = edges_between(image > 60, connectivity, spacing)
    graph = coo_array(((by_place[a] + by_place[b]) / 2 * length, (a, b)), shape=(image.size,) * 2).tocsr()
    expected = dijkstra(graph, indices=places[roots], min_only=True)[places]
    np.testing.assert_allclose(forest.cost, expected, rtol=1e-12)


def test_each_node_comes_after_its_parent_and_costs_one_step_more() -> None:
    foreground = build_foreground(random_image(5, (9, 10, 11)), 80, np.array([2.0, 1.0, 1.0]))
    weight = plain_weight(foreground)
    forest = march(foreground, weight, np.array([7]), connectivity=2)
    rank = np.full(len(forest.parent), -1)
    rank[forest.order] = np.arange(len(forest.order))
    child = np.flatnonzero(forest.parent >= 0)
    above = forest.parent[child]
    assert (rank[above] < rank[child]).all()
    step = (foreground.positions(child) - foreground.positions(above)) * foreground.spacing
    cost = np.linalg.norm(step, axis=1) * (weight[child] + weight[above]) / 2
    np.testing.assert_allclose(forest.cost[child] - forest.cost[above], cost, rtol=1e-9)
    assert forest.parent[7] == -1
    assert ((forest.parent >= 0) == np.isfinite(forest.cost) ^ (np.arange(len(rank)) == 7)).all()


@pytest.mark.parametrize("in_plane", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_grey_weighted_distance_is_brute_force_relaxation(spacing: tuple[float, float, float], in_plane: bool) -> None:
    image = random_image(11)
    inside = image > 50
    foreground = build_foreground(image, 50, np.array(spacing))
    found = grey_weighted_distance(foreground, connectivity=2, in_plane=in_plane)
    a, b, length = edges_between(np.ones_like(inside), 2, spacing, in_plane=in_plane)
    grey = image.reshape(-1).astype(float)
    cost = np.where(inside.reshape(-1), np.inf, 0.0 if in_plane else grey)
    for _ in range(image.size):
        before = cost.copy()
        np.minimum.at(cost, b, np.where(inside.reshape(-1)[b], cost[a] + grey[b] * length, np.inf))
        if np.array_equal(before, cost):
            break
    np.testing.assert_allclose(found, cost[node_places(foreground, image.shape)], rtol=1e-12)


def test_grey_weighted_distance_of_a_full_volume_counts_from_its_faces() -> None:
    foreground = build_foreground(np.full((5, 5, 5), 10, np.uint8), 1, np.ones(3))
    depth = grey_weighted_distance(foreground, connectivity=1).reshape(5, 5, 5)
    assert depth[0, 2, 2] == 10
    assert depth[2, 2, 2] == 30
    flat = build_foreground(np.full((1, 5, 5), 10, np.uint8), 1, np.ones(3))
    assert np.isfinite(grey_weighted_distance(flat, connectivity=2, in_plane=True)).all()


@pytest.mark.parametrize("connectivity", [1, 2, 3])
def test_pieces_are_the_components_of_scipy(connectivity: int) -> None:
    image = random_image(connectivity, (8, 9, 40))
    foreground = build_foreground(image, 190, np.ones(3), connectivity=connectivity)
    expected, count = ndimage.label(image > 190, ndimage.generate_binary_structure(3, connectivity))
    assert foreground.piece.max() + 1 == count
    np.testing.assert_array_equal(foreground.piece + 1, expected[image > 190])
    np.testing.assert_array_equal(foreground.value, image[image > 190])


@pytest.mark.parametrize("shape", [(5, 6, 7), (16, 17, 33), (1, 1, 50)])
def test_nodes_are_found_where_they_lie(shape: tuple[int, int, int]) -> None:
    image = random_image(7, shape)
    foreground = build_foreground(image, 200, np.ones(3))
    everywhere = np.argwhere(np.ones(shape, bool))
    expected = np.full(shape, -1)
    expected[image > 200] = np.arange(len(foreground))
    np.testing.assert_array_equal(foreground.nodes_at(everywhere), expected.reshape(-1))
    np.testing.assert_array_equal(unpack(pack(everywhere)), everywhere)
    assert (np.diff(pack(everywhere)) > 0).all()


def test_a_march_with_a_dark_rim_crosses_one_dark_voxel_and_no_two() -> None:
    image = np.zeros((3, 3, 12), np.uint8)
    image[1, 1, [0, 1, 2, 4, 5, 8, 9]] = 100
    foreground = build_foreground(image, 10, np.ones(3), dark_rim=True)
    start = foreground.nodes_at(np.array([[1, 1, 0]]))
    forest = march(foreground, plain_weight(foreground), start, connectivity=1)
    reached = np.isfinite(forest.cost[foreground.nodes_at(np.array([[1, 1, 5], [1, 1, 8]]))])
    assert reached.tolist() == [True, False]


def test_weights_run_from_one_at_the_brightest_to_the_exponential_of_the_steepness() -> None:
    weight = geodesic_weight(np.array([0, 128, 255], np.uint8), np.zeros(3, int))
    np.testing.assert_allclose(weight[[0, 2]], [np.exp(10), 1])
    assert geodesic_weight(np.full(3, 7, np.uint8), np.zeros(3, int)).tolist() == [1, 1, 1]
    each = geodesic_weight(np.array([0, 5, 128, 7, 255], np.uint8), np.array([0, 1, 0, 1, 0]))
    assert each[[0, 2, 4]].tolist() == weight.tolist()
    np.testing.assert_allclose(each[[1, 3]], [np.exp(10), 1])


def test_segments_are_disjoint_cover_the_tree_and_run_from_tip_to_top() -> None:
    foreground = build_foreground(random_image(3, (9, 10, 11)), 80, np.ones(3))
    forest = march(foreground, plain_weight(foreground), np.array([0]), connectivity=2)
    segments = split_into_segments(foreground, forest, shortest=0.0)
    np.testing.assert_array_equal(np.sort(segments.nodes), np.sort(forest.order))
    has_child = np.bincount(forest.parent[forest.parent >= 0], minlength=len(forest.parent)) > 0
    owner = np.empty(len(forest.parent), int)
    for i, (a, b) in enumerate(zip(segments.start[:-1], segments.start[1:], strict=True)):
        run = segments.nodes[a:b]
        owner[run] = i
        assert not has_child[run[0]]
        np.testing.assert_array_equal(forest.parent[run[:-1]], run[1:])
    top = segments.nodes[segments.start[1:] - 1]
    above = forest.parent[top]
    np.testing.assert_array_equal(segments.parent, np.where(above >= 0, owner[above], -1))
    assert (np.diff(segments.strength) <= 0).all()
    assert (segments.parent < np.arange(len(top))).all()


def test_the_strength_of_a_bright_straight_line_is_its_length_whatever_the_spacing() -> None:
    for axis, spacing in ((2, 1.0), (0, 3.0)):
        shape = [3, 3, 3]
        shape[axis] = 12
        image = np.zeros(shape, np.uint8)
        index: list[int | slice] = [1, 1, 1]
        index[axis] = slice(None)
        image[tuple(index)] = 255
        foreground = build_foreground(image, 10, np.array([spacing, 1.0, 1.0]))
        forest = march(foreground, np.ones(12), np.array([0]), connectivity=2)
        segments = split_into_segments(foreground, forest, shortest=0.0)
        assert segments.strength.tolist() == [11 * spacing + 1]
