"""Separable smoothing against scipy, and the laws of a symmetric filter."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.fields.filters import MAX_RADIUS, box_taps, gaussian_taps, smooth


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_scipy(channels: np.ndarray, taps: np.ndarray) -> np.ndarray:
    whole = np.concatenate([taps[:0:-1], taps]).astype(np.float64)
    out = channels.astype(np.float64)
    for axis in (1, 2, 3):
        out = ndimage.correlate1d(out, whole, axis=axis, mode="constant", cval=0.0)
    return out


def smoothed(channels: np.ndarray, taps: np.ndarray) -> np.ndarray:
    out = np.full_like(channels, np.nan)  # every voxel must be written
    smooth(channels, taps, out)
    return out


FILTERS = {
    **{f"box {r}": box_taps(r) for r in range(1, MAX_RADIUS + 1)},
    **{f"gauss {s}": gaussian_taps(s) for s in (0.0, 0.35, 0.5, 0.7, 1.0, 1.2, 1.5, 1.6)},
    "uneven": np.array([1.0, -0.5, 0.25, 3.0, -2.0], dtype=np.float32),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(1, 13, 11, 18), (3, 9, 1, 5), (2, 1, 7, 1), (1, 1, 1, 1), (3, 2, 3, 40)])
def test_every_radius_on_every_shape_equals_scipy(name: str, shape: tuple[int, ...]) -> None:
    channels, taps = noise(*shape), FILTERS[name]
    expected = by_scipy(channels, taps)
    np.testing.assert_allclose(smoothed(channels, taps), expected, atol=2e-6 * np.abs(taps).sum() ** 3)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 14)] * 3), st.floats(0.0, 1.6), st.integers(0, 100))
def test_a_symmetric_filter_is_its_own_adjoint(shape: tuple[int, int, int], sigma: float, seed: int) -> None:
    x, y, taps = noise(1, *shape, seed=seed), noise(1, *shape, seed=seed + 1), gaussian_taps(sigma)
    left = float((smoothed(x, taps).astype(np.float64) * y).sum())
    right = float((x * smoothed(y, taps).astype(np.float64)).sum())
    assert left == pytest.approx(right, abs=1e-5 * np.sqrt(x.size))


def test_an_impulse_shows_the_filter_and_a_constant_its_sum() -> None:
    impulse = np.zeros((1, 11, 11, 11), dtype=np.float32)
    impulse[0, 5, 5, 5] = 1
    taps = gaussian_taps(1.2)
    whole = np.concatenate([taps[:0:-1], taps])
    expected = np.einsum("i,j,k->ijk", whole, whole, whole)
    radius = len(taps) - 1
    box = slice(5 - radius, 6 + radius)
    np.testing.assert_allclose(smoothed(impulse, taps)[0, box, box, box], expected, atol=1e-7)
    assert smoothed(impulse, taps).sum() == pytest.approx(1, abs=1e-6)
    ones = np.ones((1, 9, 9, 9), dtype=np.float32)
    assert smoothed(ones, box_taps(2))[0, 4, 4, 4] == 125
    assert smoothed(ones, box_taps(4))[0, 0, 0, 0] == 125  # five of nine voxels lie inside, along each axis


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_axes_have_no_names(radius: int) -> None:
    channels, taps = noise(2, 8, 11, 13), box_taps(radius)
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        axes = (0, *(1 + a for a in order))
        turned = np.ascontiguousarray(channels.transpose(axes))
        np.testing.assert_allclose(smoothed(turned, taps), smoothed(channels, taps).transpose(axes), atol=1e-4)


@pytest.mark.parametrize("radius", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 3, 7, 20])
def test_threads_do_not_change_a_bit(set_threads, radius: int, depth: int) -> None:
    channels, taps = noise(3, depth, 9, 21), box_taps(radius)
    set_threads(1)
    expected = smoothed(channels, taps)
    for threads in (2, 5):
        set_threads(threads)
        np.testing.assert_array_equal(smoothed(channels, taps), expected)


@pytest.mark.parametrize("sigma", [0.35, 0.7, 1.0, 1.5])
def test_gaussian_taps_are_a_normalised_gaussian(sigma: float) -> None:
    taps = gaussian_taps(sigma)
    assert taps.dtype == np.float32
    assert taps[0] + 2 * taps[1:].sum() == pytest.approx(1, abs=1e-6)
    kept = np.flatnonzero(taps)
    np.testing.assert_allclose(taps[kept] / taps[0], np.exp(-0.5 * (kept / sigma) ** 2), rtol=1e-5)
    left_out = np.exp(-0.5 * ((kept[-1] + 1) / sigma) ** 2)
    assert left_out < 0.044


def test_smoothing_adds_variances() -> None:
    taps = gaussian_taps(1.0)
    twice = np.convolve(np.concatenate([taps[:0:-1], taps]), np.concatenate([taps[:0:-1], taps]))
    places = np.arange(len(twice)) - len(twice) // 2
    assert (twice * places**2).sum() == pytest.approx(2 * 2 * (taps[1:] * np.arange(1, len(taps)) ** 2).sum(), rel=1e-5)
    assert (twice * places**2).sum() == pytest.approx(2, rel=0.05)  # the tails that are cut off


def test_no_smoothing_is_the_identity() -> None:
    channels = noise(3, 5, 6, 7)
    np.testing.assert_array_equal(smoothed(channels, gaussian_taps(0.0)), channels)


@pytest.mark.parametrize("sigma", [1.61, 5.0, -0.5, float("nan")])
def test_sigmas_out_of_reach_are_refused(sigma: float) -> None:
    with pytest.raises(InputError, match=r"0 to 1\.6 voxels"):
        gaussian_taps(sigma)


@pytest.mark.parametrize("radius", [0, 5, -1])
def test_boxes_out_of_reach_are_refused(radius: int) -> None:
    with pytest.raises(InputError, match="1 to 4"):
        box_taps(radius)
