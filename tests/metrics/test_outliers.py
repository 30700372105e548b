"""Robust scores: known values, and what they must not depend on."""

import numpy as np
import pytest

from medwave.metrics.outliers import LIMIT, robust_scores


def test_known_scores():
    scores = robust_scores([1, 2, 3, 4, 5])  # median 3, median absolute deviation 1
    np.testing.assert_allclose(scores, np.array([-2, -1, 0, 1, 2]) / 1.4826)


def test_one_far_value_is_found_however_far_and_hides_no_other():
    usual = np.linspace(0.58, 0.62, 20)
    for far in (0.3, -1e6):
        scores = robust_scores([*usual, far, 0.4])
        assert (np.abs(scores) > LIMIT).nonzero()[0].tolist() == [20, 21]


def test_scale_and_shift_change_nothing():
    x = np.random.default_rng(2).normal(size=30)
    np.testing.assert_allclose(robust_scores(3 - 7 * x), -robust_scores(x), atol=1e-12)


def test_equal_values_few_values_and_unknown_ones_score_nothing():
    assert not robust_scores(np.full(9, 4.0)).any()
    assert not robust_scores([0, 0, 0, 100]).any()
    assert robust_scores([1, 2, np.nan, 3, 4, 50])[2] == 0


def test_most_values_equal():
    scores = robust_scores([0] * 9 + [400])
    assert scores[:9] == pytest.approx(0)
    assert scores[9] > LIMIT
