"""Measures of traced neurons: toy cases known by hand, brute force, laws on random forests, and real trees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import Tree, empty_tree
from medwave.core.tree_paths import densify, resample
from medwave.metrics import (
    betti0_error,
    cl_dice,
    largest_component_recall,
    nearest_on_tree,
    one_to_one_score,
    path_score,
    sample_distances,
    score_trace,
    simplified_diadem,
    skeletonize,
    summarise,
    tolerance_curve,
    tolerance_score,
    tree_distances,
    voxel_scores,
)
from medwave.metrics.neurons import HIGHER_IS_BETTER, LOWER_IS_BETTER
from medwave.volumes.swc import read_swc


def line(length: float, *, y: float = 0.0, x: float = 0.0, nodes: int = 2) -> Tree:
    """A straight line along x of equal edges."""
    positions = np.zeros((nodes, 3))
    positions[:, 0], positions[:, 1] = np.linspace(x, x + length, nodes), y
    return Tree(positions, np.ones(nodes), np.arange(nodes) - 1, np.full(nodes, 2))


def together(*trees: Tree) -> Tree:
    shifts = np.cumsum([0] + [len(tree) for tree in trees[:-1]])
    parent = [np.where(t.parent >= 0, t.parent + s, -1) for t, s in zip(trees, shifts, strict=True)]
    columns = (np.concatenate([getattr(t, name) for t in trees]) for name in ("positions", "radius", "kind"))
    positions, radius, kind = columns
    return Tree(positions, radius, np.concatenate(parent), kind)


def moved(tree: Tree, offset: tuple[float, float, float]) -> Tree:
    return Tree(tree.positions + offset, tree.radius, tree.parent, tree.kind)


def bush() -> Tree:
    """Stem of 40 along x; a fork with an arm of 30 along y, and an arm of 20 along x that forks into two of 25."""
    positions = [[0, 0, 0], [40, 0, 0], [40, 30, 0], [60, 0, 0], [60, 25, 0], [60, -25, 0]]
    return resample(Tree(positions, np.ones(6), [-1, 0, 1, 1, 3, 3], np.zeros(6, dtype=int)), 2.0)


def is_ancestor_path(tree: Tree, node: int) -> list[int]:
    way = [node]
    while tree.parent[way[-1]] >= 0:
        way.append(int(tree.parent[way[-1]]))
    return way


def without(tree: Tree, inside: Callable[[np.ndarray], np.ndarray]) -> Tree:
    return tree.select(~inside(tree.positions))


@st.composite
def forests(draw: st.DrawFn, max_nodes: int = 25) -> Tree:
    """Random forests with a length, some edges of which are long, some of no length."""
    count = draw(st.integers(2, max_nodes))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([1, 3, max_nodes]))
    parent = np.array([-1] + [max(-1, i - 1 - random.integers(0, reach)) for i in range(1, count)])
    parent[2:][random.random(count - 2) < 0.1] = -1
    parent[1] = 0
    positions = random.integers(0, 12, size=(count, 3)) * random.choice([1, 0.5, 4], size=(count, 1))
    positions[1] = positions[0] + 1
    return Tree(positions, np.ones(count), parent, np.zeros(count, dtype=int))


FAILED = {
    "none": None,
    "empty": empty_tree(),
    "one node": line(0, nodes=1),
    "isolated nodes": together(line(0, nodes=1), line(0, nodes=1, x=5)),
    "no length": line(0, nodes=3),
}


# --- ESA, DSA, PDS ---------------------------------------------------------------------------------------------------


def test_the_toy_cases_of_the_definition() -> None:
    far = tree_distances(line(10), line(10, y=3))
    assert far[:3] == (3, 3, 1)
    assert far.max_distance == 3
    near = tree_distances(line(10), line(10, y=1))
    assert near[:3] == (1, 0, 0)
    assert len(densify(line(10))) == 11
    on_threshold = tree_distances(line(10), line(10, y=2))
    assert (on_threshold.dsa, on_threshold.pds) == (2, 1)


def test_one_direction_may_be_far_while_the_other_is_not() -> None:
    found = tree_distances(line(10), line(4))
    assert found.esa_trace_to_gold == 0
    assert found.esa_gold_to_trace == pytest.approx(sum(range(1, 7)) / 11)
    assert found.dsa_gold_to_trace == pytest.approx((2 + 3 + 4 + 5 + 6) / 5)
    assert found.dsa == found.dsa_gold_to_trace  # the empty side is left out
    assert found.pds == pytest.approx(5 / 11 / 2)
    assert found.max_distance == 0


def test_anisotropic_voxels_are_scaled_first() -> None:
    deep = moved(line(10), (0, 0, 3))
    assert tree_distances(line(10), deep, spacing_xyz=(1, 1, 2)).esa == 6
    assert tree_distances(line(10), deep, spacing_xyz=0.5).esa == pytest.approx(1.5)
    assert tolerance_score(line(10), deep, tolerance=2, spacing_xyz=(1, 1, 0.5)).by_samples.f1 == 1
    assert tolerance_score(line(10), deep, tolerance=2).by_samples.f1 == 0


def brute_force(points: np.ndarray, tree: Tree) -> np.ndarray:
    start, stop = tree.positions[tree.edges], tree.positions[tree.parent[tree.edges]]
    run = stop - start
    square = np.maximum((run**2).sum(1), 1e-300)
    share = np.clip(((points[:, None] - start) * run).sum(2) / square, 0, 1)
    return np.linalg.norm(points[:, None] - start - share[..., None] * run, axis=2).min(1)


@settings(deadline=None, max_examples=60)
@given(forests(), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 10.0, 1000.0]))
def test_nearest_points_equal_brute_force(tree: Tree, seed: int, spread: float) -> None:
    points = np.random.default_rng(seed).normal(size=(50, 3)) * spread
    near = nearest_on_tree(points, tree)
    np.testing.assert_allclose(near.distance, brute_force(points, tree), rtol=1e-9, atol=1e-9)
    child, parent = tree.positions[near.edge], tree.positions[tree.parent[near.edge]]
    there = (1 - near.share[:, None]) * child + near.share[:, None] * parent
    np.testing.assert_allclose(np.linalg.norm(points - there, axis=1), near.distance, rtol=1e-9, atol=1e-9)


def test_one_long_edge_among_a_thousand_short_ones_is_found() -> None:
    random = np.random.default_rng(0)
    cloud = Tree(random.normal(size=(1000, 3)), np.ones(1000), np.arange(1000) - 1, np.zeros(1000, dtype=int))
    tree = together(cloud, line(5000, y=40))
    points = random.uniform([0, 20, -20], [5000, 60, 20], size=(500, 3))
    np.testing.assert_allclose(nearest_on_tree(points, tree).distance, brute_force(points, tree), rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(forests(), forests())
def test_swapping_the_trees_swaps_the_directions(a: Tree, b: Tree) -> None:
    one, other = tree_distances(a, b), tree_distances(b, a)
    assert one[:3] == pytest.approx(other[:3])
    assert one[3::2][:3] == pytest.approx(other[4::2][:3])
    assert one.max_distance == pytest.approx(other.max_distance)
    forth, back = tolerance_score(a, b), tolerance_score(b, a)
    assert forth.by_samples == pytest.approx((back.by_samples.recall, back.by_samples.precision, back.by_samples.f1))
    assert one_to_one_score(a, b).f1 == pytest.approx(one_to_one_score(b, a).f1)
    assert path_score(a, b).f1 == pytest.approx(path_score(b, a).f1)


@settings(deadline=None, max_examples=30)
@given(forests())
def test_a_tree_is_a_perfect_trace_of_itself(tree: Tree) -> None:
    scores = score_trace(tree, tree)
    assert tree_distances(tree, tree)[:9] == pytest.approx((0,) * 9, abs=1e-9)
    row = scores.row()
    assert [row[name] for name in LOWER_IS_BETTER] == pytest.approx([0] * len(LOWER_IS_BETTER), abs=1e-9)
    touching = {"largest_component_recall"}  # pieces may touch or overlap
    if len(tree.roots) == 1:
        touching |= {"path_precision", "path_recall", "path_f1"}  # of a tree on itself, the way may be another
    assert [row[name] for name in HIGHER_IS_BETTER if name not in touching] == pytest.approx(
        [1] * (len(HIGHER_IS_BETTER) - len(touching))
    )


@settings(deadline=None, max_examples=30)
@given(forests(), st.integers(0, 2**32 - 1))
def test_numbering_does_not_matter(tree: Tree, seed: int) -> None:
    mixed = tree.select(np.random.default_rng(seed).permutation(len(tree)))
    gold = moved(tree, (0.7, 0.1, 0.3))
    one, other = score_trace(gold, tree).row(), score_trace(gold, mixed).row()
    exact = [n for n in one if n not in {"simplified_diadem", "largest_component_recall"} and not n.startswith("path")]
    assert {n: one[n] for n in exact} == pytest.approx({n: other[n] for n in exact})


# --- precision, recall, F1 -------------------------------------------------------------------------------------------


def test_half_a_trace_has_half_the_recall() -> None:
    score = tolerance_score(line(100), line(48), tolerance=2)
    assert score.by_samples == pytest.approx((1, 51 / 101, 2 * (51 / 101) / (1 + 51 / 101)))
    assert score.by_length.recall == pytest.approx(50.5 / 100)  # the sample on the border stands for a whole step
    assert score.by_length.precision == 1


@settings(deadline=None, max_examples=30)
@given(forests(8), forests(8))
def test_most_samples_that_can_be_matched_once_are(a: Tree, b: Tree) -> None:
    sides = [sample_distances(tree, None, step=1.0).positions for tree in (a, b)]
    near = cdist(*sides) <= np.hypot(2.0, 0.5) * (1 + 1e-9)
    most = near[linear_sum_assignment(near, maximize=True)].sum()
    assert one_to_one_score(a, b)[:2] == pytest.approx((most / len(sides[1]), most / len(sides[0])))


def test_what_memory_could_not_hold_is_refused() -> None:
    nanometres = line(2e7)
    for gold, trace, whose in ((nanometres, line(10), "gold tree"), (line(10), nanometres, "trace")):
        with pytest.raises(InputError, match=f"the {whose} is 2e\\+07 long.*spacing of 0.001"):
            score_trace(gold, trace)
    with pytest.raises(InputError, match=r"is 10 long: sampled at each 1e-07.*a longer step"):
        score_trace(line(10), line(10), step=1e-7)
    assert score_trace(nanometres, nanometres, spacing_xyz=1e-4).path.f1 == 1
    crowd = Tree(np.tile([[0.0, 0, 0], [1, 0, 0]], (6000, 1)), np.ones(12000), np.arange(12000) - 1, np.full(12000, 2))
    with pytest.raises(InputError, match=r"144,000,000 pairs of samples .* smaller tolerance"):
        one_to_one_score(crowd, crowd)


def test_fibres_close_to_each_other_are_matched_in_no_time() -> None:
    """A forest whose samples have so many near ones that a search which tries all ways took 45 s."""
    halves = [
        [4, 0, 7], [6, 2, 9], [5, 0, 8], [16, 40, 8], [12, 10, 8], [6, 1, 5], [64, 88, 16], [9, 4, 4], [18, 4, 4],
        [32, 56, 80], [6, 8, 20], [22, 18, 12], [18, 4, 2], [56, 16, 56], [2, 6, 9], [6, 12, 14], [2, 5, 8],
    ]  # fmt: skip
    parent = [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, 11, 12, -1, 14, 15]
    tree = Tree(np.array(halves) / 2, np.ones(17), parent, np.zeros(17, dtype=int))
    mixed = tree.select(np.array([4, 11, 5, 12, 13, 0, 14, 15, 10, 1, 7, 2, 9, 16, 6, 8, 3]))
    assert one_to_one_score(moved(tree, (0.7, 0.1, 0.3)), mixed) == (1, 1, 1)


@settings(deadline=None, max_examples=30)
@given(forests(), forests())
def test_a_larger_tolerance_never_scores_less(a: Tree, b: Tree) -> None:
    curve = tolerance_curve(a, b)
    assert [point.tolerance for point in curve] == list(range(1, 11))
    for kind in ("by_samples", "by_length"):
        scores = np.array([getattr(point, kind) for point in curve])
        assert (np.diff(scores, axis=0) >= -1e-12).all()
        assert ((scores >= 0) & (scores <= 1 + 1e-12)).all()


def test_resampling_a_trace_changes_no_score_much() -> None:
    gold = bush()
    trace = moved(gold, (0.4, 0.3, 0.5))
    coarse = resample(trace, 7.0)
    one, other = score_trace(gold, trace).row(), score_trace(gold, coarse).row()
    assert one == pytest.approx(other, abs=0.05)


def test_a_fibre_traced_twice_is_half_wrong_only_when_matches_are_one_to_one() -> None:
    gold = line(100)
    double = together(line(100), line(100, y=0.5))
    assert tolerance_score(gold, double).by_samples.precision == 1
    assert one_to_one_score(gold, double)[:2] == pytest.approx((0.5, 1))
    assert one_to_one_score(gold, line(100, y=1.9)).f1 == 1
    assert one_to_one_score(gold, line(100, y=2, x=0.5)).f1 == 1  # out of step by half a step
    assert one_to_one_score(gold, line(100, y=2.3)).f1 == 0


def test_a_break_costs_path_length_but_no_tolerance_score() -> None:
    gold = line(100, nodes=21)
    broken = together(line(51, nodes=11), line(48, x=52, nodes=11))
    assert tolerance_score(gold, broken).by_samples.f1 == 1
    assert path_score(gold, broken).recall == pytest.approx(0.95)
    assert path_score(gold, broken).precision == 1
    assert path_score(gold, line(100, nodes=21)).f1 == 1


def test_a_detour_is_no_connection() -> None:
    gold = line(20, nodes=3)
    detour = Tree([[0, 0, 0], [0, 30, 0], [10, 30, 0], [10, 0, 0], [20, 0, 0]], np.ones(5), np.arange(5) - 1, [0] * 5)
    assert path_score(gold, detour, tolerance=1).recall == 0.5
    assert path_score(gold, detour, tolerance=1, step=5.0).recall == 0.5
    assert path_score(gold, detour, tolerance=1, length_ratio=10).recall == 1


def test_the_way_between_points_goes_over_their_common_ancestor() -> None:
    arms = Tree([[10, 0, 0], [0, 0, 0], [20, 0, 0], [10, 9, 0]], np.ones(4), [-1, 0, 0, 0], [0] * 4)
    assert path_score(line(20, nodes=2), arms).recall == 1
    assert path_score(line(20, nodes=2), arms.select([0, 1, 3])).recall == 0


def test_the_recall_of_the_largest_component() -> None:
    gold = line(100)
    assert largest_component_recall(gold, gold) == pytest.approx(1)
    broken = together(line(60), line(38, x=62))
    assert tolerance_score(gold, broken).by_samples.recall == 1
    assert largest_component_recall(gold, broken) == pytest.approx(0.61, abs=0.01)


# --- forks and tips --------------------------------------------------------------------------------------------------


def test_simplified_diadem_of_known_errors() -> None:
    gold = bush()  # ends 1, 1, 1; forks 3 and 2: weight 8
    assert simplified_diadem(gold, gold) == (1, 8, 8, 0)
    assert simplified_diadem(gold, moved(gold, (1, -1, 1.5))).score == 1
    assert simplified_diadem(gold, moved(gold, (0, 0, 2.5))).score == 0
    no_tip = without(gold, lambda p: p[:, 1] < -0.5)  # one tip gone, and its fork is none
    assert simplified_diadem(gold, no_tip)[:4] == pytest.approx((5 / 8, 5, 8, 0))
    twig = Tree(
        np.concatenate([gold.positions, [[20, 9, 0]]]),
        np.ones(len(gold) + 1),
        np.append(gold.parent, np.flatnonzero((gold.positions == [20, 0, 0]).all(1))[0]),
        np.zeros(len(gold) + 1, dtype=int),
    )
    assert simplified_diadem(gold, twig) == pytest.approx((0.8, 8, 8, 2))


def test_simplified_diadem_finds_the_root_itself_and_minds_connections() -> None:
    gold = bush()
    far_tip = int(np.flatnonzero((gold.positions == [60, 25, 0]).all(1))[0])
    way = is_ancestor_path(gold, far_tip)
    parent = gold.parent.copy()
    parent[way[1:]], parent[far_tip] = way[:-1], -1
    turned = Tree(gold.positions, gold.radius, parent, gold.kind)
    assert simplified_diadem(gold, turned).score == 1
    cut = gold.parent.copy()
    cut[np.flatnonzero((gold.positions == [50, 0, 0]).all(1))[0]] = -1
    broken = Tree(gold.positions, gold.radius, cut, gold.kind)
    assert simplified_diadem(gold, broken).matched_weight == 4  # the fork at 40 (3 ends below it) and its own tip


def test_a_forest_of_neurites_from_one_place_is_a_perfect_trace_of_itself() -> None:
    arm = Tree([[0, 0, 0], [20, 0, 0], [40, 8, 0], [40, -8, 0]], np.ones(4), [-1, 0, 1, 1], [0] * 4)
    back = Tree(arm.positions * (-1, 1, 1), np.ones(4), arm.parent, [0] * 4)
    for forest in (together(arm, back), together(arm, back, arm)):
        assert simplified_diadem(forest, forest).score == 1
        assert path_score(forest, forest) == (1, 1, 1)
    apart = together(arm, moved(back, (0, 0, 9)))
    assert path_score(together(arm, back), apart, tolerance=1)[:2] == pytest.approx((0.5, 0.5))


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", FAILED)
def test_a_failed_trace_is_worst_everywhere(why: str) -> None:
    gold, trace = line(30), FAILED[why]
    scores = score_trace(gold, trace)
    assert scores.failed
    assert np.isnan(scores.distances).all()
    row = scores.row()
    assert all(np.isnan(row[name]) for name in LOWER_IS_BETTER)
    assert all(row[name] == 0 for name in HIGHER_IS_BETTER)
    assert all(point.by_length.f1 == 0 for point in scores.curve)
    assert tolerance_curve(gold, trace)[-1].by_samples == (0, 0, 0)
    assert np.isinf(sample_distances(gold, trace).distance).all()
    with pytest.raises(InputError, match="no length"):
        score_trace(trace if trace is not None else empty_tree(), gold)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.floats(0, 50), min_size=1, max_size=5), st.integers(0, 4), st.sampled_from(sorted(FAILED)))
def test_a_missing_trace_never_improves_an_average(offsets: list[float], which: int, why: str) -> None:
    gold = line(30)
    traces = {f"case {n}": line(30, y=offset) for n, offset in enumerate(offsets)}
    before = summarise({name: score_trace(gold, trace) for name, trace in traces.items()})
    lost = f"case {which % len(offsets)}"
    replaced = summarise({n: score_trace(gold, FAILED[why] if n == lost else t) for n, t in traces.items()})
    added = summarise({n: score_trace(gold, t) for n, t in {**traces, "more": FAILED[why]}.items()})
    assert before.failed == ()
    assert replaced.failed == (lost,)
    assert added.failed == ("more",)
    for after in (replaced, added):
        for table in ("mean", "median", "worst"):
            old, new = getattr(before, table), getattr(after, table)
            assert all(new[name] >= old[name] for name in LOWER_IS_BETTER)
            assert all(new[name] <= old[name] for name in HIGHER_IS_BETTER)
        assert after.mean["esa"] == np.inf


def test_averages_of_good_traces() -> None:
    gold = line(30)
    summary = summarise({str(y): score_trace(gold, line(30, y=y)) for y in (0, 1, 5)})
    assert summary.cases == 3
    assert (summary.mean["esa"], summary.median["esa"], summary.worst["esa"]) == (2, 1, 5)
    assert summary.worst["f1"] == 0
    with pytest.raises(InputError, match="at least one"):
        summarise({})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spacing_xyz": (1, 1, 0)}, "spacing"),
        ({"spacing_xyz": (1, 1)}, "spacing"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": np.nan}, "tolerance"),
        ({"step": 0.0}, "step"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        score_trace(line(10), line(10), **options)
    if "step" not in options and "tolerance" not in options:
        with pytest.raises(InputError, match=words):
            tree_distances(line(10), line(10), **options)


# --- masks -----------------------------------------------------------------------------------------------------------


def tube(radius: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A straight tube and its centre line."""
    skeleton = np.zeros((15, 15, 40), dtype=bool)
    skeleton[7, 7, 4:36] = True
    mask = np.zeros_like(skeleton)
    mask[7 - radius : 8 + radius, 7 - radius : 8 + radius, 4:36] = True
    return mask, skeleton


def test_voxel_scores_count_known_voxels_only() -> None:
    gold, made, valid = np.zeros((3, 2, 4, 5))
    gold[0, 0, :4] = 1
    made[0, 0, 2:5] = 1
    assert voxel_scores(gold, made) == pytest.approx((2 / 5, 2 / 3, 1 / 2))
    assert voxel_scores(gold, gold) == (1, 1, 1)
    valid[0, 0, 1:4] = 1
    assert voxel_scores(gold, made, valid=valid) == pytest.approx((2 / 3, 1, 2 / 3))
    assert voxel_scores(gold, np.zeros_like(gold)) == (0, 0, 0)
    assert np.isnan(voxel_scores(np.zeros_like(gold), made)).all()
    with pytest.raises(GeometryError, match="one shape"):
        voxel_scores(gold, made[0])


def test_cl_dice_forgives_thickness_but_not_breaks() -> None:
    gold, line_gold = tube()
    thin = tube(1)[0]
    assert cl_dice(gold, thin, gold_skeleton=line_gold, skeleton=line_gold) == (1, 1, 1)
    broken, line_broken = thin.copy(), line_gold.copy()
    broken[:, :, 12:20] = line_broken[:, :, 12:20] = False
    assert cl_dice(gold, broken, gold_skeleton=line_gold, skeleton=line_broken) == pytest.approx((6 / 7, 1, 0.75))
    valid = np.ones_like(gold)
    valid[:, :, 12:20] = False
    assert cl_dice(gold, broken, gold_skeleton=line_gold, skeleton=line_broken, valid=valid).cl_dice == 1
    nothing = np.zeros_like(gold)
    assert cl_dice(gold, nothing, gold_skeleton=line_gold, skeleton=nothing) == (0, 0, 0)
    assert np.isnan(cl_dice(nothing, gold, gold_skeleton=nothing, skeleton=line_gold)).all()
    with pytest.raises(GeometryError, match="one shape"):
        cl_dice(gold, gold[1:], gold_skeleton=line_gold, skeleton=line_gold)


def test_thinned_tubes_have_full_cl_dice() -> None:
    gold, _ = tube(3)
    thin = tube(1)[0]
    assert cl_dice(gold, thin).cl_dice == 1
    assert skeletonize(gold).sum() <= 32
    assert betti0_error(gold, skeletonize(gold)) == 0


def test_betti0_error_counts_objects() -> None:
    gold = np.zeros((4, 6, 6), dtype=np.uint8)
    gold[0, 0, 0] = gold[1, 1, 1] = 1  # one object: corners touch
    gold[3, 5, 5] = 7
    assert betti0_error(gold, gold) == 0
    assert betti0_error(gold, gold == 1) == 1
    assert betti0_error(gold, np.zeros_like(gold)) == np.inf
    assert betti0_error(np.zeros_like(gold), gold) == 2
    with pytest.raises(GeometryError, match="one shape"):
        betti0_error(gold, gold[1:])


# --- real trees ------------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("name", ["gold_swc/OP_1", "real_traced/neuron_b"])
def test_real_trees_are_scored_as_expected(data_folder: Path, name: str) -> None:
    gold = read_swc(data_folder / "neurons" / f"{name}.swc")
    coarse = resample(gold, 4.0)
    same = score_trace(gold, coarse).row()
    assert same["esa"] < 0.5
    assert same["f1"] > 0.99
    assert same["one_to_one_f1"] > 0.9
    assert same["simplified_diadem"] > 0.9
    half = score_trace(gold, without(gold, lambda p: p[:, 0] > np.median(p[:, 0]))).row()
    assert half["precision"] == 1
    assert half["recall"] == pytest.approx(0.5, abs=0.15)
    assert half["simplified_diadem"] < 0.7
    shifted = score_trace(gold, moved(gold, (0, 0, 30))).row()
    assert shifted["f1"] < 0.2
    assert shifted["esa"] > 5
