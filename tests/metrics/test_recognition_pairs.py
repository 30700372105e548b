"""Pairs and identities: equal to counting, known answers, refusals, parts that are the whole, and real faces."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import GeometryError, InputError
from medwave.metrics.recognition import (
    Identification,
    VerificationScores,
    auroc,
    cosine_pairs,
    equal_error_rate,
    folded_accuracy,
    rank1_identification,
    roc,
    tar_at_far,
)

CASES = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 8), st.integers(0, 10_000))


def case(shape) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few different values, so that ties are common, same pairs a little higher."""
    positives, negatives, values, seed = shape
    random = np.random.default_rng(seed)
    scores = random.integers(0, values + 1, positives + negatives) / 4.0
    same = np.arange(positives + negatives) < positives
    order = random.permutation(len(same))
    return (scores + 0.25 * same)[order], same[order]


@settings(deadline=None, max_examples=100)
@given(CASES)
def test_the_curve_counts_pairs_above_each_threshold(shape):
    scores, same = case(shape)
    far, tar, thresholds = roc(scores, same)
    for f, t, threshold in zip(far, tar, thresholds, strict=True):
        accepted = scores > threshold
        assert f == pytest.approx(np.mean(accepted[~same]))
        assert t == pytest.approx(np.mean(accepted[same]))
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert (np.diff(far) >= 0).all()
    assert (np.diff(tar) >= 0).all()
    area = float(np.sum(np.diff(far) * (tar[1:] + tar[:-1]) / 2))
    assert auroc(scores, same) == pytest.approx(area)
    chance = np.mean([(p > n) + 0.5 * (p == n) for p in scores[same] for n in scores[~same]])
    assert area == pytest.approx(chance)


@settings(deadline=None, max_examples=100)
@given(CASES)
def test_the_equal_error_rate_lies_on_the_curve_where_both_errors_meet(shape):
    scores, same = case(shape)
    rate, threshold = equal_error_rate(scores, same)
    far, tar, _ = roc(scores, same)
    meets = [
        f0 + s * (f1 - f0)
        for f0, f1, m0, m1 in zip(far[:-1], far[1:], 1 - tar[:-1], 1 - tar[1:], strict=True)
        if f0 <= m0 and f1 >= m1 and (f1 - f0 + m0 - m1) > 0
        for s in [(m0 - f0) / (f1 - f0 + m0 - m1)]
    ]
    assert any(rate == pytest.approx(m) for m in meets)
    assert 0 <= rate <= 1
    assert math.isfinite(threshold)
    # exchanging the kinds and the sign of the scores exchanges the two errors
    assert equal_error_rate(-scores, ~same).rate == pytest.approx(rate)


def test_known_error_rates():
    assert equal_error_rate([3, 2, 1, 0], [1, 1, 0, 0]) == (0.0, 1.0)
    assert equal_error_rate([3, 2, 1, 0], [0, 0, 1, 1]).rate == 1.0
    assert equal_error_rate([1, 1, 1, 1], [0, 0, 1, 1]).rate == 0.5
    assert equal_error_rate([4, 3, 2, 1], [1, 0, 1, 0]).rate == 0.5
    scores, same = [5, 4, 3, 2, 1, 0.5, 2.5, 0], [1, 1, 1, 1, 0, 0, 0, 0]
    assert equal_error_rate(scores, same).rate == pytest.approx(0.25)


def test_tar_at_far_takes_the_quantile_of_the_negatives_and_refuses_where_there_is_none():
    negatives = np.arange(1000) / 1000
    scores = np.concatenate([negatives, [0.9985, 0.9995, 0.5, 0.999]])
    same = np.arange(len(scores)) >= 1000
    found = tar_at_far(scores, same, 1e-3)  # the largest negative: one of four is above it
    assert (found.tar, found.threshold, found.far) == (0.25, 0.999, 0.0)
    found = tar_at_far(scores, same, 2e-3)
    assert (found.tar, found.threshold, found.far) == (0.75, 0.998, 0.001)
    with pytest.raises(InputError, match="bring 10000 or more"):
        tar_at_far(scores, same, 1e-4)
    with pytest.raises(InputError, match="between 0 and 1"):
        tar_at_far(scores, same, 0)


@pytest.mark.parametrize(("far", "count", "rank"), [(0.07, 100, 7), (0.14, 50, 7), (0.001, 1500, 2), (0.29, 100, 29)])
def test_a_far_is_the_decimal_number_that_is_written(far, count, rank):
    negatives = np.arange(count, dtype=float)
    scores, same = np.append(negatives, count), np.append(np.zeros(count, bool), True)
    assert tar_at_far(scores, same, far).threshold == count - rank


@settings(deadline=None, max_examples=100)
@given(CASES, st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_the_real_far_stays_below_the_wanted_one(shape, far):
    scores, same = case(shape)
    if far * np.sum(~same) < 1:
        with pytest.raises(InputError, match="cannot be measured"):
            tar_at_far(scores, same, far)
        return
    found = tar_at_far(scores, same, far)
    assert found.far == pytest.approx(np.mean(scores[~same] > found.threshold))
    assert found.far < far
    assert found.tar == pytest.approx(np.mean(scores[same] > found.threshold))
    assert np.mean(scores[~same] >= found.threshold) >= far - 1e-12  # no lower threshold would do


def best_by_brute_force(scores: np.ndarray, same: np.ndarray) -> float:
    return max(np.mean((scores > t) == same) for t in [-np.inf, *scores, *(scores - 0.01)])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_each_fold_is_judged_at_the_best_threshold_of_the_others(seed, folds):
    random = np.random.default_rng(seed)
    same = np.tile([True, False], 3 * folds)
    scores = random.integers(0, 6, len(same)) / 4 + 0.3 * same
    found = folded_accuracy(scores, same, folds)
    assert found.mean == pytest.approx(found.accuracies.mean())
    assert found.std == pytest.approx(np.std(found.accuracies))
    for n, held_out in enumerate(np.array_split(np.arange(len(same)), folds)):
        others = np.setdiff1d(np.arange(len(same)), held_out)
        threshold = found.thresholds[n]
        right = np.mean((scores[others] > threshold) == same[others])
        assert right == pytest.approx(best_by_brute_force(scores[others], same[others]))
        assert found.accuracies[n] == pytest.approx(np.mean((scores[held_out] > threshold) == same[held_out]))
    named = np.repeat(np.arange(folds) * 7 - 3, 6)
    assert folded_accuracy(scores, same, named).accuracies == pytest.approx(found.accuracies)


def test_folds_of_separable_pairs_are_all_right_with_a_threshold_in_the_middle():
    same = np.tile([True, False], 50)
    found = folded_accuracy(np.where(same, 0.8, 0.2), same)
    assert (found.mean, found.std) == (1.0, 0.0)
    assert found.thresholds == pytest.approx([0.5] * 10)


@settings(deadline=None, max_examples=30)
@given(CASES, st.integers(1, 5))
def test_parts_and_merges_of_pairs_are_the_whole(shape, parts):
    scores, same = case(shape)
    stores = [VerificationScores(), VerificationScores(largest_negatives=1000)]
    for n, (z, y) in enumerate(zip(np.array_split(scores, parts), np.array_split(same, parts), strict=True)):
        stores[n % 2].update(z, y)
    stores[0].merge(stores[1])
    assert stores[0].negatives == np.sum(~same)
    for measure in (roc, auroc, equal_error_rate):
        for found, expected in zip(
            np.atleast_1d(measure(*stores[0].arrays())), np.atleast_1d(measure(scores, same)), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_the_largest_negatives_are_enough_for_a_small_far_and_nothing_else():
    random = np.random.default_rng(0)
    scores, same = random.normal(size=2_500_000), np.zeros(2_500_000, dtype=bool)
    same[:1000] = True
    scores[:1000] += 4
    short = VerificationScores(largest_negatives=300)
    for z, y in zip(np.array_split(scores, 7), np.array_split(same, 7), strict=True):
        short.update(z, y)
    assert short.tar_at_far(1e-4) == tar_at_far(scores, same, 1e-4)
    assert sum(len(part) for part in short._different) < 2_000_000
    compacted = VerificationScores(largest_negatives=300)
    compacted.merge(short)
    compacted.update(np.full(1_500_000, -9.0), np.zeros(1_500_000, dtype=bool))
    assert compacted.negatives == short.negatives + 1_500_000
    with pytest.raises(InputError, match="3999 largest negatives, 300 were kept"):
        compacted.tar_at_far(1e-3)
    with pytest.raises(InputError, match="leave largest_negatives out"):
        short.arrays()


@pytest.mark.parametrize("merged", [False, True])
def test_ranks_beyond_what_was_dropped_are_refused(monkeypatch, merged):
    monkeypatch.setattr("medwave.metrics.recognition.verification._BLOCK", 2)
    scores = np.random.default_rng(0).normal(size=200)
    same = np.arange(200) < 20
    short, store = VerificationScores(largest_negatives=10), VerificationScores()
    for part in (slice(0, 100), slice(100, 190), slice(190, 200)):
        short.update(scores[part], same[part])
    store.merge(short)
    found = store if merged else short
    assert sum(map(len, short._different)) > 10
    assert found.tar_at_far(0.05) == tar_at_far(scores, same, 0.05)
    with pytest.raises(InputError, match="11 largest negatives, 10 were kept"):
        found.tar_at_far(0.06)


def test_all_pairs_of_a_set_are_scored_once(monkeypatch):
    monkeypatch.setattr("medwave.metrics.recognition.verification._BLOCK", 4)
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(11, 3)), random.integers(0, 3, 11)
    store = VerificationScores()
    store.update_all_pairs(torch.from_numpy(rows), labels)
    scores, same = store.arrays()
    pairs = [(a, b) for a in range(11) for b in range(a)]
    expected = [rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]) for a, b in pairs]
    alike = [labels[a] == labels[b] for a, b in pairs]
    for kind in (True, False):
        np.testing.assert_allclose(np.sort(scores[same == kind]), np.sort(np.array(expected)[np.array(alike) == kind]))
    np.testing.assert_allclose(cosine_pairs(*(rows[list(side)] for side in zip(*pairs, strict=True))), expected)


def test_the_nearest_of_the_gallery_names_the_probe_and_ties_do_not(monkeypatch):
    gallery, names = np.eye(4), np.array([0, 1, 2, 2])
    probes = np.array([[1, 0.1, 0, 0], [0.2, 1, 0.9, 0], [0, 0, 0.1, 1], [1, 1, 0, 0], [0, 1, 0.1, 0]], dtype=float)
    identities = np.array([0, 1, 2, 0, 2])  # right, right, right, a tie, wrong
    assert rank1_identification(probes, identities, gallery, names) == pytest.approx(3 / 5)
    parts = Identification(3 * probes, identities)
    for n in range(4):
        parts.update(2 * gallery[n : n + 1], names[n : n + 1])
    assert parts.rank1() == pytest.approx(3 / 5)
    parts.update(probes[1:2], np.array([77]))  # a distractor that looks like the second probe
    assert parts.rank1() == pytest.approx(2 / 5)
    monkeypatch.setattr("medwave.metrics.recognition.identification._BLOCK", 3)
    assert rank1_identification(probes, identities, gallery, names) == pytest.approx(3 / 5)
    with pytest.raises(InputError, match="no image of 1 identities, such as 5"):
        rank1_identification(probes, np.array([0, 1, 2, 0, 5]), gallery, names)


def test_real_faces_agree_with_an_independent_program_and_beat_chance(data_folder):
    metrics = pytest.importorskip("sklearn.metrics")
    with np.load(data_folder / "images" / "orl_faces" / "orl_faces.npz") as file:
        arrays = {name: file[name] for name in file.files}
    images = next(a for a in arrays.values() if a.ndim >= 3).reshape(400, -1)[:, ::16].astype(float)
    people = next(a for a in arrays.values() if a.shape == (400,)).astype(int)
    images -= images.mean(axis=0)
    store = VerificationScores()
    store.update_all_pairs(images, people)
    scores, same = store.arrays()
    assert (same.sum(), (~same).sum()) == (40 * 45, 400 * 399 // 2 - 40 * 45)
    assert auroc(scores, same) == pytest.approx(metrics.roc_auc_score(same, scores))
    far, tar, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    ours = roc(scores, same)
    np.testing.assert_allclose(ours.far, far)
    np.testing.assert_allclose(ours.tar, tar)
    assert equal_error_rate(scores, same).rate < 0.3
    assert tar_at_far(scores, same, 1e-3).tar > 0.2
    first = np.unique(people, return_index=True)[1]
    rest = np.setdiff1d(np.arange(400), first)
    assert rank1_identification(images[rest], people[rest], images[first], people[first]) > 0.5


def test_what_does_not_fit_is_refused():
    for measure in (roc, auroc, equal_error_rate):
        with pytest.raises(InputError, match="same and different"):
            measure([1.0, 2.0], [True, True])
        with pytest.raises(InputError, match="NaN"):
            measure([1.0, math.nan], [True, False])
        with pytest.raises(GeometryError, match="one answer"):
            measure([1.0, 2.0], [True])
        with pytest.raises(InputError, match="True or False"):
            measure([1.0, 2.0], [2, 0])
    with pytest.raises(InputError, match="folds must be"):
        folded_accuracy([1.0, 2.0], [True, False], 1)
    with pytest.raises(InputError, match="two folds"):
        folded_accuracy([1.0, 2.0], [True, False], [3, 3])
    with pytest.raises(InputError, match="same and different"):
        folded_accuracy([1.0, 2.0], [True, False], 2)
    with pytest.raises(InputError, match="largest_negatives"):
        VerificationScores(0)
    with pytest.raises(InputError, match="same and different"):
        VerificationScores().tar_at_far(0.1)
    with pytest.raises(InputError, match="no probes"):
        Identification(np.zeros((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(InputError, match="zeros"):
        Identification(np.zeros((1, 3)), [0])
    with pytest.raises(GeometryError, match="3 features, the gallery 2"):
        Identification(np.ones((1, 3)), [0]).update(np.ones((1, 2)), [0])
    with pytest.raises(GeometryError, match="one shape"):
        cosine_pairs(np.ones((1, 3)), np.ones((2, 3)))
