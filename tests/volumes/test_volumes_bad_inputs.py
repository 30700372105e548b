"""Every unusable input gives one error of the right kind, on one line, that names the file and the way out."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medwave.core.errors import GeometryError, InputError, MedwaveError, MissingFileError, VolumeFormatError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import check_image, read_labels, read_volume

PIXDIM, SLOPE, SROW_X, DATATYPE, MAGIC = 80, 112, 280, 70, 344


@pytest.fixture
def good(tmp_path):
    """The bytes of a small NIfTI-1 file."""
    data = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(data, np.diag([1, 2, 3, 1.0])), tmp_path / "good.nii")
    return (tmp_path / "good.nii").read_bytes()


def refused(path, kind, pattern, read=read_volume):
    with pytest.raises(kind, match=pattern) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def patched(content, offset, layout, *values):
    changed = bytearray(content)
    struct.pack_into(layout, changed, offset, *values)
    return bytes(changed)


@pytest.mark.parametrize(
    ("offset", "layout", "values", "kind", "pattern"),
    [
        (PIXDIM, "<f", [0.0], GeometryError, "voxel sizes are positive"),
        (PIXDIM, "<f", [-1.0], GeometryError, "voxel sizes are positive"),
        (PIXDIM + 4, "<f", [float("nan")], GeometryError, "voxel sizes are positive"),
        (PIXDIM + 8, "<f", [float("inf")], GeometryError, "voxel sizes are positive"),
        (SROW_X, "<f", [0.0], GeometryError, "singular"),
        (SROW_X, "<f", [float("nan")], GeometryError, "finite"),
        (SROW_X, "<4f", [0, 2, 0, 0], GeometryError, "singular"),
        (DATATYPE, "<hh", [128, 24], GeometryError, "colour or vector.*grey"),
        (DATATYPE, "<h", [999], VolumeFormatError, "header"),
        (40, "<h", [0], GeometryError, "at least one voxel"),
        (42, "<h", [0], GeometryError, "at least one voxel"),
        (MAGIC, "4s", [b"abcd"], VolumeFormatError, "not a NIfTI"),
        (0, "<i", [77], VolumeFormatError, "not a NIfTI"),
    ],
)
def test_damaged_headers(tmp_path, good, caplog, capfd, offset, layout, values, kind, pattern):
    path = tmp_path / "bad.nii"
    path.write_bytes(patched(good, offset, layout, *values))
    refused(path, kind, pattern)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_damaged_data(tmp_path, good):
    packed = gzip.compress(good)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 255
    cases = {
        "short.nii": (good[:-10], "truncated.*bytes needed"),
        "header.nii": (good[:100], "not a NIfTI"),
        "empty.nii": (b"", "not a NIfTI"),
        "empty.nii.gz": (b"", "not a NIfTI"),
        "text.nii": (b"hello " * 100, "not a NIfTI"),
        "short.nii.gz": (packed[: len(packed) // 2], "truncated or damaged"),
        "tail.nii.gz": (packed[:-6], "truncated or damaged"),
        "flipped.nii.gz": (bytes(flipped), "truncated or damaged"),
        "foreign.mgz": (packed, "not an MGH"),
        "foreign.mgh": (b"hello", "not an MGH"),
        "short.mgz": (packed[:50], "truncated or damaged"),
        "text.nrrd": (b"hello", "not a readable image"),
        "text.mha": (b"hello", "not a readable image"),
    }
    for name, (content, pattern) in cases.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, VolumeFormatError, pattern)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_itk_files(tmp_path, ending, compressed):
    path = tmp_path / f"short.{ending}"
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(6, 7, 8)))
    sitk.WriteImage(image, str(path), compressed)
    path.write_bytes(path.read_bytes()[:-300])
    refused(path, VolumeFormatError, "damaged")


def test_a_header_whose_data_file_is_gone(tmp_path):
    sitk.WriteImage(sitk.Image(4, 5, 6, sitk.sitkUInt8), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    refused(tmp_path / "a.mhd", VolumeFormatError, "not a readable image")


def test_a_truncated_mgh_file(tmp_path, good):
    image = nib.MGHImage(np.ones((4, 5, 6), np.float32), np.eye(4))
    (tmp_path / "short.mgh").write_bytes(image.to_bytes()[:500])
    refused(tmp_path / "short.mgh", VolumeFormatError, "truncated")


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_mgh_voxel_sizes(tmp_path, size):
    content = nib.MGHImage(np.ones((4, 5, 6), np.float32), np.eye(4)).to_bytes()
    (tmp_path / "a.mgh").write_bytes(patched(content, 30, ">f", size))
    refused(tmp_path / "a.mgh", GeometryError, "voxel sizes are positive")


@pytest.mark.parametrize("text", ["0 2 3", "-1 2 3", "nan 2 3", "1 2 inf"])
def test_metaimage_voxel_sizes(tmp_path, text):
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
    image.SetSpacing((1.5, 2, 3))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes()
    assert b"ElementSpacing = 1.5 2 3" in content
    content = content.replace(b"ElementSpacing = 1.5 2 3", b"ElementSpacing = " + text.encode())
    (tmp_path / "a.mha").write_bytes(content)
    refused(tmp_path / "a.mha", GeometryError, "voxel sizes are positive")


@pytest.mark.parametrize("axes", ["(0,0,0) (0,2,0) (0,0,3)", "(1,0,0) (2,0,0) (0,0,3)"])
def test_nrrd_directions(tmp_path, axes):
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
    image.SetSpacing((1, 2, 3))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    assert b"(1,0,0) (0,2,0) (0,0,3)" in content
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"(1,0,0) (0,2,0) (0,0,3)", axes.encode()))
    refused(tmp_path / "a.nrrd", GeometryError, "voxel sizes or axis directions")


@pytest.mark.parametrize(
    ("shape", "way_out"),
    [((4, 5), "stack its slices"), ((4, 5, 6, 2), "extract one 3-D image"), ((4, 5, 6, 1, 3), "extract one 3-D image")],
)
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_wrong_dimensions(tmp_path, shape, way_out, read):
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", GeometryError, way_out, read)


def test_complex_values(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.complex64), np.eye(4)), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", GeometryError, "complex values; convert it to a grey image")


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_wrong_dimensions_of_itk_images(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkUInt8), str(path))
    refused(path, GeometryError, "stack its slices")
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkUInt8), str(path))
    refused(path, GeometryError, "extract one 3-D image")
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkVectorUInt8, 3), str(path))
    refused(path, GeometryError, "3 components.*grey")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_values_that_are_not_finite(tmp_path, value, read):
    data = np.ones((4, 5, 6), np.float32)
    data[1, 2, 3] = value
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", InputError, "1 voxels are NaN or infinite; replace", read)


def test_values_too_large_for_the_type_asked_for(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 1e300), np.eye(4)), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", InputError, "8 voxels are NaN or infinite")


def test_labels_that_are_not_whole(tmp_path):
    data = np.ones((4, 5, 6), np.float32)
    data[0, 0, 0] = 1.5
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", InputError, "labels are whole numbers, 1 voxels.*linear interpolation", read_labels)


def test_labels_beyond_64_bits(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 1e25), np.eye(4)), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", InputError, "64-bit", read_labels)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "mgz", "nrrd", "mha"])
def test_missing_files_and_folders(tmp_path, ending):
    refused(tmp_path / f"gone.{ending}", MissingFileError, "no such file")
    (tmp_path / f"folder.{ending}").mkdir()
    refused(tmp_path / f"folder.{ending}", InputError, "folder")


def test_unknown_endings(tmp_path):
    for name in ("a.png", "a.gz", "a", "a.img"):
        (tmp_path / name).write_bytes(b"x")
        refused(tmp_path / name, VolumeFormatError, r"read from \.nii")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_escapes_the_error_family(tmp_path, good, data):
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.nii"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else content)
    try:
        outcome = "" if np.isfinite(read_volume(path).data).all() else "values that are not finite got through"
    except MedwaveError as error:
        outcome = str(error)
    assert outcome == "" or "fuzzed.nii" in outcome


def test_images_without_use_are_refused():
    grid = Grid((4, 5, 6), np.eye(4))
    ramp = np.arange(120.0).reshape(4, 5, 6)
    check_image(Volume(ramp, grid, "fine.nii"))
    with pytest.raises(InputError, match=r"flat\.nii.*contrast.*3\.0"):
        check_image(Volume(np.full((4, 5, 6), 3.0), grid, "flat.nii"))
    with pytest.raises(GeometryError, match=r"slice\.nii.*single slice"):
        check_image(Volume(ramp[:, :, :1], Grid((4, 5, 1), np.eye(4)), "slice.nii"))
    sheared = np.eye(4)
    sheared[0, 1] = 0.01
    with pytest.raises(GeometryError, match=r"bent\.nii.*right angles.*resample"):
        check_image(Volume(ramp, Grid((4, 5, 6), sheared), "bent.nii"))
