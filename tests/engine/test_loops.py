"""The operations of the refinement, one by one on both back-ends, and the pyramid on shapes of any size."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError
from medwave.engine.loops import CpuLoops, Level, converged
from medwave.engine.pyramid import enlarge
from medwave.engine.refine import refine
from medwave.engine.torch_loops import TorchLoops
from medwave.fields import jacobian_determinant, warp

SHAPE = (13, 18, 21)
LEVELS = (Level(8, 30, 1.5, 0.7), Level(4, 30, 1.5, 0.6), Level(2, 30, 1.5, 0.5), Level(1, 15, 1.0, 0.4))


def noise(*shape, seed=0, size=1.0, sigma=0.0):
    values = np.random.default_rng(seed).normal(size=shape)
    if sigma:
        values = ndimage.gaussian_filter(values, [0] * (len(shape) - 3) + [sigma] * 3)
        values /= np.abs(values).max()
    return (size * values).astype(np.float32)


def image(seed=0, shape=SHAPE, sigma=1.2):
    values = noise(*shape, seed=seed, sigma=sigma)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


# --- both back-ends --------------------------------------------------------------------------------------------------


def on_both(job):
    """A job's result on compiled loops and on torch operators."""
    results = []
    for loops in (CpuLoops(), TorchLoops(torch.device("cpu"))):
        out = job(loops)
        results.append(loops.download(out) if isinstance(out, np.ndarray | torch.Tensor) else out)
    return results


@pytest.mark.parametrize("sigma", [0.35, 0.7, 1.0, 1.5])
def test_smoothing_agrees(sigma):
    def job(loops):
        out = loops.empty(3, *SHAPE)
        loops.smooth(loops.upload(noise(3, *SHAPE)), sigma, out)
        return out

    np.testing.assert_allclose(*on_both(job), atol=1e-6)


def test_warping_agrees():
    def job(loops):
        out = loops.empty(*SHAPE)
        loops.warp(loops.upload(noise(*SHAPE)), loops.upload(noise(3, *SHAPE, seed=1, size=4.0)), out)
        return out

    np.testing.assert_allclose(*on_both(job), atol=1e-4)


def test_composition_agrees():
    def job(loops):
        out = loops.empty(3, *SHAPE)
        outer, inner = (loops.upload(noise(3, *SHAPE, seed=s, size=3.0)) for s in (0, 1))
        loops.compose(outer, inner, -0.7, out)
        return out

    np.testing.assert_allclose(*on_both(job), atol=2e-4)


def test_the_longest_vector_agrees():
    one, other = on_both(lambda loops: loops.largest_length(loops.upload(noise(3, *SHAPE))))
    assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "radius"), [("lncc", 1), ("lncc", 2), ("lncc", 4), ("curve", 1), ("curve", 2), ("curve", 4), ("mi", 2)]
)
def test_similarity_and_force_agree(metric, radius):
    fixed, warped, weight = image(0), 0.5 * image(0) + 0.5 * image(1), image(2)
    values = []

    def job(loops):
        out = loops.empty(3, *SHAPE)
        similarity = loops.similarity(metric, loops.upload(fixed), loops.upload(weight), radius)
        values.append(similarity.force(loops.upload(warped), out))
        return out

    one, other = on_both(job)
    np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max())
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("loops", [CpuLoops(), TorchLoops(torch.device("cpu"))], ids=["compiled", "torch"])
def test_the_limited_force_is_the_gradient_with_its_long_vectors_shortened(loops):
    images = [loops.upload(image(seed)) for seed in (0, 2, 1)]  # fixed, weight, warped
    gradient, limited = (np.zeros((3, *SHAPE), dtype=np.float32) for _ in range(2))
    for limit, out in ((np.inf, gradient), (0.05, limited)):
        similarity = loops.similarity("lncc", *images[:2], 2, limit)
        force = loops.empty(3, *SHAPE)
        similarity.force(images[2], force)
        out[:] = loops.download(force)
    length = np.linalg.norm(gradient, axis=0)
    np.testing.assert_allclose(limited, gradient / (1 + length / 0.05), atol=1e-5)
    assert length.max() > 0.05
    assert np.linalg.norm(limited, axis=0).max() < 0.05


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [SHAPE, (1, 3, 40)])
def test_coarser_images_and_finer_fields_agree(shape, factor):
    coarse, expected = on_both(lambda loops: loops.coarsen(loops.upload(image(0, shape)), factor))
    np.testing.assert_allclose(coarse, expected, atol=1e-6)
    field = noise(3, *coarse.shape)
    np.testing.assert_allclose(*on_both(lambda loops: loops.enlarge(loops.upload(field), shape, factor)), atol=1e-5)


def test_folds_are_smoothed_alike():
    field = noise(3, *SHAPE, size=0.4)
    one, other = on_both(lambda loops: loops.unfold(loops.upload(field)))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(one - field).max() > 0.5
    flat = noise(3, 1, 4, 5)
    np.testing.assert_array_equal(*on_both(lambda loops: loops.unfold(loops.upload(flat))))


# --- shapes ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 30)] * 3), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_a_field_goes_from_any_scale_to_any_finer_one(shape, ratio, factor):
    """A steady stretch, which linear interpolation keeps, is the same in millimetres on both grids."""
    coarse_shape = [-(-n // (ratio * factor)) for n in shape]
    fine_shape = tuple(-(-n // factor) for n in shape)
    places = np.indices(coarse_shape) * ratio + (ratio - 1) / 2  # middles of the blocks, in voxels of the finer grid
    field = (0.1 * places + 0.5).astype(np.float32) / ratio
    fine = enlarge(field, fine_shape, ratio)
    assert fine.shape == (3, *fine_shape)
    assert fine.dtype == np.float32
    expected = 0.1 * np.indices(fine_shape) + 0.5
    inner = tuple(slice(ratio // 2, max(ratio // 2, ratio * (n - 1) + ratio // 2)) for n in coarse_shape)
    np.testing.assert_allclose(fine[(slice(None), *inner)], expected[(slice(None), *inner)], atol=1e-4)


@pytest.mark.parametrize("shape", [(33, 37, 29), (9, 20, 5), (8, 8, 8), (2, 3, 40), (17, 1, 16)])
@pytest.mark.parametrize("factors", [(8, 4, 2, 1), (8, 1), (8,), (4,), (2,), (1,), (4, 2)])
def test_any_shape_goes_through_any_scales(shape, factors):
    fixed, moving = image(0, shape), image(1, shape)
    levels = tuple(Level(f, 3, 1.0, 0.4) for f in factors)
    found = refine(fixed, moving, levels)
    assert found.displacement_voxels.shape == (3, *shape)
    assert found.displacement_voxels.dtype == np.float32
    assert np.isfinite(found.displacement_voxels).all()
    assert [len(history) in (1, 3) for history in found.similarity] == [True] * len(factors)  # one voxel cannot move


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_axes_have_no_names(order):
    fixed, moving = image(0, (24, 28, 33), 2.5), image(1, (24, 28, 33), 2.5)
    levels = (Level(2, 5, 1.5, 0.5), Level(1, 5, 1.0, 0.4))
    expected = refine(fixed, moving, levels).displacement_voxels
    turned = refine(fixed.transpose(order), moving.transpose(order), levels).displacement_voxels
    back = expected[list(order)].transpose(0, *(1 + a for a in order))
    np.testing.assert_allclose(turned, back, atol=5e-3)


def test_memory_order_and_dtype_of_the_inputs_do_not_matter():
    fixed, moving = image(0), image(1)
    levels = (Level(2, 3, 1.0, 0.4), Level(1, 3, 1.0, 0.4))
    expected = refine(fixed, moving, levels).displacement_voxels
    start = np.zeros((3, *SHAPE))
    for f, m in ((np.asfortranarray(fixed), moving[::-1].copy()[::-1]), (fixed.astype(np.float64), moving)):
        kept = f.copy(), m.copy()
        np.testing.assert_array_equal(refine(f, m, levels, initial_voxels=start).displacement_voxels, expected)
        np.testing.assert_array_equal(f, kept[0])  # nothing is written to the inputs
        np.testing.assert_array_equal(m, kept[1])
    assert start.max() == start.min() == 0


# --- starts, steps, ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_without_iterations_the_initial_field_comes_back(factor):
    shape = (24, 32, 28)
    places = np.indices(shape)
    initial = (0.05 * (places - np.reshape(shape, (3, 1, 1, 1)) / 2) + 1.5).astype(np.float32)
    found = refine(image(0, shape), image(1, shape), (Level(factor, 0, 1.0, 0.4),), initial_voxels=initial)
    inner = (slice(None), *[slice(factor, -factor)] * 3)
    np.testing.assert_allclose(found.displacement_voxels[inner], initial[inner], atol=1e-4)
    assert found.similarity == [[]]


@pytest.mark.parametrize("step_voxels", [0.1, 0.5])
def test_the_longest_vector_of_an_update_is_the_step(step_voxels):
    found = refine(image(0), image(1), (Level(1, 1, 1.0, 0.0),), step_voxels=step_voxels)
    assert np.linalg.norm(found.displacement_voxels, axis=0).max() == pytest.approx(step_voxels, rel=1e-5)
    twice = refine(image(0), image(1), (Level(1, 2, 1.0, 0.0),), step_voxels=step_voxels)
    assert np.linalg.norm(twice.displacement_voxels, axis=0).max() <= 2 * step_voxels * 1.0001


@pytest.mark.parametrize("metric", ["lncc", "mi", "curve"])
@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_white_noise_does_not_fold(metric, seeds):
    fixed, moving = (np.random.default_rng(s).random((40, 36, 44)).astype(np.float32) for s in seeds)
    found = refine(fixed, moving, LEVELS, metric=metric)
    assert np.linalg.norm(found.displacement_voxels, axis=0).max() > 0.3
    assert jacobian_determinant(torch.from_numpy(found.displacement_voxels)[None]).min() > 0


@pytest.mark.parametrize("metric", ["lncc", "mi", "curve"])
@pytest.mark.parametrize("flat", ["fixed", "moving", "both"])
def test_an_image_without_contrast_moves_nothing(metric, flat):
    fixed = image(0) if flat == "moving" else np.zeros(SHAPE, dtype=np.float32)
    moving = image(1) if flat == "fixed" else np.full(SHAPE, 0.6, dtype=np.float32)
    found = refine(fixed, moving, (Level(2, 5, 1.0, 0.4), Level(1, 5, 1.0, 0.4)), metric=metric)
    assert np.abs(found.displacement_voxels).max() < 1e-5


def test_nothing_that_counts_moves_nothing():
    found = refine(image(0), image(1), (Level(1, 5, 1.0, 0.4),), weight=np.zeros(SHAPE, dtype=np.float32))
    assert np.abs(found.displacement_voxels).max() == 0


def test_equal_images_end_early_and_stay():
    found = refine(image(0), image(0), (Level(1, 200, 1.5, 0.5),))
    assert len(found.similarity[0]) < 30
    apart = np.linalg.norm(found.displacement_voxels, axis=0)
    assert apart.mean() < 0.1
    assert apart.max() < 1


def test_when_a_history_has_converged():
    rising = [1 - 0.9**n for n in range(200)]
    assert not converged(rising[:21])
    assert converged(rising)
    assert not converged([0.5] * 20)
    assert converged([0.5] * 21)
    assert not converged([0.5] * 20 + [0.5001])
    assert converged([0.5] * 30 + [0.4] * 5)  # falling is not rising


def test_the_found_field_is_a_pull_back():
    """A ball that lies two voxels further along an axis is found by a positive displacement along it."""
    for axis in range(3):
        places = np.indices((32, 32, 32)) - 15.5
        fixed = np.clip(9 - np.linalg.norm(places, axis=0), 0, 2).astype(np.float32) / 2
        moving = np.roll(fixed, 2, axis)
        found = refine(fixed, moving, (Level(2, 40, 1.5, 0.5), Level(1, 20, 1.0, 0.4))).displacement_voxels
        surface = (fixed > 0.2) & (fixed < 0.8) & (np.abs(places[axis]) > 6)
        assert found[axis][surface].mean() == pytest.approx(2, abs=0.4)
        warped = warp(torch.from_numpy(moving)[None, None], torch.from_numpy(found)[None])[0, 0].numpy()
        assert np.abs(warped - fixed).mean() < 0.25 * np.abs(moving - fixed).mean()


# --- refused ---------------------------------------------------------------------------------------------------------


def test_images_of_different_shapes_are_refused():
    with pytest.raises(GeometryError, match=r"moving .*\(13, 18, 21\), got \(13, 18, 20\)"):
        refine(image(0), image(1)[..., 1:], LEVELS)
    with pytest.raises(GeometryError, match="weight"):
        refine(image(0), image(1), LEVELS, weight=np.ones((13, 18, 20), dtype=np.float32))
    with pytest.raises(GeometryError, match="excluded"):
        refine(image(0), image(1), LEVELS, excluded=np.zeros((13, 18, 22), dtype=bool))
    with pytest.raises(GeometryError, match="initial_voxels"):
        refine(image(0), image(1), LEVELS, initial_voxels=np.zeros(SHAPE, dtype=np.float32))


def test_no_scale_is_refused():
    with pytest.raises(InputError, match="level"):
        refine(image(0), image(1), ())
