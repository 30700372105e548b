"""Generators: one seed one result, laws of each kind of map."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave import fields
from medwave.core.errors import InputError
from medwave.transforms import (
    add_noise,
    bias_field,
    contrast_curve,
    random_affine,
    random_diffeomorphism,
    random_velocity,
)

SHAPE = (36, 30, 24)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: random_velocity(SHAPE, seed=seed),
        lambda seed: random_diffeomorphism(SHAPE, seed=seed, amplitude_mm=2, smoothness_mm=6),
        lambda seed: random_affine(seed=seed),
        lambda seed: contrast_curve(seed=seed)(np.linspace(0, 1, 50)),
        lambda seed: bias_field(SHAPE, seed=seed),
        lambda seed: add_noise(np.zeros(SHAPE), seed=seed, sigma=1.0),
    ],
    ids=["velocity", "diffeomorphism", "affine", "contrast", "bias", "noise"],
)
def test_one_seed_gives_one_result_and_another_seed_another(make):
    np.testing.assert_array_equal(make(3), make(3))
    assert np.abs(make(3) - make(4)).max() > 1e-3


def test_a_generator_is_a_stream_and_equals_its_seed():
    rng = np.random.default_rng(5)
    first = random_velocity(SHAPE, seed=rng)
    np.testing.assert_array_equal(first, random_velocity(SHAPE, seed=5))
    assert np.abs(first - random_velocity(SHAPE, seed=rng)).max() > 0.1


def test_velocity_has_the_amplitude_asked_for_in_mm_and_fades_at_the_border():
    spacing = (1.0, 2.0, 3.0)
    velocity = random_velocity(SHAPE, seed=0, amplitude_mm=5.0, smoothness_mm=6.0, spacing_mm=spacing)
    assert velocity.shape == (3, *SHAPE)
    assert velocity.dtype == np.float32
    length_mm = np.linalg.norm(velocity * np.reshape(spacing, (3, 1, 1, 1)), axis=0)
    assert length_mm.max() == pytest.approx(5.0, rel=1e-5)
    for axis in range(3):
        edges = np.take(length_mm, [0, -1], axis=axis)
        assert edges.max() == 0.0


def test_smoothness_is_in_mm():
    """Twice the smoothness halves the slopes: the scale of the noise is what was asked for."""

    def steepness(smoothness_mm):
        field = random_velocity((64, 64, 64), seed=1, amplitude_mm=1.0, smoothness_mm=smoothness_mm)
        return np.sqrt((np.diff(field, axis=1) ** 2).mean() / (field**2).mean())

    assert steepness(4.0) / steepness(8.0) == pytest.approx(2.0, rel=0.25)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_diffeomorphism_never_folds(seed):
    displacement = random_diffeomorphism(SHAPE, seed=seed, amplitude_mm=5.0, smoothness_mm=6.0)
    assert float(fields.jacobian_determinant(torch.from_numpy(displacement)[None]).min()) > 0


def test_negated_velocity_is_the_inverse():
    velocity = torch.from_numpy(random_velocity((48, 48, 48), seed=2, amplitude_mm=4.0, smoothness_mm=8.0))[None]
    there, back = fields.integrate(velocity), fields.integrate(-velocity)
    assert float(fields.compose(there, back).abs().max()) < 0.1
    assert float(there.abs().max()) > 2


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_an_affine_stays_in_its_ranges(seed):
    center = np.array([5.0, -20.0, 30.0])
    matrix = random_affine(seed=seed, scale=0.1, shear=0.05, translation_mm=7.0, center_mm=center)
    assert np.abs(matrix[:3, :3] @ center + matrix[:3, 3] - center).max() <= 7.0 + 1e-9
    assert 1.1**-3 <= np.linalg.det(matrix) <= 1.1**3
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])


def test_an_affine_of_rotations_only_is_a_rotation_by_those_angles():
    matrix = random_affine(seed=1, rotation_degrees=20, scale=0, shear=0, translation_mm=0)
    rotation = matrix[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    angle = np.rad2deg(np.arccos((np.trace(rotation) - 1) / 2))
    assert 1 < angle <= 20 * np.sqrt(3) + 1
    np.testing.assert_array_equal(matrix[:3, 3], 0)


def test_no_ranges_give_the_identity():
    matrix = random_affine(seed=0, rotation_degrees=0, scale=0, shear=0, translation_mm=0, center_mm=(50, -30, 20))
    np.testing.assert_allclose(matrix, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("monotone", [True, False])
def test_contrast_keeps_background_and_range(monotone):
    x = np.linspace(0, 1, 500)
    y = contrast_curve(seed=11, monotone=monotone)(x)
    assert y[0] == 0
    assert 0 <= y.min() <= y.max() <= 1
    assert np.abs(np.diff(y)).max() < 0.05
    if monotone:
        assert np.diff(y).min() > 0
        assert y[-1] == pytest.approx(1)


def test_some_free_contrasts_invert_the_order_of_tissues():
    x = np.linspace(0.2, 1, 100)
    assert any((np.diff(contrast_curve(seed=s, monotone=False)(x)) < 0).any() for s in range(5))


def test_bias_is_smooth_positive_and_bounded():
    bias = bias_field((40, 40, 40), seed=3, strength=0.3, smoothness_mm=20)
    assert np.exp(-0.3) - 1e-6 <= bias.min() < 0.95
    assert 1.05 < bias.max() <= np.exp(0.3) + 1e-6
    assert np.log(bias).mean() == pytest.approx(0, abs=1e-5)
    assert np.abs(np.diff(np.log(bias), axis=0)).max() < 0.3 / 20 * 2


def test_rician_noise_has_the_known_moments():
    """Background: Rayleigh with mean sigma sqrt(pi/2). High signal: sqrt(a^2 + sigma^2) to second order."""
    image = np.zeros((60, 60, 60))
    image[30:] = 50.0
    noisy = add_noise(image, seed=0, sigma=2.0)
    assert noisy.min() >= 0
    assert noisy[:30].mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)
    assert noisy[30:].mean() == pytest.approx(50 + 2.0**2 / (2 * 50), rel=0.001)
    assert noisy[30:].std() == pytest.approx(2.0, rel=0.02)


def test_gaussian_noise_has_the_known_moments():
    noise = add_noise(np.full((60, 60, 60), 3.0), seed=0, sigma=0.5, kind="gaussian")
    assert noise.mean() == pytest.approx(3.0, abs=0.01)
    assert noise.std() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: random_velocity(SHAPE, seed=0, smoothness_mm=0),
        lambda: random_velocity(SHAPE, seed=0, spacing_mm=(1, 1, -1)),
        lambda: random_affine(seed=0, scale=-0.1),
        lambda: contrast_curve(seed=0, knots=1),
        lambda: bias_field(SHAPE, seed=0, strength=-1),
        lambda: add_noise(np.zeros(3), seed=0, sigma=1, kind="pink"),
        lambda: add_noise(np.zeros(3), seed=0, sigma=-1),
    ],
)
def test_unusable_numbers_are_refused(call):
    with pytest.raises(InputError):
        call()
