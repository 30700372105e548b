"""Refinement: a known deformation is found, both back-ends and all threads agree, nothing folds, masks hold."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.engine.loops import CpuLoops, Level, converged
from medwave.engine.pyramid import enlarge
from medwave.engine.refine import refine
from medwave.engine.torch_loops import TorchLoops
from medwave.fields import integrate, jacobian_determinant, warp

LEVELS = (Level(4, 40, 1.5, 0.6), Level(2, 40, 1.5, 0.5), Level(1, 20, 1.0, 0.4))
SHAPE = (44, 50, 46)  # not a multiple of the factors


def texture(seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    image = (image - image.min()) / np.ptp(image)
    edge = np.ones(shape)
    for axis, n in enumerate(shape):
        edge *= np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / 6, 0, 1).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
    return np.ascontiguousarray(image * edge, dtype=np.float32)


def smooth_field(amplitude, seed=1, shape=SHAPE):
    rng = np.random.default_rng(seed)
    velocity = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 6.0) for _ in range(3)])
    velocity *= amplitude / np.abs(velocity).max()
    return integrate(torch.from_numpy(velocity.astype(np.float32))[None])


def pair(amplitude=4.0):
    """Moving image, fixed image made of it by a known displacement, and that displacement."""
    moving, truth = texture(), smooth_field(amplitude)
    fixed = warp(torch.from_numpy(moving)[None, None], truth)[0, 0].numpy()
    return fixed, moving, truth[0].numpy()


def error(found, truth):
    return float(np.linalg.norm(found - truth, axis=0)[8:-8, 8:-8, 8:-8].mean())


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 0.25),
        ({"metric": "mi"}, 0.4),
        ({"metric": "curve"}, 0.3),
        ({"radius_voxels": 4}, 0.35),
        ({"formulation": "wavelet"}, 0.35),
    ],
)
def test_a_known_deformation_is_found(options, left):
    fixed, moving, truth = pair()
    result = refine(fixed, moving, LEVELS, **options)
    assert error(result.displacement_voxels, truth) < left * error(0 * truth, truth)
    assert jacobian_determinant(torch.from_numpy(result.displacement_voxels)[None]).min() > 0


def tissues(values):
    """Four tissues of these intensities, the first outside, with soft borders."""
    places = np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) / 2
    score = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 3.0)
    score -= 0.002 * score.std() * (places**2).sum(axis=0)
    image = np.asarray(values)[np.digitize(score, np.quantile(score, [0.45, 0.6, 0.8]))]
    return np.ascontiguousarray(ndimage.gaussian_filter(image, 0.7), dtype=np.float32)


def test_a_known_deformation_is_found_between_contrasts_that_no_line_relates():
    """Tissues are dark to bright in one image, bright to dark but for the background in the other."""
    truth = smooth_field(4.0)
    fixed = warp(torch.from_numpy(tissues((0.0, 0.3, 0.6, 1.0)))[None, None], truth)[0, 0].numpy()
    moving, known = tissues((0.0, 0.95, 0.65, 0.4)), truth[0].numpy()
    left = {m: error(refine(fixed, moving, LEVELS, metric=m).displacement_voxels, known) for m in ("curve", "lncc")}
    assert left["curve"] < 0.65 * error(0 * known, known)
    assert left["curve"] < 0.5 * left["lncc"]


@pytest.mark.parametrize("metric", ["lncc", "mi", "curve"])
def test_torch_operators_give_the_numbers_of_the_compiled_loops(metric):
    fixed, moving, _ = pair()
    levels = (Level(2, 8, 1.5, 0.5), Level(1, 6, 1.0, 0.4))
    compiled = refine(fixed, moving, levels, metric=metric)
    torched = refine(fixed, moving, levels, metric=metric, loops=TorchLoops(torch.device("cpu")))
    np.testing.assert_allclose(torched.displacement_voxels, compiled.displacement_voxels, atol=2e-2)
    for one, other in zip(compiled.similarity, torched.similarity, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3)


@pytest.mark.parametrize("formulation", ["compositive", "wavelet"])
@pytest.mark.parametrize("metric", ["lncc", "mi", "curve"])
def test_the_result_does_not_depend_on_the_number_of_threads(metric, formulation):
    fixed, moving, _ = pair()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            levels = (Level(2, 5, 1.5, 0.5), Level(1, 4, 1.0, 0.4))
            results.append(refine(fixed, moving, levels, metric=metric, formulation=formulation).displacement_voxels)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_unrelated_noise_does_not_fold():
    result = refine(texture(5), texture(6), LEVELS)
    assert jacobian_determinant(torch.from_numpy(result.displacement_voxels)[None]).min() > 0


def test_similarity_rises_at_every_scale():
    fixed, moving, _ = pair()
    for history in refine(fixed, moving, LEVELS).similarity:
        assert history[-1] > history[0]


def test_a_constant_image_moves_nothing():
    flat = np.full(SHAPE, 0.5, np.float32)
    np.testing.assert_array_equal(refine(flat, flat, LEVELS).displacement_voxels, 0)


def test_an_initial_field_is_where_it_starts():
    fixed, moving, truth = pair()
    nothing = (Level(1, 1, 1.0, 0.4),)
    result = refine(fixed, moving, nothing, initial_voxels=truth.astype(np.float32))
    assert error(result.displacement_voxels, truth) < 0.35
    cold = refine(fixed, moving, LEVELS[1:])
    warm = refine(fixed, moving, LEVELS[1:], initial_voxels=truth.astype(np.float32))
    assert error(warm.displacement_voxels, truth) < error(cold.displacement_voxels, truth)


def test_excluded_voxels_do_not_pull_at_any_scale():
    fixed, moving, _ = pair(2.0)
    excluded = np.zeros(SHAPE, bool)
    excluded[18:28, 18:28, 18:28] = True
    hurt = np.where(excluded, np.float32(3.0), fixed)
    plain = refine(fixed, moving, LEVELS).displacement_voxels
    masked = refine(hurt, moving, LEVELS, excluded=excluded).displacement_voxels
    pulled = refine(hurt, moving, LEVELS).displacement_voxels
    assert error(masked, plain) < 0.5 * error(pulled, plain)


def test_iterations_end_when_the_similarity_stops_rising():
    fixed, moving, _ = pair(1.0)
    result = refine(fixed, moving, (Level(4, 500, 1.5, 0.7),))
    assert len(result.similarity[0]) < 200
    assert not converged([0.1, 0.2, 0.3])
    assert converged([0.5] * 30)
    assert not converged([0.01 * n for n in range(30)])


def test_progress_is_told_once_per_iteration():
    fixed, moving, _ = pair()
    told = []
    result = refine(fixed, moving, (Level(2, 3, 1.5, 0.5), Level(1, 2, 1.0, 0.4)), report=told.append)
    assert [(t.level, t.iteration) for t in told] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [t.similarity for t in told] == [s for history in result.similarity for s in history]


def test_resizing_counts_the_new_voxels():
    field = np.ones((3, 5, 6, 7), np.float32)
    fine = enlarge(field, (10, 11, 13), 2)
    assert fine.shape == (3, 10, 11, 13)
    np.testing.assert_allclose(fine, 2)


def test_no_level_is_an_error():
    with pytest.raises(InputError, match="at least one level"):
        refine(texture(), texture(), ())


def test_cpu_loops_hand_arrays_through_without_a_copy():
    array = np.zeros((2, 3, 4), np.float32)
    assert CpuLoops().upload(array) is array
