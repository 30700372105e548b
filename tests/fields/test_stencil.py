"""Compiled convolutions of small groups: the numbers of torch's, at any size and with any number of threads."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.threads import limited_threads
from medwave.fields.stencil import LANES, convolve, enlarge_ends, filter_each, framed

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 2 * LANES + 3))


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(1, 6), st.sampled_from([3, 6]), st.sampled_from([1.0, 0.01]))
def test_a_convolution_is_that_of_torch(shape, inputs, outputs, slope):
    x, weights, bias = values(inputs, *shape), values(outputs, inputs, 3, 3, 3, seed=1), values(outputs, seed=2)
    frames, inside = framed(inputs, shape)
    inside[:] = x
    out = np.full((outputs, *shape), np.nan, dtype=np.float32)
    convolve(frames, weights, bias, slope, out)
    expected = F.conv3d(*map(torch.from_numpy, (x[None], weights, bias)), padding=1)
    np.testing.assert_allclose(out, F.leaky_relu(expected, slope)[0], rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(1, 4))
def test_each_volume_is_filtered_by_its_own_taps_in_place(shape, count):
    volumes, taps = values(count, *shape), values(count, 3, 3, 3, seed=1)
    expected = F.conv3d(*map(torch.from_numpy, (volumes[None], taps[:, None])), padding=1, groups=count)
    filter_each(volumes, taps)
    np.testing.assert_allclose(volumes, expected[0], rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(SHAPES, SHAPES)
def test_enlarging_keeps_first_and_last_voxels_as_torch_does(before, after):
    coarse, out = values(2, *before), np.full((2, *after), np.nan, dtype=np.float32)
    enlarge_ends(coarse, out)
    expected = F.interpolate(torch.from_numpy(coarse)[None], size=after, mode="trilinear", align_corners=True)
    np.testing.assert_allclose(out, expected[0], atol=1e-4)


def test_frames_hold_whole_lanes_between_zeros_that_stay_zero():
    for width in (1, LANES - 1, LANES, LANES + 1):
        empty, _ = framed(3, (2, 2, width))
        frames, inside = framed(3, (2, 2, width))
        convolve(empty, values(3, 3, 3, 3, 3), np.ones(3, dtype=np.float32), 1.0, inside)
        assert (frames.shape[-1] - 2) % LANES == 0
        assert (inside == 1).all()
        assert frames.sum() == inside.size


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_change_nothing(threads):
    shape, weights, bias = (5, 4, 20), values(3, 2, 3, 3, 3, seed=1), values(3, seed=2)
    frames, inside = framed(2, shape)
    inside[:] = values(2, *shape)
    results = []
    for count in (1, threads):
        out = np.empty((3, *shape), dtype=np.float32)
        with limited_threads(count):
            convolve(frames, weights, bias, 0.01, out)
            filter_each(out, values(3, 3, 3, 3, seed=3))
        results.append(out)
    np.testing.assert_array_equal(*results)
