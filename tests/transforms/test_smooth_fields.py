"""Smooth random fields in batches: length, border, smoothness and seed of each."""

import numpy as np
import pytest
import torch

from medwave.transforms.smooth_fields import random_velocities, smooth_noise

SHAPE = (24, 30, 28)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_velocities_have_the_length_asked_for_and_vanish_at_the_border():
    lengths = np.array([0.0, 1.5, 4.0])
    fields = random_velocities(SHAPE, lengths, np.array([4.0, 5.0, 7.0]), generator(0))
    assert fields.shape == (3, 3, *SHAPE)
    assert fields.square().sum(1).amax((1, 2, 3)).sqrt().numpy() == pytest.approx(lengths, abs=1e-5)
    for axis in (2, 3, 4):
        assert fields.select(axis, 0).abs().max() == fields.select(axis, -1).abs().max() == 0


def test_each_field_is_as_smooth_as_asked():
    """White noise under Gaussians of deviation s has a correlation of exp(-d^2 / 4 s^2) at distance d."""
    sigmas = np.array([2.0, 4.0])
    noise = smooth_noise((40, 40, 40), sigmas, generator(1), channels=6).double()
    for field, sigma in zip(noise, sigmas, strict=True):
        for distance in (1, 3):
            a, b = field[..., distance:], field[..., :-distance]
            found = float((a * b).mean() / field.square().mean())
            assert found == pytest.approx(np.exp(-(distance**2) / (4 * sigma**2)), abs=0.06)


def test_fields_follow_from_the_seed_and_differ_within_a_batch():
    first, again, other = (smooth_noise(SHAPE, np.array([3.0, 3.0]), generator(s), channels=1) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
