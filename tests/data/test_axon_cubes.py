"""Light-sheet axon cubes: codes become fibre, background and unknown, files are paired, faults are named."""

import numpy as np
import pytest
import tifffile

from medwave.core.errors import GeometryError, InputError, MissingFileError, VolumeFormatError
from medwave.data import AxonCubes, read_axon_cubes
from medwave.data.neurons import IGNORE


def write(folder, number, codes, image=None):
    image = np.full(codes.shape, number, np.uint16) if image is None else image
    for name, array in ((f"volume_{number}", image), (f"labels_{number}", codes)):
        tifffile.imwrite(folder / f"{name}.tif", array, imagej=True, metadata={"axes": "ZYX"})


def codes(shape=(4, 5, 6)):
    array = np.zeros(shape, np.uint8)
    array[1] = 1
    array[1, 2, 2], array[1, 2, 3] = 2, 4
    return array


@pytest.mark.parametrize(("edge", "value"), [("ignore", IGNORE), ("fibre", 1), ("background", 0)])
def test_codes_become_fibre_background_and_unknown(tmp_path, edge, value):
    write(tmp_path, 0, codes())
    [(image, label)] = read_axon_cubes(tmp_path, edge=edge)
    assert image.dtype == np.uint16
    assert label.dtype == np.uint8
    assert (label[[0, 2, 3]] == IGNORE).all()
    assert label[1, 2, 2] == 1
    assert label[1, 2, 3] == value
    assert (label[1, :2] == 0).all()


def test_cubes_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0):
        write(tmp_path, number, codes())
    assert [int(image[0, 0, 0]) for image, _ in read_axon_cubes(tmp_path)] == [0, 2, 10]


def test_faults_name_the_file(tmp_path):
    with pytest.raises(MissingFileError, match="holds no volume_N"):
        read_axon_cubes(tmp_path)
    write(tmp_path, 0, codes())
    with pytest.raises(InputError, match="ignore, fibre, background"):
        read_axon_cubes(tmp_path, edge="axon")
    write(tmp_path, 1, codes(), image=np.zeros((4, 5, 7), np.uint16))
    with pytest.raises(GeometryError, match=r"labels_1\.tif: has \(4, 5, 6\)"):
        read_axon_cubes(tmp_path)
    write(tmp_path, 1, codes() + 2)
    with pytest.raises(VolumeFormatError, match=r"labels_1\.tif: .* got 3"):
        read_axon_cubes(tmp_path)
    (tmp_path / "labels_1.tif").unlink()
    with pytest.raises(MissingFileError, match=r"labels_1\.tif"):
        read_axon_cubes(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("part", ["training", "validation"])
def test_the_light_sheet_cubes_feed_a_network(data_folder, part):
    cubes = read_axon_cubes(data_folder / "neurons" / "axons_lightsheet" / part)
    assert [image.shape for image, _ in cubes] == [(64, 64, 64)] * 10
    for image, label in cubes:
        labelled = (label != IGNORE).any(axis=(1, 2))
        assert 2 <= labelled.sum() <= 3  # planes
        assert np.median(image[label == 1]) > 1.1 * np.median(image[label == 0])
        edge = (label[labelled] == IGNORE).mean()
        assert 0.02 < edge < 0.35
    item = AxonCubes(cubes, 4, (32, 32, 32), seed=1)[3]
    assert item["image"].shape == item["label"].shape == (1, 32, 32, 32)
    assert set(item["label"].unique().tolist()) <= {0, 1, IGNORE}
