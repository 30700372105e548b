"""FSL's files: the coordinates it counts in, and the same points through its matrices and fields as through ours."""

import nibabel as nib
import numpy as np
import pytest
from volume_grids import GRIDS, make_grid, smooth_field, some_affine

from medwave.core.errors import GeometryError, InputError, OutputError, VolumeFormatError
from medwave.core.geometry import Grid, transform_points
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_transform, write_flirt, write_fsl_field
from medwave.volumes.fsl import fsl_matrix, read_flirt, read_fsl_field

MOVING = make_grid((14, 12, 13), order=(1, 0, 2), signs=(-1, 1, 1), angles=(0.1, 0.2, -0.3), spacing_mm=(1.2, 0.9, 1.1))


def flipped(grid):
    """The same voxels in the world, stored with the first axis the other way round."""
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_mm((grid.shape[0] - 1, 0, 0))
    affine[:3, 0] *= -1
    return Grid(grid.shape, affine)


def voxel_points(grid):
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3))


def moving_for(grid):
    """A moving grid about the middle of a fixed one."""
    affine = MOVING.affine.copy()
    affine[:3, 3] += grid.center_mm - MOVING.center_mm
    return Grid(MOVING.shape, affine)


def test_coordinates_count_from_the_right_of_the_person():
    left_handed = make_grid((5, 6, 7), signs=(-1, 1, 1), spacing_mm=(2, 3, 4))
    np.testing.assert_allclose(transform_points(fsl_matrix(left_handed), (1, 1, 1)), (2, 3, 4))
    right_handed = make_grid((5, 6, 7), spacing_mm=(2, 3, 4))
    np.testing.assert_allclose(transform_points(fsl_matrix(right_handed), (1, 1, 1)), (6, 3, 4))


def test_a_matrix_known_by_hand(tmp_path):
    """flirt says: 3 mm along FSL's x, which in this left-handed file runs to the left of the person."""
    grid = make_grid((9, 9, 9), signs=(-1, 1, 1), origin_mm=(10, -20, 30))
    (tmp_path / "m.mat").write_text("1 0 0 3\n0 1 0 0\n0 0 1 0\n0 0 0 1  \n")
    found = read_flirt(tmp_path / "m.mat", grid, grid)
    np.testing.assert_allclose(transform_points(found, (0, 0, 0)), (3, 0, 0), atol=1e-12)  # fixed -> moving: back


@pytest.mark.parametrize("name", GRIDS)
def test_a_matrix_does_not_depend_on_how_voxels_are_stored(tmp_path, name):
    fixed = GRIDS[name]
    moving, matrix = moving_for(fixed), some_affine(fixed.center_mm)
    write_flirt(tmp_path / "a.mat", matrix, fixed, moving)
    write_flirt(tmp_path / "b.mat", matrix, flipped(fixed), flipped(moving))
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a.mat"), np.loadtxt(tmp_path / "b.mat"), atol=1e-9)
    points = voxel_points(fixed)
    for grids in ((fixed, moving), (flipped(fixed), flipped(moving))):
        back = read_transform(tmp_path / "a.mat", fixed=grids[0], moving=grids[1])
        np.testing.assert_allclose(back.apply_points_mm(points), transform_points(matrix, points), atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
def test_a_field_sends_every_voxel_where_the_transform_sends_it(tmp_path, name):
    fixed = GRIDS[name]
    moving, matrix, u = moving_for(fixed), some_affine(fixed.center_mm), smooth_field(fixed)
    transform = SpatialTransform((FieldStep(u, fixed), LinearStep(matrix)))
    write_fsl_field(tmp_path / "w.nii.gz", matrix, u, fixed, moving)
    image = nib.load(tmp_path / "w.nii.gz")
    assert image.shape == (*fixed.shape, 3)
    assert int(image.header["intent_code"]) == 2006
    # as applywarp reads it: FSL's mm of the fixed image plus the vector are FSL's mm of the moving one
    voxels = np.moveaxis(np.indices(fixed.shape), 0, -1).reshape(-1, 3)
    places = transform_points(fsl_matrix(fixed), voxels) + np.asarray(image.dataobj).reshape(-1, 3)
    seen = moving.to_mm(transform_points(np.linalg.inv(fsl_matrix(moving)), places))
    expected = transform.apply_points_mm(voxel_points(fixed))
    np.testing.assert_allclose(seen, expected, atol=1e-4)
    back = read_transform(tmp_path / "w.nii.gz", moving=moving)
    between = fixed.to_mm(np.random.default_rng(0).uniform(0, np.array(fixed.shape) - 1, (500, 3)))
    np.testing.assert_allclose(back.apply_points_mm(between), transform.apply_points_mm(between), atol=1e-4)


def test_fields_agree_however_voxels_are_stored(tmp_path):
    fixed = GRIDS["oblique"]
    moving, matrix = moving_for(fixed), some_affine(fixed.center_mm)
    write_fsl_field(tmp_path / "a.nii.gz", matrix, None, fixed, moving)
    write_fsl_field(tmp_path / "b.nii.gz", matrix, None, flipped(fixed), moving)
    a, b = (np.asarray(nib.load(tmp_path / f"{n}.nii.gz").dataobj) for n in "ab")
    np.testing.assert_allclose(a, b[::-1], atol=1e-4)


@pytest.mark.parametrize("moving", [moving_for, lambda fixed: fixed, flipped], ids=["permuted", "same", "flipped"])
def test_an_absolute_field_is_told_from_a_relative_one(tmp_path, moving):
    fixed = make_grid((12, 11, 10), signs=(-1, 1, 1))
    moving, matrix, u = moving(fixed), some_affine(fixed.center_mm), smooth_field(fixed)
    write_fsl_field(tmp_path / "relative.nii.gz", matrix, u, fixed, moving)
    image = nib.load(tmp_path / "relative.nii.gz")
    voxels = np.moveaxis(np.indices(fixed.shape), 0, -1)
    absolute = np.asarray(image.dataobj) + transform_points(fsl_matrix(fixed), voxels)
    nib.save(nib.Nifti1Image(absolute.astype(np.float32), image.affine), tmp_path / "absolute.nii.gz")
    one, other = (read_fsl_field(tmp_path / f"{name}.nii.gz", moving)[0] for name in ("relative", "absolute"))
    np.testing.assert_allclose(one, other, atol=1e-4)
    transform = SpatialTransform((FieldStep(u, fixed), LinearStep(matrix)))
    read = read_transform(tmp_path / "absolute.nii.gz", moving=moving)
    points = voxel_points(fixed)
    np.testing.assert_allclose(read.apply_points_mm(points), transform.apply_points_mm(points), atol=1e-3)


def test_what_cannot_be_read_is_said(tmp_path):
    grid = GRIDS["las"]
    write_flirt(tmp_path / "m.mat", np.eye(4), grid, grid)
    with pytest.raises(InputError, match=r"m\.mat.*--fixed, --moving"):
        read_transform(tmp_path / "m.mat")
    with pytest.raises(InputError, match="--moving"):
        read_transform(tmp_path / "m.mat", fixed=grid)
    (tmp_path / "short.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")
    with pytest.raises(VolumeFormatError, match="four lines of four numbers"):
        read_flirt(tmp_path / "short.mat", grid, grid)
    (tmp_path / "flat.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n")
    with pytest.raises(GeometryError, match="cannot be inverted"):
        read_flirt(tmp_path / "flat.mat", grid, grid)
    with pytest.raises(OutputError, match=r"\.nii\.gz"):
        write_fsl_field(tmp_path / "w.h5", np.eye(4), None, grid, grid)
    coefficients = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), np.eye(4))
    coefficients.header["intent_code"] = 2007
    nib.save(coefficients, tmp_path / "c.nii.gz")
    with pytest.raises(GeometryError, match="fnirtfileutils"):
        read_transform(tmp_path / "c.nii.gz", moving=grid)
