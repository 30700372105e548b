"""Normalised mutual information under a matrix: known values, and its gradient against finite differences."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medwave.engine.mutual_information import MeanInformation, MutualInformation, quantise

BINS = 24
AFFINE = np.array([[-1.5, 0.2, 0, 30], [0.1, 2.0, 0, -20], [0, 0, 1.2, 5], [0, 0, 0, 1.0]])


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def smooth_noise(shape, seed, sigma=2.0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def places(image, affine, margin):
    inner = np.stack([g.ravel() for g in np.mgrid[tuple(slice(margin, n - margin) for n in image.shape)]], axis=1)
    return inner, inner @ affine[:3, :3].T + affine[:3, 3]


def similarity(fixed, moving, affine=AFFINE, margin=5, bins=BINS, **more):
    """NMI of two images on one grid; samples are the voxels of the first, ``margin`` away from its border."""
    voxels, points = places(fixed, affine, margin)
    low, high = float(fixed.min()), float(fixed.max())
    fixed_bins = np.rint(quantise(fixed[tuple(voxels.T)], low, high, bins)).astype(np.int64)
    moving_bins = quantise(moving, float(moving.min()), float(moving.max()), bins)
    return MutualInformation(np.ascontiguousarray(points), fixed_bins, moving_bins, affine, bins, **more)


def near_identity(points):
    center = points.mean(axis=0)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.05, -0.04, 0.03]).as_matrix() @ np.diag([1.03, 0.98, 1.01])
    matrix[:3, 3] = center - matrix[:3, :3] @ center + [0.7, -1.1, 0.4]
    return matrix


def nmi(joint):
    def entropy(p):
        p = p[p > 0]
        return -(p * np.log(p)).sum()

    joint = joint / joint.sum()
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint.ravel())


# --- values ----------------------------------------------------------------------------------------------------------


def test_the_value_is_that_of_the_definition():
    fixed, other = smooth_noise((20, 21, 22), 0), smooth_noise((20, 21, 22), 1)
    moving = 0.6 * fixed + 0.4 * other
    found = similarity(fixed, moving)
    matrix = near_identity(found.points_mm)
    voxels = (found.points_mm @ matrix[:3, :3].T + matrix[:3, 3] - AFFINE[:3, 3]) @ np.linalg.inv(AFFINE[:3, :3]).T
    values = ndimage.map_coordinates(found.moving.astype(np.float64), voxels.T, order=1)
    distance = np.abs(values[:, None] - (np.arange(BINS)[None] - 1))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    spline = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    joint = np.zeros((BINS, BINS))
    np.add.at(joint, found.fixed_bins, spline)
    assert found.value(matrix) == pytest.approx(nmi(joint), abs=1e-9)


def test_many_matrices_at_once_have_the_values_of_each(set_threads):
    fixed = smooth_noise((20, 22, 18), 0)
    found = similarity(fixed, smooth_noise((20, 22, 18), 1), margin=2)
    matrices = [np.eye(4), near_identity(found.points_mm), np.diag([5.0, 5.0, 5.0, 1.0])]
    expected = [found.value(matrix) for matrix in matrices]
    for threads in (1, 3):
        set_threads(threads)
        np.testing.assert_allclose(found.values(matrices), expected, rtol=1e-12)


def test_a_thinned_one_takes_every_nth_sample():
    found = similarity(smooth_noise((20, 22, 18), 0), smooth_noise((20, 22, 18), 1), margin=2)
    thin = found.thinned(500)
    every = round(len(found.points_mm) / len(thin.points_mm))
    assert 250 < len(thin.points_mm) <= 500
    np.testing.assert_array_equal(thin.points_mm, found.points_mm[::every])
    np.testing.assert_array_equal(thin.fixed_bins, found.fixed_bins[::every])


def test_known_values():
    steps = np.repeat(np.arange(4.0), 16 * 16 * 4).reshape(16, 16, 16).astype(np.float32)
    steps = np.random.default_rng(0).permutation(steps.ravel()).reshape(steps.shape)
    grid = np.eye(4)
    # each fixed bin meets one moving value, whose B-spline spreads over three bins: H(M) = H(F) + h, H(F, M) = same
    spread = -(2 / 6 * np.log(1 / 6) + 4 / 6 * np.log(4 / 6))
    expected = (2 * np.log(4) + spread) / (np.log(4) + spread)
    assert similarity(steps, steps, grid, 2, 32).value(np.eye(4)) == pytest.approx(expected, abs=0.01)
    noise = np.random.default_rng(1).random((40, 40, 40)).astype(np.float32)
    other = np.random.default_rng(2).random((40, 40, 40)).astype(np.float32)
    assert 1 <= similarity(noise, other, grid, 2, 8).value(np.eye(4)) < 1.005


@pytest.mark.parametrize("curve", [lambda x: -x, lambda x: 3 * x + 7, lambda x: x - 100])
def test_a_linear_contrast_also_inverted_changes_nothing(curve):
    fixed, moving = smooth_noise((20, 20, 20), 0), smooth_noise((20, 20, 20), 0) + 0.1 * smooth_noise((20, 20, 20), 1)
    plain, changed = similarity(fixed, moving), similarity(fixed, curve(moving).astype(np.float32))
    assert changed.value(np.eye(4)) == pytest.approx(plain.value(np.eye(4)), abs=1e-3)


@pytest.mark.parametrize("curve", [np.sqrt, lambda x: 1 - x**2, lambda x: np.sin(5 * x)])
def test_any_curve_of_contrast_keeps_the_best_place(curve):
    fixed = smooth_noise((24, 24, 24), 0)
    found = similarity(fixed, curve(fixed).astype(np.float32))
    best = found.value(np.eye(4))
    for axis in range(3):
        for shift in (-2.0, -1.0, 1.0, 2.0):
            matrix = np.eye(4)
            matrix[axis, 3] = shift * AFFINE[axis, axis]
            assert found.value(matrix) < best - 0.01


def test_the_mean_of_several_pairs_weighs_their_values_gradients_and_samples():
    fixed = smooth_noise((20, 22, 18), 0)
    parts = (
        similarity(fixed, 0.6 * fixed + 0.4 * smooth_noise(fixed.shape, 1), margin=2),
        similarity(1 - fixed[2:], fixed[2:] + 0.1 * smooth_noise((18, 22, 18), 2), AFFINE @ np.diag([1, 1, 1.1, 1])),
    )
    matrix = near_identity(parts[0].points_mm)
    mean = MeanInformation(parts, (1.0, 3.0))
    (a, slope_a), (b, slope_b) = (part.value_and_gradient(matrix) for part in parts)
    assert abs(a - b) > 0.01
    assert mean.value(matrix) == pytest.approx((a + 3 * b) / 4, rel=1e-12)
    assert mean.most(matrix) == max(a, b)
    value, gradient = mean.value_and_gradient(matrix)
    assert value == mean.value(matrix)
    np.testing.assert_allclose(gradient, (slope_a + 3 * slope_b) / 4, rtol=1e-12)
    np.testing.assert_allclose(mean.values([matrix, np.eye(4)]), [mean.value(matrix), mean.value(np.eye(4))])
    assert mean.thinned(300).parts[1].points_mm.shape == parts[1].thinned(300).points_mm.shape
    alone = MeanInformation(parts[:1], (1.0,))
    assert alone.value(matrix) == a
    np.testing.assert_array_equal(alone.value_and_gradient(matrix)[1], slope_a)


# --- gradient --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [False, True])
def test_the_gradient_against_finite_differences(away):
    fixed, other = smooth_noise((22, 23, 24), 0), smooth_noise((22, 23, 24), 1)
    found = similarity(fixed, 0.6 * fixed + 0.4 * other, margin=6)
    matrix = near_identity(found.points_mm) if away else np.eye(4) + 1e-3 * np.eye(4, k=1)
    matrix[3] = 0, 0, 0, 1
    value, gradient = found.value_and_gradient(matrix)
    assert value == found.value(matrix)
    assert gradient.shape == (3, 4)
    scale = np.abs(gradient).max()
    for row in range(3):
        for column in range(4):
            step = np.zeros((4, 4))
            step[row, column] = 1e-4 if column == 3 else 1e-6
            slope = (found.value(matrix + step) - found.value(matrix - step)) / (2 * step[row, column])
            # linear interpolation has corners at voxel centres: a few samples cross one within the step
            assert gradient[row, column] == pytest.approx(slope, rel=2e-2, abs=2e-3 * scale)


def test_the_gradient_leads_uphill():
    fixed = smooth_noise((24, 24, 24), 0)
    found = similarity(fixed, 1 - fixed)
    matrix = near_identity(found.points_mm)
    value, gradient = found.value_and_gradient(matrix)
    step = np.zeros((4, 4))
    step[:3] = gradient / np.array([50.0, 50.0, 50.0, 1.0]) ** 2
    assert found.value(matrix + 0.05 / np.abs(step[:, 3]).max() * step) > value


# --- overlap, odd inputs ---------------------------------------------------------------------------------------------


def test_little_overlap_counts_as_unrelated():
    fixed = smooth_noise((30, 12, 12), 0)
    found = similarity(fixed, fixed, np.eye(4), 0)

    def moved(voxels):
        matrix = np.eye(4)
        matrix[0, 3] = voxels
        return found.value(matrix)

    assert moved(0) > moved(3) > moved(25) >= 1
    assert moved(25) < 1 + (moved(3) - 1)
    assert moved(100) == 1.0
    score, gradient = found.value_and_gradient(np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, 100.0], *[[0] * 4] * 3]))
    assert score == 1.0
    assert np.abs(gradient).max() == 0
    # samples inside: a share s < 1/2 of all pulls the value down to 1 + (value - 1) 2 s
    every = similarity(fixed, fixed, np.eye(4), 0, least_overlap=1e-9)
    matrix = np.eye(4)
    matrix[0, 3] = 20.0
    share = 9 / 30 * (11 / 12) ** 2
    assert moved(20) == pytest.approx(1 + (every.value(matrix) - 1) * 2 * share, rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, 1e30, -1e30])
def test_a_matrix_without_numbers_reads_nothing(bad):
    fixed = smooth_noise((10, 10, 10), 0)
    found = similarity(fixed, fixed, np.eye(4), 1)
    matrix = np.eye(4)
    matrix[1, 3] = bad
    score, gradient = found.value_and_gradient(matrix)
    assert score == 1.0
    assert np.abs(gradient).max() == 0


def test_quantised_values_are_places_between_bins():
    values = np.array([-5.0, 0.0, 0.5, 1.0, 9.0, np.nan, np.inf, -np.inf])
    scaled = quantise(values, 0.0, 1.0, 32)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [0, 0, 14, 28, 28, 0, 28, 0], atol=1e-5)
    assert scaled.max() < 28  # the last B-spline stays inside the 32 bins
    assert quantise(np.ones(3), 1.0, 1.0, 32).max() == 0  # no range at all


def test_threads_do_not_change_a_bit(set_threads):
    fixed = smooth_noise((20, 20, 20), 0)
    found = similarity(fixed, 1 - fixed, margin=1)
    matrix = near_identity(found.points_mm)
    set_threads(1)
    value, gradient = found.value_and_gradient(matrix)
    for threads in (2, 5):
        set_threads(threads)
        again, gradient_again = found.value_and_gradient(matrix)
        assert again == value
        np.testing.assert_array_equal(gradient_again, gradient)
