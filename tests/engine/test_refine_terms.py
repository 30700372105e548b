"""Channels and landmarks: means of what each channel says alone, and points that arrive without folds."""

import numpy as np
import pytest
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError
from medwave.engine.loops import Level
from medwave.engine.refine import refine
from medwave.engine.refine_terms import Channel, Landmarks
from medwave.metrics import folding

SHAPE = (28, 26, 30)
LEVELS = (Level(2, 20, 1.5, 0.6), Level(1, 12, 1.5, 0.5))


def texture(seed, sigma=2.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), sigma)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def shifted(image, voxels=(1.4, -0.8, 0.6)):
    return np.ascontiguousarray(ndimage.shift(image, voxels, order=3, mode="nearest"), dtype=np.float32)


@pytest.mark.parametrize("metric", ["lncc", "mi", "curve"])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_channel_like_the_first_changes_nothing(metric, weight):
    fixed, moving = texture(0), shifted(texture(0))
    alone = refine(fixed, moving, LEVELS, metric=metric)
    twice = refine(fixed, moving, LEVELS, metric=metric, channels=[Channel(fixed, moving, weight)])
    np.testing.assert_allclose(twice.displacement_voxels, alone.displacement_voxels, atol=0.02)
    np.testing.assert_allclose(twice.similarity[0][0], alone.similarity[0][0], rtol=1e-5)


def test_similarity_is_the_mean_by_weights():
    pairs = [(texture(n), shifted(texture(n), (n + 0.5, 0, 0))) for n in (0, 1)]
    alone = [refine(*pair, LEVELS[:1]).similarity[0][0] for pair in pairs]
    both = refine(*pairs[0], LEVELS[:1], channels=[Channel(*pairs[1], 3.0)]).similarity[0][0]
    assert both == pytest.approx((alone[0] + 3 * alone[1]) / 4, rel=1e-4)


def test_a_channel_tells_what_the_first_does_not():
    """The first pair is blank in one half: only the second knows how that half moves."""
    image = texture(0)
    blank = image.copy()
    blank[:, :, 15:] = 0.5
    far = (slice(5, -5), slice(5, -5), slice(21, -4))
    shift = (1.4, -0.8, 0.0)

    def error(**more):
        u = refine(blank, shifted(blank, shift), LEVELS, **more).displacement_voxels
        return np.linalg.norm(u - np.reshape(shift, (3, 1, 1, 1)), axis=0)[far].mean()

    assert error(channels=[Channel(image, shifted(image, shift))]) < 0.35 < 0.9 < error()


@pytest.mark.parametrize("metric", ["lncc", "mi", "curve"])
def test_a_channel_says_nothing_where_it_is_missing(metric):
    image, moving = texture(0), shifted(texture(0))
    other = shifted(image, (-2.0, 2.0, 0))  # as wrong as can be, where nobody is to look
    missing = np.zeros(SHAPE, dtype=bool)
    missing[:, :, 12:] = True
    channel = Channel(image, np.where(missing, other, moving), 1.0, missing)
    far = (slice(None), slice(5, -5), slice(5, -5), slice(18, -4))
    alone, with_it = (refine(image, moving, LEVELS, metric=metric, channels=c) for c in ((), [channel]))
    away = np.linalg.norm(with_it.displacement_voxels - alone.displacement_voxels, axis=0)[far[1:]]
    assert away.max() < 0.2
    misled = refine(image, moving, LEVELS, metric=metric, channels=[Channel(channel.fixed, channel.moving)])
    assert np.linalg.norm(misled.displacement_voxels - alone.displacement_voxels, axis=0)[far[1:]].max() > 0.4


def test_landmarks_arrive_without_folds():
    rng = np.random.default_rng(3)
    places = rng.uniform(7, 19, (6, 3))
    targets = places + ndimage.gaussian_filter(rng.normal(size=(6, 3)), 0.5) * 2
    blank = np.full(SHAPE, 0.5, np.float32)
    found = refine(blank, blank, LEVELS, landmarks=Landmarks(places, targets, 2.5)).displacement_voxels
    at = np.stack([ndimage.map_coordinates(u, places.T, order=1) for u in found], axis=1)
    before, after = (np.linalg.norm(targets - places - moved, axis=1).mean() for moved in (0, at))
    assert after < 0.25 * before
    assert folding(found).count == 0
    none = refine(blank, blank, LEVELS, landmarks=Landmarks(places, targets, 2.5, weight=0)).displacement_voxels
    assert not none.any()


def test_landmarks_far_outside_pull_nothing_and_break_nothing():
    blank = np.full(SHAPE, 0.5, np.float32)
    far = np.array([[-90.0, 5, 5], [500.0, 500, 500]])
    assert not refine(blank, blank, LEVELS, landmarks=Landmarks(far, far + 3, 2.0)).displacement_voxels.any()


def test_torch_operators_give_the_same_numbers():
    import torch

    from medwave.engine.torch_loops import TorchLoops

    fixed, moving = texture(0), shifted(texture(0))
    marks = Landmarks(np.array([[10.0, 11, 12], [18.3, 9.2, 20.1]]), np.array([[11.0, 11, 12], [18.3, 8.2, 20.6]]), 3.0)
    missing = np.indices(SHAPE)[0] < 9
    terms = {"channels": [Channel(texture(1), shifted(texture(1)), 0.5, missing)], "landmarks": marks}
    level = (Level(1, 4, 1.5, 0.5),)
    compiled = refine(fixed, moving, level, **terms).displacement_voxels
    plain = refine(fixed, moving, level, **terms, loops=TorchLoops(torch.device("cpu"))).displacement_voxels
    np.testing.assert_allclose(plain, compiled, atol=2e-3)


def test_what_does_not_fit_is_said():
    image = texture(0)
    with pytest.raises(GeometryError, match="channel_moving"):
        refine(image, image, LEVELS, channels=[Channel(image, image[:-1])])
    with pytest.raises(GeometryError, match=r"\(N, 3\)"):
        Landmarks(np.zeros((4, 3)), np.zeros((5, 3)), 1.0)
    with pytest.raises(InputError, match="0 to 1"):
        Landmarks(np.zeros((4, 3)), np.zeros((4, 3)), 1.0, weight=2)
    with pytest.raises(InputError, match="compositive"):
        refine(image, image, LEVELS, formulation="wavelet", channels=[Channel(image, image)])
