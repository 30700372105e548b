"""Corruption errors, confusion matrices and their scores: known answers."""

import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError
from medwave.metrics import ALEXNET_ERRORS, confusion_matrix, corruption_errors, overlap_scores, shift_consistency
from medwave.transforms.corruptions import CORRUPTIONS, GROUPS


def test_a_network_measured_against_itself_has_100_everywhere():
    errors = {kind: [0.1 * s + 0.01 * i for s in range(1, 6)] for i, kind in enumerate(CORRUPTIONS)}
    found = corruption_errors(errors, errors, GROUPS, clean=0.05, reference_clean=0.05)
    assert found.mce == pytest.approx(100)
    assert found.relative_mce == pytest.approx(100)
    assert set(found.by_group) == set(GROUPS)
    assert all(v == pytest.approx(100) for v in (*found.by_kind.values(), *found.by_group.values()))


def test_corruption_errors_by_hand():
    errors, reference = {"fog": [0.1, 0.2], "jpeg": [0.3, 0.3]}, {"fog": [0.3, 0.3], "jpeg": [0.4, 0.6]}
    found = corruption_errors(errors, reference, {"weather": ("fog",), "digital": ("jpeg",), "noise": ("shot",)},
                              clean=0.1, reference_clean=0.2)  # fmt: skip
    assert found.by_kind == pytest.approx({"fog": 50, "jpeg": 60})
    assert found.mce == pytest.approx(55)
    assert found.by_group == pytest.approx({"weather": 50, "digital": 60})
    assert found.relative_mce == pytest.approx(100 * (0.05 / 0.1 + 0.2 / 0.3) / 2)


def test_alexnet_as_its_own_reference():
    errors = {kind: [value] * 5 for kind, value in ALEXNET_ERRORS.items()}
    assert corruption_errors(errors, errors, GROUPS).mce == pytest.approx(100)
    assert tuple(ALEXNET_ERRORS) == CORRUPTIONS


def test_references_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="same kinds"):
        corruption_errors({"fog": [0.1]}, {"jpeg": [0.1]}, GROUPS)
    with pytest.raises(InputError, match="no error under fog"):
        corruption_errors({"fog": [0.1]}, {"fog": [0.0]}, GROUPS)


def test_scores_of_a_confusion_matrix_by_hand():
    truth = np.array([[0, 0, 1], [1, 1, 255]])
    made = np.array([[0, 1, 1], [1, 0, 2]])
    matrix = confusion_matrix(truth, made, 3, ignore=255)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    found = overlap_scores(matrix)
    assert found.pixel_accuracy == pytest.approx(3 / 5)
    np.testing.assert_allclose(found.iou, [1 / 3, 2 / 4, np.nan])
    np.testing.assert_allclose(found.accuracy, [1 / 2, 2 / 3, np.nan])
    assert found.mean_iou == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found.class_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.weighted_iou == pytest.approx(2 / 5 / 3 + 3 / 5 / 2)


def test_matrices_of_parts_add_up():
    rng = np.random.default_rng(0)
    truth, made = rng.integers(0, 4, (2, 100))
    parts = confusion_matrix(truth[:40], made[:40], 4) + confusion_matrix(truth[40:], made[40:], 4)
    np.testing.assert_array_equal(parts, confusion_matrix(truth, made, 4))


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(GeometryError):
        confusion_matrix([0, 1], [0], 2)
    with pytest.raises(InputError, match="truth: classes lie in 0 to 1"):
        confusion_matrix([0, 2], [0, 1], 2)
    with pytest.raises(InputError, match="nothing to score"):
        overlap_scores(np.zeros((2, 2)))
    with pytest.raises(InputError):
        shift_consistency([], [])
    assert shift_consistency([1, 2, 3, 4], [1, 2, 0, 4]) == 0.75
