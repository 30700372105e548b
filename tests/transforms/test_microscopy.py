"""The intensity scale of volumes that are never read whole."""

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.transforms.microscopy import IntensityScale, sampled_scale


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def test_a_small_volume_is_read_whole():
    volume = noise((40, 70, 130))
    assert sampled_scale(volume.__getitem__, volume.shape) == IntensityScale.of(volume)


def test_a_large_one_is_sampled_fairly_and_alike():
    """Brightness doubles along z, so that a sample of one place would be far off."""
    volume = noise((160, 256, 256)) * np.linspace(1, 2, 160, dtype=np.float32)[:, None, None]
    read = []

    def look(box):
        read.append(np.prod([s.stop - s.start for s in box]))
        return volume[box]

    scale, whole = sampled_scale(look, volume.shape), IntensityScale.of(volume)
    assert sum(read) <= 64 * 16 * 64 * 64
    assert abs(scale.center - whole.center) < 0.05 * whole.center
    assert abs(scale.width - whole.width) < 0.1 * whole.width
    assert sampled_scale(volume.__getitem__, volume.shape) == scale


def test_places_without_an_image_say_nothing():
    """One part in forty was imaged, the rest was never stored."""
    volume = np.zeros((16, 640, 640), np.float32)
    volume[:, 128:192, 64:192] = noise((16, 64, 128))
    scale = sampled_scale(volume.__getitem__, volume.shape)
    assert scale == IntensityScale.of(volume[:, 128:192, 64:192])


def test_one_step_of_a_rounded_image_is_within_the_noise():
    """Even values only, nearly all 0, as after division and masking: a 2 must not look like fibre."""
    volume = np.zeros((16, 64, 64), np.uint8)
    volume[::7] = 2
    volume[8, 8] = 120
    scale = IntensityScale.of(volume)
    assert scale == IntensityScale(0.0, 2.0, noise_seen=False)
    assert IntensityScale.of(volume / np.float32(2)) == IntensityScale(0.0, 1.0, noise_seen=False)
    fine = np.random.default_rng(0).normal(0, 1e-3, (16, 64, 64)).astype(np.float32)
    assert IntensityScale.of(fine).width == pytest.approx(1e-3, rel=0.02)
    assert IntensityScale.of(fine).noise_seen


@pytest.mark.parametrize(("value", "dtype"), [(0, np.uint8), (7, np.uint16), (-1.5, np.float32)])
def test_a_volume_of_one_value_is_refused(value, dtype):
    volume = np.full((20, 30, 40), value, dtype)
    with pytest.raises(InputError, match=f"the value {value} everywhere.*right one"):
        sampled_scale(volume.__getitem__, volume.shape)


def test_values_that_are_not_finite_are_refused():
    volume = noise((20, 30, 40))
    volume[19, 29, 39] = np.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        sampled_scale(volume.__getitem__, volume.shape)
