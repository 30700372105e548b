"""Local correlation: the value, and the force as the exact gradient, against plain float64 code and autograd."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.engine.lncc_kernels import LocalCorrelation
from medwave.losses import LocalNCC

EPSILON = 1e-5


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def smooth_noise(shape, seed, sigma=1.0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.min()) / max(np.ptp(values), 1e-12)).astype(np.float32)


def pair(shape, seed=0, alike=0.6):
    fixed, other = smooth_noise(shape, seed), smooth_noise(shape, seed + 1)
    return fixed, (alike * fixed + (1 - alike) * other).astype(np.float32)


def similarity(fixed, warped, weight, radius):
    """The definition, in float64: squared correlation in each window, zeros outside the grid, a weighted mean."""
    count = (2 * radius + 1) ** 3
    kernel = torch.ones(1, 1, *[2 * radius + 1] * 3, dtype=torch.float64)

    def sums(image):
        return F.conv3d(image[None, None], kernel, padding=radius)[0, 0]

    product = sums(fixed * warped) - sums(fixed) * sums(warped) / count
    variances = [(sums(i * i) - sums(i) ** 2 / count).clamp_min(0) for i in (fixed, warped)]
    values = product**2 / (variances[0] * variances[1] + EPSILON * count**2)
    return (weight * values).sum() / weight.sum().clamp_min(1.0)


def gradient_by_autograd(fixed, warped, weight, radius):
    f, w, m = (torch.from_numpy(x).double() for x in (fixed, warped, weight))
    w.requires_grad_()
    value = similarity(f, w, m, radius)
    (slope,) = torch.autograd.grad(value * weight.sum().clip(1), w)
    padded = np.pad(warped.astype(np.float64), 1, mode="edge")
    central = [(np.roll(padded, -1, a) - np.roll(padded, 1, a))[1:-1, 1:-1, 1:-1] / 2 for a in range(3)]
    return float(value.detach()), slope.numpy() * np.stack(central)


def run(fixed, warped, weight=None, radius=2, epsilon=EPSILON):
    out = np.full((3, *fixed.shape), np.nan, dtype=np.float32)
    weight = np.ones_like(fixed) if weight is None else weight
    return LocalCorrelation(fixed, weight, radius, epsilon).force(warped, out), out


@pytest.mark.parametrize("radius", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(14, 15, 17), (9, 8, 31)])
def test_value_and_force_are_those_of_autograd(radius, shape):
    fixed, warped = pair(shape)
    weight = smooth_noise(shape, 7)
    value, force = run(fixed, warped, weight, radius)
    expected, gradient = gradient_by_autograd(fixed, warped, weight, radius)
    assert value == pytest.approx(expected, rel=1e-4)
    assert 0.1 < value < 1
    np.testing.assert_allclose(force, gradient, atol=2e-4 * np.abs(gradient).max())


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.integers(1, 8)] * 3), st.integers(1, 4), st.integers(0, 1000))
def test_any_shape_also_smaller_than_the_window(shape, radius, seed):
    rng = np.random.default_rng(seed)
    fixed, warped, weight = (rng.random(shape).astype(np.float32) for _ in range(3))
    value, force = run(fixed, warped, weight, radius)
    expected, gradient = gradient_by_autograd(fixed, warped, weight, radius)
    assert value == pytest.approx(expected, rel=1e-3, abs=1e-6)
    np.testing.assert_allclose(force, gradient, atol=1e-3 * np.abs(gradient).max() + 1e-6)


def test_the_force_climbs_the_similarity():
    fixed, warped = pair((16, 17, 18))
    value, force = run(fixed, warped)
    slope = np.gradient(warped.astype(np.float64))
    step = 0.05 / np.linalg.norm(force, axis=0).max()
    moved = warped + step * (np.stack(slope) * force).sum(0)  # the image, moved by a small part of the force
    assert run(fixed, moved.astype(np.float32))[0] > value + 1e-4


@pytest.mark.parametrize("scale", [(0.5, 0.0), (-0.8, 0.9), (0.3, 0.5)])
def test_a_linear_change_of_contrast_also_inverted_changes_nothing(scale):
    fixed, warped = pair((18, 19, 20))
    inner = (slice(3, -3),) * 3
    weight = np.zeros_like(fixed)
    weight[inner] = 1
    value, force = run(fixed, warped, weight, epsilon=1e-10)
    other, changed = run(fixed, (scale[0] * warped + scale[1]).astype(np.float32), weight, epsilon=1e-10)
    assert other == pytest.approx(value, rel=1e-3)
    np.testing.assert_allclose(changed, force, atol=2e-3 * np.abs(force).max())


def test_identical_images_reach_one_and_rest():
    fixed = smooth_noise((16, 16, 16), 3) * 4
    weight = np.zeros_like(fixed)
    weight[4:-4, 4:-4, 4:-4] = 1
    value, force = run(fixed, fixed, weight)
    assert value == pytest.approx(1, abs=0.03)
    _, away = run(fixed, np.roll(fixed, 1, 0), weight)
    assert np.abs(force).max() < 0.02 * np.abs(away).max()


def test_flat_images_exert_no_force():
    image, flat = smooth_noise((9, 9, 9), 0), np.full((9, 9, 9), 0.7, dtype=np.float32)
    for fixed, warped in ((image, flat), (flat, flat)):
        _, force = run(fixed, warped)
        assert np.abs(force).max() == 0
    value, force = run(flat[:, :, :], np.zeros_like(flat))
    assert value == 0
    assert np.abs(force).max() == 0


def test_weights_leave_windows_out():
    fixed, warped = pair((20, 20, 20))
    weight = np.ones_like(fixed)
    weight[:10] = 0
    value, force = run(fixed, warped, weight)
    spoiled = warped.copy()
    spoiled[:8] = np.random.default_rng(0).random((8, 20, 20))  # only windows of centre 10 and up count: they reach 8
    again, force_again = run(fixed, spoiled, weight)
    assert again == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(force_again[:, 9:], force[:, 9:], atol=1e-5 * np.abs(force).max())
    assert np.abs(force[:, :8]).max() == 0
    assert np.abs(force[:, 8]).max() > 0
    assert run(fixed, warped, 0 * weight) == (0.0, pytest.approx(np.zeros_like(force)))


def test_weights_count_by_their_size():
    fixed, warped = pair((12, 12, 12))
    half = np.full_like(fixed, 0.5)
    assert run(fixed, warped, half)[0] == pytest.approx(run(fixed, warped)[0], rel=1e-6)
    np.testing.assert_allclose(run(fixed, warped, half)[1], run(fixed, warped)[1] / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_axes_have_no_names(order):
    fixed, warped = pair((10, 12, 15))
    value, force = run(fixed, warped)
    turned = [np.ascontiguousarray(image.transpose(order)) for image in (fixed, warped)]
    value_turned, force_turned = run(*turned)
    assert value_turned == pytest.approx(value, rel=1e-5)
    expected = force[list(order)].transpose(0, *(1 + a for a in order))
    np.testing.assert_allclose(force_turned, expected, atol=1e-4 * np.abs(force).max())


@pytest.mark.parametrize("radius", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 4, 13])
def test_threads_do_not_change_a_bit(set_threads, radius, depth):
    fixed, warped = pair((depth, 11, 19))
    set_threads(1)
    expected = run(fixed, warped, radius=radius)
    for threads in (2, 5):
        set_threads(threads)
        value, force = run(fixed, warped, radius=radius)
        assert value == expected[0]
        np.testing.assert_array_equal(force, expected[1])


def test_the_loss_that_networks_train_with_agrees():
    fixed, warped = pair((21, 22, 23))
    weight = np.zeros_like(fixed)
    weight[2:-2, 2:-2, 2:-2] = 1  # whole windows: the loss counts cut ones by their own size
    value, _ = run(fixed, warped, weight, epsilon=1e-10)
    f, w, m = (torch.from_numpy(x)[None, None] for x in (fixed, warped, weight))
    correlation = LocalNCC(radius=2, epsilon=1e-10)._squared_correlation(w.double(), f.double(), None)
    assert value == pytest.approx(float((correlation * m).sum() / m.sum()), rel=1e-3)


@pytest.mark.parametrize("radius", [0, 5])
def test_windows_out_of_reach_are_refused(radius):
    with pytest.raises(InputError, match="1 to 4"):
        LocalCorrelation(*[np.ones((5, 5, 5), dtype=np.float32)] * 2, radius)
