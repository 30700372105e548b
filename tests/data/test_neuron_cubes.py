"""Folders of training cubes: nothing is lost or leaks between the sides, and items follow from seed and index."""

import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import DataLoader

from medwave.core.errors import InputError, MissingFileError, VolumeFormatError
from medwave.core.tree import Tree
from medwave.cubes import Box, SampledCube, sample_cubes
from medwave.data import NeuronCubes
from medwave.data.cube_folder import finished_volume, read_table, split_by_neuron, statistics, write_table, write_volume
from medwave.losses import FibreLoss
from medwave.models import fibre_network
from medwave.transforms import fibre_cube_chain, fibre_labels
from medwave.transforms.fibre_chain import REFERENCE_MEAN, REFERENCE_SD

SHAPE, SIZE = (18, 40, 44), (16, 32, 32)
TREE = Tree(np.array([[-3.0, 10, 5], [20, 12, 8], [43, 30, 12]]), np.full(3, 1.5), np.array([-1, 0, 1]), np.full(3, 2))


def volume(seed=0, dtype=np.uint16):
    labels = fibre_labels(TREE, SHAPE, radius_uncertainty=0.2)
    noise = np.random.default_rng(seed).normal(200 + 10 * seed, 20, SHAPE)
    return np.where(labels == 1, 3000, noise).clip(0, np.iinfo(dtype).max).astype(dtype), labels


def write(folder, name="a", neuron="a", cubes=None, key=None, **of_volume):
    image, labels = volume(**of_volume)
    chosen = sample_cubes(labels == 1, labels != 255, size=SIZE, seed=0)[::5] if cubes is None else cubes
    rows = write_volume(
        folder, name, neuron, image=image, tree=TREE, labels=labels, cubes=chosen, key=key or {"seed": 0}
    )
    return rows, image, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cubes")
    rows = [row for n, name in enumerate("abcd") for row in write(place, name, name, seed=n)[0]]
    write_table(place, rows, split_by_neuron("abcd"), {"size": SIZE})
    return place


def test_cubes_on_disk_are_the_volume_bit_for_bit(tmp_path):
    box = Box((2, 8, 12), (18, 40, 44))
    [row], image, labels = write(tmp_path, cubes=[SampledCube(box, "any")])
    stored = {part: tifffile.imread(row.path(tmp_path, part)) for part in ("image", "label", "lines")}
    assert stored["image"].dtype == np.uint16
    assert stored["image"].max() > 255
    assert np.array_equal(stored["image"], image[box.slices])
    assert np.array_equal(stored["label"], labels[box.slices])
    assert (stored["label"][stored["lines"] == 1] == 1).all()
    assert stored["lines"].sum() > 20
    known = stored["label"] != 255
    assert row.fibre_share == pytest.approx((stored["label"] == 1).sum() / known.sum())
    assert row.known_share == pytest.approx(known.mean())
    assert row.mean == pytest.approx(stored["image"].mean() / 65535)


def test_a_cube_that_reaches_beyond_its_volume_does_not_know_what_is_there(tmp_path):
    [row], image, _ = write(tmp_path, cubes=[SampledCube(Box((0, 0, 0), (24, 40, 44)), "any")])
    label, voxels = (tifffile.imread(row.path(tmp_path, part)) for part in ("label", "image"))
    assert (label[18:] == 255).all()
    assert np.array_equal(voxels[18:], np.broadcast_to(image[17], (6, 40, 44)))


def test_pieces_of_one_neuron_lie_on_one_side():
    pieces = {f"{n:06d}_{p}": f"{n:06d}" for n in range(12) for p in range(3)}
    split = split_by_neuron(pieces.values())
    assert [name for name, side in split.items() if side == "test"] == ["000003", "000007", "000011"]
    sides = {neuron: {split[pieces[p]] for p in pieces if pieces[p] == neuron} for neuron in pieces.values()}
    assert all(len(found) == 1 for found in sides.values())
    assert split_by_neuron(reversed(list(pieces.values()))) == split
    assert split_by_neuron(["a", "b"], test=["b"]) == {"a": "train", "b": "test"}
    with pytest.raises(InputError, match="neurons that are there"):
        split_by_neuron(["a"], test=["z"])


def test_a_finished_volume_is_known_again_and_one_of_other_options_refused(tmp_path):
    assert finished_volume(tmp_path, "a", {"seed": 0}) is None
    rows, _, _ = write(tmp_path)
    assert finished_volume(tmp_path, "a", {"seed": 0}) == rows
    with pytest.raises(InputError, match="made with another seed"):
        finished_volume(tmp_path, "a", {"seed": 1})
    rows[-1].path(tmp_path, "lines").unlink()
    assert finished_volume(tmp_path, "a", {"seed": 0}) is None


def test_the_table_says_what_each_cube_is(folder):
    rows = read_table(folder)
    assert {row.split for row in rows if row.neuron == "d"} == {"test"}
    assert {row.split for row in rows if row.neuron != "d"} == {"train"}
    assert {row.group for row in rows} == {"any", "fibre"}
    first = statistics([row for row in rows if row.split == "train"])
    assert first["pooled_sd"] > first["mean_of_sds"] > 0
    with pytest.raises(MissingFileError, match=r"cubes\.csv"):
        read_table(folder / "volumes")


def test_damaged_tables_name_their_line(tmp_path):
    (tmp_path / "cubes.csv").write_text("volume,number\na,1\n")
    with pytest.raises(InputError, match="line 2"):
        read_table(tmp_path)


def test_pooled_statistics_are_those_of_all_voxels(tmp_path):
    image, _ = volume()
    boxes = [Box((z, 0, 0), (z + 9, 40, 44)) for z in (0, 9)]
    rows, _, _ = write(tmp_path, cubes=[SampledCube(box, "any") for box in boxes])
    found = statistics(rows)
    assert found["mean_of_means"] == pytest.approx(image.mean() / 65535)
    assert found["pooled_sd"] == pytest.approx(image.std() / 65535)


def test_items_follow_from_seed_and_index_and_differ_from_turn_to_turn(folder):
    first, again, other = (NeuronCubes(folder, length=200, seed=seed) for seed in (1, 1, 2))
    for index in (0, 5, 190):
        for name in ("image", "label", "skeleton"):
            assert torch.equal(first[index][name], again[index][name])
    assert any(not torch.equal(first[i]["image"], other[i]["image"]) for i in range(4))
    count = len(first.rows)
    turns = [[(r.volume, r.number) for r in map(first.row, range(t * count, (t + 1) * count))] for t in (0, 1)]
    assert turns[0] != turns[1]
    assert sorted(turns[0]) == sorted(turns[1]) == sorted((r.volume, r.number) for r in first.rows)
    with pytest.raises(IndexError):
        first[200]


def test_labels_turn_with_their_image(folder):
    data = NeuronCubes(folder, seed=3)
    shapes = set()
    for index in range(len(data)):
        item = data[index]
        assert item["image"].dtype == torch.float32
        assert item["label"].dtype == torch.int64
        fibre, dark = item["image"][item["label"] == 1], item["image"][item["label"] == 0]
        if len(fibre) > 20:
            assert fibre.mean() > dark.mean() + 1.5
        assert (item["label"][item["skeleton"] == 1] == 1).all()
        shapes.add(tuple(item["image"].shape))
    assert shapes == {(1, *SIZE)}


def test_testing_is_done_on_cubes_as_they_are(folder):
    data = NeuronCubes(folder, "test", intensity="reference")
    for index in range(3):
        item, row = data[index], data.rows[index]
        stored = tifffile.imread(row.path(folder, "image"))
        expected = (stored.astype(np.float32) / 255 - REFERENCE_MEAN) / REFERENCE_SD
        np.testing.assert_allclose(item["image"][0].numpy(), expected, rtol=1e-5)
        assert np.array_equal(item["label"][0].numpy(), tifffile.imread(row.path(folder, "label")))


def test_a_cube_is_scaled_by_its_volume(folder):
    data = NeuronCubes(folder, "train", augment=False)
    row = data.row(0)
    stored = tifffile.imread(row.path(folder, "image")).astype(float)
    expected = np.arcsinh((stored - row.center) / (3 * row.width))
    np.testing.assert_allclose(data[0]["image"][0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert len({(r.center, r.width) for r in data.rows}) == 3  # one scale per volume


def test_noise_has_the_chance_that_is_written(tmp_path):
    files = {}
    for part, value in (("image", 100), ("label", 0), ("skeleton", 0)):
        files[part] = str(tmp_path / f"{part}.tif")
        tifffile.imwrite(files[part], np.full((8, 8, 8), value, np.uint8), metadata={"axes": "ZYX"})
    chain = fibre_cube_chain(augment=True)
    noisy = 0
    for seed in range(60):
        chain.set_random_state(seed)
        noisy += int(chain({**files, "center": 50.0, "width": 10.0})["image"].std() > 0.01)
    assert 18 <= noisy <= 42  # half of 60, within three deviations


def test_crops_of_smaller_cubes_are_padded_with_unknown(folder):
    item = NeuronCubes(folder, "test", size=(24, 32, 16))[0]
    assert item["image"].shape == item["label"].shape == (1, 24, 32, 16)
    assert (item["label"][0, 16:] == 255).all()


def test_loaders_feed_a_network(folder):
    loader = DataLoader(NeuronCubes(folder, "train", size=(16, 16, 16)), batch_size=4, num_workers=0)
    batch = next(iter(loader))
    loss = FibreLoss(skeleton_recall=1.0)(fibre_network(width=2)(batch["image"]), batch["label"], batch["skeleton"])
    loss.backward()
    assert torch.isfinite(loss)


def test_unknown_words_and_empty_sides_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="train, test"):
        NeuronCubes(folder, "validation")
    with pytest.raises(InputError, match="volume or reference"):
        NeuronCubes(folder, intensity="raw")
    rows, _, _ = write(tmp_path)
    write_table(tmp_path, rows, {"a": "train"}, {})
    with pytest.raises(InputError, match="no cube to test with"):
        NeuronCubes(tmp_path, "test")


def test_a_cube_that_is_gone_or_damaged_is_named(tmp_path):
    rows, _, _ = write(tmp_path)
    write_table(tmp_path, rows, {rows[0].neuron: "train"}, {})
    data = NeuronCubes(tmp_path)
    for row in rows:
        row.path(tmp_path, "label").write_bytes(b"II*\0 cut short")
    with pytest.raises(VolumeFormatError, match=r"_label\.tif.*copy or download it again"):
        data[0]
    for row in rows:
        row.path(tmp_path, "image").unlink()
    with pytest.raises(MissingFileError, match=r"_image\.tif"):
        data[0]
