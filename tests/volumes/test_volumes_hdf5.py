"""ITK transform files written with h5py, judged by ITK's HDF5 library: every value comes back, at every size."""

import errno
import io

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
from volume_grids import GRIDS, smooth_field, some_affine

from medwave.volumes import write_composite
from medwave.volumes.hdf5 import PackedFloats, write_tree


def field_tree(shape, parts, sample=None):
    fixed = np.array([*shape, 1, 2, 3, 0.5, 0.6, 0.7, 1, 0, 0, 0, 1, 0, 0, 0, 1], np.float64)
    return {
        "TransformGroup": {
            "0": {
                "TransformType": "DisplacementFieldTransform_double_3_3",
                "TransformFixedParameters": fixed,
                "TransformParameters": PackedFloats(
                    3 * int(np.prod(shape)), parts, parts[0] if sample is None else sample
                ),
            }
        }
    }


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 7, 1), (1, 8, 8), (4, 4, 4), (5, 5, 13), (13, 11, 7), (32, 32, 32), (50, 41, 37)]
)
def test_itk_reads_back_every_value_whatever_the_number_of_chunks(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=3 * int(np.prod(shape))).astype(np.float32)
    with (tmp_path / "f.h5").open("w+b") as file:
        write_tree(file, field_tree(shape, np.array_split(values, 5)))
    image = sitk.ReadTransform(str(tmp_path / "f.h5")).GetDisplacementField()
    assert image.GetSize() == shape
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 0.6, 0.7))
    np.testing.assert_array_equal(image.GetOrigin(), (1, 2, 3))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).ravel(), values)


def test_the_file_does_not_depend_on_how_the_values_are_cut_into_parts():
    values = np.random.default_rng(0).normal(size=3 * 1000).astype(np.float32)
    files = []
    for pieces in (1, 2, 7, 3000):
        files.append(io.BytesIO())
        write_tree(files[-1], field_tree((10, 10, 10), np.array_split(values, pieces), values[::5]))
    assert len({file.getvalue() for file in files}) == 1


def test_itk_writes_and_reads_the_same_transform(tmp_path):
    """A composite of ours, read and written again by ITK, says the same to the last bit."""
    grid = GRIDS["oblique"]
    write_composite(tmp_path / "ours.h5", some_affine((1, 2, 3)), smooth_field(grid), grid)
    ours = sitk.ReadTransform(str(tmp_path / "ours.h5"))
    sitk.WriteTransform(ours, str(tmp_path / "itk.h5"))
    theirs = sitk.ReadTransform(str(tmp_path / "itk.h5"))
    assert ours.GetName() == theirs.GetName() == "CompositeTransform"
    assert ours.GetNumberOfTransforms() == theirs.GetNumberOfTransforms() == 2
    for index in range(2):
        for read in ("GetParameters", "GetFixedParameters"):
            one, other = (getattr(t.GetNthTransform(index), read)() for t in (ours, theirs))
            assert one == other


def test_compression_pays(tmp_path):
    values = np.rint(np.linspace(-3, 3, 3 * 40**3) * 1024).astype(np.float32) / 1024
    with (tmp_path / "f.h5").open("w+b") as file:
        write_tree(file, field_tree((40, 40, 40), [values]))
    assert (tmp_path / "f.h5").stat().st_size < 0.5 * values.nbytes


class FullDisk(io.BytesIO):
    """A file with room for some bytes."""

    def write(self, data):
        if self.tell() + len(data) > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("shape", [(60, 60, 60), (100, 100, 100)])
def test_a_full_disk_is_told_and_leaves_nothing_open(shape):
    values = np.random.default_rng(0).normal(size=3 * int(np.prod(shape))).astype(np.float32)
    open_before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    with pytest.raises(OSError, match="No space left"):
        write_tree(FullDisk(), field_tree(shape, [values]))
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == open_before
