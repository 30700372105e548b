"""Accuracies at one threshold: equal to brute force with ties, ordered, and blind to nothing that offsets do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medwave.metrics
from medwave.core.errors import GeometryError, InputError
from medwave.metrics.recognition import ClassificationScores, uniform_accuracy

CASES = st.tuples(st.integers(1, 25), st.integers(2, 5), st.integers(1, 6), st.integers(0, 10_000))


def case(shape) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few different values, so that ties are common."""
    count, classes, values, seed = shape
    random = np.random.default_rng(seed)
    return random.integers(-values, values + 1, (count, classes)) / 2.0, random.integers(0, classes, count)


def intervals(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = np.array([row[y] for row, y in zip(scores, labels, strict=True)])
    other = np.array([max(v for j, v in enumerate(row) if j != y) for row, y in zip(scores, labels, strict=True)])
    return own, other


def brute_force(own: np.ndarray, other: np.ndarray) -> int:
    """All thresholds that can differ: the scores, and one below each."""
    candidates = np.concatenate([own, other, own - 0.25, other - 0.25])
    return max(int(np.sum((own > t) & (t >= other))) for t in candidates)


def all_of(scores: np.ndarray, labels: np.ndarray, **options):
    store = ClassificationScores()
    store.update(scores, labels)
    return store.result(**options)


@settings(deadline=None, max_examples=200)
@given(CASES)
def test_the_sweep_is_brute_force_ties_included(shape):
    scores, labels = case(shape)
    own, other = intervals(scores, labels)
    found = uniform_accuracy(scores, labels)
    assert found.accuracy * len(labels) == pytest.approx(brute_force(own, other))
    if found.accuracy:
        at = np.mean((own > found.threshold) & (found.threshold >= other))
        assert at == pytest.approx(found.accuracy)
    else:
        assert math.isnan(found.threshold)


@settings(deadline=None, max_examples=200)
@given(CASES)
def test_uniform_is_at_most_class_wise_is_at_most_sample_wise(shape):
    scores, labels = case(shape)
    own, other = intervals(scores, labels)
    found = all_of(scores, labels)
    by_class = sum(brute_force(own[labels == k], other[labels == k]) for k in np.unique(labels))
    assert found.class_wise * len(labels) == pytest.approx(by_class)
    assert found.sample_wise == pytest.approx(np.mean(own > other))
    assert found.uniform <= found.class_wise <= found.sample_wise
    assert (found.uniform, found.threshold) == pytest.approx(uniform_accuracy(scores, labels), nan_ok=True)


def test_known_answers_by_hand():
    scores = np.array([[3.0, 1.0], [5.0, 4.0], [0.0, 2.0], [2.0, 2.0]])
    labels = np.array([0, 0, 1, 0])  # intervals [1, 3), [4, 5), [0, 2) and none
    found = all_of(scores, labels, learned_threshold=4.5)
    assert (found.samples, found.sample_wise, found.class_wise, found.uniform) == (4, 0.75, 0.5, 0.5)
    assert found.threshold == 1.5
    assert (found.at_learned, found.distance) == (0.25, 3.0)
    assert all_of(scores, labels).at_learned is None
    assert uniform_accuracy([[0.0, 1.0]], [0]) == pytest.approx((0.0, math.nan), nan_ok=True)
    assert uniform_accuracy([[2.0, 1.0]], [0]) == (1.0, 1.5)


def test_of_equally_good_thresholds_the_one_in_the_widest_gap_is_named():
    scores = np.array([[2.0, 1.0], [9.0, 5.0]])
    assert uniform_accuracy(scores, [0, 0]) == (0.5, 7.0)


def test_neighbouring_floats_still_have_a_threshold_between_them():
    low = 1.0
    high = np.nextafter(low, 2)
    assert uniform_accuracy([[high, low]], [0]) == (1.0, low)


@settings(deadline=None, max_examples=50)
@given(CASES, st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0]), st.integers(-10, 10))
def test_a_scale_and_an_offset_common_to_all_move_the_threshold_alone(shape, scale, offset):
    """Without rounding, which would tell gaps of one width apart."""
    scores, labels = case(shape)
    before, after = all_of(scores, labels), all_of(scale * np.round(scores) + offset, labels)
    plain = all_of(np.round(scores), labels)
    assert (after.sample_wise, after.class_wise, after.uniform) == (plain.sample_wise, plain.class_wise, plain.uniform)
    assert after.threshold == pytest.approx(scale * plain.threshold + offset, nan_ok=True)
    assert before.samples == after.samples


def test_an_offset_per_sample_leaves_cross_entropy_and_top1_and_lowers_the_uniform_accuracy():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 400)
    logits = random.normal(size=(400, 5)) + 4 * np.eye(5)[labels]
    moved = logits + 10 * random.normal(size=(400, 1))
    entropies = [
        torch.nn.functional.cross_entropy(torch.from_numpy(z), torch.from_numpy(labels)) for z in (logits, moved)
    ]
    torch.testing.assert_close(*entropies)
    before, after = all_of(logits, labels), all_of(moved, labels)
    assert after.sample_wise == before.sample_wise > 0.95
    assert after.uniform < before.uniform - 0.3


def test_uniform_accuracy_is_not_top1_in_disguise():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.3]])  # a grid of thresholds and an argmax would call both right
    assert uniform_accuracy(np.log(probabilities), [0, 0]).accuracy == 1.0
    apart = np.array([[0.9, 0.8], [0.4, 0.3]])
    assert uniform_accuracy(apart, [0, 0]).accuracy == 0.5


@settings(deadline=None, max_examples=50)
@given(CASES, st.integers(1, 6))
def test_parts_and_merges_are_the_whole(shape, parts):
    scores, labels = case(shape)
    stores = [ClassificationScores(), ClassificationScores()]
    for n, (z, y) in enumerate(zip(np.array_split(scores, parts), np.array_split(labels, parts), strict=True)):
        stores[n % 2].update(z, y)
    stores[0].merge(stores[1])
    found, whole = stores[0].result(0.3), all_of(scores, labels, learned_threshold=0.3)
    assert vars(found) == pytest.approx(vars(whole), nan_ok=True)


def test_tensors_of_any_kind_are_taken():
    scores, labels = torch.randn(20, 4), torch.randint(4, (20,))
    expected = uniform_accuracy(scores.numpy(), labels.numpy())
    assert uniform_accuracy(scores.clone().requires_grad_(), labels) == expected
    assert uniform_accuracy(scores.bfloat16(), labels.int()) == uniform_accuracy(scores.bfloat16().float(), labels)
    assert medwave.metrics.uniform_accuracy is uniform_accuracy


def test_what_does_not_fit_is_refused():
    with pytest.raises(GeometryError, match="2 axes"):
        uniform_accuracy([1.0, 2.0], [0, 0])
    with pytest.raises(GeometryError, match="labels"):
        uniform_accuracy([[1.0, 2.0]], [0, 0])
    with pytest.raises(InputError, match="two classes"):
        uniform_accuracy([[1.0]], [0])
    with pytest.raises(InputError, match="0 to 1"):
        uniform_accuracy([[1.0, 2.0]], [2])
    with pytest.raises(InputError, match="whole numbers"):
        uniform_accuracy([[1.0, 2.0]], [0.5])
    with pytest.raises(InputError, match="NaN"):
        uniform_accuracy([[1.0, math.nan]], [0])
    with pytest.raises(InputError, match="no scores"):
        ClassificationScores().result()
    with pytest.raises(InputError, match="no scores"):
        uniform_accuracy(np.zeros((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(InputError, match="learned threshold"):
        all_of(np.array([[1.0, 2.0]]), np.array([0]), learned_threshold=math.nan)
