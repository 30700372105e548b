"""Reading: one meaning of array and affine whatever the format, checked against nibabel and SimpleITK."""

import gzip
import itertools
import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_grids import GRIDS

import medwave.volumes
from medwave.core.errors import GeometryError
from medwave.core.geometry import RAS_TO_LPS, Grid
from medwave.volumes import read_labels, read_volume
from medwave.volumes.nifti import frames_apart_mm


def write_with_nibabel(path, data, affine):
    kind = nib.MGHImage if path.suffix in (".mgz", ".mgh") else nib.Nifti1Image
    image = kind(data, affine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        nib.save(image, path)


def write_with_itk(path, data, affine):
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))


WRITERS = {
    "nii": write_with_nibabel,
    "nii.gz": write_with_nibabel,
    "mgh": write_with_nibabel,
    "mgz": write_with_nibabel,
    "nrrd": write_with_itk,
    "nhdr": write_with_itk,
    "mha": write_with_itk,
    "mhd": write_with_itk,
}


def ramp(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_array_and_affine(tmp_path, name, ending):
    grid = GRIDS[name]
    path = tmp_path / f"image.{ending}"
    WRITERS[ending](path, ramp(grid.shape), grid.affine)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, ramp(grid.shape))
    np.testing.assert_allclose(volume.grid.affine, grid.affine, atol=2e-5)
    assert volume.data.flags.c_contiguous
    assert volume.data.flags.writeable
    assert volume.name == path.name


@pytest.mark.parametrize("stored", ["u1", "i2", "<i4", ">i2", "u2", "f4", ">f4", "f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_stored_types_and_byte_orders(tmp_path, stored, kind):
    data = np.arange(60).reshape(3, 4, 5).astype(stored)
    header = kind.header_class(endianness=">" if ">" in stored else "<")
    image = kind(data, np.eye(4), header)
    image.set_data_dtype(data.dtype)
    nib.save(image, tmp_path / "a.nii")
    kept = read_volume(tmp_path / "a.nii", dtype=None)
    assert kept.data.dtype == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(kept.data, data)
    assert read_volume(tmp_path / "a.nii").data.dtype == np.float32
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii", dtype=np.float64).data, data)


def test_the_scaling_of_the_header_is_honoured(tmp_path):
    values = np.linspace(-1, 2, 60).reshape(3, 4, 5)
    image = nib.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert nib.load(tmp_path / "scaled.nii.gz").dataobj.slope != 1
    volume = read_volume(tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(volume.data, values, atol=1e-4)
    assert read_volume(tmp_path / "scaled.nii.gz", dtype=None).data.dtype == np.float64


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (1, 4), (0, 3)])
def test_sform_and_qform_are_chosen_as_nibabel_does(tmp_path, sform, qform):
    image = nib.Nifti1Image(ramp((3, 4, 5)), None)
    image.set_qform(GRIDS["oblique"].affine, qform)
    image.set_sform(GRIDS["las"].affine, sform)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").grid.affine, nib.load(tmp_path / "a.nii").affine)


@pytest.mark.parametrize("sform", range(5))
@pytest.mark.parametrize("qform", range(5))
def test_where_itk_takes_another_frame_the_distance_is_known(tmp_path, sform, qform):
    image = nib.Nifti1Image(ramp((3, 4, 5)), None)
    affine = GRIDS["oblique"].affine
    turned = np.array([[0, 1, 0, 3], [-1, 0, 0, -5], [0, 0, 1, 7], [0, 0, 0, 1]]) @ affine
    image.set_qform(affine, qform)
    image.set_sform(turned, sform)
    nib.save(image, tmp_path / "a.nii")
    grid, seen = read_volume(tmp_path / "a.nii").grid, sitk.ReadImage(str(tmp_path / "a.nii"))
    corners = itertools.product((0, 2), (0, 3), (0, 4))
    apart = [
        np.linalg.norm(grid.to_mm(voxel) - np.array(seen.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1))
        for voxel in corners
    ]
    assert frames_apart_mm(tmp_path / "a.nii") == pytest.approx(max(apart), abs=1e-4)


def test_without_sform_and_qform_the_volume_lies_where_itk_sees_it(tmp_path):
    image = nib.Nifti1Image(ramp((3, 4, 5)), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    seen = sitk.ReadImage(str(tmp_path / "a.nii"))
    np.testing.assert_array_equal(volume.grid.affine, np.diag([-1.0, -2.0, 3.0, 1.0]))
    for voxel in ((0, 0, 0), (2, 1, 4)):
        lps = seen.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(volume.grid.to_mm(voxel), np.array(lps) * (-1, -1, 1))


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (0, 0)])
@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
def test_units_of_the_header_are_brought_to_mm_as_itk_brings_them(tmp_path, unit, mm, codes):
    affine = GRIDS["las"].affine.copy()
    image = nib.Nifti1Image(ramp((3, 4, 5)), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    volume, seen = read_volume(tmp_path / "a.nii"), sitk.ReadImage(str(tmp_path / "a.nii"))
    np.testing.assert_allclose(volume.grid.spacing_mm, mm * Grid((3, 4, 5), affine).spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(volume.grid.spacing_mm, seen.GetSpacing(), rtol=1e-6)
    for voxel in ((0, 0, 0), (2, 1, 4)):
        lps = seen.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(volume.grid.to_mm(voxel), np.array(lps) * (-1, -1, 1), rtol=1e-5, atol=1e-5 * mm)


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_trailing_single_axes_are_dropped(tmp_path, shape):
    nib.save(nib.Nifti1Image(ramp(shape), np.diag([1, 2, 3, 1.0])), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.grid == Grid((4, 5, 6), np.diag([1, 2, 3, 1.0]))
    np.testing.assert_array_equal(volume.data, ramp(shape)[:, :, :, *([0] * (len(shape) - 3))])


def test_a_four_dimensional_itk_image_of_one_volume_is_that_volume(tmp_path):
    image = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(ramp((4, 5, 6)).T))])
    image.SetSpacing((1.0, 2.0, 3.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = read_volume(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.data, ramp((4, 5, 6)))
    np.testing.assert_array_equal(volume.grid.spacing_mm, [1, 2, 3])


def test_gzip_is_recognised_by_content(tmp_path):
    nib.save(nib.Nifti1Image(ramp((4, 5, 6)), np.eye(4)), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))  # as pigz writes
    (tmp_path / "c.nii.gz").write_bytes(content)
    for name in ("b.nii", "c.nii.gz"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, ramp((4, 5, 6)))


@pytest.mark.parametrize("stored", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_labels_come_as_integers(tmp_path, stored):
    data = np.arange(60).reshape(3, 4, 5).astype(stored)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "labels.nii.gz")
    labels = read_labels(tmp_path / "labels.nii.gz")
    assert labels.data.dtype == np.int32
    np.testing.assert_array_equal(labels.data, data)


def test_labels_beyond_32_bits_stay_whole(tmp_path):
    data = np.full((2, 2, 2), 2**40 + 1, np.int64)
    nib.save(nib.Nifti1Image(data, np.eye(4), dtype=np.int64), tmp_path / "labels.nii")
    labels = read_labels(tmp_path / "labels.nii")
    assert labels.data.dtype == np.int64
    np.testing.assert_array_equal(labels.data, data)


def test_a_sheared_grid_is_read_as_it_is(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.2
    image = nib.Nifti1Image(ramp((3, 4, 5)), None)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").grid.affine, affine, atol=1e-7)


def test_an_image_too_large_for_its_file_is_not_allocated(tmp_path):
    image = nib.Nifti2Image(ramp((3, 4, 5)), np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[24:48] = np.array([10**6] * 3, "<i8").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ValueError, match="truncated"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.data
def test_real_brains_are_as_nibabel_and_itk_read_them(data_folder):
    path = data_folder / "brains" / "benchmark" / "1003_T1_brain.nii.gz"
    volume = read_volume(path)
    image, seen = nib.load(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.data, image.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(volume.data.T, sitk.GetArrayFromImage(seen))
    np.testing.assert_allclose(volume.grid.affine, image.affine)
    assert volume.grid.orientation == "LAS"
    corner = np.array(volume.grid.shape) - 1
    lps = seen.TransformIndexToPhysicalPoint(corner.tolist())
    np.testing.assert_allclose(volume.grid.to_mm(corner), np.array(lps) * (-1, -1, 1), atol=1e-3)


@pytest.mark.data
def test_real_labels_lie_on_their_brain(data_folder):
    folder = data_folder / "brains" / "benchmark"
    labels = read_labels(folder / "1003_labels.nii.gz")
    brain = read_volume(folder / "1003_T1_brain.nii.gz")
    assert labels.grid.matches(brain.grid)
    assert labels.data.dtype == np.int32
    assert len(np.unique(labels.data)) > 100
    assert (brain.data[labels.data > 0] > 0).mean() > 0.99


def test_every_public_name_of_the_room_is_there():
    for name in dir(medwave.volumes):
        assert getattr(medwave.volumes, name).__name__ == name


def test_a_negative_axis_length_is_a_geometry_error(tmp_path):
    nib.save(nib.Nifti1Image(ramp((3, 4, 5)), np.eye(4)), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[42:44] = np.array(-3, "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(GeometryError, match=r"a\.nii.*at least one voxel"):
        read_volume(tmp_path / "a.nii")
