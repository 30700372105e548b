"""The working grid: exact ways there and back for every axis order, and where the similarity counts."""

import itertools

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.core.geometry import Grid, Volume
from medwave.core.orientation import canonical_axes, reorient, reorient_vectors
from medwave.workflows.pair import prepare_pair, resample, resample_labels

SHAPE = (40, 44, 36)
ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def ball(shape=SHAPE, radius=10.0, affine=None):
    z, y, x = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    data = np.clip(radius - np.sqrt(z**2 + y**2 + (1.3 * x) ** 2), 0, 3).astype(np.float32)
    return Volume(data, Grid(shape, np.eye(4) if affine is None else affine), "ball")


def prepared(fixed, moving, matrix=None, **options):
    options = {"use_fixed": None, "use_moving": None, "most_voxels": 10**7} | options
    return prepare_pair(fixed, moving, np.eye(4) if matrix is None else matrix, **options)


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_a_field_comes_back_to_the_axes_of_the_file(order, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * np.array(signs)
    fixed = ball(affine=affine)
    pair = prepared(fixed, fixed)
    assert pair.grid.orientation == "RAS"
    rng = np.random.default_rng(0)
    field = np.zeros((3, *pair.grid.shape), np.float32)
    inside = (slice(None), *[slice(6, n - 6) for n in pair.grid.shape])  # the taper leaves these alone
    field[inside] = rng.normal(size=field[inside].shape)
    native = pair.to_native(field)
    axes = canonical_axes(affine)
    canonical = reorient_vectors(native, *axes)
    box = tuple(slice(o, o + n) for o, n in zip(pair.offset, pair.grid.shape, strict=True))
    np.testing.assert_array_equal(canonical[(slice(None), *box)], field)
    assert np.count_nonzero(native) == np.count_nonzero(field)
    np.testing.assert_array_equal(pair.fixed > 0, reorient(fixed.data, *axes)[box] > 0)  # nothing was interpolated


def test_a_coarse_axis_gets_an_isotropic_grid_and_vectors_in_its_own_voxels():
    fixed = ball((40, 44, 12), affine=np.diag([1, 1, 3, 1.0]))
    pair = prepared(fixed, fixed)
    assert pair.offset is None
    np.testing.assert_allclose(pair.grid.spacing_mm, 1.0)
    field = np.zeros((3, *pair.grid.shape), np.float32)
    field[2] = 3.0  # three working voxels are one of the file's
    native = pair.to_native(field)
    middle = tuple(n // 2 for n in fixed.grid.shape)
    np.testing.assert_allclose(native[(slice(None), *middle)], (0, 0, 1), atol=1e-5)


def test_the_grid_keeps_to_its_size_limit_and_still_covers_the_subject():
    fixed = ball()
    pair = prepared(fixed, fixed, most_voxels=40_000)
    assert np.prod(pair.grid.shape) <= 40_000
    corners = pair.grid.to_voxels(fixed.grid.to_mm(np.argwhere(fixed.data > 0)))
    assert (corners >= 0).all()
    assert (corners <= np.array(pair.grid.shape) - 1).all()


def test_a_field_falls_to_zero_where_the_grid_ends_inside_the_image():
    fixed = ball((80, 44, 36))
    pair = prepared(fixed, fixed)
    native = pair.to_native(np.ones((3, *pair.grid.shape), np.float32))
    profile = native[0, :, 22, 18]
    assert profile.max() == 1
    assert np.abs(np.diff(profile)).max() <= 0.21
    assert profile[0] == profile[-1] == 0


def test_the_moving_image_is_read_through_the_affine():
    fixed, matrix = ball(), np.eye(4)
    matrix[:3, 3] = (5, -3, 2)
    moved = Volume(fixed.data, Grid(SHAPE, matrix), "moved")
    pair = prepared(fixed, moved, matrix)
    np.testing.assert_allclose(pair.moving, pair.fixed, atol=1e-6)


def test_weight_is_zero_where_the_moving_image_ends():
    fixed = ball()
    cut = Volume(fixed.data[:20], fixed.grid.crop((0, 0, 0), (20, 44, 36)), "cut")
    pair = prepared(fixed, cut)
    first = pair.offset[0]
    assert (pair.weight[: 20 - first] == 1).all()
    assert (pair.weight[21 - first :] == 0).all()


@pytest.mark.parametrize("side", ["use_fixed", "use_moving"])
def test_masks_exclude_what_they_leave_out(side):
    fixed = ball()
    allowed = np.ones(SHAPE, bool)
    allowed[10:15, 20:24, 15:20] = False
    pair = prepared(fixed, fixed, **{side: allowed})
    box = tuple(slice(o, o + n) for o, n in zip(pair.offset, pair.grid.shape, strict=True))
    np.testing.assert_array_equal(pair.excluded, ~allowed[box])
    assert prepared(fixed, fixed).excluded is None


def test_nothing_left_to_compare_is_an_error():
    fixed = ball()
    with pytest.raises(InputError, match="no voxel of the fixed subject is left"):
        prepared(fixed, fixed, use_fixed=np.asarray(fixed.data == 0))


def test_labels_keep_their_values_and_type():
    labels = Volume(np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int32), Grid(SHAPE, np.eye(4)))
    out = resample_labels(labels, np.eye(4), labels.grid)
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, labels.data)
    half = np.full((3, *SHAPE), 0.4, np.float32)
    np.testing.assert_array_equal(resample_labels(labels, np.eye(4), labels.grid, half), labels.data)


def test_sampling_through_a_displacement_moves_content_the_other_way():
    image = Volume(np.zeros(SHAPE, np.float32), Grid(SHAPE, np.eye(4)))
    image.data[20, 20, 20] = 1
    field = np.zeros((3, *SHAPE), np.float32)
    field[1] = 2
    assert np.argwhere(resample(image, np.eye(4), image.grid, field) > 0.5).tolist() == [[20, 18, 20]]


@pytest.mark.parametrize("shape", [SHAPE, (17, 60, 31)])
def test_a_matrix_alone_samples_as_with_a_field_of_zeros(shape):
    rng = np.random.default_rng(5)
    image = Volume(rng.random(SHAPE, dtype=np.float32), Grid(SHAPE, np.diag([1.0, 1.2, 0.9, 1.0])))
    grid = Grid(shape, np.eye(4))
    turned = np.eye(4) + np.pad(0.2 * rng.standard_normal((3, 3)), (0, 1))
    turned[:3, 3] = [3.0, -4.0, 2.0]
    for matrix in (np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0]), turned):
        alone, through = resample(image, matrix, grid), resample(image, matrix, grid, np.zeros((3, *shape), np.float32))
        np.testing.assert_allclose(alone, through, atol=1e-5)
