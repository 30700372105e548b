"""Fields and composites on disk: SimpleITK, from the files alone, does what T(x) = A(x + u(x)) says."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates
from volume_grids import GRIDS, ORIENTATIONS, make_grid, smooth_field, some_affine

from medwave.core.geometry import RAS_TO_LPS, Grid, Volume, transform_points
from medwave.core.orientation import canonical_axes, invert_axes, reorient_grid, reorient_vectors
from medwave.volumes import (
    FieldStep,
    LinearStep,
    SpatialTransform,
    read_field,
    read_transform,
    read_volume,
    write_affine,
    write_composite,
    write_field,
    write_inverse_composite,
    write_volume,
)
from medwave.volumes.displacement import stored_field

LPS = np.array([-1, -1, 1])
MOVING = make_grid((14, 12, 13), order=(1, 0, 2), signs=(-1, 1, 1), angles=(0.1, 0.2, -0.3), spacing_mm=(1.2, 0.9, 1.1))


def texture(grid, seed=3):
    """A smooth random image with a broad range of values."""
    return (gaussian_filter(np.random.default_rng(seed).normal(size=grid.shape), 1.2) * 100).astype(np.float32)


def moving_around(center_mm):
    """A moving image whose grid is centred on a point."""
    affine = MOVING.affine.copy()
    affine[:3, 3] += center_mm - MOVING.center_mm
    grid = Grid(MOVING.shape, affine)
    return Volume(texture(grid), grid)


def voxel_points(grid):
    """World positions of all voxel centres, ``(D, H, W, 3)``."""
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


def rounded(field, grid):
    """What the file stores: LPS mm rounded to 2**-10, brought back to voxels."""
    world = np.rint(np.tensordot(grid.affine[:3, :3], field.astype(np.float64), axes=1) * 1024) / 1024
    return np.tensordot(np.linalg.inv(grid.affine[:3, :3]), world, axes=1)


def sampled(moving, points_mm):
    at = np.moveaxis(moving.grid.to_voxels(points_mm), -1, 0)
    return map_coordinates(moving.data.astype(np.float64), at, order=1, mode="nearest"), at


def well_inside(at, shape):
    return np.all([(a >= 0.01) & (a <= n - 1.01) for a, n in zip(at, shape, strict=True)], axis=0)


def assert_warps_like_itk(folder, grid, field, transform):
    """Warp with SimpleITK through files only, and compare with numpy where the point falls into the moving image."""
    moving = moving_around(grid.center_mm)
    matrix = some_affine(grid.center_mm)
    write_volume(folder / "moving.nii.gz", moving)
    write_volume(folder / "fixed.nii.gz", Volume(np.zeros(grid.shape, np.float32), grid))
    itk_transform = transform(matrix)
    image = sitk.Resample(
        sitk.ReadImage(str(folder / "moving.nii.gz")), sitk.ReadImage(str(folder / "fixed.nii.gz")), itk_transform
    )
    seen = sitk.GetArrayFromImage(image).T
    displaced = grid.to_mm(np.moveaxis(np.indices(grid.shape) + rounded(field, grid), 0, -1))
    expected, at = sampled(moving, transform_points(matrix, displaced))
    inside = well_inside(at, moving.grid.shape)
    assert inside.mean() > 0.2
    error = np.abs(seen[inside] - expected[inside])
    assert np.quantile(error, 0.97) < 2e-3
    assert error.max() < 0.03  # a vector midway between two steps may be rounded to the other one in float32
    assert np.ptp(expected[inside]) > 20


def from_composite(folder, grid, field):
    def transform(matrix):
        write_composite(folder / "composite.h5", matrix, field, grid)
        return sitk.ReadTransform(str(folder / "composite.h5"))

    return transform


def from_two_files(folder, grid, field):
    def transform(matrix):
        write_affine(folder / "affine.tfm", matrix)
        write_field(folder / "field.nii.gz", field, grid)
        image = sitk.ReadImage(str(folder / "field.nii.gz"), sitk.sitkVectorFloat64)
        both = sitk.CompositeTransform(3)
        both.AddTransform(sitk.ReadTransform(str(folder / "affine.tfm")))
        both.AddTransform(sitk.DisplacementFieldTransform(image))
        return both

    return transform


@pytest.mark.parametrize("files", [from_composite, from_two_files])
@pytest.mark.parametrize("name", GRIDS)
def test_itk_warps_from_the_files_alone(tmp_path, name, files):
    grid = GRIDS[name]
    field = smooth_field(grid)
    assert_warps_like_itk(tmp_path, grid, field, files(tmp_path, grid, field))


@settings(deadline=None, max_examples=15)
@example(
    shape=(6, 7, 8), axes=ORIENTATIONS[0], spacing_mm=(1.0, 0.9, 1.1), angles=(0.0, 2.2e-311, 5e-324),
    files=from_composite, seed=1,
)  # fmt: skip
@given(
    shape=st.tuples(*[st.integers(6, 11)] * 3),
    axes=st.sampled_from(ORIENTATIONS),
    spacing_mm=st.tuples(*[st.floats(0.8, 1.6)] * 3),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    files=st.sampled_from([from_composite, from_two_files]),
    seed=st.integers(0, 99),
)
def test_itk_warps_on_any_grid(tmp_path_factory, shape, axes, spacing_mm, angles, files, seed):
    grid = make_grid(shape, order=axes[0], signs=axes[1], spacing_mm=spacing_mm, angles=angles, origin_mm=(5, -9, 70))
    folder = tmp_path_factory.mktemp("warp")
    field = smooth_field(grid, seed=seed)
    assert_warps_like_itk(folder, grid, field, files(folder, grid, field))


@pytest.mark.parametrize("name", GRIDS)
def test_points_move_as_itk_moves_them_also_outside_the_field(tmp_path, name):
    grid = GRIDS[name]
    matrix, field = some_affine(grid.center_mm), smooth_field(grid)
    write_composite(tmp_path / "c.h5", matrix, field, grid)
    itk_transform = sitk.ReadTransform(str(tmp_path / "c.h5"))
    rng = np.random.default_rng(0)
    points = grid.to_mm(rng.uniform(-3, np.array(grid.shape) + 2, (400, 3)))
    expected = np.array([itk_transform.TransformPoint((p * LPS).tolist()) for p in points]) * LPS
    np.testing.assert_allclose(read_transform(tmp_path / "c.h5").apply_points_mm(points), expected, atol=1e-4)


def test_the_edge_of_a_field_is_where_itk_has_it(tmp_path):
    grid = Grid((4, 5, 6), np.diag([-1.0, -1.0, 1.0, 1.0]))
    write_composite(tmp_path / "c.h5", np.eye(4), np.ones((3, 4, 5, 6), np.float32), grid)
    itk_transform, ours = sitk.ReadTransform(str(tmp_path / "c.h5")), read_transform(tmp_path / "c.h5")
    for depth in (-0.51, -0.5, -0.49, 0.0, 3.0, 3.49, 3.51):
        expected = np.array(itk_transform.TransformPoint((depth, 2.0, 2.0))) * LPS
        np.testing.assert_allclose(ours.apply_points_mm([-depth, -2.0, 2.0]), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["ras", "oblique permuted flipped"])
def test_the_inverse_composite_maps_moving_points_to_fixed_ones(tmp_path, name):
    grid = GRIDS[name]
    matrix, inverse_field = some_affine(grid.center_mm), smooth_field(grid, seed=5)
    write_inverse_composite(tmp_path / "inverse_composite.h5", matrix, inverse_field, grid)
    fixed = voxel_points(grid).reshape(-1, 3)  # p, on the fixed grid
    moving_points = transform_points(matrix, fixed)
    expected = fixed + rounded(inverse_field, grid).reshape(3, -1).T @ grid.affine[:3, :3].T
    itk_transform = sitk.ReadTransform(str(tmp_path / "inverse_composite.h5"))
    seen = np.array([itk_transform.TransformPoint((p * LPS).tolist()) for p in moving_points]) * LPS
    edge = np.linalg.norm(seen - expected, axis=1) > 1e-3  # voxel centres on the rim may fall outside by rounding
    assert edge.mean() < 0.02
    ours = read_transform(tmp_path / "inverse_composite.h5")
    assert [type(step) for step in ours.steps] == [LinearStep, FieldStep]
    np.testing.assert_allclose(ours.apply_points_mm(moving_points), expected, atol=1e-3)


def test_forward_then_inverse_of_a_translation_field_is_identity(tmp_path):
    grid = GRIDS["lps anisotropic"]
    matrix = some_affine(grid.center_mm)
    field = np.ones((3, *grid.shape), np.float32) * np.array([1, -1, 1], np.float32)[:, None, None, None]
    write_composite(tmp_path / "f.h5", matrix, field, grid)
    write_inverse_composite(tmp_path / "i.h5", matrix, -field, grid)
    points = grid.to_mm(np.random.default_rng(0).uniform(2, 4, (50, 3)))
    there = read_transform(tmp_path / "f.h5").apply_points_mm(points)
    np.testing.assert_allclose(read_transform(tmp_path / "i.h5").apply_points_mm(there), points, atol=2e-3)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_field_file_layout(tmp_path, name, ending):
    grid = GRIDS[name]
    field = smooth_field(grid)
    path = tmp_path / f"field.{ending}"
    write_field(path, field, grid)
    image = nib.load(path)
    assert image.header["dim"].tolist() == [5, *grid.shape, 1, 3, 1, 1]
    assert int(image.header["intent_code"]) == 1007
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, grid.affine, atol=2e-5)
    lps = np.moveaxis(np.asarray(image.dataobj)[..., 0, :], -1, 0)
    ras = lps * LPS[:, None, None, None]
    np.testing.assert_allclose(ras, np.tensordot(grid.affine[:3, :3], field, axes=1), atol=2**-11 + 1e-6)
    assert (lps * 1024 == np.rint(lps * 1024)).all()
    seen = sitk.ReadImage(str(path))
    assert seen.GetNumberOfComponentsPerPixel() == 3
    assert seen.GetDimension() == 3
    np.testing.assert_array_equal(np.moveaxis(sitk.GetArrayFromImage(seen), -1, 0).transpose(0, 3, 2, 1), lps)


@pytest.mark.parametrize("name", GRIDS)
def test_field_round_trip(tmp_path, name):
    grid = GRIDS[name]
    field = smooth_field(grid)
    write_field(tmp_path / "f.nii.gz", field, grid)
    again, again_grid = read_field(tmp_path / "f.nii.gz")
    assert again.dtype == np.float32
    assert again.flags.c_contiguous
    np.testing.assert_allclose(again, rounded(field, grid), atol=1e-5)
    np.testing.assert_allclose(again, field, atol=2**-11 * np.sqrt(3) / grid.spacing_mm.min() + 1e-5)
    assert again_grid.matches(grid, 1e-4)
    write_field(tmp_path / "g.nii.gz", again, again_grid)
    np.testing.assert_array_equal(read_field(tmp_path / "g.nii.gz")[0], again)


def test_many_slabs_strided_fields_and_double_precision_give_the_same_bytes(tmp_path, monkeypatch):
    grid = GRIDS["oblique"]
    field = smooth_field(grid)
    write_field(tmp_path / "a.nii.gz", field, grid)
    monkeypatch.setattr("medwave.volumes.displacement.SLAB_VOXELS", 300)
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(field, 0, -1)), -1, 0)
    write_field(tmp_path / "b.nii.gz", strided, grid)
    for name in ("a.nii.gz", "b.nii.gz"):
        np.testing.assert_array_equal(read_field(tmp_path / name)[0], read_field(tmp_path / "a.nii.gz")[0])
    write_composite(tmp_path / "c.h5", np.eye(4), strided, grid)
    from_h5 = read_transform(tmp_path / "c.h5").steps[0]
    np.testing.assert_allclose(from_h5.displacement_voxels, read_field(tmp_path / "a.nii.gz")[0], atol=1e-5)
    np.testing.assert_array_equal(field, smooth_field(grid))  # the input is left alone


def test_a_stored_field_has_rounded_lps_vectors_and_the_box_that_moves(tmp_path):
    grid = GRIDS["oblique"]
    field = np.zeros((3, *grid.shape), np.float32)
    box = tuple(slice(2, n - 3) for n in grid.shape)
    field[(slice(None), *box)] = smooth_field(grid)[(slice(None), *box)] + 3
    stored = stored_field(field, grid, path="f.nii.gz")
    lps = np.einsum("ij,j...->...i", (RAS_TO_LPS @ grid.affine)[:3, :3], field.astype(np.float64))
    np.testing.assert_allclose(stored.vectors.transpose(2, 1, 0, 3), np.rint(lps * 1024) / 1024, atol=1.01 / 1024)
    np.testing.assert_array_equal(stored.vectors * 1024, np.rint(stored.vectors * 1024))
    assert not np.signbit(stored.vectors[stored.vectors == 0]).any()
    assert stored.box == tuple(slice(1, n - 2) for n in grid.shape)
    write_field(tmp_path / "a.nii.gz", stored, grid)
    write_field(tmp_path / "b.nii.gz", field, grid)
    write_composite(tmp_path / "a.h5", np.eye(4), stored, grid)
    write_composite(tmp_path / "b.h5", np.eye(4), field, grid)
    for kind in ("nii.gz", "h5"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_fields_written_by_itk_are_read(tmp_path):
    grid = GRIDS["oblique"]
    write_field(tmp_path / "ours.nii.gz", smooth_field(grid), grid)
    for kind in (sitk.sitkVectorFloat32, sitk.sitkVectorFloat64):
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "ours.nii.gz"), kind), str(tmp_path / "itk.nii.gz"))
        field, field_grid = read_field(tmp_path / "itk.nii.gz")
        np.testing.assert_allclose(field, read_field(tmp_path / "ours.nii.gz")[0], atol=1e-5)
        assert field_grid.matches(grid, 1e-4)


@pytest.mark.parametrize("intent", [1006, 1007])
@pytest.mark.parametrize("name", ["las", "oblique permuted flipped"])
def test_a_field_of_either_intent_moves_points_as_itk_moves_them(tmp_path, name, intent):
    grid = GRIDS[name]
    write_field(tmp_path / "f.nii", smooth_field(grid), grid)
    content = bytearray((tmp_path / "f.nii").read_bytes())
    content[68:70] = intent.to_bytes(2, "little")  # intent_code of NIfTI-1
    (tmp_path / "f.nii").write_bytes(content)
    field, _ = read_field(tmp_path / "f.nii")
    itk = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "f.nii"), sitk.sitkVectorFloat64))
    for voxel in [(2, 3, 4), (6, 5, 3)]:
        start, end = grid.to_mm(np.array([voxel, voxel + field[(slice(None), *voxel)]]))
        lps = np.array([-1, -1, 1])
        np.testing.assert_allclose(itk.TransformPoint((start * lps).tolist()), end * lps, atol=2e-3)


def test_a_field_on_the_canonical_grid_goes_home(tmp_path):
    native = GRIDS["oblique permuted flipped"]
    axes = canonical_axes(native.affine)
    turned_grid = reorient_grid(native, *axes)
    turned = smooth_field(turned_grid)
    write_field(tmp_path / "turned.nii.gz", turned, turned_grid)
    write_field(tmp_path / "native.nii.gz", reorient_vectors(turned, *invert_axes(*axes)), native)
    points = native.to_mm(np.random.default_rng(1).uniform(0, np.array(native.shape) - 1, (100, 3)))
    moved = [read_transform(tmp_path / f"{name}.nii.gz").apply_points_mm(points) for name in ("turned", "native")]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-3)


def test_the_composite_keeps_the_box_that_moves_and_a_rim(tmp_path):
    grid = Grid((30, 32, 34), np.diag([-1.0, 1, 1, 1]))
    field = np.zeros((3, *grid.shape), np.float32)
    field[1, 10:15, 12:20, 0:9] = 0.5
    field[:, 25, 25, 25] = 1e-6  # rounds to zero
    write_composite(tmp_path / "c.h5", np.eye(4), field, grid)
    step = read_transform(tmp_path / "c.h5").steps[0]
    assert step.grid.shape == (7, 10, 10)
    np.testing.assert_array_equal(step.displacement_voxels, field[:, 9:16, 11:21, 0:10])
    whole = SpatialTransform((FieldStep(field, grid),))
    points = grid.to_mm(np.random.default_rng(0).uniform(-2, 33, (5000, 3)))
    np.testing.assert_allclose(
        read_transform(tmp_path / "c.h5").apply_points_mm(points), whole.apply_points_mm(points), atol=2e-6
    )


@pytest.mark.parametrize("field", [None, np.zeros((3, 4, 5, 6), np.float32)])
def test_a_composite_without_motion_is_its_affine(tmp_path, field):
    grid, matrix = Grid((4, 5, 6), np.eye(4)), some_affine((1, 2, 3))
    write_composite(tmp_path / "c.h5", matrix, field, grid)
    write_inverse_composite(tmp_path / "i.h5", matrix, field, grid)
    points = np.random.default_rng(0).normal(size=(10, 3))
    forward = read_transform(tmp_path / "c.h5").apply_points_mm(points)
    np.testing.assert_allclose(forward, transform_points(matrix, points), atol=1e-12)
    np.testing.assert_allclose(read_transform(tmp_path / "i.h5").apply_points_mm(forward), points, atol=1e-12)
    assert sitk.ReadTransform(str(tmp_path / "c.h5")).IsLinear()


def test_points_of_any_shape_and_number(tmp_path, monkeypatch):
    grid = GRIDS["ras"]
    transform = SpatialTransform((FieldStep(smooth_field(grid), grid), LinearStep(some_affine((0, 0, 0)))))
    points = voxel_points(grid)
    whole = transform.apply_points_mm(points)
    assert whole.shape == points.shape
    monkeypatch.setattr("medwave.volumes.spatial.POINTS_AT_ONCE", 100)
    np.testing.assert_array_equal(transform.apply_points_mm(points), whole)
    assert transform.apply_points_mm(np.zeros((0, 3))).shape == (0, 3)
    np.testing.assert_array_equal(transform.apply_points_mm(points[2, 3, 4]), whole[2, 3, 4])


def test_composites_of_many_transforms(tmp_path):
    grid = GRIDS["las"]
    write_field(tmp_path / "f.nii.gz", smooth_field(grid), grid)
    image = sitk.ReadImage(str(tmp_path / "f.nii.gz"), sitk.sitkVectorFloat64)
    chain = sitk.CompositeTransform(
        [
            sitk.TranslationTransform(3, (0.5, -0.2, 0.1)),
            sitk.DisplacementFieldTransform(sitk.Image(image)),
            sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.05, 0.02, -0.04, (0.1, 0.2, 0.3)),
            sitk.DisplacementFieldTransform(sitk.Image(image)),
        ]
    )
    sitk.WriteTransform(chain, str(tmp_path / "chain.h5"))
    points = voxel_points(grid)[2:-2, 2:-2, 2:-2].reshape(-1, 3)
    expected = np.array([chain.TransformPoint((p * LPS).tolist()) for p in points]) * LPS
    np.testing.assert_allclose(read_transform(tmp_path / "chain.h5").apply_points_mm(points), expected, atol=1e-4)


@pytest.mark.data
def test_a_real_brain_is_warped_by_itk_as_by_numpy(tmp_path, data_folder):
    folder = data_folder / "brains" / "benchmark"
    fixed, moving = (read_volume(folder / f"{n}_T1_brain.nii.gz") for n in ("1009", "1003"))
    matrix = some_affine(fixed.grid.center_mm)
    coarse = make_grid((12, 12, 12))
    field = np.stack(
        [
            map_coordinates(u, np.indices(fixed.grid.shape) * 11 / np.max(fixed.grid.shape), order=1)
            for u in smooth_field(coarse, largest_voxels=4)
        ]
    )
    write_composite(tmp_path / "composite.h5", matrix, field, fixed.grid)
    image = sitk.Resample(
        sitk.ReadImage(str(folder / "1003_T1_brain.nii.gz"), sitk.sitkFloat32),
        sitk.ReadImage(str(folder / "1009_T1_brain.nii.gz")),
        sitk.ReadTransform(str(tmp_path / "composite.h5")),
    )
    part = np.s_[60:90, 70:100, 60:90]
    places = np.moveaxis((np.indices(fixed.grid.shape) + rounded(field, fixed.grid))[(slice(None), *part)], 0, -1)
    expected, _ = sampled(moving, transform_points(matrix, fixed.grid.to_mm(places)))
    assert expected.std() > 10
    np.testing.assert_allclose(sitk.GetArrayFromImage(image).T[part], expected, atol=0.05)
