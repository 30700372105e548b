"""Broken tubes are joined within the limits of distance and angle, and not beyond."""

import numpy as np
import pytest
import tubes
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.tree import SOMA, Tree
from medwave.core.tree_walk import components
from medwave.tracing import TraceOptions, bridge_gaps, merge, trace
from medwave.tracing.smooth import smooth
from medwave.tracing.voxels import VoxelsInMemory


def straight(start: tuple[float, float, float], stop: tuple[float, float, float], *, kind: int = 0) -> Tree:
    """A chain (x, y, z) of nodes one voxel apart, from ``start`` on."""
    a, b = np.array(start, float), np.array(stop, float)
    count = int(np.linalg.norm(b - a)) + 1
    kinds = np.zeros(count, int)
    kinds[0] = kind
    return Tree(a + np.linspace(0, 1, count)[:, None] * (b - a), np.ones(count), np.arange(count) - 1, kinds)


def join(*pieces: Tree, distance: float = 15.0, angle: float = 45.0, image: np.ndarray | None = None) -> Tree:
    image = np.zeros((20, 80, 100), np.uint8) if image is None else image
    return bridge_gaps(merge(pieces), VoxelsInMemory(image), spacing=np.ones(3), distance=distance, angle_degrees=angle)


@pytest.mark.parametrize("gap", [3, 8, 12])
def test_a_broken_tube_is_joined_up_to_the_distance(gap: int) -> None:
    volume = tubes.draw(tubes.line((8, 10, 5), (8, 10, 75), 2.0), shape=(17, 31, 80))
    volume[:, :, 40 : 40 + gap] = 0
    tree = trace(volume, options=TraceOptions(bridge_distance=gap + 4))
    assert len(tree.roots) == 1
    assert tubes.mean_distance(tree, tubes.line((8, 10, 5), (8, 10, 75))) < 1.0
    assert len(trace(volume, options=TraceOptions(bridge_distance=gap)).roots) == 2


def test_the_limit_of_distance_is_exact() -> None:
    one, other = straight((10, 10, 10), (30, 10, 10)), straight((40, 10, 10), (60, 10, 10))
    assert len(join(one, other, distance=10).roots) == 1
    assert len(join(one, other, distance=9.99).roots) == 2


@pytest.mark.parametrize(("shift", "joined"), [(0, True), (9, True), (11, False)])
def test_the_limit_of_angle_is_exact(shift: float, joined: bool) -> None:
    one, other = straight((10, 30, 10), (40, 30, 10)), straight((50, 30 + shift, 10), (80, 30 + shift, 10))
    end_to_end = float(np.hypot(10, shift))
    assert (len(join(one, other, distance=end_to_end, angle=45).roots) == 1) == joined


def test_parallel_fibres_side_by_side_are_not_joined() -> None:
    one, other = straight((10, 30, 10), (60, 30, 10)), straight((10, 35, 10), (60, 35, 10))
    assert len(join(one, other).roots) == 2


def test_an_end_that_points_at_a_fibre_is_joined_to_it_from_the_side() -> None:
    stem, side = straight((10, 20, 10), (70, 20, 10)), straight((40, 50, 10), (40, 26, 10))
    tree = join(stem, side)
    assert len(tree.roots) == 1
    assert (tree.children_count >= 2).sum() == 1
    fork = tree.positions[np.flatnonzero(tree.children_count >= 2)[0]]
    np.testing.assert_array_equal(fork, [40, 20, 10])


def test_the_joined_tree_keeps_all_nodes_and_adds_a_straight_way_over_dark() -> None:
    one, other = straight((10, 10, 10), (30, 10, 10)), straight((36, 10, 10), (60, 10, 10))
    tree = join(one, other)
    assert len(tree) == len(one) + len(other) + 5
    assert tree.length == pytest.approx(50)
    np.testing.assert_allclose(tree.positions[-5:], [[x, 10, 10] for x in range(31, 36)])


def test_the_way_over_follows_what_is_brighter() -> None:
    image = np.zeros((20, 80, 100), np.uint8)
    image[10, 10, 10:31] = image[10, 10, 44:61] = 100
    for x in range(30, 45):
        image[10, 10 + round(2.5 * np.sin((x - 30) / 14 * np.pi)), x] = 60
    tree = join(straight((10, 10, 10), (30, 10, 10)), straight((44, 10, 10), (60, 10, 10)), image=image)
    added = tree.positions[38:]
    assert added[:, 1].max() >= 12


def test_of_two_partners_the_brighter_way_wins() -> None:
    image = np.zeros((20, 80, 100), np.uint8)
    image[10, 30, 10:31] = 100
    image[10, 36, 42:70] = image[10, 24, 42:70] = 100
    image[10, np.linspace(30, 36, 12).round().astype(int), np.arange(30, 42)] = 70
    stem = straight((10, 30, 10), (30, 30, 10))
    upper, lower = straight((42, 24, 10), (70, 24, 10)), straight((42, 36, 10), (70, 36, 10))
    tree = join(stem, upper, lower, image=image)
    above = tree.positions[tree.parent[len(stem) + len(upper)]]
    assert above[1] > 33


def test_two_somata_are_never_joined_and_a_piece_between_them_joins_one() -> None:
    left = straight((10, 10, 10), (30, 10, 10), kind=SOMA)
    right = straight((80, 10, 10), (60, 10, 10), kind=SOMA)
    assert len(join(left, straight((50, 10, 10), (40, 10, 10), kind=SOMA)).roots) == 2
    tree = join(left, straight((40, 10, 10), (50, 10, 10)), right)
    assert len(tree.roots) == 2
    assert (tree.kind[tree.roots] == SOMA).all()


def test_the_piece_with_the_soma_leads() -> None:
    tree = join(straight((10, 10, 10), (30, 10, 10)), straight((60, 10, 10), (40, 10, 10), kind=SOMA))
    np.testing.assert_array_equal(tree.positions[tree.roots], [[60, 10, 10]])


def test_distances_are_physical_in_thick_slices() -> None:
    image = np.zeros((20, 40, 40), np.uint8)
    spacing = np.array([3.0, 1.0, 1.0])
    pieces = merge([straight((20, 20, 0), (20, 20, 18)), straight((20, 20, 30), (20, 20, 54))])
    for distance, roots in ((12.0, 1), (11.0, 2)):
        tree = bridge_gaps(pieces, VoxelsInMemory(image), spacing=spacing, distance=distance, angle_degrees=45)
        assert len(tree.roots) == roots
        assert tree.length == pytest.approx(pieces.length + (12 if roots == 1 else 0))


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_whatever_is_joined_stays_a_forest_with_all_its_edges(seed: int) -> None:
    random = np.random.default_rng(seed)
    pieces = []
    for _ in range(random.integers(2, 8)):
        a, b = random.uniform([2, 2, 2], [97, 77, 17], (2, 3)).round()
        pieces.append(straight(tuple(a), tuple(b + np.array([3, 0, 0])), kind=int(random.choice([0, SOMA]))))
    before = merge(pieces)
    image = random.integers(0, 256, (20, 80, 100)).astype(np.uint8)
    after = bridge_gaps(before, VoxelsInMemory(image), spacing=np.ones(3), distance=40, angle_degrees=70)
    np.testing.assert_array_equal(after.positions[: len(before)], before.positions)
    edges = {frozenset((int(a), int(after.parent[a]))) for a in after.edges}
    assert {frozenset((int(a), int(before.parent[a]))) for a in before.edges} <= edges
    somata = np.bincount(components(after.parent), after.kind == SOMA)
    assert somata.max() <= max(1, np.bincount(components(before.parent), before.kind == SOMA).max())
    assert len(after.roots) <= len(before.roots)
    assert bridge_gaps(before, VoxelsInMemory(image), spacing=np.ones(3), distance=40, angle_degrees=70) == after
    new = after.edges[after.edges >= len(before)]
    assert (after.edge_lengths[new] <= 2 * np.sqrt(3) + 1e-9).all()


def test_smoothing_keeps_ends_and_straight_lines_and_takes_off_the_staircase() -> None:
    chain = straight((0, 0, 0), (20, 0, 0))
    np.testing.assert_allclose(smooth(chain).positions, chain.positions, atol=0.35)
    stairs = Tree(
        np.column_stack([np.arange(21.0), np.arange(21) % 2, np.zeros(21)]),
        np.ones(21),
        np.arange(21) - 1,
        np.zeros(21, int),
    )
    flat = smooth(stairs)
    assert np.ptp(flat.positions[2:-2, 1]) < 0.15
    np.testing.assert_array_equal(flat.positions[[0, -1]], stairs.positions[[0, -1]])
    assert flat.length < stairs.length
