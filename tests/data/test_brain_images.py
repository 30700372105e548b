"""Pairs of prepared brains: atlas to subject or subject to subject, cut and padded alike, in a drawn order."""

import nibabel
import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError, MissingFileError
from medwave.data import BrainPairs, read_brain_folder

SHAPE = (12, 20, 16)


def save(path, data, spacing=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([spacing, spacing, spacing, 1.0])), path)


def image(value):
    data = np.full(SHAPE, value, np.float32)
    data[0, 0, 0] = 0
    return data


@pytest.fixture
def folder(tmp_path):
    """The image of subject n is n / 10, the atlas is 1; labels are numbers of places."""
    save(tmp_path / "atlas_image.nii.gz", image(1.0))
    save(tmp_path / "atlas_labels.nii.gz", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    for number in range(1, 5):
        save(tmp_path / f"Train/subject_{number}_image.nii.gz", image(number / 10))
    save(tmp_path / "Val/subject_9_image.nii.gz", image(0.9))
    save(tmp_path / "Val/subject_9_labels.nii.gz", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    return tmp_path


def test_every_subject_comes_once_an_epoch_and_the_atlas_moves(folder):
    found = read_brain_folder(folder, held_back=1)
    data = BrainPairs(found.training, found.atlas, 12, SHAPE, spacing_mm=1.0, seed=3)
    fixed = [round(10 * float(data[i]["fixed"].max())) for i in range(12)]
    assert [sorted(fixed[e : e + 4]) for e in (0, 4, 8)] == [[1, 2, 3, 4]] * 3
    assert len({tuple(fixed[e : e + 4]) for e in (0, 4, 8)}) > 1
    assert {float(data[i]["moving"].max()) for i in range(12)} == {1.0}
    assert set(data[0]) == {"fixed", "moving"}
    with pytest.raises(IndexError):
        data[12]


def test_without_an_atlas_two_different_subjects_meet(folder):
    found = read_brain_folder(folder, held_back=1)
    for varied in (True, False):
        data = BrainPairs(found.training, None, 40, SHAPE, spacing_mm=1.0, varied=varied)
        pairs = {(float(item["fixed"].max()), float(item["moving"].max())) for item in data}
        assert all(a != b for a, b in pairs)
        assert len(pairs) == 12


def test_both_images_and_their_labels_are_cut_and_padded_alike(folder):
    found = read_brain_folder(folder, held_back=1)
    assert [item.image.name for item in found.validation] == ["subject_9_image.nii.gz"]
    whole = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    central = BrainPairs(found.validation, found.atlas, 1, (16, 16, 16), spacing_mm=1.0, varied=False, labels=True)[0]
    assert np.array_equal(central["fixed_labels"][0].numpy(), np.pad(whole[:, 2:18], ((2, 2), (0, 0), (0, 0))))
    places = set()
    for item in BrainPairs(found.validation, found.atlas, 20, (8, 8, 16), spacing_mm=1.0, labels=True):
        assert np.array_equal(item["fixed_labels"], item["moving_labels"])
        at = np.unravel_index(int(item["fixed_labels"][0, 0, 0, 0]), SHAPE)
        assert np.array_equal(item["fixed_labels"][0], whole[at[0] : at[0] + 8, at[1] : at[1] + 8])
        places.add(at)
    assert len(places) > 10


def test_other_intensities_are_brought_between_zero_and_one(tmp_path):
    data = np.random.default_rng(0).normal(500, 100, SHAPE).astype(np.float32)
    for number in (1, 2, 3, 4):
        save(tmp_path / f"Train/s{number}_image.nii.gz", data)
    found = read_brain_folder(tmp_path, held_back=2)
    assert [len(found.training), len(found.validation)] == [2, 2]
    item = BrainPairs(found.training, None, 1, SHAPE, spacing_mm=1.0)[0]
    assert (float(item["fixed"].min()), float(item["fixed"].max())) == (0.0, 1.0)
    assert np.corrcoef(item["fixed"].numpy().ravel(), data.ravel())[0, 1] > 0.99


def test_what_does_not_fit_is_named(folder):
    with pytest.raises(MissingFileError, match=r"Train: no such folder, or it holds no \*_image.nii.gz"):
        read_brain_folder(folder / "none", held_back=1)
    found = read_brain_folder(folder, held_back=1)
    with pytest.raises(GeometryError, match="voxels of 2 mm are needed, these have 1 x 1 x 1 mm"):
        BrainPairs(found.training, found.atlas, 1, SHAPE, spacing_mm=2.0)[0]
    save(folder / "Val/subject_9_labels.nii.gz", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(GeometryError, match=r"subject_9_labels.nii.gz: has .* one grid is needed"):
        BrainPairs(found.validation, found.atlas, 1, SHAPE, spacing_mm=1.0)[0]
    save(folder / "Train/subject_1_image.nii.gz", np.zeros((4, 4, 4), np.float32))
    with pytest.raises(GeometryError, match="they need one grid"):
        [*BrainPairs(found.training, found.atlas, 4, SHAPE, spacing_mm=1.0)]
    (folder / "atlas_image.nii.gz").unlink()
    with pytest.raises(InputError, match=r"2 of each are needed without an atlas_image.nii.gz"):
        read_brain_folder(folder, held_back=1)
