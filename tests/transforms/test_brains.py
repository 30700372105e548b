"""The chain from volumes to network input: world positions never move, whatever the file's axes are."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.processing import resample_from_to
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medwave import fields
from medwave.core.errors import GeometryError, InputError, MissingFileError
from medwave.core.geometry import Grid, Volume, transform_points
from medwave.transforms import (
    brain_pair_chain,
    displacement_on_grid,
    from_metatensor,
    prepare_pair,
    to_metatensor,
)
from medwave.volumes import read_volume, write_volume

CENTER = np.array([4.0, -7.0, 12.0])


def blobs(points_mm):
    """A smooth asymmetric anatomy in world space: three Gaussians inside about 25 mm of CENTER."""
    rel = points_mm - CENTER
    value = np.zeros(rel.shape[:-1])
    for height, offset, width in [(900, (0, 0, 0), 9.0), (500, (9, 3, -4), 5.0), (-300, (-6, 7, 5), 4.0)]:
        value = value + height * np.exp(-0.5 * (((rel - offset) / width) ** 2).sum(-1))
    return value


def grid_points(grid):
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


def anatomy_on(shape, linear, name="brain", warp=None):
    """The anatomy sampled on a grid centred at CENTER whose axes are the columns of ``linear``."""
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = CENTER - np.asarray(linear) @ ((np.asarray(shape) - 1) / 2)
    grid = Grid(shape, affine)
    points = grid_points(grid)
    return Volume(blobs(points if warp is None else warp(points)).astype(np.float32), grid, name)


FLIPPED = np.diag([-1.0, 1.0, 1.0])
PERMUTED = np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, 1.0, 0]])
ANISOTROPIC = np.diag([0.9, -1.3, 2.0])
OBLIQUE = Rotation.from_euler("xyz", [14, -9, 21], degrees=True).as_matrix() @ np.diag([1.0, 1.2, 0.8])
SHAPES = {"flipped": (62, 60, 64), "permuted": (62, 60, 64), "anisotropic": (70, 50, 34), "oblique": (66, 54, 80)}
LINEARS = {"flipped": FLIPPED, "permuted": PERMUTED, "anisotropic": ANISOTROPIC, "oblique": OBLIQUE}


@pytest.fixture(params=LINEARS, scope="module")
def stored(request):
    return anatomy_on(SHAPES[request.param], LINEARS[request.param], request.param)


def scaled_truth(grid, peak):
    return blobs(grid_points(grid)) / peak


def test_a_volume_survives_the_round_trip(stored):
    tensor = to_metatensor(stored)
    assert isinstance(tensor, MetaTensor)
    assert tensor.shape == (1, *stored.data.shape)
    assert tensor.dtype == torch.float32
    back = from_metatensor(tensor)
    assert back.grid == stored.grid
    assert back.name == stored.name
    np.testing.assert_array_equal(back.data, stored.data)


def test_the_working_grid_is_ras_isotropic_and_a_multiple_of_16(stored):
    pair = prepare_pair(stored, stored, spacing_mm=1.5)
    assert all(n % 16 == 0 for n in pair.grid.shape)
    np.testing.assert_allclose(pair.grid.spacing_mm, 1.5, rtol=1e-6)
    assert pair.grid.orientation == "RAS"
    assert pair.fixed.shape == pair.moving.shape == (1, *pair.grid.shape)
    assert pair.fixed.dtype == torch.float32


def test_values_stay_where_they_are_in_the_world(stored):
    """Against the analytic anatomy: only interpolation and the clip at the 99.5th percentile may differ."""
    pair = prepare_pair(stored, anatomy_on((64, 64, 64), np.eye(3)), spacing_mm=1.0)
    truth = blobs(grid_points(pair.grid))
    for image, tolerance in ((pair.fixed, 0.06), (pair.moving, 0.03)):
        found = image[0].numpy()
        assert 0 <= found.min() <= found.max() <= 1 + 1e-5
        inner = (truth > 100) & (found < 0.99)
        factor = np.median(truth[inner] / found[inner])
        assert np.abs(found[inner] - truth[inner] / factor).max() < tolerance


def test_fixed_and_moving_are_resampled_as_nibabel_and_scipy_do(stored):
    """With voxels as fine as the working grid no smoothing happens and linear interpolation is the only step."""
    spacing = float(stored.grid.spacing_mm.min())
    pair = prepare_pair(stored, stored, spacing_mm=spacing)
    scaled = np.asarray(np.clip(stored.data / _scale(stored), 0, 1), dtype=np.float64)
    with_nibabel = resample_from_to(
        nib.Nifti1Image(scaled, stored.grid.affine), (pair.grid.shape, pair.grid.affine), order=1
    )
    coordinates = np.moveaxis(stored.grid.to_voxels(grid_points(pair.grid)), -1, 0)
    with_scipy = ndimage.map_coordinates(scaled, coordinates, order=1)
    inside = np.all([(c > 0) & (c < n - 1) for c, n in zip(coordinates, stored.data.shape, strict=True)], axis=0)
    assert inside.mean() > 0.2
    for image in (pair.fixed, pair.moving):
        np.testing.assert_allclose(image[0].numpy()[inside], with_nibabel.get_fdata()[inside], atol=3e-4)
        np.testing.assert_allclose(image[0].numpy()[inside], with_scipy[inside], atol=3e-4)


def _scale(volume):
    """The 99.5th percentile of the foreground, as the conventions of the module state it."""
    low, top = np.percentile(volume.data, [0.5, 99.9])
    return np.percentile(volume.data[volume.data > low + 0.1 * (top - low)], 99.5) - low


def test_the_initial_affine_aligns_the_moving_image():
    """moving(A x) = fixed(x): through A the two tensors agree, without it they do not."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", 12, degrees=True).as_matrix() * 1.08
    matrix[:3, 3] = [6.0, -4.0, 3.0]
    fixed = anatomy_on((64, 64, 64), np.eye(3), "fixed")
    inverse = np.linalg.inv(matrix)
    moving = anatomy_on((90, 76, 60), ANISOTROPIC, "moving", warp=lambda p: transform_points(inverse, p))
    aligned = prepare_pair(fixed, moving, affine=matrix, spacing_mm=1.0)
    by_header = prepare_pair(fixed, moving, spacing_mm=1.0)
    assert aligned.grid == by_header.grid
    difference = np.abs(aligned.fixed - aligned.moving).mean() / np.abs(aligned.fixed).mean()
    assert float(difference) < 0.03
    unaligned = np.abs(by_header.fixed - by_header.moving).mean() / np.abs(by_header.fixed).mean()
    assert float(unaligned) > 0.15


def test_the_crop_holds_the_foreground_with_its_margin():
    fixed = anatomy_on((100, 96, 90), np.eye(3))
    pair = prepare_pair(fixed, fixed, spacing_mm=1.0, margin_mm=5.0)
    foreground = np.argwhere(fixed.data > 0.2 * fixed.data.max())
    corners = fixed.grid.to_mm(np.array([foreground.min(0) - 5, foreground.max(0) + 5]))
    voxels = pair.grid.to_voxels(corners)
    assert voxels.min() >= -1e-6
    assert (voxels.max(0) <= np.array(pair.grid.shape) - 1).all()
    assert np.prod(pair.grid.shape) < fixed.data.size


def test_a_tight_field_of_view_is_padded_with_zeros():
    fixed = anatomy_on((20, 20, 20), np.eye(3))
    pair = prepare_pair(fixed, fixed, spacing_mm=1.0, margin_mm=8.0)
    assert pair.grid.shape == (48, 48, 48)
    outside = np.ones(pair.grid.shape, bool)
    voxels = fixed.grid.to_voxels(grid_points(pair.grid))
    outside = ((voxels < -0.999) | (voxels > 19.999)).any(-1)
    assert outside.any()
    assert np.abs(pair.fixed[0].numpy()[outside]).max() == 0
    assert np.abs(pair.moving[0].numpy()[outside]).max() == 0


def test_coarse_working_grids_do_not_alias():
    """A 1 mm checkerboard is invisible at 3 mm; read without smoothing it would be full contrast."""
    base = anatomy_on((64, 64, 64), np.eye(3))
    checker = np.indices(base.data.shape).sum(0) % 2
    stripes = Volume(base.data * (0.5 + checker), base.grid, "checkered")
    smooth, rough = (prepare_pair(base, v, spacing_mm=3.0).moving for v in (base, stripes))
    centre = [slice(n // 2 - 4, n // 2 + 4) for n in smooth.shape[1:]]
    a, b = (t[(0, *centre)].numpy() for t in (smooth, rough))
    assert np.abs(b / b.mean() - a / a.mean()).max() < 0.08


def test_scaling_does_not_depend_on_the_field_of_view():
    small = anatomy_on((48, 48, 48), np.eye(3))
    large = anatomy_on((110, 110, 110), np.eye(3))
    a, b = (prepare_pair(small, v, spacing_mm=1.0).moving[0].numpy() for v in (small, large))
    inner = (slice(16, 32),) * 3
    np.testing.assert_allclose(a[inner], b[inner], atol=0.03)


def test_label_maps_keep_their_labels():
    fixed = anatomy_on((60, 62, 58), OBLIQUE)
    labels = Volume((fixed.data > 200).astype(np.int16) * 41 + (fixed.data > 600) * 10, fixed.grid)
    chain = brain_pair_chain(spacing_mm=1.0, labels=True)
    loaded = {key: to_metatensor(fixed) for key in ("fixed", "moving")}
    loaded |= {key: to_metatensor(labels) for key in ("fixed_labels", "moving_labels")}
    out = chain(loaded)
    for key in ("fixed_labels", "moving_labels"):
        assert out[key].shape == out["fixed"].shape
        assert set(np.unique(out[key].numpy())) == {0, 41, 51}
    inside = out["fixed_labels"].numpy() > 0
    assert out["fixed"].numpy()[inside].min() > out["fixed"].numpy()[~inside].mean()


def test_inputs_are_not_changed(stored):
    before = stored.data.copy()
    prepare_pair(stored, stored, affine=np.diag([1.1, 1, 1, 1]), spacing_mm=2.0)
    np.testing.assert_array_equal(stored.data, before)


def test_files_are_read(tmp_path, stored):
    path = tmp_path / "brain.nii.gz"
    write_volume(path, stored)
    from_file = prepare_pair(path, str(path), spacing_mm=2.0)
    from_memory = prepare_pair(stored, stored, spacing_mm=2.0)
    np.testing.assert_allclose(from_file.grid.affine, from_memory.grid.affine, atol=1e-5)
    np.testing.assert_allclose(from_file.moving.numpy(), from_memory.moving.numpy(), atol=1e-4)
    with pytest.raises(MissingFileError):
        prepare_pair(tmp_path / "absent.nii.gz", path)


@pytest.mark.data
def test_a_real_brain_at_its_own_voxel_size_is_only_flipped_and_cropped(data_folder):
    """A 1 mm LAS brain on a 1 mm RAS grid needs no interpolation: every voxel is one of the file's."""
    volume = read_volume(data_folder / "brains/benchmark/1003_T1_brain.nii.gz")
    assert volume.grid.orientation == "LAS"
    pair = prepare_pair(volume, volume, spacing_mm=1.0)
    scaled = np.clip(volume.data / _scale(volume), 0, 1)
    voxels = np.rint(volume.grid.to_voxels(grid_points(pair.grid))).astype(int)
    inside = ((voxels >= 0) & (voxels < volume.data.shape)).all(-1)
    expected = np.zeros(pair.grid.shape)
    expected[inside] = scaled[tuple(voxels[inside].T)]
    for image in (pair.fixed, pair.moving):
        np.testing.assert_allclose(image[0].numpy(), expected, atol=2e-3)
    assert (pair.fixed[0].numpy() > 0.1).sum() == (scaled > 0.1).sum()


def test_a_displacement_keeps_its_world_vectors_on_another_grid():
    """An affine displacement is linear in space, so moving it between grids is exact."""
    matrix_mm = np.eye(4)
    matrix_mm[:3, :3] += np.random.default_rng(0).uniform(-0.05, 0.05, (3, 3))
    matrix_mm[:3, 3] = [2.0, -1.0, 3.0]
    target = anatomy_on((20, 24, 18), OBLIQUE).grid
    source = anatomy_on((64, 64, 64), FLIPPED).grid

    def on(grid):
        voxels = np.linalg.solve(grid.affine, matrix_mm @ grid.affine)
        return fields.affine_displacement(voxels, grid.shape)[0].numpy()

    np.testing.assert_allclose(displacement_on_grid(on(source), source, target), on(target), atol=2e-4)


def test_wrong_shapes_and_values_are_refused():
    good = anatomy_on((32, 32, 32), np.eye(3))
    flat = Volume(np.full((32, 32, 32), 7.0), good.grid, "flat.nii.gz")
    holes = Volume(np.where(good.data > 500, np.nan, good.data), good.grid, "holes.nii.gz")
    for bad in (flat, holes):
        with pytest.raises(InputError, match=bad.name):
            prepare_pair(good, bad)
    with pytest.raises(GeometryError, match="invertible"):
        prepare_pair(good, good, affine=np.zeros((4, 4)))
    with pytest.raises(InputError, match="spacing_mm"):
        prepare_pair(good, good, spacing_mm=0)
    with pytest.raises(GeometryError, match=r"\(1, D, H, W\)"):
        from_metatensor(MetaTensor(torch.zeros(2, 4, 4, 4)))
    with pytest.raises(GeometryError, match="shape"):
        displacement_on_grid(np.zeros((3, 4, 4, 4), np.float32), good.grid, good.grid)
