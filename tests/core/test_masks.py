"""Masks against scipy's answers, and the laws they obey."""

import numpy as np
import pytest
from scipy import ndimage

from medwave.core.masks import filled, grown, opened, parts

SHAPES = [(9, 11, 13), (1, 4, 5), (20, 3), (2, 2, 2), (24, 25, 26)]


@pytest.fixture(params=[(shape, share) for shape in SHAPES for share in (0.2, 0.5, 0.8)], ids=str)
def mask(request):
    shape, share = request.param
    return np.random.default_rng(len(shape)).random(shape) < share


def test_masks_are_those_of_scipy(mask):
    assert np.array_equal(grown(mask, 3), ndimage.binary_dilation(mask, iterations=3))
    assert np.array_equal(opened(mask), ndimage.binary_opening(mask))
    assert np.array_equal(filled(mask), ndimage.binary_fill_holes(mask))
    labels, count = parts(mask)
    expected, expected_count = ndimage.label(mask)
    assert count == expected_count
    assert np.array_equal(labels, expected)


def test_what_is_asked_twice_is_answered_once(mask):
    assert np.array_equal(filled(filled(mask)), filled(mask))
    assert np.array_equal(opened(opened(mask)), opened(mask))
    assert not (opened(mask) & ~mask).any()
    assert not (mask & ~filled(mask)).any()
    assert np.array_equal(grown(mask, 0), mask)


def test_a_shell_is_filled_only_while_it_is_closed():
    shell = np.zeros((7, 7, 7), bool)
    shell[1:6, 1:6, 1:6] = True
    shell[2:5, 2:5, 2:5] = False
    assert filled(shell).sum() == 125
    shell[1, 3, 3] = False
    assert np.array_equal(filled(shell), shell)


def test_only_so_many_parts_are_looked_for():
    labels, count = parts(np.array([1, 0, 1, 1, 0, 1], bool), most=2)
    assert count == 2
    assert labels.tolist() == [1, 0, 2, 2, 0, 0]


def test_a_transposed_mask_is_no_other():
    mask = np.random.default_rng(1).random((8, 9, 10)) < 0.4
    assert np.array_equal(filled(mask.T), filled(mask).T)
    assert parts(mask.T)[1] == parts(mask)[1]
