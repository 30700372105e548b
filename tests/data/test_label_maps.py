"""Pairs made from label maps: an item follows from its index, labels lie on the anatomy, people are aligned."""

from itertools import product

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils.data import DataLoader, Subset

from medwave.core.errors import InputError, MissingFileError
from medwave.core.geometry import Grid, Volume, transform_points
from medwave.data import LabelMapPairs, read_label_maps
from medwave.data.label_maps import common_space
from medwave.metrics import dice
from medwave.transforms.label_images import STRUCTURES

SIZE = (32, 32, 32)


def person(seed, *, spacing_mm=3.0, reach_mm=45.0):
    """Balls of 16 structures in a ball of grey matter under skin, moved and scaled a little from person to person."""
    rng = np.random.default_rng(seed)
    n = int(2 * reach_mm / spacing_mm)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = -reach_mm + rng.uniform(-6, 6, 3)
    grid = Grid((n, n, n), affine)
    scale = rng.uniform(0.85, 1.1, 3)
    places = np.moveaxis(np.indices(grid.shape), 0, -1) * spacing_mm - reach_mm
    places = places / scale
    labels = np.zeros(grid.shape, dtype=np.int16)
    labels[np.linalg.norm(places, axis=-1) < 40] = 507
    labels[np.linalg.norm(places, axis=-1) < 35] = 3
    for center, structure in zip(product((-14, 0, 14), repeat=3), STRUCTURES[2:18], strict=False):
        labels[np.linalg.norm(places - np.array(center), axis=-1) < 6.5] = structure
    return Volume(labels, grid, f"person {seed}")


@pytest.fixture(scope="module")
def maps():
    return [person(seed) for seed in range(3)]


def test_an_item_follows_from_its_seed_and_index(maps):
    data = LabelMapPairs(maps, 10, SIZE, spacing_mm=3.0, seed=4)
    first, again, other = data[2], LabelMapPairs(maps, 5, SIZE, spacing_mm=3.0, seed=4)[2], data[3]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fixed"], other["fixed"])
    assert not torch.equal(first["fixed"], LabelMapPairs(maps, 10, SIZE, spacing_mm=3.0, seed=5)[2]["fixed"])


def test_a_batch_follows_from_its_seed_and_first_index(maps):
    data = LabelMapPairs(maps, 10, SIZE, spacing_mm=3.0, seed=4)
    first, again, other = (next(iter(DataLoader(Subset(data, at), 3))) for at in ([2, 3, 4], [2, 3, 4], [5, 6, 7]))
    assert first["fixed"].shape == (3, 1, *SIZE)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fixed"], other["fixed"])
    assert not torch.equal(first["fixed"][0], first["fixed"][1])
    with pytest.raises(IndexError):
        data[10]


def test_items_have_the_promised_layout(maps):
    item = LabelMapPairs(maps, 1, SIZE, spacing_mm=3.0)[0]
    for role in ("fixed", "moving"):
        image, labels = item[role], item[f"{role}_labels"]
        assert image.shape == labels.shape == (1, *SIZE)
        assert image.dtype == torch.float32
        assert labels.dtype == torch.uint8
        assert 0 <= image.min() < image.max() == 1
        assert 0 < labels.max() <= len(STRUCTURES)
        assert image[labels > 0].mean() > image[labels == 0].mean()  # labels lie on the anatomy
    assert not torch.equal(item["fixed_labels"], item["moving_labels"])


def distances(item):
    """Between the centroids of the structures of a pair, in voxels."""
    fixed, moving = (item[f"{role}_labels"].numpy()[0] for role in ("fixed", "moving"))
    shared = np.intersect1d(fixed, moving)[1:]
    centers = [ndimage.center_of_mass(labels > 0, labels, shared) for labels in (fixed, moving)]
    return np.linalg.norm(np.subtract(*centers), axis=1)


def test_people_are_aligned_by_their_structures(maps):
    pairs = LabelMapPairs(maps, 6, SIZE, spacing_mm=3.0, varied=False)
    varied = LabelMapPairs(maps, 6, SIZE, spacing_mm=3.0)
    aligned, apart = (np.mean([distances(data[i]).mean() for i in range(6)]) for data in (pairs, varied))
    assert aligned < 0.6  # what nearest voxels make of balls of four voxels
    assert apart > 2 * aligned


def test_centroids_coincide_in_the_common_space(maps):
    shared = [structure for structure in STRUCTURES if (maps[0].data == structure).any()]
    centers = []
    for volume, matrix in zip(maps, common_space(maps), strict=True):
        world = volume.grid.to_mm(ndimage.center_of_mass(volume.data > 0, volume.data, shared))
        centers.append(transform_points(np.linalg.inv(matrix), world))
    assert np.abs(np.subtract(centers[0], centers[1:])).max() < 0.7


def test_the_common_space_is_centred_on_the_structures(maps):
    centers = []
    for volume, matrix in zip(maps, common_space(maps), strict=True):
        held = np.argwhere(np.isin(volume.data, STRUCTURES))
        world = volume.grid.to_mm(held)
        common = transform_points(np.linalg.inv(matrix), world)
        centers.append((common.min(axis=0) + common.max(axis=0)) / 2)
    assert np.abs(np.mean(centers, axis=0)).max() < 1.0


def test_every_ordered_pair_comes_in_turn_where_anatomy_does_not_vary(maps):
    pairs = LabelMapPairs(maps, 12, SIZE, spacing_mm=3.0, varied=False)
    labels = [
        (p["fixed_labels"].numpy().tobytes(), p["moving_labels"].numpy().tobytes())
        for p in map(pairs.__getitem__, range(12))
    ]
    assert len(set(labels)) == 6
    assert labels[:6] == labels[6:]
    assert all(fixed != moving for fixed, moving in labels)


def means(item, role):
    """Of the image in each structure that both label maps show."""
    fixed, moving = (item[f"{name}_labels"].numpy()[0] for name in ("fixed", "moving"))
    return ndimage.mean(item[role].numpy()[0], item[f"{role}_labels"].numpy()[0], np.intersect1d(fixed, moving)[1:])


def test_a_chosen_contrast_is_alike_in_a_pair_and_shows_no_head(maps):
    alike, drawn = (LabelMapPairs(maps, 12, SIZE, spacing_mm=3.0, contrast=kind, seed=1) for kind in ("t1", None))
    likeness = [[np.corrcoef(means(p, "fixed"), means(p, "moving"))[0, 1] for p in map(data.__getitem__, range(12))]
                for data in (alike, drawn)]  # fmt: skip
    assert min(likeness[0]) > 0.7
    assert min(likeness[1]) < 0.5
    pairs = map(alike.__getitem__, range(12))
    assert max(float(p["fixed"][p["fixed_labels"] == 0].max()) for p in pairs) < 0.02  # nothing but the structures


def test_strength_says_how_far_the_two_of_a_pair_differ(maps):
    def apart(strength):
        data = LabelMapPairs([maps[0]] * 2, 4, SIZE, spacing_mm=3.0, strength=strength)
        return np.mean([float((i["fixed_labels"] != i["moving_labels"]).float().mean()) for i in data])

    none, usual, twice = (apart(strength) for strength in (0.0, 1.0, 2.0))
    assert none == 0
    assert 0 < usual < 0.8 * twice


def test_a_contrast_that_does_not_exist_is_refused(maps):
    with pytest.raises(InputError, match="one of t1, t2, free, got 'pd'"):
        LabelMapPairs(maps, 1, SIZE, contrast="pd")


def test_files_are_read_in_ras_order_and_cropped(tmp_path, maps):
    for n, volume in enumerate(maps):
        flipped = volume.grid.affine @ np.diag([-1, 1, 1, 1.0])
        flipped[:3, 3] = volume.grid.to_mm([[volume.grid.shape[0] - 1, 0, 0]])[0]
        nibabel.save(nibabel.Nifti1Image(volume.data[::-1].astype(np.float32), flipped), tmp_path / f"map_{n}.nii.gz")
    read = read_label_maps(tmp_path)
    assert len(read) == 3
    for volume, original in zip(read, maps, strict=True):
        assert volume.data.dtype == np.int16
        assert volume.grid.orientation == original.grid.orientation == "RAS"
        occupied = np.argwhere(original.data > 0)
        box = tuple(slice(a, b + 1) for a, b in zip(occupied.min(axis=0), occupied.max(axis=0), strict=True))
        assert np.array_equal(volume.data, original.data[box])
        assert volume.grid.to_mm([[0, 0, 0]])[0] == pytest.approx(original.grid.to_mm([occupied.min(axis=0)])[0])


def test_what_is_no_label_map_is_refused(tmp_path, maps):
    with pytest.raises(MissingFileError, match="no label map"):
        read_label_maps(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"mask\.nii\.gz: a label map to train on uses FreeSurfer"):
        read_label_maps(tmp_path)
    with pytest.raises(InputError, match="needs two label maps"):
        LabelMapPairs(maps[:1], 1, SIZE)


def test_real_label_maps_align(data_folder, tmp_path):
    for number in ("05", "12"):
        source = data_folder / "brains" / "label_maps" / f"training_seg_{number}.nii.gz"
        (tmp_path / source.name).symlink_to(source)
    pair = LabelMapPairs(read_label_maps(tmp_path), 2, (48, 64, 48), spacing_mm=3.0, varied=False)[0]
    scores = dice(pair["fixed_labels"].numpy()[0], pair["moving_labels"].numpy()[0])
    assert len(scores) == len(STRUCTURES)
    assert np.mean(list(scores.values())) > 0.4
