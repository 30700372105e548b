"""The working grid on any image: its limit, its cover, its intensities, and fields that keep their millimetres."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medwave.core.errors import InputError
from medwave.core.geometry import Grid, Volume
from medwave.workflows.pair import LEAST_VOXELS, channel_on_grid, prepare_pair


def grid_of(shape, spacing=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), order=(0, 1, 2), signs=(1, 1, 1)):
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.eye(3)[:, list(order)] * np.array(signs) @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def world(grid):
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


def ball(grid, radius_mm=10.0, inside=100.0, outside=0.0, center_mm=(0.0, 0.0, 0.0)):
    distance = np.linalg.norm(world(grid) - center_mm, axis=-1)
    texture = 0.3 * np.sin(world(grid) @ (0.5, 0.3, 0.4))
    return Volume(np.float32(np.where(distance < radius_mm, inside * (1 + texture), outside)), grid, "ball")


def prepared(fixed, moving=None, matrix=None, **options):
    options = {"use_fixed": None, "use_moving": None, "most_voxels": 10**7} | options
    return prepare_pair(fixed, moving or fixed, np.eye(4) if matrix is None else matrix, **options)


# --- extent ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.integers(24, 48)] * 3),
    st.tuples(*[st.sampled_from([0.7, 1.0, 2.0])] * 3),
    st.floats(5.0, 11.0),
    st.integers(LEAST_VOXELS, 80_000),
)
def test_the_grid_keeps_to_its_limit_and_covers_the_subject(shape, spacing, radius_mm, most_voxels):
    grid = grid_of(shape, spacing, degrees=(10, -20, 15))
    fixed = ball(grid, radius_mm)
    pair = prepared(fixed, most_voxels=most_voxels)
    assert np.prod(pair.grid.shape) <= most_voxels
    corners = pair.grid.to_voxels(grid.to_mm(np.argwhere(fixed.data != 0)))
    assert (corners >= -0.5).all()
    assert (corners <= np.array(pair.grid.shape) - 0.5).all()
    assert pair.fixed.shape == pair.moving.shape == pair.weight.shape == pair.subject.shape == pair.grid.shape
    ratio = pair.grid.spacing_mm.max() / pair.grid.spacing_mm.min()
    assert ratio <= 1.3


def test_a_limit_that_leaves_no_room_is_refused():
    with pytest.raises(InputError, match=f"at least {LEAST_VOXELS}"):
        prepared(ball(grid_of((40, 40, 40))), most_voxels=LEAST_VOXELS - 1)


def test_the_grid_also_covers_where_the_moving_subject_lands():
    fixed = ball(grid_of((70, 40, 40)), center_mm=(-20, 0, 0))
    moving = ball(grid_of((70, 40, 40)), center_mm=(18, 0, 0))
    pair = prepared(fixed, moving)
    ends = pair.grid.to_mm([(0, 0, 0), np.array(pair.grid.shape) - 1])[:, 0]
    assert ends[0] <= -30
    assert ends[1] >= 28


def test_equal_voxels_mean_no_interpolation_and_other_voxels_mean_isotropic_ones():
    exact = prepared(ball(grid_of((40, 44, 36), (1.0, 1.2, 0.95))))
    assert exact.offset is not None
    thick = prepared(ball(grid_of((40, 44, 20), (1.0, 1.2, 2.0))))
    assert thick.offset is None
    np.testing.assert_allclose(thick.grid.spacing_mm, 1.0)


# --- intensities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inside", "outside"), [(100.0, 0.0), (0.02, 0.0), (900.0, -1000.0), (40_000.0, 10.0)])
def test_intensities_span_about_nought_to_one(inside, outside):
    pair = prepared(ball(grid_of((44, 44, 44)), 12.0, inside, outside))
    for image in (pair.fixed, pair.moving):
        assert image.dtype == np.float32
        assert image.flags.c_contiguous
        assert np.percentile(image[pair.subject], 99) == pytest.approx(1, abs=0.05)
        assert image[pair.subject].min() > -0.05


@pytest.mark.parametrize(
    ("inside", "outside", "goes_on"),
    [(900.0, -1000.0, True), (100.0, 0.0, True), (100.0, 30.0, False), (20.0, 200.0, True)],
)
def test_an_image_goes_on_in_its_background_where_0_is_none(inside, outside, goes_on):
    """Beyond CT lies air, not 0, which is as bright as tissue, and beyond histology white."""
    fixed, moving = (ball(grid_of((n, n, n)), 9.0, inside, outside) for n in (44, 24))
    thick = ball(grid_of((44, 44, 12), (1.0, 1.0, 3.0)), 9.0, inside, outside)
    for pair in (prepared(fixed, moving), prepared(thick, moving)):
        _, second, _ = channel_on_grid(pair, thick, moving, np.eye(4))
        beyond = pair.weight == 0
        assert beyond.any()
        for image in (pair.moving, second):
            assert np.ptp(image[beyond]) < 1e-6
            assert (abs(image[beyond].max() - image[pair.weight > 0][0]) < 1e-5) == goes_on


@pytest.mark.parametrize("slices", [12, 5])
def test_nothing_is_compared_where_a_fixed_image_of_thick_slices_cuts_the_subject_off(slices):
    pair = prepared(ball(grid_of((44, 44, slices), (1.0, 1.0, 3.0)), 9.0), ball(grid_of((44, 44, 44)), 9.0))
    if slices == 12:
        assert pair.excluded is None
    else:
        np.testing.assert_array_equal(pair.excluded, np.abs(world(pair.grid)[..., 2]) > 1.5 * slices)


def test_both_images_agree_when_the_affine_is_true():
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (5, 10, -8), degrees=True).as_matrix() * 1.1
    matrix[:3, 3] = 3, -4, 2
    fixed_grid, moving_grid = grid_of((40, 44, 42)), grid_of((60, 56, 30), (0.8, 0.9, 1.7), (30, 0, 10), (2, 0, 1))
    fixed = ball(fixed_grid)
    back = np.linalg.inv(matrix)
    points = world(moving_grid) @ back[:3, :3].T + back[:3, 3]
    texture = 0.3 * np.sin(points @ (0.5, 0.3, 0.4))
    data = np.where(np.linalg.norm(points, axis=-1) < 10, 100 * (1 + texture), 0)
    pair = prepared(fixed, Volume(np.float32(data), moving_grid), matrix)
    inner = np.linalg.norm(world(pair.grid), axis=-1) < 7
    assert np.abs(pair.fixed - pair.moving)[inner].max() < 0.05
    wrong = prepared(fixed, Volume(np.float32(data), moving_grid), back)
    assert np.abs(wrong.fixed - wrong.moving)[np.linalg.norm(world(wrong.grid), axis=-1) < 7].max() > 0.2


def test_a_fine_image_is_averaged_before_it_is_sampled_on_a_coarse_grid():
    rng = np.random.default_rng(0)
    grid = grid_of((90, 90, 90), (0.5, 0.5, 0.5))
    noisy = ball(grid, 18.0)
    noisy = Volume((noisy.data + rng.normal(0, 30, noisy.data.shape) * (noisy.data > 0)).astype(np.float32), grid)
    coarse = ball(grid_of((44, 44, 44), (1.0, 1.0, 1.0)), 18.0)
    pair = prepared(coarse, noisy)
    inner = np.linalg.norm(world(pair.grid), axis=-1) < 15
    left_over = (pair.moving - pair.fixed)[inner].std()
    assert left_over < 0.6 * 30 / 130  # eight voxels make one: noise falls, single samples would keep it


# --- masks -----------------------------------------------------------------------------------------------------------


def test_masks_of_both_images_on_other_axes_exclude_the_same_places():
    grid = grid_of((40, 44, 42), signs=(-1, 1, -1), order=(1, 0, 2))
    fixed = ball(grid)
    hole = np.linalg.norm(world(grid) - (4, -3, 2), axis=-1) < 4
    by_fixed = prepared(fixed, use_fixed=~hole).excluded
    by_moving = prepared(fixed, use_moving=~hole).excluded
    np.testing.assert_array_equal(by_fixed, by_moving)
    pair = prepared(fixed, use_fixed=~hole)
    there = np.linalg.norm(world(pair.grid) - (4, -3, 2), axis=-1)
    np.testing.assert_array_equal(pair.excluded, there < 4)


def test_a_resampled_mask_never_lets_an_excluded_voxel_in():
    grid = grid_of((40, 44, 20), (1.0, 1.2, 2.5))
    fixed = ball(grid)
    hole = np.linalg.norm(world(grid), axis=-1) < 4
    pair = prepared(fixed, use_fixed=~hole)
    excluded_at = pair.grid.to_voxels(grid.to_mm(np.argwhere(hole)))
    nearest = np.rint(excluded_at).astype(int)
    assert pair.excluded[tuple(nearest.T)].all()
    assert 0.5 < pair.excluded.sum() * pair.grid.voxel_volume_mm3 / (hole.sum() * grid.voxel_volume_mm3) < 3


# --- the way back ----------------------------------------------------------------------------------------------------

GRIDS = {
    "thick slices": grid_of((48, 44, 18), (1.0, 1.2, 3.0)),
    "thick, flipped": grid_of((18, 48, 44), (3.0, 1.0, 1.2), order=(2, 0, 1), signs=(-1, 1, -1)),
    "thick, oblique": grid_of((48, 44, 18), (1.0, 1.2, 3.0), (20, -15, 30)),
    "exact, oblique": grid_of((48, 50, 46), degrees=(20, -15, 30), order=(1, 2, 0), signs=(1, -1, 1)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_field_keeps_its_millimetres_on_the_way_back(name):
    grid = GRIDS[name]
    pair = prepared(ball(grid, 12.0))
    places = world(pair.grid)
    steps_mm = np.stack([0.2 * places[..., 1], 3 - 0.1 * places[..., 0], 0.15 * places[..., 2]], axis=-1)
    voxels = np.moveaxis(steps_mm @ np.linalg.inv(pair.grid.affine[:3, :3]).T, -1, 0).astype(np.float32)
    native = pair.to_native(voxels)
    assert native.shape == (3, *grid.shape)
    assert native.dtype == np.float32
    assert native.flags.c_contiguous
    back_mm = np.moveaxis(native, 0, -1) @ grid.affine[:3, :3].T
    there = world(grid)
    expected = np.stack([0.2 * there[..., 1], 3 - 0.1 * there[..., 0], 0.15 * there[..., 2]], axis=-1)
    inner = np.linalg.norm(there, axis=-1) < 12
    np.testing.assert_allclose(back_mm[inner], expected[inner], atol=2e-3)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (90, 0, 0), (12, -25, 40)])
def test_the_moving_image_reaches_half_a_voxel_beyond_its_outer_centres(degrees):
    fixed, moving = ball(grid_of((34, 30, 32)), 12.0), ball(grid_of((22, 26, 20), (1.3, 1.0, 0.9), degrees), 8.0)
    matrix = np.eye(4)
    matrix[:3, 3] = 3.2, -4.1, 1.3
    pair = prepared(fixed, moving, matrix)
    voxels = moving.grid.to_voxels(world(pair.grid) + matrix[:3, 3])
    inside = ((voxels >= -0.5) & (voxels <= np.array(moving.grid.shape) - 0.5)).all(axis=-1)
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_array_equal(pair.weight > 0, inside)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.5)])
def test_the_subject_comes_back_to_the_axes_of_the_file(spacing):
    grid = grid_of((40, 36, 32), spacing, order=(2, 0, 1), signs=(1, -1, 1))
    fixed = ball(grid, 8.0, center_mm=(3.0, -5.0, 4.0))
    found = prepared(fixed).subject_on_native()
    assert found.shape == grid.shape
    different = found != (fixed.data != 0)  # the tips that opening takes off; a rim where the grid has other voxels
    assert different.sum() < (0.02 if spacing[2] == 1 else 0.2) * found.sum()
