"""Converted, composed and inverted transforms map points as they should, read back from disk and by SimpleITK."""

import numpy as np
import phantom
import pytest
import SimpleITK as sitk

import medwave
from medwave.core.errors import InputError, OutputError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import (
    FieldStep,
    LinearStep,
    SpatialTransform,
    read_transform,
    read_volume,
    write_affine,
    write_composite,
    write_field,
    write_volume,
)
from medwave.workflows.pullback import Pullback
from medwave.workflows.transform_files import folded_voxels

FIXED = phantom.turned(angle=0.35, order=(0, 2, 1), signs=(-1, 1, 1), spacing_mm=(5, 4, 6))
MOVING = phantom.turned(angle=-0.5, signs=(-1, -1, 1), spacing_mm=(4, 5, 5))
MATRIX = phantom.MATRIX


def field_on(grid):
    """The phantom's displacement in voxels of a grid."""
    return np.moveaxis(phantom.steps_mm(phantom.world(grid)) @ np.linalg.inv(grid.affine[:3, :3]).T, -1, 0).astype(
        np.float32
    )


def nodes(grid, every=3):
    """World points of some voxel centres away from the border."""
    inner = [np.arange(4, n - 4, every) for n in grid.shape]
    return grid.to_mm(np.stack(np.meshgrid(*inner, indexing="ij"), -1).reshape(-1, 3))


def through_itk(path, points):
    transform = sitk.ReadTransform(str(path))
    lps = points * (-1, -1, 1)
    return np.array([transform.TransformPoint(tuple(p)) for p in lps]) * (-1, -1, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_volume(folder / "fixed.nii.gz", Volume(phantom.intensity(phantom.world(FIXED)).astype(np.float32), FIXED))
    write_volume(folder / "moving.nii.gz", Volume(np.ones(MOVING.shape, np.float32), MOVING))
    write_affine(folder / "affine.tfm", MATRIX)
    write_composite(folder / "both.h5", MATRIX, field_on(FIXED), FIXED)
    return folder


@pytest.fixture
def ends(files):
    return {"fixed": files / "fixed.nii.gz", "moving": files / "moving.nii.gz"}


@pytest.mark.parametrize(
    ("to", "name"), [("itk", "x.mat"), ("itk", "x.h5"), ("fsl", "x.mat"), ("fsl", "x.txt"), ("freesurfer", "x.lta")]
)
def test_linear_transforms_in_every_form(files, ends, tmp_path, to, name):
    written = medwave.convert_transform(files / "affine.tfm", tmp_path / name, to=to, **ends)
    points = nodes(FIXED)
    expected = points @ MATRIX[:3, :3].T + MATRIX[:3, 3]
    back = read_transform(tmp_path / name, fixed=FIXED, moving=MOVING)
    np.testing.assert_allclose(back.apply_points_mm(points), expected, atol=1e-5)
    if to != "itk":
        assert str(tmp_path / name) in written.hint
    home = medwave.convert_transform(tmp_path / name, tmp_path / "home.tfm", **ends)
    np.testing.assert_allclose(home.transform.linear, MATRIX, atol=1e-4)
    np.testing.assert_allclose(through_itk(tmp_path / "home.tfm", points), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("to", "name"), [("itk", "x.h5"), ("itk", "x.nii.gz"), ("fsl", "x.nii.gz"), ("freesurfer", "x.nii.gz")]
)
def test_fields_in_every_form(files, ends, tmp_path, to, name):
    medwave.convert_transform(files / "both.h5", tmp_path / name, to=to, **ends)
    points = nodes(FIXED)
    expected = read_transform(files / "both.h5").apply_points_mm(points)
    np.testing.assert_allclose(expected, phantom.to_moving(points), atol=2e-3)
    back = read_transform(tmp_path / name, moving=MOVING)
    np.testing.assert_allclose(back.apply_points_mm(points), expected, atol=1e-3)
    if name.endswith(".h5"):
        np.testing.assert_allclose(through_itk(tmp_path / name, points), expected, atol=1e-3)


def test_the_inverse_is_written_for_the_other_direction(files, ends, tmp_path):
    written = medwave.convert_transform(files / "affine.tfm", tmp_path / "back.mat", to="fsl", inverse=True, **ends)
    assert f"-in {ends['fixed']} -ref {ends['moving']}" in written.hint
    back = read_transform(tmp_path / "back.mat", fixed=MOVING, moving=FIXED)
    np.testing.assert_allclose(back.linear, np.linalg.inv(MATRIX), atol=1e-4)


def test_composites_are_nothing_but_one_after_the_other(files, tmp_path):
    write_field(tmp_path / "second.nii.gz", 0.5 * field_on(MOVING), MOVING)
    parts = [files / "both.h5", tmp_path / "second.nii.gz", files / "affine.tfm"]
    medwave.compose_transforms(parts, tmp_path / "all.h5")
    points = nodes(FIXED)
    expected = points
    for part in parts:
        expected = read_transform(part).apply_points_mm(expected)
    np.testing.assert_allclose(read_transform(tmp_path / "all.h5").apply_points_mm(points), expected, atol=1e-5)
    np.testing.assert_allclose(through_itk(tmp_path / "all.h5", points), expected, atol=1e-4)
    medwave.compose_transforms(parts, tmp_path / "all.nii.gz", reference=FIXED)
    np.testing.assert_allclose(read_transform(tmp_path / "all.nii.gz").apply_points_mm(points), expected, atol=2e-3)
    medwave.compose_transforms([files / "affine.tfm", files / "affine.tfm"], tmp_path / "twice.tfm")
    np.testing.assert_allclose(read_transform(tmp_path / "twice.tfm").linear, MATRIX @ MATRIX, atol=1e-9)
    with pytest.raises(Exception, match="bends space"):
        medwave.compose_transforms(parts, tmp_path / "all.tfm")


def test_a_transform_and_its_inverse_make_nothing(files, tmp_path):
    medwave.invert_transform(files / "both.h5", tmp_path / "back.h5")
    chain = medwave.compose_transforms([files / "both.h5", tmp_path / "back.h5"], tmp_path / "none.h5").transform
    points = phantom.inside_points()[::7]
    assert np.linalg.norm(chain.apply_points_mm(points) - points, axis=1).mean() < 0.15  # mm, between voxels of 5 mm
    there = phantom.to_moving(points)
    assert np.linalg.norm(through_itk(tmp_path / "back.h5", there) - points, axis=1).mean() < 0.15


@pytest.mark.parametrize("make", ["compose_transforms", "convert_transform", "invert_transform"])
def test_one_field_of_a_composite_needs_a_grid(files, tmp_path, make):
    """Its field lies where it moves something, and in the fixed space: elsewhere, the affine would be lost."""
    source = [files / "both.h5"] if make == "compose_transforms" else files / "both.h5"
    with pytest.raises(InputError, match="give an image on it"):
        getattr(medwave, make)(source, tmp_path / "one.nii.gz")
    assert not (tmp_path / "one.nii.gz").exists()


def test_a_field_that_ends_in_zeros_is_inverted_on_its_own_grid(tmp_path):
    write_field(tmp_path / "field.nii.gz", field_on(FIXED), FIXED)
    medwave.invert_transform(tmp_path / "field.nii.gz", tmp_path / "back.nii.gz")
    back, points = read_transform(tmp_path / "back.nii.gz"), nodes(FIXED)
    assert back.steps[0].grid.matches(FIXED)
    there = read_transform(tmp_path / "field.nii.gz").apply_points_mm(points)
    assert np.linalg.norm(back.apply_points_mm(there) - points, axis=1).mean() < 0.15


def test_a_whole_transform_in_one_field_has_an_inverse_too(files, ends, tmp_path):
    """Its affine would push points off the grid on which a plain inverse is looked for."""
    medwave.convert_transform(files / "both.h5", tmp_path / "one.nii.gz", fixed=ends["fixed"])
    written = medwave.invert_transform(tmp_path / "one.nii.gz", tmp_path / "back.h5")
    points = phantom.inside_points()[::7]
    error = np.linalg.norm(written.transform.apply_points_mm(phantom.to_moving(points)) - points, axis=1)
    assert error.mean() < 0.2
    assert written.residual_voxels < 0.01


@pytest.mark.parametrize(
    "grid", [FIXED, phantom.turned(spacing_mm=(4, 4, 4)), phantom.turned(angle=0.8, spacing_mm=(3, 4, 5))]
)
def test_jacobian_is_the_determinant_of_the_map_in_the_world(files, grid):
    """Against differences of the true map along world axes, on oblique and anisotropic grids."""
    fine = SpatialTransform((FieldStep(field_on(grid), grid), LinearStep(MATRIX)))
    found = medwave.jacobian_map(fine)
    inner = (slice(3, -3),) * 3
    points = phantom.world(grid)[inner].reshape(-1, 3)
    h = 0.01
    slopes = [(phantom.to_moving(points + e) - phantom.to_moving(points - e)) / (2 * h) for e in h * np.eye(3)]
    expected = np.linalg.det(np.stack(slopes, axis=-1)).reshape(found.data[inner].shape)
    assert np.abs(found.data[inner] - expected).mean() < 0.01
    logs = medwave.jacobian_map(fine, log=True)
    np.testing.assert_allclose(logs.data, np.log(found.data), atol=1e-6)
    assert folded_voxels(found) == folded_voxels(logs, log=True) == 0
    bare = medwave.jacobian_map(fine, linear=False)
    np.testing.assert_allclose(bare.data * np.linalg.det(MATRIX[:3, :3]), found.data, rtol=1e-5)


def test_jacobian_of_a_composite_is_the_product(files, tmp_path):
    second = SpatialTransform((LinearStep(MATRIX), FieldStep(0.7 * field_on(MOVING), MOVING)))
    first = read_transform(files / "both.h5")
    both = medwave.jacobian_map([first, second], reference=FIXED)
    one, other = medwave.jacobian_map(first, reference=FIXED), medwave.jacobian_map(second, reference=MOVING)
    other_at = apply_transform_at(other, first, FIXED)
    inner = (slice(4, -4),) * 3
    mask = other_at[inner] > 0
    relative = (both.data / np.maximum(one.data * other_at, 1e-3))[inner][mask]
    assert np.abs(np.log(relative)).mean() < 0.02


def apply_transform_at(image, transform, grid):

    return Pullback.through(transform, grid).image(image).data


def test_folds_are_counted(tmp_path):
    grid = Grid((8, 8, 8), np.eye(4))
    u = np.zeros((3, 8, 8, 8), np.float32)
    u[0, 4] = -3
    step = SpatialTransform((FieldStep(u, grid),))
    folds = folded_voxels(medwave.jacobian_map(step))
    assert folds == 64  # the plane before: det = 1 + (-3 - 0) / 2 < 0
    logs = medwave.jacobian_map(step, log=True)
    assert folded_voxels(logs, log=True) == folds
    assert np.isfinite(logs.data).all()


def test_what_is_missing_is_said(files, tmp_path):
    with pytest.raises(InputError, match="--fixed and --moving"):
        medwave.convert_transform(files / "both.h5", tmp_path / "x.nii.gz", to="fsl")
    with pytest.raises(InputError, match="--reference"):
        medwave.jacobian_map(files / "affine.tfm")
    with pytest.raises(OutputError, match=r"\.nii\.gz"):
        medwave.convert_transform(files / "both.h5", tmp_path / "x.mat", to="fsl", fixed=FIXED, moving=MOVING)
    with pytest.raises(OutputError, match="mri_warp_convert"):
        medwave.convert_transform(files / "both.h5", tmp_path / "x.lta", to="freesurfer", fixed=FIXED, moving=MOVING)
    with pytest.raises(InputError, match="itk, fsl, freesurfer"):
        medwave.convert_transform(files / "both.h5", tmp_path / "x.h5", to="spm")
    assert not list(tmp_path.iterdir())


def test_inputs_are_never_replaced(files, ends, tmp_path):
    affine, field = tmp_path / "affine.tfm", tmp_path / "field.nii.gz"
    write_affine(affine, MATRIX)
    write_field(field, field_on(FIXED), FIXED)
    before = [path.read_bytes() for path in (affine, field)]
    with pytest.raises(OutputError, match=r"affine\.tfm: the result would replace its input"):
        medwave.invert_transform(affine, affine)
    with pytest.raises(OutputError, match="would replace its input"):
        medwave.compose_transforms([files / "affine.tfm", affine], affine)
    with pytest.raises(OutputError, match="would replace its input"):
        medwave.compose_transforms([affine, affine], field, reference=field)
    with pytest.raises(OutputError, match="would replace its input"):
        medwave.convert_transform(files / "both.h5", field, to="fsl", fixed=field, moving=ends["moving"])
    assert [path.read_bytes() for path in (affine, field)] == before


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pair = phantom.make_pair()
    result = medwave.register(pair.fixed, pair.moving, init=MATRIX, affine="none", preset="fast", threads=1)
    folder = tmp_path_factory.mktemp("run")
    result.save(folder / "run")
    return pair, result, folder / "run"


def test_a_run_folder_goes_everywhere(run, tmp_path):
    pair, result, folder = run
    points = nodes(pair.fixed.grid, every=6)
    expected = result.transform.apply_points_mm(points)
    for to, name in (("fsl", "f.nii.gz"), ("freesurfer", "s.nii.gz"), ("itk", "i.h5")):
        medwave.convert_transform(folder, tmp_path / name, to=to)
        back = read_transform(tmp_path / name, moving=pair.moving.grid)
        np.testing.assert_allclose(back.apply_points_mm(points), expected, atol=1e-3)
    medwave.invert_transform(folder, tmp_path / "back.h5")
    stored = read_transform(folder / "transform/inverse_composite.h5").apply_points_mm(expected)
    np.testing.assert_allclose(read_transform(tmp_path / "back.h5").apply_points_mm(expected), stored, atol=1e-5)
    found = medwave.jacobian_map(folder, linear=False).data
    np.testing.assert_allclose(found, read_volume(folder / "jacobian.nii.gz").data, atol=2e-3)


def test_a_run_without_a_deformable_part_is_linear(tmp_path):
    pair = phantom.make_pair()
    result = medwave.register(pair.fixed, pair.moving, init=MATRIX, affine="none", deformable=False, threads=1)
    result.save(tmp_path / "run")
    for source in (result, tmp_path / "run"):
        medwave.convert_transform(source, tmp_path / "x.lta", to="freesurfer")
        found = read_transform(tmp_path / "x.lta").linear
        np.testing.assert_allclose(found, MATRIX, atol=1e-4)


@pytest.mark.parametrize("form", ["itk.mat", "itk.h5", "flirt.mat", "free.lta", "run"])
def test_registration_starts_from_files_of_others(run, tmp_path, form):
    """Without any search or refinement the result is the initial transform itself."""
    pair, result, folder = run
    grids = {"fixed": pair.fixed.grid, "moving": pair.moving.grid}
    to = {"itk": "itk", "flirt": "fsl", "free": "freesurfer", "run": ""}[form.split(".")[0]]
    start = folder
    if to:
        write_affine(tmp_path / "a.tfm", MATRIX)
        start = medwave.convert_transform(tmp_path / "a.tfm", tmp_path / form, to=to, **grids).path
    found = medwave.register(pair.fixed, pair.moving, init=start, affine="none", deformable=False, threads=1)
    points = phantom.inside_points()[::11]
    expected = LinearStep(MATRIX).apply(points) if to else result.transform.apply_points_mm(points)
    np.testing.assert_allclose(found.transform.apply_points_mm(points), expected, atol=2e-3)


def test_refinement_goes_on_from_a_field(run, tmp_path):
    pair, result, folder = run
    medwave.convert_transform(folder, tmp_path / "w.nii.gz", to="fsl")
    again = medwave.register(pair.fixed, pair.moving, init=tmp_path / "w.nii.gz", preset="fast", threads=1)
    assert again.affine is None
    assert phantom.true_error_mm(again.transform.apply_points_mm) < 1.1 * phantom.true_error_mm(
        result.transform.apply_points_mm
    )
    with pytest.raises(InputError, match="formulation wavelet"):
        medwave.register(pair.fixed, pair.moving, init=tmp_path / "w.nii.gz", formulation="wavelet")
