"""The reader inside MONAI's loader: our values and voxel sizes, and never another reader's."""

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, LoadImaged, Spacingd
from stack_cases import volume

from medwave.core.errors import GeometryError, InputError, MedwaveError, MissingFileError, VolumeFormatError
from medwave.volumes import MicroscopyReader, create_ome_zarr, write_v3draw


@pytest.fixture
def stack(tmp_path):
    """An ImageJ file with two channels and voxels of 2 x 0.5 x 0.25 micrometres."""
    values = volume((5, 2, 6, 7), "uint16")
    metadata = {"axes": "ZCYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata=metadata, resolution=(4, 2))
    return values


def test_a_dictionary_chain(tmp_path, stack):
    write_v3draw(tmp_path / "mask.v3draw", stack[:, 0])
    load = LoadImaged(["image", "mask"], reader=MicroscopyReader(channel=0), ensure_channel_first=True)
    loaded = load({"image": tmp_path / "a.tif", "mask": tmp_path / "mask.v3draw"})
    for key in ("image", "mask"):
        assert isinstance(loaded[key], MetaTensor)
        assert loaded[key].dtype == torch.float32
        np.testing.assert_array_equal(loaded[key].numpy(), stack[:, 0][None])
    np.testing.assert_allclose(loaded["image"].affine.numpy(), np.diag([2, 0.5, 0.25, 1]), rtol=1e-6)
    np.testing.assert_array_equal(loaded["mask"].affine.numpy(), np.eye(4))
    assert loaded["image"].meta["spacing_known"]
    assert not loaded["mask"].meta["spacing_known"]


def test_voxel_sizes_reach_spacingd(tmp_path, stack):
    chain = Compose(
        [
            LoadImaged("image", reader=MicroscopyReader, channel=1, ensure_channel_first=True),
            Spacingd("image", pixdim=(1.0, 0.5, 0.5), mode="nearest"),
        ]
    )
    assert chain({"image": tmp_path / "a.tif"})["image"].shape == (1, 9, 6, 4)


def test_every_format_through_the_loader(tmp_path, stack):
    values = np.ascontiguousarray(stack[:, 1])
    image = create_ome_zarr(tmp_path / "b.ome.zarr", values.shape, values.dtype, spacing_um=(2, 0.5, 0.25))
    image.write((slice(None),) * 3, values)
    nib.save(nib.Nifti1Image(values.T, np.diag([0.00025, 0.0005, 0.002, 1])), tmp_path / "c.nii.gz")
    write_v3draw(tmp_path / "d.v3draw", values)
    load = LoadImage(reader=MicroscopyReader(spacing_um=(2, 0.5, 0.25)))
    for name in ("b.ome.zarr", "c.nii.gz", "d.v3draw"):
        loaded = load(tmp_path / name)
        np.testing.assert_array_equal(loaded.numpy(), values)
        np.testing.assert_allclose(loaded.affine.numpy(), np.diag([2, 0.5, 0.25, 1]))


def test_the_affine_of_a_coarser_level_begins_where_the_level_does(tmp_path):
    create_ome_zarr(tmp_path / "a.zarr", (4, 8, 8), np.uint8, chunks=(4, 4, 4), spacing_um=(2, 1, 1))
    affine = LoadImage(reader=MicroscopyReader(level=1))(tmp_path / "a.zarr").affine.numpy()
    np.testing.assert_allclose(affine, [[2, 0, 0, 0], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1]])


def test_several_files_are_channels(tmp_path, stack):
    for n in (0, 1):
        write_v3draw(tmp_path / f"{n}.v3draw", stack[:, n])
    load = LoadImage(reader=MicroscopyReader(), ensure_channel_first=True)
    loaded = load([tmp_path / "0.v3draw", tmp_path / "1.v3draw"])
    np.testing.assert_array_equal(loaded.numpy(), stack.swapaxes(0, 1))
    write_v3draw(tmp_path / "1.v3draw", stack[:4, 0])
    with pytest.raises(GeometryError, match=r"1\.v3draw: files that are stacked"):
        load([tmp_path / "0.v3draw", tmp_path / "1.v3draw"])


def test_a_registered_reader_is_chosen_by_the_name(tmp_path, stack):
    load = LoadImage(dtype=np.uint16)
    load.register(MicroscopyReader())
    assert load(tmp_path / "a.tif").shape == (5, 6, 7)
    reader = MicroscopyReader()
    assert reader.verify_suffix([tmp_path / "a.TIF", tmp_path / "x.v3dpbd"])
    assert reader.verify_suffix(tmp_path)
    assert not reader.verify_suffix(tmp_path / "a.dcm")


@pytest.mark.parametrize("designated", [True, False])
def test_a_bad_file_never_falls_through_to_another_reader(tmp_path, stack, designated):
    """Pillow would give the first page with its axes swapped, or the colours as channels."""
    rgb, flat, cut = tmp_path / "rgb.tif", tmp_path / "flat.tif", tmp_path / "cut.tif"
    tifffile.imwrite(rgb, np.zeros((5, 6, 7, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(flat, np.zeros((6, 7), np.uint8))
    cut.write_bytes((tmp_path / "a.tif").read_bytes()[:-100])
    load = LoadImage(reader=MicroscopyReader() if designated else None)
    if not designated:
        load.register(MicroscopyReader())
    for path, kind in (
        (rgb, VolumeFormatError),
        (flat, GeometryError),
        (cut, VolumeFormatError),
        (tmp_path / "gone.tif", MissingFileError),
    ):
        with pytest.raises(kind, match=path.name):
            load(path)
    with pytest.raises(InputError, match="channel 5 is asked for"):
        LoadImage(reader=MicroscopyReader(channel=5))(tmp_path / "a.tif")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadImaged("image", reader=MicroscopyReader())])({"image": rgb})
    assert isinstance(caught.value.__cause__, MedwaveError)
