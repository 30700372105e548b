"""Reorientation keeps every voxel, every vector and every value where it is in the world."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import GeometryError
from medwave.core.geometry import Grid
from medwave.core.orientation import canonical_axes, invert_axes, reorient, reorient_grid, reorient_vectors

SIGNED_ORDERS = [
    (permutation, flips)
    for permutation in itertools.permutations(range(3))
    for flips in itertools.product([False, True], repeat=3)
]


def rotation(angles):
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    return matrix


@st.composite
def grids(draw):
    numbers = st.floats(-3.2, 3.2, allow_nan=False)
    linear = rotation([draw(numbers) for _ in range(3)]) @ np.diag([draw(st.floats(0.2, 5.0)) for _ in range(3)])
    linear = linear[:, draw(st.permutations(range(3)))] * draw(st.sampled_from([1.0, -1.0]))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, [draw(st.floats(-100, 100)) for _ in range(3)]
    return Grid(tuple(draw(st.integers(1, 5)) for _ in range(3)), affine)


def positions(grid):
    """World position of every voxel, shape (3, D, H, W)."""
    return np.moveaxis(grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)


@settings(deadline=None, max_examples=60)
@given(grids(), st.sampled_from(SIGNED_ORDERS))
def test_voxels_stay_where_they_are(grid, axes):
    turned = reorient_grid(grid, *axes)
    np.testing.assert_allclose(reorient(positions(grid), *axes), positions(turned), atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(grids(), st.sampled_from(SIGNED_ORDERS))
def test_vectors_point_where_they_did(grid, axes):
    field = np.random.default_rng(0).normal(size=(3, *grid.shape))
    turned_grid, turned = reorient_grid(grid, *axes), reorient_vectors(field, *axes)
    world = np.tensordot(grid.affine[:3, :3], field, axes=1)
    turned_world = np.tensordot(turned_grid.affine[:3, :3], turned, axes=1)
    np.testing.assert_allclose(reorient(world, *axes), turned_world, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(grids(), st.sampled_from(SIGNED_ORDERS))
def test_the_inverse_restores_everything_exactly(grid, axes):
    field = np.random.default_rng(1).normal(size=(3, *grid.shape)).astype(np.float32)
    back = invert_axes(*axes)
    assert invert_axes(*back) == axes
    np.testing.assert_array_equal(reorient(reorient(field, *axes), *back), field)
    np.testing.assert_array_equal(reorient_vectors(reorient_vectors(field, *axes), *back), field)
    np.testing.assert_allclose(reorient_grid(reorient_grid(grid, *axes), *back).affine, grid.affine, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(grids())
def test_the_canonical_grid_is_ras_and_stays_as_it_is(grid):
    canonical = reorient_grid(grid, *canonical_axes(grid.affine))
    assert canonical.orientation == "RAS"
    assert canonical_axes(canonical.affine) == ((0, 1, 2), (False, False, False))


@pytest.mark.parametrize("axes", SIGNED_ORDERS)
def test_known_axis_orders_are_recognised(axes):
    start = Grid((4, 5, 6), np.diag([1.0, 2.0, 3.0, 1.0]))
    turned = reorient_grid(start, *invert_axes(*axes))
    assert canonical_axes(turned.affine) == axes
    restored = reorient_grid(turned, *axes)
    assert restored == start


def test_las_to_ras_by_hand():
    las = Grid((3, 1, 1), np.diag([-2.0, 1.0, 1.0, 1.0]))
    axes = canonical_axes(las.affine)
    assert axes == ((0, 1, 2), (True, False, False))
    np.testing.assert_array_equal(reorient(np.array([1, 2, 3]).reshape(3, 1, 1), *axes).ravel(), [3, 2, 1])
    np.testing.assert_array_equal(reorient_grid(las, *axes).affine[:3, 3], [-4, 0, 0])
    field = np.arange(9.0).reshape(3, 3, 1, 1)
    np.testing.assert_array_equal(reorient_vectors(field, *axes)[:, :, 0, 0], [[-2, -1, 0], [5, 4, 3], [8, 7, 6]])


def test_inputs_are_not_changed_and_results_are_contiguous():
    field = np.arange(24.0).reshape(3, 2, 2, 2)
    before = field.copy()
    turned = reorient_vectors(field, (2, 0, 1), (True, False, True))
    np.testing.assert_array_equal(field, before)
    assert turned.flags.c_contiguous
    identity = reorient_vectors(field, (0, 1, 2), (False, False, False))
    assert not np.shares_memory(identity, field)


def test_a_singular_affine_has_no_orientation():
    with pytest.raises(GeometryError, match="singular"):
        canonical_axes(np.zeros((4, 4)))
