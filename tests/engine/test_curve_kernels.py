"""Local fit of a curve: the value, and the force as the exact gradient, against plain float64 code and autograd."""

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
from medwave.engine.curve_kernels import LocalCurve
from medwave.engine.lncc_kernels import LocalCorrelation
from medwave.engine.loops import Level, level_for, metric_at

RIDGE, LEAST = 1e-3, 1e-4


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def smooth_noise(shape, seed, sigma=1.0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.min()) / max(np.ptp(values), 1e-12)).astype(np.float32)


def pair(shape, seed=0, alike=0.6):
    """A fixed image, and another that rises and falls with it."""
    fixed, other = smooth_noise(shape, seed), smooth_noise(shape, seed + 1)
    return fixed, (alike * 4 * fixed * (1 - fixed) + (1 - alike) * other).astype(np.float32)


def similarity(fixed, warped, weight, radius):
    """The definition, in float64: a ridge regression in each window by a general solver, zeros outside the grid."""
    count = (2 * radius + 1) ** 3
    kernel = torch.ones(1, 1, *[2 * radius + 1] * 3, dtype=torch.float64)

    def sums(image):
        return F.conv3d(image[None, None], kernel, padding=radius)[0, 0]

    def covariance(one, other):
        return sums(one * other) - sums(one) * sums(other) / count

    basis = [fixed, fixed * fixed]
    spread = torch.stack([torch.stack([covariance(a, b) for a in basis], -1) for b in basis], -1)
    with_warped = torch.stack([covariance(b, warped) for b in basis], -1)
    fit = torch.linalg.solve(spread + RIDGE * count * torch.eye(2, dtype=torch.float64), with_warped)
    values = (fit * with_warped).sum(-1) / (covariance(warped, warped).clamp_min(0) + LEAST * count)
    return (weight * values).sum() / weight.sum().clamp_min(1.0)


def gradient_by_autograd(fixed, warped, weight, radius):
    f, w, m = (torch.from_numpy(x).double() for x in (fixed, warped, weight))
    w.requires_grad_()
    value = similarity(f, w, m, radius)
    (slope,) = torch.autograd.grad(value * weight.sum().clip(1), w)
    padded = np.pad(warped.astype(np.float64), 1, mode="edge")
    central = [(np.roll(padded, -1, a) - np.roll(padded, 1, a))[1:-1, 1:-1, 1:-1] / 2 for a in range(3)]
    return float(value.detach()), slope.numpy() * np.stack(central)


def run(fixed, warped, weight=None, radius=2, ridge=RIDGE, least=LEAST):
    out = np.full((3, *fixed.shape), np.nan, dtype=np.float32)
    weight = np.ones_like(fixed) if weight is None else weight
    return LocalCurve(fixed, weight, radius, ridge, least).force(warped, out), out


def inner(shape, margin):
    weight = np.zeros(shape, dtype=np.float32)
    weight[(slice(margin, -margin),) * 3] = 1
    return weight


@pytest.mark.parametrize("radius", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(14, 15, 17), (9, 8, 31)])
def test_value_and_force_are_those_of_autograd(radius, shape):
    fixed, warped = pair(shape)
    weight = smooth_noise(shape, 7)
    value, force = run(fixed, warped, weight, radius)
    expected, gradient = gradient_by_autograd(fixed, warped, weight, radius)
    assert value == pytest.approx(expected, rel=1e-4)
    assert 0.1 < value < 1
    np.testing.assert_allclose(force, gradient, atol=5e-4 * np.abs(gradient).max())


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.integers(1, 8)] * 3), st.integers(1, 4), st.integers(0, 1000))
def test_any_shape_also_smaller_than_the_window(shape, radius, seed):
    rng = np.random.default_rng(seed)
    fixed, warped, weight = (rng.random(shape).astype(np.float32) for _ in range(3))
    value, force = run(fixed, warped, weight, radius)
    expected, gradient = gradient_by_autograd(fixed, warped, weight, radius)
    assert value == pytest.approx(expected, rel=1e-3, abs=1e-6)
    np.testing.assert_allclose(force, gradient, atol=2e-3 * np.abs(gradient).max() + 1e-6)


def test_the_force_climbs_the_similarity():
    fixed, warped = pair((16, 17, 18))
    value, force = run(fixed, warped)
    slope = np.gradient(warped.astype(np.float64))
    step = 0.05 / np.linalg.norm(force, axis=0).max()
    moved = warped + step * (np.stack(slope) * force).sum(0)  # the image, moved by a small part of the force
    assert run(fixed, moved.astype(np.float32))[0] > value + 1e-4


def test_a_curve_that_rises_and_falls_is_explained_where_a_line_is_not():
    fixed = smooth_noise((24, 24, 24), 3)
    warped = (4 * fixed * (1 - fixed)).astype(np.float32)
    weight = inner(fixed.shape, 4)
    value, force = run(fixed, warped, weight, ridge=1e-7, least=1e-8)
    assert value == pytest.approx(1, abs=0.01)
    _, away = run(fixed, np.roll(warped, 1, 0), weight, ridge=1e-7, least=1e-8)
    assert np.abs(force).mean() < 0.05 * np.abs(away).mean()
    line = LocalCorrelation(fixed, weight, 2).force(warped, np.empty_like(force))
    assert line < 0.9


@pytest.mark.parametrize("scale", [(2.0, 0.0), (-0.8, 0.9), (1.0, 0.5)])
def test_a_linear_change_of_the_warped_contrast_changes_nothing(scale):
    fixed, warped = pair((18, 19, 20))
    weight = inner(fixed.shape, 3)
    value, force = run(fixed, warped, weight, least=1e-9)
    other, changed = run(fixed, (scale[0] * warped + scale[1]).astype(np.float32), weight, least=1e-9)
    assert other == pytest.approx(value, rel=1e-3)
    np.testing.assert_allclose(changed, force, atol=3e-3 * np.abs(force).max())


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 3.0])
def test_flat_images_exert_no_force_to_speak_of(level):
    image, flat = smooth_noise((9, 9, 9), 0), np.full((9, 9, 9), level, dtype=np.float32)
    weight = inner(image.shape, 2)
    _, force = run(image, flat, weight)  # a flat warped image has no slope
    assert np.abs(force).max() == 0
    _, usual = run(*pair((9, 9, 9)), weight)
    value, force = run(flat, image, weight, ridge=3e-5)
    assert 0 <= value < 1e-3
    assert np.abs(force).max() < 0.01 * np.abs(usual).max()


def test_weights_leave_windows_out_and_count_by_their_size():
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
    halved, half = run(fixed, warped, weight / 2)
    assert halved == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(half, force / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_axes_have_no_names(order):
    fixed, warped = pair((10, 12, 15))
    value, force = run(fixed, warped)
    turned = [np.ascontiguousarray(image.transpose(order)) for image in (fixed, warped)]
    value_turned, force_turned = run(*turned)
    assert value_turned == pytest.approx(value, rel=1e-4)
    expected = force[list(order)].transpose(0, *(1 + a for a in order))
    np.testing.assert_allclose(force_turned, expected, atol=5e-4 * np.abs(force).max())


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


@pytest.mark.parametrize("radius", [0, 5])
def test_windows_out_of_reach_are_refused(radius):
    with pytest.raises(InputError, match="1 to 4"):
        LocalCurve(*[np.ones((5, 5, 5), dtype=np.float32)] * 2, radius)


def test_local_correlation_leads_at_coarse_scales_only_and_other_metrics_stay():
    assert [metric_at("curve", factor) for factor in (8, 4, 2, 1)] == ["lncc", "lncc", "curve", "curve"]
    assert all(metric_at(metric, factor) == metric for metric in ("lncc", "mi") for factor in (8, 1))


def test_the_curve_smooths_updates_more_and_fields_in_its_own_way():
    fine, coarse = Level(1, 9, 1.0, 0.37), Level(4, 9, 1.0, 0.6)
    assert level_for("curve", fine) == Level(1, 9, 1.5, 0.46)
    assert level_for("curve", Level(2, 9, 1.6, 0.5)) == Level(2, 9, 1.6, 0.46)
    assert level_for("curve", coarse) == Level(4, 9, 1.0, 0.5)
    assert level_for("curve", Level(8, 9, 1.0, 0.7)) == Level(8, 9, 1.0, 0.5)
    for metric in ("lncc", "mi"):
        assert level_for(metric, fine) == fine
        assert level_for(metric, coarse) == coarse
