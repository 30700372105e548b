"""Grids: where voxels lie, what their axes are called, and what is refused."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medwave.core.errors import GeometryError
from medwave.core.geometry import RAS_TO_LPS, Grid, Volume, transform_points

ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def signed_order(order, signs, spacing=(1.0, 2.0, 3.0)):
    """Affine whose array axis ``a`` runs along world axis ``order[a]``, forwards or backwards."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, world in enumerate(order):
        affine[world, axis] = signs[axis] * spacing[axis]
    return affine


def oblique(degrees, start=None):
    affine = np.eye(4) if start is None else start.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ affine[:3, :3]
    return affine


@st.composite
def grids(draw):
    angle, length, place = st.floats(-180, 180), st.floats(0.01, 20), st.floats(-500, 500)
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [draw(angle) for _ in range(3)], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([draw(length) for _ in range(3)]) * draw(st.sampled_from([1.0, -1.0]))
    affine[:3, 3] = [draw(place) for _ in range(3)]
    return Grid(tuple(draw(st.integers(1, 300)) for _ in range(3)), affine)


# --- places ----------------------------------------------------------------------------------------------------------


def test_points_by_hand():
    grid = Grid((4, 5, 6), [[-2, 0, 0, 10], [0, 0, 3, 20], [0, 1, 0, 30], [0, 0, 0, 1]])
    np.testing.assert_array_equal(grid.to_mm([1, 2, 3]), [8, 29, 32])
    np.testing.assert_allclose(grid.to_voxels([[8, 29, 32], [10, 20, 30]]), [[1, 2, 3], [0, 0, 0]], atol=1e-12)
    np.testing.assert_array_equal(grid.spacing_mm, [2, 1, 3])
    assert grid.voxel_volume_mm3 == pytest.approx(6)
    np.testing.assert_array_equal(grid.center_mm, [10 - 3, 20 + 7.5, 30 + 2])
    assert grid.orientation == "LSA"
    assert grid.describe() == "4 x 5 x 6 voxels of 2 x 1 x 3 mm, LSA"


@settings(deadline=None, max_examples=80)
@given(grids())
def test_world_and_voxels_are_inverse_and_spacing_is_the_step_of_an_index(grid):
    points = np.random.default_rng(0).uniform(-50, 300, (2, 4, 3))
    np.testing.assert_allclose(grid.to_voxels(grid.to_mm(points)), points, atol=1e-6)
    steps = grid.to_mm(np.eye(3)) - grid.to_mm(np.zeros(3))
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), grid.spacing_mm, rtol=1e-9)
    assert grid.voxel_volume_mm3 == pytest.approx(float(np.prod(grid.spacing_mm)), rel=1e-9)


@settings(deadline=None, max_examples=80)
@given(grids())
def test_a_grid_holds_the_places_of_its_voxels_and_none_beyond(grid):
    last = np.array(grid.shape) - 1
    assert grid.holds(grid.to_mm(np.array([-0.49 * np.ones(3), last + 0.49, last / 2]))).all()
    beyond = np.concatenate([np.diag([-0.51] * 3), last + np.diag([0.51] * 3)])
    assert not grid.holds(grid.to_mm(beyond)).any()


def test_lps_is_its_own_inverse_and_flips_the_first_two_axes():
    np.testing.assert_array_equal(transform_points(RAS_TO_LPS, [1, 2, 3]), [-1, -2, 3])
    np.testing.assert_array_equal(RAS_TO_LPS @ RAS_TO_LPS, np.eye(4))


# --- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_letters_name_every_axis_order(order, signs):
    letters = "".join(("RAS" if sign > 0 else "LPI")[world] for world, sign in zip(order, signs, strict=True))
    affine = signed_order(order, signs)
    assert Grid((2, 3, 4), affine).orientation == letters == "".join(nib.aff2axcodes(affine))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(ORDERS), st.tuples(*[st.floats(-25, 25)] * 3))
def test_a_tilt_does_not_change_the_letters(axes, degrees):
    affine = signed_order(*axes)
    assert Grid((2, 3, 4), oblique(degrees, affine)).orientation == Grid((2, 3, 4), affine).orientation


@settings(deadline=None, max_examples=150)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(0.05, 20)] * 3))
def test_the_size_of_voxels_does_not_change_the_letters(degrees, spacing):
    turned = oblique(degrees)
    assert Grid((2, 3, 4), turned @ np.diag([*spacing, 1])).orientation == Grid((2, 3, 4), turned).orientation


def test_letters_of_a_turn_beyond_half_a_quarter():
    assert Grid((2, 2, 2), oblique((0, 0, 44))).orientation == "RAS"
    assert Grid((2, 2, 2), oblique((0, 0, 46))).orientation == "ALS"


@settings(deadline=None, max_examples=150)
@given(grids())
def test_any_grid_has_one_letter_of_each_pair(grid):
    pairs = ["RL", "AP", "SI"]
    assert sorted(next(i for i, pair in enumerate(pairs) if letter in pair) for letter in grid.orientation) == [0, 1, 2]


# --- crop, equality --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(grids(), st.tuples(*[st.integers(-20, 20)] * 3))
def test_a_crop_keeps_voxels_where_they_are(grid, start):
    part = grid.crop(start, (3, 4, 5))
    assert part.shape == (3, 4, 5)
    np.testing.assert_allclose(part.to_mm([2, 1, 4]), grid.to_mm(np.add(start, [2, 1, 4])), atol=1e-6)
    np.testing.assert_array_equal(part.affine[:3, :3], grid.affine[:3, :3])


def test_matching_forgives_rounding_and_nothing_else():
    grid = Grid((10, 20, 30), oblique((5, 10, 15)))
    assert grid.matches(grid)

    def moved(voxels, scale=1.0):
        affine = grid.affine.copy()
        affine[:3, 3] = grid.to_mm(voxels)
        affine[:3, 2] *= scale
        return Grid(grid.shape, affine)

    assert grid.matches(moved([0.009, 0, 0]))
    assert not grid.matches(moved([0.011, 0, 0]))
    assert grid.matches(moved([0.4, 0, 0]), tolerance_voxels=0.5)
    assert grid.matches(moved([0, 0, 0], 1 + 0.009 / 29))
    assert not grid.matches(moved([0, 0, 0], 1 + 0.011 / 29))  # the far corners drift
    assert not grid.matches(Grid((10, 20, 29), grid.affine))


def test_equal_grids_have_equal_hashes():
    a, b = Grid((1, 2, 3), np.eye(4)), Grid([1, 2, 3], np.eye(4).tolist())
    assert a == b
    assert len({a, b}) == 1
    assert a != Grid((1, 2, 4), np.eye(4))
    assert a != Grid((1, 2, 3), np.diag([1, 1, 2, 1]))
    assert a != "a grid"


def test_a_grid_does_not_change_with_the_array_it_was_made_of():
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 5
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 5


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((2, 3), np.eye(4), r"three axes .* got shape \(2, 3\)"),
        ((2, 3, 4, 5), np.eye(4), "three axes"),
        ((2, 0, 4), np.eye(4), "at least one voxel"),
        ((2, 3, 4), np.eye(3), "4x4"),
        ((2, 3, 4), np.diag([1, np.nan, 1, 1]), "finite"),
        ((2, 3, 4), np.diag([1, np.inf, 1, 1]), "finite"),
        ((2, 3, 4), np.diag([1, 0, 1, 1]), "singular"),
        ((2, 3, 4), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "singular"),
    ],
)
def test_unusable_grids_are_refused(shape, affine, message):
    with pytest.raises(GeometryError, match=message):
        Grid(shape, affine)


@pytest.mark.parametrize("spacing_mm", [4e-6, 1e-4, 1e3])  # electron and light microscopes, and a globe
def test_singular_has_nothing_to_do_with_the_size_of_voxels(spacing_mm):
    assert Grid((2, 3, 4), np.diag([spacing_mm] * 3 + [1])).spacing_mm[0] == pytest.approx(spacing_mm)
    with pytest.raises(GeometryError, match="singular"):
        Grid((2, 3, 4), np.array([[1, 1, 0, 0], [1, 1 + 1e-14, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) * spacing_mm)


def test_a_volume_lies_on_its_grid():
    volume = Volume(np.zeros((2, 3, 4)), Grid((2, 3, 4), np.eye(4)), "brain.nii")
    assert volume.name == "brain.nii"
    with pytest.raises(GeometryError, match=r"brain\.nii: data of shape \(2, 3, 5\) on a grid of shape \(2, 3, 4\)"):
        Volume(np.zeros((2, 3, 5)), volume.grid, "brain.nii")


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">u2"])
def test_a_volume_is_in_the_byte_order_of_the_machine(dtype):
    values = np.arange(24).reshape(2, 3, 4)
    volume = Volume(values.astype(dtype), Grid((2, 3, 4), np.eye(4)))
    assert volume.data.dtype == np.dtype(dtype[1:])
    np.testing.assert_array_equal(volume.data, values)
