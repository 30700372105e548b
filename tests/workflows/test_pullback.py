"""A pullback's places stay where they are, whichever linear map is taken out of its field."""

import numpy as np
import phantom
import pytest

from medwave.core.geometry import transform_points
from medwave.volumes import FieldStep, LinearStep, SpatialTransform
from medwave.workflows.pullback import Pullback

GRID = phantom.turned(angle=0.35, order=(0, 2, 1), signs=(-1, 1, 1), spacing_mm=(9, 8, 10))


def field(points, grid=GRID):
    """The displacement in voxels that takes the voxels of a grid to world points ``(D, H, W, 3)``."""
    steps = (points - phantom.world(grid)) @ np.linalg.inv(grid.affine[:3, :3]).T
    return np.ascontiguousarray(np.moveaxis(steps, -1, 0), dtype=np.float32)


def places(pullback):
    """World points ``(D, H, W, 3)`` of ``M(p + d(p))``."""
    at = np.moveaxis(np.indices(GRID.shape) + (0 if pullback.shift_voxels is None else pullback.shift_voxels), 0, -1)
    return transform_points(pullback.matrix, GRID.to_mm(at))


def test_a_linear_field_is_found_and_taken_out():
    whole = transform_points(phantom.MATRIX, phantom.world(GRID))
    pullback = Pullback.through(SpatialTransform((FieldStep(field(whole), GRID),)), GRID)
    found = pullback.nearest_linear(np.ones(GRID.shape, bool))
    np.testing.assert_allclose(found, phantom.MATRIX, atol=1e-4)
    assert np.abs(pullback.with_matrix(found).shift_voxels).max() < 1e-4


def test_the_nearest_map_leaves_residuals_at_right_angles():
    """The normal equations of least squares, over the voxels asked for alone."""
    whole = phantom.to_moving(phantom.world(GRID))
    where = np.random.default_rng(0).random(GRID.shape) < 0.4
    pullback = Pullback.through(SpatialTransform((FieldStep(field(whole), GRID), LinearStep(phantom.MATRIX))), GRID)
    found = pullback.nearest_linear(where)
    points = phantom.world(GRID)[where]
    residual = places(pullback)[where] - transform_points(found, points)
    normal = np.column_stack([points, np.ones(len(points))]).T @ residual
    assert np.abs(normal).max() < 1e-3 * np.abs(residual).sum()


@pytest.mark.parametrize("bends", [True, False])
def test_another_linear_map_leaves_all_places(bends):
    steps = (FieldStep(field(phantom.to_moving(phantom.world(GRID))), GRID),) if bends else ()
    pullback = Pullback.through(SpatialTransform((*steps, LinearStep(phantom.MATRIX))), GRID)
    again = pullback.with_matrix(np.linalg.inv(phantom.MATRIX) @ np.diag([1.1, 0.9, 1.0, 1.0]))
    np.testing.assert_allclose(places(again), places(pullback), atol=1e-3)
    assert pullback.with_matrix(pullback.matrix) is pullback


def test_voxels_of_one_plane_tell_no_linear_map():
    pullback = Pullback.through(SpatialTransform((FieldStep(field(phantom.world(GRID)), GRID),)), GRID)
    plane = np.zeros(GRID.shape, bool)
    plane[3] = True
    np.testing.assert_array_equal(pullback.nearest_linear(plane), np.eye(4))


def test_a_field_that_mirrors_or_flattens_keeps_its_linear_part():
    for squeeze in (-0.5, 0.0):
        steps = field(phantom.world(GRID) * (squeeze, 1, 1))
        pullback = Pullback.through(SpatialTransform((FieldStep(steps, GRID),)), GRID)
        np.testing.assert_array_equal(pullback.nearest_linear(np.ones(GRID.shape, bool)), np.eye(4))
