"""The moving image in the contrast of the fixed one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medwave.engine.fixed_contrast import FixedContrast, in_contrast_of
from medwave.engine.loops import CpuLoops, Level
from medwave.engine.refine import refine
from medwave.engine.refine_terms import Channel

BIN = 1.2 / 48


def images(seed, curve, noise=0.0, shape=(20, 21, 22)):
    rng = np.random.default_rng(seed)
    fixed = rng.random(shape, dtype=np.float32)
    moving = curve(fixed) + noise * rng.standard_normal(shape)
    return fixed, moving.astype(np.float32), np.ones(shape, dtype=bool)


@pytest.mark.parametrize("curve", [lambda f: 1 - f, lambda f: 0.3 * f + 0.7 * f**2, lambda f: 1.1 - np.sqrt(f)])
def test_what_a_curve_made_of_the_fixed_image_turns_back_into_it(curve):
    fixed, moving, everywhere = images(0, curve)
    found = in_contrast_of(fixed, moving, moving, everywhere)
    inside = (fixed > 0.1) & (fixed < 0.9)  # smoothing over bins bends both ends
    np.testing.assert_allclose(found[inside], fixed[inside], atol=2 * BIN)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.3))
def test_it_tells_more_of_the_fixed_image_than_a_line_does(seed, noise):
    fixed, moving, everywhere = images(seed, lambda f: 1 - 3.2 * (f - 0.4) ** 2, noise)
    found = in_contrast_of(fixed, moving, moving, everywhere)
    assert np.corrcoef(found.ravel(), fixed.ravel())[0, 1] > abs(np.corrcoef(moving.ravel(), fixed.ravel())[0, 1])


def test_it_lies_between_the_intensities_of_the_fixed_image():
    fixed, moving, everywhere = images(3, lambda f: 2 * f - 0.4)  # beyond the range of the table on both sides
    found = in_contrast_of(fixed, moving, moving, everywhere)
    assert found.dtype == np.float32
    assert found.shape == moving.shape
    assert fixed.min() <= found.min()
    assert found.max() <= fixed.max()


def test_only_voxels_that_count_teach():
    fixed, moving, counted = images(4, lambda f: 1 - f)
    counted[:10] = False
    spoilt = fixed.copy()
    spoilt[:10] = 7.0
    np.testing.assert_array_equal(
        in_contrast_of(spoilt, moving, moving, counted), in_contrast_of(fixed, moving, moving, counted)
    )


def test_it_learns_from_where_the_warped_image_is_and_changes_the_moving_one():
    fixed, warped, everywhere = images(5, lambda f: 1 - f)
    moving = np.linspace(0.1, 0.9, 60, dtype=np.float32).reshape(3, 4, 5)
    np.testing.assert_allclose(in_contrast_of(fixed, warped, moving, everywhere), 1 - moving, atol=BIN)


def test_intensities_that_nothing_shows_are_interpolated():
    fixed, moving, _ = images(6, lambda f: 1 - f)
    counted = (moving < 0.3) | (moving > 0.7)
    between = np.array([0.4, 0.5, 0.6], dtype=np.float32)
    np.testing.assert_allclose(in_contrast_of(fixed, moving, between, counted), 1 - between, atol=2 * BIN)


def test_without_voxels_to_learn_from_the_image_stays():
    fixed, moving, everywhere = images(7, lambda f: f)
    assert in_contrast_of(fixed, moving, moving, ~everywhere) is moving


COARSE = (Level(8, 5, 1.5, 0.7), Level(4, 5, 1.5, 0.6))


@pytest.fixture(scope="module")
def contrasts():
    """A smooth texture, and the same moved by three voxels in another contrast."""
    one = ndimage.gaussian_filter(np.random.default_rng(8).standard_normal((64, 64, 64)), 5.0)
    one = ((one - one.min()) / np.ptp(one)).astype(np.float32)
    return one, np.roll(1.1 - one, 3, axis=1).astype(np.float32)


def test_coarse_scales_follow_local_correlation_in_the_contrast_of_the_fixed_image(contrasts):
    fixed, moving = contrasts
    loops, first = CpuLoops(), COARSE[:1]
    still = FixedContrast(loops, np.zeros((3, 8, 8, 8), np.float32), 8, np.ones_like(fixed), None)
    alike = still.moving(fixed, moving)
    by_hand = refine(fixed, alike, first, metric="lncc").displacement_voxels
    np.testing.assert_array_equal(refine(fixed, moving, first, metric="curve").displacement_voxels, by_hand)
    assert np.abs(by_hand).max() > 0.5


def test_a_channel_that_repeats_the_images_changes_nothing(contrasts):
    alone = refine(*contrasts, COARSE, metric="curve").displacement_voxels
    twice = refine(*contrasts, COARSE, metric="curve", channels=[Channel(*contrasts)]).displacement_voxels
    np.testing.assert_allclose(twice, alone, atol=1e-4)


def test_excluded_voxels_do_not_teach(contrasts):
    fixed, moving = contrasts
    excluded = np.zeros(fixed.shape, bool)
    excluded[:20] = True
    spoilt = fixed.copy()
    spoilt[:20] = 3.0
    none = np.zeros((3, 8, 8, 8), np.float32)
    one, other, all_of_it = (
        FixedContrast(CpuLoops(), none, 8, np.ones_like(fixed), left_out).moving(image, moving)
        for image, left_out in ((spoilt, excluded), (fixed, excluded), (spoilt, None))
    )
    np.testing.assert_array_equal(one, other)
    assert np.abs(all_of_it - other).max() > 0.1
