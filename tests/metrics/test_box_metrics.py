"""Average precision: known answers."""

import numpy as np
import pytest

from medwave.metrics import FoundBoxes, average_precision

TRUE = [np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float), np.zeros((0, 4))]
LABELS = [np.array([0, 1]), np.zeros(0, int)]


def found(boxes, labels, scores):
    return FoundBoxes(np.array(boxes, float).reshape(-1, 4), np.array(labels, int), np.array(scores, float))


def test_all_found_is_one_and_nothing_found_is_none():
    none = found([], [], [])
    assert average_precision(
        [found(TRUE[0], [0, 1], [0.9, 0.8]), none], TRUE, LABELS, ["a", "b"]
    ).mean == pytest.approx(1)
    assert average_precision([none, none], TRUE, LABELS, ["a", "b"]).mean == 0


def test_a_surer_wrong_box_halves_precision_and_a_class_that_is_absent_does_not_count():
    wrong_first = found([[40, 40, 50, 50], [0, 0, 10, 10], [20, 20, 30, 30]], [0, 0, 1], [0.9, 0.5, 0.5])
    scores = average_precision([wrong_first, found([], [], [])], TRUE, LABELS, ["a", "b", "c"])
    assert scores.by_class["a"] == pytest.approx(0.5)
    assert scores.by_class["b"] == pytest.approx(1)
    assert np.isnan(scores.by_class["c"])
    assert scores.mean == pytest.approx(0.75)
    elsewhere = average_precision([found(TRUE[0], [0, 1], [0.5, 0.5]), found([[1, 1, 5, 5]], [0], [0.9])], TRUE,
                                  LABELS, ["a", "b"])  # fmt: skip
    assert elsewhere.by_class == {"a": pytest.approx(0.5), "b": pytest.approx(1)}


@pytest.mark.parametrize(("moved", "right"), [(3, 1), (4, 0)])
def test_a_box_is_right_from_the_overlap_on(moved, right):
    """10 x 10 moved by m along one axis overlap by (10 - m) / (10 + m)."""
    truth, labels = [np.array([[0, 0, 10, 10]], float)], [np.array([0])]
    one = found([[0, moved, 10, 10 + moved]], [0], [0.5])
    assert average_precision([one], truth, labels, ["a"]).mean == pytest.approx(right)
    assert average_precision([one], truth, labels, ["a"], overlap=0.4).mean == pytest.approx(1)
