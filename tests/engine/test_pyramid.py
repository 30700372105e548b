"""Coarser copies keep places and means; the foreground is the subject, whatever axes are called."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medwave.core.geometry import Grid
from medwave.engine.pyramid import coarsen, coarsen_to_spacing, foreground, otsu_threshold

FACTORS = st.tuples(*[st.sampled_from([1, 2, 3, 4, 8])] * 3)


def oblique(shape, spacing=(1.0, 1.5, 2.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = 5, -7, 11
    return Grid(shape, affine)


def ellipsoid(shape=(40, 44, 48), radii=(13, 15, 17), middle=None):
    points = np.indices(shape) - np.reshape([n / 2 for n in shape] if middle is None else middle, (3, 1, 1, 1))
    return (points**2 / np.reshape(radii, (3, 1, 1, 1)) ** 2).sum(0) < 1


# --- coarsen ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 12)] * 3), FACTORS, st.integers(0, 100), st.sampled_from("CF"))
def test_blocks_are_means_and_lie_at_the_middle_of_their_voxels(shape, factors, seed, order):
    data = np.asarray(np.random.default_rng(seed).random(shape), dtype=np.float32, order=order)
    grid = oblique(shape)
    blocks, coarse = coarsen(data, grid, factors)
    assert blocks.shape == coarse.shape == tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
    index = np.array([np.random.default_rng(seed).integers(0, n) for n in coarse.shape])
    # a last block beyond the border repeats it
    axes = [np.minimum(np.arange(f) + i * f, n - 1) for i, f, n in zip(index, factors, shape, strict=True)]
    assert blocks[tuple(index)] == pytest.approx(float(data[np.ix_(*axes)].mean()), rel=1e-5)
    middle = [i * f + (f - 1) / 2 for i, f in zip(index, factors, strict=True)]
    np.testing.assert_allclose(coarse.to_mm(index), grid.to_mm(middle), atol=1e-9)


def test_a_ramp_keeps_its_value_at_every_place():
    grid = oblique((12, 16, 8))
    world = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    blocks, coarse = coarsen(np.float32(world @ (1.0, 2.0, -3.0)), grid, (2, 4, 8))
    there = coarse.to_mm(np.moveaxis(np.indices(coarse.shape), 0, -1))
    np.testing.assert_allclose(blocks, there @ (1.0, 2.0, -3.0), atol=1e-3)


def test_factor_one_changes_nothing():
    data = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    blocks, grid = coarsen(data, oblique((3, 4, 5)), (1, 1, 1))
    np.testing.assert_array_equal(blocks, data)
    assert grid == oblique((3, 4, 5))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_integers_do_not_overflow(dtype):
    data = np.full((8, 8, 8), 200, dtype=dtype)
    blocks, _ = coarsen(data, oblique((8, 8, 8)), (8, 8, 8))
    assert blocks.dtype == np.float32
    assert blocks.item() == 200


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(2, 90)] * 3), st.tuples(*[st.floats(0.3, 6)] * 3), st.floats(0.5, 12))
def test_a_spacing_is_met_from_the_fine_side_with_four_voxels_left(shape, spacing, wanted):
    _, coarse = coarsen_to_spacing(np.zeros(shape, dtype=np.float32), oblique(shape, spacing), wanted)
    for before, after, n, left in zip(spacing, coarse.spacing_mm, shape, coarse.shape, strict=True):
        assert left >= min(n, 4)
        assert after <= max(before, 4 / 3 * wanted) * 1.0001
        if left > 7:
            assert after + before > 0.99 * wanted


# --- foreground ------------------------------------------------------------------------------------------------------


def check(image, truth, least=0.97):
    found = foreground(image.astype(np.float32))
    assert found.dtype == bool
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > least


@pytest.mark.parametrize("background", [0.0, -1000.0, 37.0])
def test_a_stripped_subject_is_found_on_any_constant_background(background):
    truth = ellipsoid()
    texture = 300 + 100 * np.random.default_rng(0).random(truth.shape)
    check(np.where(truth, texture, background), truth, least=0.999)


def test_a_subject_in_noise_is_found_by_its_brightness():
    truth = ellipsoid(radii=(18, 20, 22))
    rng = np.random.default_rng(0)
    check(np.where(truth, 300.0, 10.0) + rng.normal(0, 15, truth.shape), truth)


def test_holes_are_filled_and_specks_dropped():
    truth = ellipsoid()
    image = np.where(truth, 300.0, 0.0)
    image[ellipsoid(radii=(4, 4, 4))] = 0  # dark ventricles
    image[2, 3, 4] = image[35, 40, 44] = 300
    check(image, truth, least=0.995)


def test_a_subject_cut_by_the_border_is_found():
    truth = ellipsoid(middle=(0, 22, 24), radii=(20, 15, 17))
    check(np.where(truth, 300.0, 0.0), truth)


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_axes_have_no_names(order):
    truth = ellipsoid((40, 44, 14), (13, 15, 5))
    image = np.where(truth, 30.0, 0.0).astype(np.float32)
    image[[0, -1]] = image[:, [0, -1]] = 300  # a bright rim on the four small faces of a slab
    expected = foreground(image)
    assert (expected ^ truth)[2:-2, 2:-2].sum() < 20
    np.testing.assert_array_equal(foreground(np.ascontiguousarray(image.transpose(order))), expected.transpose(order))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (5, 5, 5)])
def test_there_is_always_a_foreground(shape):
    assert foreground(np.zeros(shape, dtype=np.float32)).all()
    assert foreground(np.random.default_rng(0).random(shape).astype(np.float32)).any()
    single = np.zeros(shape, dtype=np.float32)
    single[0, 0, 0] = 1
    assert foreground(single).any()


def test_otsu_lies_between_two_heaps():
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(10, 2, 4000), rng.normal(50, 3, 3000)])
    threshold = otsu_threshold(heaps)
    assert 15 < threshold < 42
    few_values = np.repeat([0.0, 30.0, 300.0], [5000, 3000, 800])
    assert 30 < otsu_threshold(few_values) < 300  # between classes, not within one
    assert otsu_threshold(heaps * 7 - 3) == pytest.approx(threshold * 7 - 3, rel=1e-6)
