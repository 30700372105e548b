"""The program that turns pickled brains into NIfTI: values and layout stay, nothing in a pickle can run."""

import importlib.util
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.volumes import read_labels, read_volume

PROGRAM = Path(__file__).resolve().parents[2] / "data_prep" / "ixi.py"
SHAPE = (10, 12, 14)


@pytest.fixture(scope="module")
def ixi():
    spec = importlib.util.spec_from_file_location("ixi", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def brain(seed):
    rng = np.random.default_rng(seed)
    return rng.random(SHAPE, dtype=np.float32), rng.integers(0, 46, SHAPE).astype(np.uint16)


@pytest.fixture
def source(tmp_path):
    """Stand-ins in the layout of the set, by several protocols of pickle and in both orders of memory."""
    files = {"atlas": 2, "Train/subject_1": 4, "Val/subject_2": 5, "Test/subject_3": 0}
    for seed, (name, protocol) in enumerate(files.items()):
        path = tmp_path / "IXI_data" / f"{name}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        image, labels = brain(seed)
        content = (np.asfortranarray(image), labels) if protocol == 5 else (image, labels)
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return tmp_path / "IXI_data"


def test_every_pair_becomes_two_files_with_the_same_values(ixi, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ixi", str(source), "-o", str(tmp_path / "nifti"), "--all-labels"])
    ixi.main()
    assert "4 pairs" in capsys.readouterr().out
    for seed, name in enumerate(("atlas", "Train/subject_1", "Val/subject_2", "Test/subject_3")):
        image, labels = brain(seed)
        read = read_volume(tmp_path / "nifti" / f"{name}_image.nii.gz")
        kept = read_labels(tmp_path / "nifti" / f"{name}_labels.nii.gz")
        assert np.array_equal(read.data, image)
        assert np.array_equal(kept.data, labels)
        assert read.grid.matches(kept.grid)
        assert read.grid.spacing_mm == pytest.approx([1, 1, 1])
        assert read.grid.center_mm == pytest.approx([0, 0, 0])


def test_the_thirty_measured_structures_stay(ixi, source, tmp_path):
    assert len(set(ixi.STRUCTURES)) == 30
    assert ixi.convert(source, tmp_path / "nifti") == 4
    kept = read_labels(tmp_path / "nifti" / "atlas_labels.nii.gz").data
    assert set(np.unique(kept)) == {0, *ixi.STRUCTURES}
    original = brain(0)[1]
    assert (kept[kept > 0] == original[kept > 0]).all()


def test_started_again_it_goes_on_where_it_stopped(ixi, source, tmp_path):
    ixi.convert(source, tmp_path / "nifti")
    first = tmp_path / "nifti" / "atlas_labels.nii.gz"
    last = tmp_path / "nifti" / "Val" / "subject_2_labels.nii.gz"
    last.unlink()
    before = first.stat().st_mtime_ns
    ixi.convert(source, tmp_path / "nifti")
    assert last.exists()
    assert first.stat().st_mtime_ns == before


class Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_in_a_pickle_runs(ixi, tmp_path, protocol):
    path, target = tmp_path / "subject.pkl", tmp_path / "made_by_the_pickle"
    path.write_bytes(pickle.dumps((brain(0)[0], Harmful(target)), protocol=protocol))
    with pytest.raises(InputError, match=r"subject\.pkl: holds more than arrays \((posix|nt)\.mkdir\)"):
        ixi.read_pair(path)
    assert not target.exists()
    hidden = np.array([Harmful(target), None], dtype=object)
    path.write_bytes(pickle.dumps((hidden, hidden), protocol=protocol))
    with pytest.raises(InputError, match="holds more than arrays"):
        ixi.read_pair(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (brain(0)[0], "two arrays of numbers"),
        ((brain(0)[0], "labels"), "two arrays of numbers"),
        ((brain(0)[0], brain(0)[1][:5]), "one 3-D shape"),
        ((brain(0)[0], brain(0)[0]), "whole numbers"),
        ((np.full(SHAPE, np.nan), brain(0)[1]), "is finite"),
    ],
)
def test_what_is_no_pair_of_brains_is_refused(ixi, tmp_path, content, message):
    path = tmp_path / "subject.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        ixi.read_pair(path)


def test_damaged_and_missing_files_are_told(ixi, tmp_path, monkeypatch):
    path = tmp_path / "subject.pkl"
    path.write_bytes(pickle.dumps(brain(0))[:200])
    with pytest.raises(InputError, match="damaged or no pickle"):
        ixi.read_pair(path)
    monkeypatch.setattr(sys, "argv", ["ixi", str(tmp_path / "none"), "-o", str(tmp_path / "nifti")])
    with pytest.raises(SystemExit, match="holds no"):
        ixi.main()
