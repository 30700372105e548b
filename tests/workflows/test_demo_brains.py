"""The demo pair: its truth is true, its files say the same as its arrays."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from medwave import fields
from medwave.core import optional
from medwave.core.errors import InputError, MissingPackageError
from medwave.core.geometry import Grid, Volume, transform_points
from medwave.volumes import read_affine, read_field, read_volume
from medwave.workflows import demo_brains
from medwave.workflows.demo_brains import BrainSample, make_brain_sample, true_error_mm


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_brain_sample(tmp_path_factory.mktemp("demo") / "new" / "folder", seed=0)


@pytest.fixture
def tiny_sample():
    """A made-up sample on an 8^3 grid of 2 mm voxels: shift by 3 mm, then half a voxel (1 mm) along axis 2."""
    grid = Grid((8, 8, 8), np.diag([2.0, 2.0, 2.0, 1.0]))
    volume = Volume(np.zeros(grid.shape, np.int16), grid)
    brain = np.zeros(grid.shape, bool)
    brain[2:6, 2:6, 2:6] = True
    affine = np.eye(4)
    affine[0, 3] = 3.0
    displacement = np.zeros((3, *grid.shape), np.float32)
    displacement[2] = 0.5
    path = Path("unused")
    return BrainSample(volume, volume, brain, affine, displacement, 0.0, path, path, path, path)


def test_identity_error_is_the_length_of_the_true_motion(tiny_sample):
    error = true_error_mm(tiny_sample)
    for value in (error.mean_mm, error.p95_mm, error.max_mm):
        assert value == pytest.approx(np.hypot(3.0, 1.0))
    assert error.map_mm.shape == (8, 8, 8)
    assert (error.map_mm > 0).sum() == tiny_sample.brain.sum()


def test_the_true_transform_has_no_error_and_a_shifted_one_has_its_shift(tiny_sample):
    assert true_error_mm(tiny_sample, lambda p: p + np.array([3.0, 0.0, 1.0])).max_mm == pytest.approx(0, abs=1e-9)
    assert true_error_mm(tiny_sample, lambda p: p + np.array([3.0, 2.0, 1.0])).mean_mm == pytest.approx(2.0)


def test_the_mask_chooses_the_voxels(tiny_sample):
    mask = np.zeros((8, 8, 8), bool)
    mask[4, 4, 4] = True

    def only_wrong_at_the_corner(points):
        return points + np.array([3.0, 0, 1.0]) + 5.0 * (points.sum(-1, keepdims=True) < 15)

    assert true_error_mm(tiny_sample, only_wrong_at_the_corner, mask).max_mm == pytest.approx(0, abs=1e-9)
    assert true_error_mm(tiny_sample, only_wrong_at_the_corner).max_mm > 5


def test_unusable_masks_and_functions_are_refused(tiny_sample):
    with pytest.raises(InputError, match="mask"):
        true_error_mm(tiny_sample, mask=np.zeros((8, 8, 8), bool))
    with pytest.raises(InputError, match="mask"):
        true_error_mm(tiny_sample, mask=np.ones((4, 4, 4), bool))
    with pytest.raises(InputError, match="points"):
        true_error_mm(tiny_sample, lambda p: p[:5])


def test_a_missing_template_package_is_told_with_its_pip_line(monkeypatch, tmp_path):
    def absent(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name="nilearn")

    monkeypatch.setattr(optional.importlib, "import_module", absent)
    with pytest.raises(MissingPackageError, match=r'pip install "medwave\[demo\]"'):
        make_brain_sample(tmp_path)


@pytest.mark.slow
def test_the_truth_is_consistent_and_invertible(sample):
    assert sample.residual_mm < 0.05
    jacobian = fields.jacobian_determinant(torch.from_numpy(sample.displacement)[None])[0, 0].numpy()
    assert jacobian.min() > 0.2
    before = true_error_mm(sample)
    affine_only = true_error_mm(sample, lambda p: transform_points(sample.affine, p))
    assert before.mean_mm > 10
    assert 2 < affine_only.mean_mm < 6


@pytest.mark.slow
def test_the_moving_image_shows_the_template_at_the_true_places(sample):
    """Read the moving image at T(x): edges fall on edges. A map that is 2 mm off is clearly worse."""
    voxels = np.argwhere(sample.brain)[::20]
    steps = sample.displacement[(slice(None), *voxels.T)].T
    moved = transform_points(sample.affine, sample.fixed.grid.to_mm(voxels + steps))
    fixed_values = sample.fixed.data[tuple(voxels.T)].astype(float)

    def unexplained(points):
        values = ndimage.map_coordinates(
            sample.moving.data.astype(float), sample.moving.grid.to_voxels(points).T, order=1
        )
        inside = values > 0
        ranks = fixed_values[inside].argsort().argsort(), values[inside].argsort().argsort()
        return 1 - np.corrcoef(*ranks)[0, 1]

    assert unexplained(moved) < 0.1
    for shift in ([2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]):
        assert unexplained(moved + shift) > 2 * unexplained(moved)


@pytest.mark.slow
def test_files_say_the_same_as_the_arrays(sample):
    assert sample.fixed_path.parent.name == "folder"
    for path, volume in ((sample.fixed_path, sample.fixed), (sample.moving_path, sample.moving)):
        stored = read_volume(path)
        np.testing.assert_array_equal(stored.data, volume.data)
        assert stored.grid.matches(volume.grid, 1e-4)
        assert nib.load(path).header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(read_affine(sample.affine_path), sample.affine, atol=1e-9)
    field, grid = read_field(sample.field_path)
    on_fixed = fields.warp(
        fields.to_mm(torch.from_numpy(field)[None], torch.tensor(grid.affine)),
        fields.affine_displacement(np.linalg.solve(grid.affine, sample.fixed.grid.affine), sample.fixed.grid.shape),
    )
    assert float((on_fixed[0] - torch.from_numpy(sample.displacement)).abs().max()) < 1e-3


@pytest.mark.slow
def test_simpleitk_maps_points_to_the_true_places(sample):
    affine = sitk.ReadTransform(str(sample.affine_path))
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(sample.field_path), sitk.sitkVectorFloat64))
    lps = np.array([-1.0, -1.0, 1.0])
    voxels = np.argwhere(sample.brain)[::100_000]
    steps = sample.displacement[(slice(None), *voxels.T)].T
    expected = transform_points(sample.affine, sample.fixed.grid.to_mm(voxels + steps))
    for point, target in zip(sample.fixed.grid.to_mm(voxels), expected, strict=True):
        found = affine.TransformPoint(field.TransformPoint(tuple(point * lps)))
        np.testing.assert_allclose(np.array(found) * lps, target, atol=0.01)


@pytest.mark.slow
def test_the_moving_image_is_another_scan(sample):
    assert sample.moving.grid.orientation != sample.fixed.grid.orientation
    assert not np.allclose(sample.moving.grid.spacing_mm, sample.fixed.grid.spacing_mm)
    assert sample.moving.grid.shape != sample.fixed.grid.shape
    for volume in (sample.fixed, sample.moving):
        assert volume.data.dtype == np.int16
        assert 0 == volume.data.min() < volume.data.max() < 2000
        faces = [np.take(volume.data, [0, -1], axis=axis) for axis in range(3)]
        assert max(face.max() for face in faces) == 0, "the whole brain is in the field of view"
    brain_mm3 = sample.brain.sum() * sample.fixed.grid.voxel_volume_mm3
    assert 1.2e6 < brain_mm3 < 2.2e6


@pytest.mark.slow
def test_the_seed_decides(sample):
    fixed = demo_brains._template()
    same, other = (demo_brains._random_truth(fixed.grid, np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(same.affine, sample.affine)
    np.testing.assert_array_equal(demo_brains._displacement(fixed.grid, same), sample.displacement)
    assert np.abs(other.affine - sample.affine).max() > 0.5
