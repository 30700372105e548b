"""4-D files move volume by volume: as each volume moves by itself, with the step of the fourth axis kept."""

import nibabel as nib
import numpy as np
import phantom
import pytest
import SimpleITK as sitk

import medwave
from medwave.core.errors import GeometryError, InputError, VolumeFormatError
from medwave.core.geometry import Volume
from medwave.volumes import read_series, write_affine
from medwave.volumes.series import is_series
from medwave.workflows.apply import apply_to_files
from medwave.workflows.options import ApplyOptions


@pytest.fixture(scope="module")
def pair():
    return phantom.make_pair(moving_grid=phantom.turned(spacing_mm=(3.0, 2.5, 3.5), angle=0.2))


@pytest.fixture
def files(pair, tmp_path):
    """A run of four volumes every 1.75 s, its fixed image and a transform."""
    volumes = [pair.moving.data * (1 + 0.1 * n) for n in range(4)]
    image = nib.Nifti1Image(np.stack(volumes, axis=-1).astype(np.int16), pair.moving.grid.affine)
    image.header.set_zooms((*pair.moving.grid.spacing_mm, 1.75))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "run.nii.gz")
    pair.write(tmp_path)
    write_affine(tmp_path / "transform.tfm", phantom.MATRIX)
    return tmp_path


def move(files, *images, **options):
    return apply_to_files(
        files / "transform.tfm", files / "moved", images=[files / name for name in images],
        reference=files / "fixed.nii.gz", options=ApplyOptions(**options),
    )  # fmt: skip


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "nearest"])
def test_each_volume_moves_as_it_does_by_itself(files, pair, interpolation):
    (path,) = move(files, "run.nii.gz", interpolation=interpolation)
    moved = nib.load(path)
    assert moved.shape == (*pair.fixed.grid.shape, 4)
    assert moved.header.get_zooms()[3] == 1.75
    assert moved.header.get_xyzt_units() == ("mm", "sec")
    assert moved.get_data_dtype() == (np.int16 if interpolation == "nearest" else np.float32)
    np.testing.assert_allclose(moved.affine, pair.fixed.grid.affine, atol=1e-5)
    stored, grid = np.asarray(nib.load(files / "run.nii.gz").dataobj), read_series(files / "run.nii.gz").grid
    for number in (0, 3):
        kept = stored[..., number] if interpolation == "nearest" else stored[..., number].astype(np.float32)
        alone = medwave.apply_transform(
            files / "transform.tfm", Volume(kept, grid), reference=files / "fixed.nii.gz", interpolation=interpolation
        )
        np.testing.assert_array_equal(np.asarray(moved.dataobj[..., number]), alone.images[0].data)


def test_simpleitk_moves_a_volume_alike(files):
    (path,) = move(files, "run.nii.gz")
    series = sitk.ReadImage(str(files / "run.nii.gz"), sitk.sitkFloat32)
    fixed = sitk.ReadImage(str(files / "fixed.nii.gz"))
    expected = sitk.Resample(series[:, :, :, 2], fixed, sitk.ReadTransform(str(files / "transform.tfm")))
    found = np.asarray(nib.load(path).dataobj[..., 2])
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(expected).T, atol=0.01 * np.ptp(found))


def test_files_that_are_no_series_are_told_apart(files):
    (files / "text.nii.gz").write_bytes(b"\x1f\x8b" + b"no more than this" * 40)
    (files / "text.nii").write_text("no image")
    assert is_series(files / "run.nii.gz")
    assert not any(
        is_series(files / name) for name in ("none.nii", "text.nii", "text.nii.gz", "transform.tfm", "fixed.nii.gz")
    )


def test_a_volume_that_cannot_be_read_leaves_nothing(files, pair):
    data = np.stack([pair.moving.data] * 3, axis=-1)
    data[2, 2, 2, 1] = np.nan
    nib.save(nib.Nifti1Image(data, pair.moving.grid.affine), files / "nan.nii")
    with pytest.raises(InputError, match=r"nan\.nii: volume 1 of the series holds NaN"):
        move(files, "run.nii.gz", "nan.nii")
    whole = (files / "run.nii.gz").read_bytes()
    (files / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeFormatError, match=r"cut\.nii\.gz: the compressed data is truncated"):
        move(files, "cut.nii.gz")
    nib.save(nib.Nifti1Image(data.astype(np.complex64), pair.moving.grid.affine), files / "complex.nii")
    with pytest.raises(GeometryError, match=r"complex\.nii: one number per voxel"):
        read_series(files / "complex.nii")
    assert not (files / "moved").exists()
