"""Writing volumes: what is written is read back by medwave, nibabel and SimpleITK, or there is no file at all."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_grids import GRIDS, ORIENTATIONS, make_grid

from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.core.geometry import Grid, Volume
from medwave.core.orientation import canonical_axes, invert_axes, reorient
from medwave.volumes import canonical, read_volume, write_volume


def noise(grid, dtype=np.float32):
    return np.random.default_rng(0).normal(scale=20, size=grid.shape).astype(dtype)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "NII.GZ"])
def test_all_readers_agree_on_what_was_written(tmp_path, name, ending):
    grid = GRIDS[name]
    path = tmp_path / f"a.{ending}"
    write_volume(path, Volume(noise(grid), grid))
    volume, image, seen = read_volume(path), nib.load(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.data, noise(grid))
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), noise(grid))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(seen).T, noise(grid))
    for affine in (volume.grid.affine, image.get_sform(), image.get_qform()):
        np.testing.assert_allclose(affine, grid.affine, atol=2e-5)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    corner = np.array(grid.shape) - 1
    lps = seen.TransformIndexToPhysicalPoint(corner.tolist())
    np.testing.assert_allclose(grid.to_mm(corner), np.array(lps) * (-1, -1, 1), atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    axes=st.sampled_from(ORIENTATIONS),
    spacing_mm=st.tuples(*[st.floats(0.1, 9)] * 3),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
)
def test_round_trip_on_any_grid(tmp_path_factory, shape, axes, spacing_mm, angles, dtype):
    grid = make_grid(shape, order=axes[0], signs=axes[1], spacing_mm=spacing_mm, angles=angles)
    data = np.abs(noise(grid)).astype(dtype)
    path = tmp_path_factory.mktemp("any") / "a.nii.gz"
    write_volume(path, Volume(data, grid))
    volume = read_volume(path, dtype=None)
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.grid.affine, grid.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "dtype", "stored"),
    [
        (np.ones((2, 3, 4), bool), None, np.uint8),
        (np.ones((2, 3, 4), np.float16), None, np.float32),
        (np.ones((2, 3, 4), np.int64), None, np.int32),
        (np.full((2, 3, 4), 2**40), None, np.int64),
        (np.ones((2, 3, 4), np.int64), np.uint8, np.uint8),
        (np.ones((2, 3, 4), ">i2"), None, np.int16),
        (np.ones((2, 3, 4)), np.float32, np.float32),
    ],
)
def test_stored_types(tmp_path, data, dtype, stored):
    write_volume(tmp_path / "a.nii", Volume(data, Grid((2, 3, 4), np.eye(4))), dtype=dtype)
    volume = read_volume(tmp_path / "a.nii", dtype=None)
    assert volume.data.dtype == stored
    np.testing.assert_array_equal(volume.data, data)


def test_integers_are_rounded_not_cut(tmp_path):
    data = np.array([-1.6, -0.4, 0.6, 254.6]).reshape(4, 1, 1)
    write_volume(tmp_path / "a.nii", Volume(data, Grid((4, 1, 1), np.eye(4))), dtype=np.int16)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii", dtype=None).data.ravel(), [-2, 0, 1, 255])


@pytest.mark.parametrize("value", [300.0, -1.0, np.nan])
def test_values_that_do_not_fit_are_refused(tmp_path, value):
    data = np.zeros((2, 2, 2))
    data[0, 0, 0] = value
    with pytest.raises(InputError, match=r"a\.nii: values from .* do not fit uint8.*wider"):
        write_volume(tmp_path / "a.nii", Volume(data, Grid((2, 2, 2), np.eye(4))), dtype=np.uint8)
    assert list(tmp_path.iterdir()) == []


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    volume = Volume(noise(GRIDS["oblique"]), GRIDS["oblique"])
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_strided_arrays_and_many_slabs(tmp_path, monkeypatch):
    monkeypatch.setattr("medwave.volumes.write.SLAB_BYTES", 1000)
    data = np.random.default_rng(0).normal(size=(20, 18, 16))[::-1, ::2, ::-1].transpose(2, 0, 1)
    write_volume(tmp_path / "a.nii.gz", Volume(data, Grid(data.shape, np.eye(4))))
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").get_fdata(), data)


def test_an_interrupted_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    grid = Grid((4, 4, 4), np.eye(4))
    write_volume(path, Volume(np.ones(grid.shape), grid))
    before = path.read_bytes()

    def interrupted(*_):
        yield np.zeros((1, 4, 4))
        raise KeyboardInterrupt

    monkeypatch.setattr("medwave.volumes.write._slabs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_volume(path, Volume(np.zeros(grid.shape), grid))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_and_folders_that_cannot_be_written(tmp_path):
    volume = Volume(np.zeros((2, 2, 2)), Grid((2, 2, 2), np.eye(4)))
    with pytest.raises(OutputError, match=r"a\.mha.*end the name in \.nii\.gz"):
        write_volume(tmp_path / "a.mha", volume)
    with pytest.raises(OutputError, match="does not exist; create it"):
        write_volume(tmp_path / "absent" / "a.nii", volume)
    with pytest.raises(GeometryError, match="32767"):
        write_volume(tmp_path / "a.nii", Volume(np.zeros((1, 1, 40000)), Grid((1, 1, 40000), np.eye(4))))
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_grid_keeps_its_affine_and_claims_no_qform(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    write_volume(tmp_path / "a.nii", Volume(np.zeros((2, 3, 4)), Grid((2, 3, 4), affine)))
    image = nib.load(tmp_path / "a.nii")
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    assert int(image.header["qform_code"]) == 0


@pytest.mark.parametrize("name", GRIDS)
def test_canonical_is_what_nibabel_calls_closest(name):
    volume = Volume(noise(GRIDS[name]), GRIDS[name], "a")
    turned = canonical(volume)
    closest = nib.as_closest_canonical(nib.Nifti1Image(volume.data, volume.grid.affine))
    np.testing.assert_array_equal(turned.data, closest.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(turned.grid.affine, closest.affine, atol=1e-9)
    assert turned.grid.orientation == "RAS"
    back = reorient(turned.data, *invert_axes(*canonical_axes(volume.grid.affine)))
    np.testing.assert_array_equal(back, volume.data)


@pytest.mark.data
def test_a_real_brain_survives(tmp_path, data_folder):
    brain = read_volume(data_folder / "brains" / "benchmark" / "1003_T1_brain.nii.gz", dtype=None)
    write_volume(tmp_path / "a.nii.gz", brain)
    again = read_volume(tmp_path / "a.nii.gz", dtype=None)
    np.testing.assert_array_equal(again.data, brain.data)
    assert again.grid.matches(brain.grid, 1e-5)
    assert (tmp_path / "a.nii.gz").stat().st_size < brain.data.nbytes / 3
