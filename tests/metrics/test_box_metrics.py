"""Average precision: known answers."""

import numpy as np
import pytest

from medwave.metrics import FoundBoxes, average_precision, operating_point, right_boxes

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


def test_the_surest_box_takes_a_true_box_once_and_only_of_its_class():
    given = found(
        [[0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30], [20, 21, 30, 31]], [0, 0, 0, 1], [0.6, 0.9, 0.8, 0.1]
    )
    right, taken = right_boxes(given, TRUE[0], LABELS[0])
    assert taken.tolist() == [-1, 0, -1, 1]  # the second is less exact but surer; the third has another class
    assert right.tolist() == [False, True, False, True]
    assert not right_boxes(given, TRUE[1], LABELS[1])[0].any()
    assert right_boxes(found([], [], []), TRUE[0], LABELS[0])[0].shape == (0,)


def test_the_operating_point_has_the_highest_f1():
    given = found([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], [0, 1, 0], [0.9, 0.7, 0.7])
    point = operating_point([given, found([], [], [])], TRUE, LABELS)
    assert point == pytest.approx((0.7, 2 / 3, 1, 0.8))  # boxes of one score count together: 2 of 3 are right
    surer = found([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], [0, 1, 0], [0.9, 0.8, 0.7])
    assert operating_point([surer, found([], [], [])], TRUE, LABELS) == pytest.approx((0.8, 1, 1, 1))
    nothing = operating_point([found([], [], []), found([[1, 1, 5, 5]], [0], [0.9])], TRUE, LABELS)
    assert nothing == (np.inf, 0, 0, 0)
