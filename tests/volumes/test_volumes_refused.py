"""Fields and composites that cannot be written or read: one error that names the file, and nothing half written."""

import resource
import signal

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_grids import some_affine

from medwave.core.errors import GeometryError, InputError, MissingFileError, OutputError, VolumeFormatError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import (
    read_field,
    read_transform,
    write_affine,
    write_composite,
    write_field,
    write_inverse_composite,
    write_volume,
)


def test_unusable_fields_are_refused_and_leave_nothing(tmp_path):
    grid = Grid((4, 5, 6), np.eye(4))
    field = np.ones((3, 4, 5, 6), np.float32)
    broken = field.copy()
    broken[0, 0, 0, 0] = np.nan
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    writers = [
        lambda u, g: write_field(tmp_path / "x.nii.gz", u, g),
        lambda u, g: write_composite(tmp_path / "x.h5", np.eye(4), u, g),
        lambda u, g: write_inverse_composite(tmp_path / "x.h5", np.eye(4), u, g),
    ]
    for write in writers:
        with pytest.raises(GeometryError, match=r"x\..*\(3, D, H, W\)"):
            write(np.moveaxis(field, 0, -1), grid)
        with pytest.raises(InputError, match=r"x\..*NaN"):
            write(broken, grid)
        with pytest.raises(GeometryError, match=r"x\..*right angles.*resample"):
            write(field, Grid((4, 5, 6), sheared))
    with pytest.raises(GeometryError, match="invertible"):
        write_composite(tmp_path / "x.h5", np.zeros((4, 4)), field, grid)
    with pytest.raises(GeometryError, match="invertible"):
        write_inverse_composite(tmp_path / "x.h5", np.zeros((4, 4)), field, grid)
    with pytest.raises(OutputError, match=r"x\.tfm.*\.h5"):
        write_composite(tmp_path / "x.tfm", np.eye(4), field, grid)
    with pytest.raises(OutputError, match=r"x\.mha.*\.nii\.gz"):
        write_field(tmp_path / "x.mha", field, grid)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_field(tmp_path):
    write_volume(tmp_path / "image.nii.gz", Volume(np.zeros((4, 5, 6)), Grid((4, 5, 6), np.eye(4))))
    fsl = nib.Nifti1Image(np.zeros((4, 5, 6, 3), np.float32), np.eye(4))
    fsl.header.set_intent(2006)
    nib.save(fsl, tmp_path / "fsl.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), np.eye(4)), tmp_path / "series.nii.gz")
    for name in ("image.nii.gz", "fsl.nii.gz", "series.nii.gz"):
        with pytest.raises(GeometryError, match=rf"{name}.*intent 1007.*got shape"):
            read_field(tmp_path / name)
        with pytest.raises(InputError if name == "fsl.nii.gz" else GeometryError, match=name):
            read_transform(tmp_path / name)  # a field of FSL is one, but needs the grid of the moving image
    infinite = nib.Nifti1Image(np.full((2, 2, 2, 1, 3), np.inf, np.float32), np.eye(4))
    infinite.header.set_intent(1007)
    nib.save(infinite, tmp_path / "infinite.nii")
    with pytest.raises(InputError, match=r"infinite\.nii.*NaN or infinity"):
        read_field(tmp_path / "infinite.nii")
    (tmp_path / "text.nii.gz").write_text("hello")
    with pytest.raises(VolumeFormatError, match=r"text\.nii\.gz"):
        read_transform(tmp_path / "text.nii.gz")
    write_composite(tmp_path / "short.h5", np.eye(4), np.ones((3, 9, 9, 9), np.float32), Grid((9, 9, 9), np.eye(4)))
    (tmp_path / "short.h5").write_bytes((tmp_path / "short.h5").read_bytes()[:-2000])
    with pytest.raises(VolumeFormatError, match=r"short\.h5.*damaged"):
        read_transform(tmp_path / "short.h5")
    for name in ("gone.nii.gz", "gone.h5"):
        with pytest.raises(MissingFileError, match=name):
            read_transform(tmp_path / name)
    spline = sitk.BSplineTransformInitializer(sitk.Image(9, 9, 9, 1), [2] * 3)
    sitk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    with pytest.raises(GeometryError, match=r"spline\.tfm.*BSpline.*convert it to a displacement field"):
        read_transform(tmp_path / "spline.tfm")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_field_of_itk_that_is_not_finite(tmp_path, value):
    vectors = np.zeros((6, 5, 4, 3))
    vectors[2, 2, 2] = value
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    sitk.WriteTransform(sitk.CompositeTransform([field]), str(tmp_path / "bad.h5"))
    with pytest.raises(InputError, match=r"bad\.h5.*NaN or infinity"):
        read_transform(tmp_path / "bad.h5")


def test_a_linear_transform_that_flattens_space(tmp_path):
    flat = sitk.AffineTransform(3)
    flat.SetParameters([1, 0, 0, 0, 1, 0, 0, 0, 0, 5, 6, 7])
    for name in ("flat.tfm", "flat.mat"):
        sitk.WriteTransform(flat, str(tmp_path / name))
        with pytest.raises(GeometryError, match=rf"{name}: .*invertible"):
            read_transform(tmp_path / name)


@pytest.mark.parametrize("name", ["c.h5", "a.tfm", "a.mat", "f.nii", "f.nii.gz"])
def test_a_full_disk_leaves_the_older_file(tmp_path, name):
    grid = Grid((20, 20, 20), np.eye(4))
    field = np.random.default_rng(0).normal(size=(3, 20, 20, 20)).astype(np.float32)
    path = tmp_path / name
    path.write_text("older")
    writers = {
        "c.h5": lambda: write_composite(path, np.eye(4), field, grid),
        "a.tfm": lambda: write_affine(path, some_affine((1, 2, 3))),
        "a.mat": lambda: write_affine(path, some_affine((1, 2, 3))),
        "f.nii": lambda: write_field(path, field, grid),
        "f.nii.gz": lambda: write_field(path, field, grid),
    }
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_action = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, old_limit[1]))  # no file may grow beyond 64 bytes
    try:
        with pytest.raises(OutputError, match=rf"{name}: cannot be written"):
            writers[name]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_action)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
