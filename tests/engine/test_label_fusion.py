"""Votes with known outcome: majorities, ties, weights in closed form, and atlases that err together."""

import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError
from medwave.engine.label_fusion import fuse_labels


def test_majority_ties_and_shares():
    labels = np.array([[7, 7, 3, 0], [7, 2, 3, 9], [7, 2, 1, 5]], dtype=np.uint8).reshape(3, 1, 1, 4)
    fused, share = fuse_labels(labels, method="majority")
    assert fused.ravel().tolist() == [7, 2, 3, 0]  # of 0, 5 and 9 with one vote each the smallest
    assert fused.dtype == np.uint8
    np.testing.assert_allclose(share.ravel(), [1, 2 / 3, 2 / 3, 1 / 3], rtol=1e-6)


def test_the_order_of_the_atlases_changes_nothing():
    rng = np.random.default_rng(1)
    labels, images = rng.integers(0, 3, (4, 6, 7, 5)), rng.random((4, 6, 7, 5), dtype=np.float32)
    target = rng.random((6, 7, 5), dtype=np.float32)
    order = [2, 0, 3, 1]
    for method in ("joint", "majority"):
        one = fuse_labels(labels, method=method, target=target, images=images)[0]
        other = fuse_labels(labels[order], method=method, target=target, images=images[order])[0]
        np.testing.assert_array_equal(one, other)


def test_a_lonely_atlas_that_is_right_outvotes_two_that_make_the_same_mistake():
    rng = np.random.default_rng(2)
    target = rng.random((9, 9, 9), dtype=np.float32)
    wrong = rng.random((9, 9, 9), dtype=np.float32)
    labels = np.stack([np.full((9, 9, 9), 1), np.full((9, 9, 9), 2), np.full((9, 9, 9), 2)])
    images = np.stack([target, wrong, wrong])
    joint, share = fuse_labels(labels, target=target, images=images)
    assert (joint == 1).all()
    assert (share > 0.5).all()
    assert (fuse_labels(labels, method="majority")[0] == 2).all()


def test_weights_are_those_of_the_formula():
    rng = np.random.default_rng(3)
    target, images = rng.random((5, 5, 5)), rng.random((2, 5, 5, 5))
    labels = np.stack([np.zeros((5, 5, 5), int), np.ones((5, 5, 5), int)])
    fused, share = fuse_labels(labels, target=target.astype(np.float32), images=images.astype(np.float32))

    def standard(patch):
        centred = patch - patch.mean()
        return centred / np.linalg.norm(centred)

    away = np.stack([np.abs(standard(image) - standard(target)).ravel() for image in images])  # the whole grid
    m = (away @ away.T) ** 2 + 0.1 * np.eye(2)
    w = np.linalg.solve(m, np.ones(2))
    w /= w.sum()
    assert fused[2, 2, 2] == w.argmax()
    assert share[2, 2, 2] == pytest.approx(w.max(), rel=1e-4)


def test_equal_images_have_equal_votes_and_contrast_changes_nothing():
    rng = np.random.default_rng(4)
    target = rng.random((6, 6, 6), dtype=np.float32)
    labels = rng.integers(0, 4, (3, 6, 6, 6))
    same = np.stack([target] * 3)
    majority = fuse_labels(labels, method="majority")[0]
    np.testing.assert_array_equal(fuse_labels(labels, target=target, images=same)[0], majority)
    images = rng.random((3, 6, 6, 6), dtype=np.float32)
    one = fuse_labels(labels, target=target, images=images)[1]
    other = fuse_labels(labels, target=5 * target + 2, images=3 * images + 1)[1]
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_errors():
    labels = np.zeros((2, 3, 3, 3), int)
    with pytest.raises(InputError, match="one of joint, majority"):
        fuse_labels(labels, method="vote")
    with pytest.raises(InputError, match="give the target"):
        fuse_labels(labels)
    with pytest.raises(GeometryError, match="on the target's grid"):
        fuse_labels(labels, target=np.zeros((3, 3, 3)), images=np.zeros((1, 3, 3, 3)))
