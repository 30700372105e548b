"""Global mutual information: known values, and the force against finite differences of the value."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medwave.engine.mi_force import BINS, GlobalMutualInformation, mutual_information_table


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def smooth_noise(shape, seed, sigma=1.2):
    """Values between 0.1 and 0.9: the histogram clips at 0 and 1."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (0.1 + 0.8 * (values - values.min()) / max(np.ptp(values), 1e-12)).astype(np.float32)


def pair(shape=(18, 19, 21), seed=0, alike=0.7):
    fixed, other = smooth_noise(shape, seed), smooth_noise(shape, seed + 1)
    return fixed, (alike * np.sqrt(fixed) + (1 - alike) * other).astype(np.float32)


def run(fixed, warped, weight=None):
    out = np.full((3, *fixed.shape), np.nan, dtype=np.float32)
    weight = np.ones_like(fixed) if weight is None else weight
    return GlobalMutualInformation(fixed, weight).force(warped, out), out


def value_in_float64(fixed, warped, weight):
    """The definition: nearest bin of the fixed, cubic B-spline of the warped intensity, in float64."""
    rows = np.rint(np.clip(fixed, 0, 1) * (BINS - 4)).astype(int).ravel()
    places = np.clip(warped.astype(np.float64), 0, 1) * (BINS - 4)
    distance = np.abs(places.ravel()[:, None] - (np.arange(BINS)[None, :] - 1))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    spline = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    joint = np.zeros((BINS, BINS))
    np.add.at(joint, rows, spline * weight.astype(np.float64).ravel()[:, None])
    joint /= joint.sum()
    independent = joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def test_the_value_is_that_of_the_definition():
    fixed, warped = pair()
    weight = smooth_noise(fixed.shape, 5)
    value, _ = run(fixed, warped, weight)
    assert value == pytest.approx(value_in_float64(fixed, warped, weight), abs=1e-5)
    assert value > 0.2


def test_known_values():
    steps = np.repeat(np.linspace(0, 1, 5)[:-1], 16 * 16 * 4).reshape(16, 16, 16).astype(np.float32)
    coarse, _ = run(steps, steps)
    assert coarse == pytest.approx(np.log(4), abs=1e-4)  # four values far apart determine each other: their entropy
    flat, _ = run(steps, np.full_like(steps, 0.5))
    assert flat == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).random(steps.shape).astype(np.float32)
    unrelated, _ = run(steps, noise)
    assert 0 <= unrelated < 0.03


@pytest.mark.parametrize("curve", [lambda x: 1 - x, lambda x: 0.2 + 0.5 * x, lambda x: 0.5 + 0.4 * np.sin(9 * x)])
def test_another_contrast_of_the_same_anatomy_is_closer_than_another_anatomy(curve):
    fixed = smooth_noise((20, 20, 20), 0)
    same, _ = run(fixed, curve(fixed).astype(np.float32))
    other, _ = run(fixed, curve(smooth_noise((20, 20, 20), 1)).astype(np.float32))
    assert same > other + 0.5


def test_the_force_is_the_slope_of_the_value():
    fixed, warped = pair()
    weight = smooth_noise(fixed.shape, 5)
    _, force = run(fixed, warped, weight)
    padded = np.pad(warped.astype(np.float64), 1, mode="edge")
    central = np.stack([(np.roll(padded, -1, a) - np.roll(padded, 1, a))[1:-1, 1:-1, 1:-1] / 2 for a in range(3)])
    rng = np.random.default_rng(1)
    step = 1e-4
    slopes, predicted = [], []
    for _ in range(12):
        field = np.stack([ndimage.gaussian_filter(rng.normal(size=fixed.shape), 1.0) for _ in range(3)])
        moved = (central * field).sum(0)  # how the image changes along this field
        ahead, behind = (value_in_float64(fixed, warped + sign * step * moved, weight) for sign in (1, -1))
        slopes.append((ahead - behind) / (2 * step))
        predicted.append(float((force.astype(np.float64) * field).sum()))
    # the force leaves out a constant: bins per unit of intensity, over the total weight
    scale = (BINS - 4) / weight.sum(dtype=np.float64)
    np.testing.assert_allclose(np.array(predicted) * scale, slopes, atol=2e-3 * np.abs(slopes).max())


def test_the_table_is_the_slope_by_the_histogram():
    histogram = np.random.default_rng(0).random((6, 6)) + 0.1
    value, table = mutual_information_table(histogram)
    joint = histogram / histogram.sum()
    assert value == pytest.approx((joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum(), abs=1e-9)
    for row in range(6):  # a voxel of a fixed bin moves between warped bins: row sums stay
        change = np.zeros((6, 6))
        change[row, 2], change[row, 4] = 1e-6, -1e-6
        slope = (mutual_information_table(joint + change)[0] - mutual_information_table(joint - change)[0]) / 2e-6
        assert table[row, 2] - table[row, 4] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_weights_leave_voxels_out():
    fixed, warped = pair()
    weight = np.ones_like(fixed)
    weight[:9] = 0
    value, force = run(fixed, warped, weight)
    assert value == pytest.approx(run(fixed[9:].copy(), warped[9:].copy())[0], rel=1e-9)
    assert np.abs(force[:, :9]).max() == 0
    spoiled = warped.copy()
    spoiled[:8] = 0.5
    again, force_again = run(fixed, spoiled, weight)
    assert again == value
    np.testing.assert_array_equal(force_again[:, 9:], force[:, 9:])


def test_nothing_to_compare_is_no_force():
    fixed, warped = pair((6, 7, 8))
    value, force = run(fixed, warped, np.zeros_like(fixed))
    assert value == pytest.approx(0, abs=1e-9)
    assert np.abs(force).max() == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -5.0, 7.0])
def test_intensities_beyond_the_bins_stay_in_them(bad):
    fixed, warped = pair((8, 9, 10))
    spoiled = warped.copy()
    spoiled[4, 4, 4] = bad
    value, force = run(fixed, spoiled)
    clipped = warped.copy()
    clipped[4, 4, 4] = 1 if bad > 1 else 0
    expected, expected_force = run(fixed, clipped)
    assert value == pytest.approx(expected, abs=1e-6)
    away = np.ones(fixed.shape, dtype=bool)
    away[3:6, 3:6, 3:6] = False
    np.testing.assert_allclose(force[:, away], expected_force[:, away], atol=1e-5)
    assert np.isfinite(run(spoiled, warped)[0])


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_axes_have_no_names(order):
    fixed, warped = pair((10, 12, 15))
    value, force = run(fixed, warped)
    turned = [np.ascontiguousarray(image.transpose(order)) for image in (fixed, warped)]
    value_turned, force_turned = run(*turned)
    assert value_turned == pytest.approx(value, rel=1e-6)
    expected = force[list(order)].transpose(0, *(1 + a for a in order))
    np.testing.assert_allclose(force_turned, expected, atol=1e-4 * np.abs(force).max())


@pytest.mark.parametrize("depth", [1, 15, 33])
def test_threads_do_not_change_a_bit(set_threads, depth):
    fixed, warped = pair((depth, 9, 12))
    set_threads(1)
    expected = run(fixed, warped)
    for threads in (2, 5):
        set_threads(threads)
        value, force = run(fixed, warped)
        assert value == expected[0]
        np.testing.assert_array_equal(force, expected[1])
