"""Compiled sampling and composition against scipy, torch and ITK, and what they do where there is no number."""

from collections.abc import Iterator

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medwave.core.threads import run_slabs
from medwave.fields import compose, warp
from medwave.fields.kernels import (
    compose_scaled,
    composed_length,
    enlarge_slab,
    largest_length,
    nearest_through,
    warp_border,
    warp_through,
)  # fmt: skip

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def noise(*shape: int, seed: int = 0, size: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).uniform(-size, size, shape)).astype(np.float32)


def places(field: np.ndarray) -> np.ndarray:
    return np.indices(field.shape[1:]) + field.astype(np.float64)


def run_warp(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    out = np.full(field.shape[1:], np.nan, dtype=np.float32)
    run_slabs(warp_border, len(out), image, field, out)
    return out


def run_compose(outer: np.ndarray, inner: np.ndarray, scale: float) -> np.ndarray:
    out = np.full_like(inner, np.nan)
    run_slabs(compose_scaled, outer.shape[1], outer, inner, np.float32(scale), out)
    return out


def run_through(image: np.ndarray, field: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    out = np.full(field.shape[1:], 111, dtype=image.dtype)
    kernel = warp_through if image.dtype == np.float32 else nearest_through
    run_slabs(kernel, len(out), image, field, np.ascontiguousarray(matrix[:3], dtype=np.float64), out)
    return out


def turned(degrees: float = 20.0, shift: tuple[float, ...] = (0.3, -1.2, 2.1)) -> np.ndarray:
    """A voxel matrix: a turn about the last axis, other voxel sizes, and a shift."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([0.9, 1.3, 0.7])
    matrix[:3, 3] = shift
    return matrix


def through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.tensordot(matrix[:3, :3], points, axes=1) + matrix[:3, 3].reshape(3, 1, 1, 1)


# --- warp_border -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(SHAPES, SHAPES, st.integers(0, 1000))
def test_linear_reading_equals_scipy_and_torch(image_shape, field_shape, seed):
    image, field = noise(*image_shape, seed=seed), noise(3, *field_shape, seed=seed + 1, size=6.0)
    warped = run_warp(image, field)
    expected = ndimage.map_coordinates(image.astype(np.float64), places(field), order=1, mode="nearest")
    np.testing.assert_allclose(warped, expected, atol=1e-5)
    by_torch = warp(torch.from_numpy(image)[None, None].double(), torch.from_numpy(field)[None].double())[0, 0]
    np.testing.assert_allclose(warped, by_torch, atol=1e-5)


def test_whole_steps_are_exact_and_far_away_is_the_border():
    image = noise(6, 7, 8)
    field = np.zeros((3, 6, 7, 8), dtype=np.float32)
    np.testing.assert_array_equal(run_warp(image, field), image)
    for axis in range(3):
        field[:] = 0
        field[axis] = 2
        index = [slice(None)] * 3
        index[axis] = np.minimum(np.arange(image.shape[axis]) + 2, image.shape[axis] - 1)
        np.testing.assert_array_equal(run_warp(image, field), image[tuple(index)])
    field[:] = 1e30
    np.testing.assert_array_equal(run_warp(image, field), image[-1, -1, -1])
    field[:] = -np.inf
    np.testing.assert_array_equal(run_warp(image, field), image[0, 0, 0])


# --- compose_scaled --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.floats(-2.0, 2.0), st.integers(0, 1000))
def test_composition_equals_torch_and_scipy(shape, scale, seed):
    outer, inner = noise(3, *shape, seed=seed, size=4.0), noise(3, *shape, seed=seed + 1, size=3.0)
    scale = float(np.float32(scale))
    both = run_compose(outer, inner, scale)
    step = torch.from_numpy(inner)[None].double() * scale
    np.testing.assert_allclose(both, compose(torch.from_numpy(outer)[None].double(), step)[0], atol=2e-5)
    points = places(scale * inner.astype(np.float64))
    for axis in range(3):
        outer_there = ndimage.map_coordinates(outer[axis].astype(np.float64), points, order=1, mode="nearest")
        np.testing.assert_allclose(both[axis], scale * inner[axis].astype(np.float64) + outer_there, atol=2e-5)


def test_identity_on_either_side():
    field, still = noise(3, 6, 7, 8, size=2.0), np.zeros((3, 6, 7, 8), dtype=np.float32)
    np.testing.assert_array_equal(run_compose(field, still, 1.0), field)
    np.testing.assert_array_equal(run_compose(still, field, 1.0), field)
    np.testing.assert_array_equal(run_compose(field, field, 0.0), field)


# --- largest_length --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 1000))
def test_the_longest_vector(shape, seed):
    field = noise(3, *shape, seed=seed, size=5.0)
    assert largest_length(field) == pytest.approx(np.sqrt((field.astype(np.float64) ** 2).sum(0)).max(), rel=1e-6)


# --- through a matrix ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(SHAPES, SHAPES, st.floats(-180, 180), st.integers(0, 1000))
def test_reading_through_a_matrix_equals_scipy_inside(image_shape, field_shape, degrees, seed):
    image, field = noise(*image_shape, seed=seed), noise(3, *field_shape, seed=seed + 1, size=2.0)
    matrix = turned(degrees)
    points = through(matrix, places(field))
    last = np.array(image_shape).reshape(3, 1, 1, 1) - 1
    inside = ((points >= 0) & (points <= last)).all(axis=0)
    expected = ndimage.map_coordinates(image.astype(np.float64), points, order=1, mode="nearest")
    warped = run_through(image, field, matrix)
    np.testing.assert_allclose(warped[inside], expected[inside], atol=1e-5)
    beyond = ((points < -0.5) | (points > last + 0.5)).any(axis=0)
    np.testing.assert_array_equal(warped[beyond], 0)
    np.testing.assert_allclose(warped[~beyond], expected[~beyond], atol=1e-5)  # the half voxel of ITK


def itk(image: np.ndarray, field: np.ndarray, matrix: np.ndarray, interpolator: int) -> np.ndarray:
    """The same in ITK, whose axes run x first: both matrix and arrays are turned round."""
    turn = np.eye(4)[[2, 1, 0, 3]]
    turned_round = turn @ matrix @ turn
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(turned_round[:3, :3].ravel())
    affine.SetTranslation(turned_round[:3, 3])
    vectors = np.moveaxis(field[::-1], 0, -1).astype(np.float64)
    both = sitk.CompositeTransform(3)  # the transform added last is applied first
    both.AddTransform(affine)
    both.AddTransform(sitk.DisplacementFieldTransform(sitk.GetImageFromArray(np.ascontiguousarray(vectors), True)))
    reference = sitk.GetImageFromArray(np.zeros(field.shape[1:], dtype=np.float32))
    return sitk.GetArrayFromImage(sitk.Resample(sitk.GetImageFromArray(image), reference, both, interpolator, 0.0))


@pytest.mark.parametrize("degrees", [0.0, 20.0, 130.0])
def test_itk_gives_the_same_image_also_in_the_half_voxel_at_the_edge(degrees):
    image, field = 2 + noise(9, 10, 11), noise(3, 12, 9, 10, seed=1, size=2.0)
    matrix = turned(degrees)
    points = through(matrix, places(field))
    expected = itk(image, field, matrix, sitk.sitkLinear)
    last = np.array(image.shape).reshape(3, 1, 1, 1) - 1
    on_edge = (np.minimum(np.abs(points + 0.5), np.abs(points - last - 0.5)) < 1e-4).any(axis=0)
    rim = ((points < 0) | (points > last)).any(axis=0) & (expected != 0)
    assert rim.sum() > 5
    np.testing.assert_allclose(run_through(image, field, matrix)[~on_edge], expected[~on_edge], atol=2e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float64])
def test_labels_equal_itk(dtype):
    labels = np.random.default_rng(0).integers(1, 100, (9, 10, 11)).astype(dtype)
    field, matrix = noise(3, 12, 9, 10, seed=1, size=2.0), turned()
    points = through(matrix, places(field))
    expected = itk(labels, field, matrix, sitk.sitkNearestNeighbor)
    on_edge = (np.abs(points + 0.5 - np.rint(points + 0.5)) < 1e-4).any(axis=0)
    warped = run_through(labels, field, matrix)
    assert warped.dtype == dtype
    assert 0.2 < (warped > 0).mean() < 0.99
    np.testing.assert_array_equal(warped[~on_edge], expected[~on_edge])


def test_the_edge_of_an_image_lies_half_a_voxel_beyond_its_outer_centres():
    image = np.array([[[5.0, 7.0]]], dtype=np.float32)
    for place, value in [(-0.51, 0), (-0.49, 5), (0, 5), (0.5, 6), (1, 7), (1.49, 7), (1.51, 0)]:
        field = np.zeros((3, 1, 1, 1), dtype=np.float32)
        field[2] = place
        assert run_through(image, field, np.eye(4))[0, 0, 0] == pytest.approx(value)
        label = 5 if place < 0.5 else 7
        assert run_through(image.astype(np.int16), field, np.eye(4))[0, 0, 0] == (0 if value == 0 else label)


def test_large_labels_survive():
    labels = np.full((3, 3, 3), np.iinfo(np.int64).max)
    out = run_through(labels, np.zeros((3, 3, 3, 3), dtype=np.float32), np.eye(4))
    np.testing.assert_array_equal(out, labels)


# --- no numbers, threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("axis", range(3))
def test_a_place_that_is_no_number_reads_nothing_outside_the_array(bad, axis):
    shape = (5, 6, 7)
    image, field = 2 + noise(*shape), noise(3, *shape, seed=1)
    clean = run_warp(image, field), run_compose(field, field, 1.0), run_through(image, field, np.eye(4))
    spoiled = field.copy()
    spoiled[axis, 2, 3, 4] = bad
    there = np.zeros(shape, dtype=bool)
    there[2, 3, 4] = True
    warped, both = run_warp(image, spoiled), run_compose(field, spoiled, 1.0)
    through_eye, labels = (run_through(i, spoiled, np.eye(4)) for i in (image, np.ones(shape, dtype=np.int16)))
    np.testing.assert_array_equal(warped[~there], clean[0][~there])
    np.testing.assert_array_equal(both[:, ~there], clean[1][:, ~there])
    np.testing.assert_array_equal(through_eye[~there], clean[2][~there])
    assert image.min() <= warped[2, 3, 4] <= image.max()
    assert not np.isfinite(both[axis, 2, 3, 4]) or abs(both[axis, 2, 3, 4]) > 1e38
    assert through_eye[2, 3, 4] == 0
    assert labels[2, 3, 4] == 0
    assert (labels[~there] == 1).sum() > 50


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("depth", [1, 3, 11])
def test_threads_do_not_change_a_bit(set_threads, threads, depth):
    image, labels = noise(7, 8, 9), np.random.default_rng(0).integers(0, 9, (7, 8, 9))
    field, other = noise(3, depth, 8, 9, seed=1, size=3.0), noise(3, depth, 8, 9, seed=2, size=3.0)

    def results():
        matrix = turned()
        yield run_warp(image, field)
        yield run_compose(other, field, 0.7)
        yield run_through(image, field, matrix)
        yield run_through(labels, field, matrix)
        yield np.array(largest_length(field))

    set_threads(1)
    expected = list(results())
    set_threads(threads)
    for value, single in zip(results(), expected, strict=True):
        np.testing.assert_array_equal(value, single)


@pytest.mark.parametrize(("ratio", "shape"), [(2, (9, 8, 11)), (2, (10, 7, 12)), (4, (17, 16, 20))])
def test_enlarging_a_field_is_torchs_trilinear_interpolation(ratio: int, shape: tuple[int, int, int]) -> None:
    field = noise(3, *(-(-n // ratio) for n in shape))
    out = np.full((3, *shape), np.nan, dtype=np.float32)
    run_slabs(enlarge_slab, shape[0], field, ratio, out)
    full = torch.nn.functional.interpolate(torch.from_numpy(field)[None], scale_factor=ratio, mode="trilinear")[0]
    expected = ratio * full.numpy()[:, : shape[0], : shape[1], : shape[2]]
    np.testing.assert_allclose(out, expected, atol=2e-6 * ratio)


def test_composed_length_is_the_length_of_the_composed_displacement_in_mm() -> None:
    outer, inner = noise(3, 6, 7, 8, size=2.0), noise(3, 6, 7, 8, seed=1, size=2.0)
    matrix = noise(3, 3, seed=2, size=3.0)
    mask = noise(6, 7, 8, seed=3) > 0
    sums = np.empty(6)
    run_slabs(composed_length, 6, outer, inner, matrix, mask, sums)
    both = compose(torch.from_numpy(outer)[None], torch.from_numpy(inner)[None])[0].numpy()
    lengths = np.linalg.norm(np.einsum("ij,jdhw->idhw", matrix, both), axis=0)
    np.testing.assert_allclose(sums, [(lengths[i] * mask[i]).sum() for i in range(6)], rtol=1e-5)


def test_composing_where_nothing_moves_is_a_copy_and_equals_interpolation_everywhere() -> None:
    outer, inner = noise(3, 5, 6, 12, size=2.0), noise(3, 5, 6, 12, seed=1)
    inner[:, 1] = 0  # a plane without motion, rows with still ends, a row with a still middle
    inner[:, 2, :, :4] = inner[:, 2, :, 9:] = inner[:, 3, 2, 5:7] = 0
    inner[0, 2, 0, 3] = np.nan  # not a number is not zero
    out = np.full_like(outer, np.nan)
    run_slabs(compose_scaled, 5, outer, inner, np.float32(0.7), out)
    expected = compose(
        torch.from_numpy(outer.astype(np.float64))[None], torch.from_numpy(0.7 * inner.astype(np.float64))[None]
    )
    keep = np.ones(inner.shape, bool)
    keep[:, 2, 0, 3] = False
    np.testing.assert_allclose(out[keep], expected[0].numpy()[keep], atol=2e-6)
    np.testing.assert_array_equal(out[:, 1], outer[:, 1])
    assert np.isnan(out[0, 2, 0, 3])
