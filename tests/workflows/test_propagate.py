"""Labels from atlases: an image labelled by moved copies of itself, a bad atlas, resume."""

import json
from dataclasses import replace

import numpy as np
import phantom
import pytest

from medwave.core.errors import InputError, OutputError
from medwave.core.geometry import Grid, Volume
from medwave.metrics import dice
from medwave.volumes import read_labels, read_volume, write_volume
from medwave.workflows.batch import BEFORE
from medwave.workflows.options_cohort import PropagateOptions
from medwave.workflows.propagate import atlases_of, propagate_labels

QUICK = PropagateOptions(preset="fast", threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A target, its labels, and three atlases: the other head, and moved copies of the target."""
    place = tmp_path_factory.mktemp("atlases")
    pair = phantom.make_pair(phantom.turned(spacing_mm=(4.0,) * 3), phantom.turned(spacing_mm=(4.0,) * 3, reach_mm=76))
    (place / "atlases").mkdir()
    write_volume(place / "target.nii.gz", pair.fixed)
    write_volume(place / "truth.nii.gz", pair.fixed_labels)
    write_volume(place / "atlases/head.nii.gz", pair.moving)
    write_volume(place / "atlases/head_labels.nii.gz", pair.moving_labels)
    for number in (1, 2):
        affine = pair.fixed.grid.affine.copy()
        affine[:3, 3] += (9 * number, -5, 3)
        grid = Grid(pair.fixed.grid.shape, affine)
        write_volume(place / f"atlases/copy{number}.nii.gz", Volume(pair.fixed.data * number, grid))
        write_volume(place / f"atlases/copy{number}_labels.nii.gz", Volume(pair.fixed_labels.data, grid))
    return place


def test_an_image_is_labelled_by_atlases(folder, tmp_path):
    found = atlases_of(folder / "atlases")
    assert [atlas.name for atlas in found] == ["copy1", "copy2", "head"]
    labels = propagate_labels(folder / "target.nii.gz", found, tmp_path / "out", options=QUICK)
    made, truth = read_labels(labels), read_labels(folder / "truth.nii.gz")
    assert made.grid.matches(truth.grid)
    overlap = dice(truth.data, made.data)
    assert len(overlap) == phantom.CELLS
    assert np.mean(list(overlap.values())) > 0.95
    share = read_volume(tmp_path / "out/agreement.nii.gz").data
    assert share.max() <= 1.0 + 1e-5
    assert share[truth.data == 0].mean() > 0.98
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert set(record["inputs"]) == {"target", *(f"{a.name} {kind}" for a in found for kind in ("image", "labels"))}

    told = []
    before = labels.read_bytes()
    again = propagate_labels(
        folder / "target.nii.gz", found, tmp_path / "out", options=QUICK, on_outcome=lambda o, _: told.append(o.status)
    )
    assert told == [BEFORE] * 3
    assert again.read_bytes() == before


def test_an_atlas_that_fails_is_named_and_nothing_is_fused(folder, tmp_path):
    table = tmp_path / "atlases.csv"
    table.write_text(f"image,labels\n{folder}/atlases/head.nii.gz,{folder}/truth.nii.gz\n")
    with pytest.raises(InputError, match=r"1 of 1 atlases could not be registered: .*must lie on its grid"):
        propagate_labels(folder / "target.nii.gz", atlases_of(table), tmp_path / "out", options=QUICK)
    assert not (tmp_path / "out/labels.nii.gz").exists()


def test_atlases_of_one_name_have_runs_of_their_own(folder, tmp_path):
    for number in (1, 2):
        (tmp_path / f"at{number}").mkdir()
        for kind in ("", "_labels"):
            copied = (folder / f"atlases/copy{number}{kind}.nii.gz").read_bytes()
            (tmp_path / f"at{number}/t1{kind}.nii.gz").write_bytes(copied)
    found = [*atlases_of(tmp_path / "at1"), *atlases_of(tmp_path / "at2")]
    options = replace(QUICK, affine="none", deformable=False)
    propagate_labels(folder / "target.nii.gz", found, tmp_path / "out", options=options)
    assert sorted(path.name for path in (tmp_path / "out/runs").iterdir()) == ["t1", "t1-2"]
    inputs = json.loads((tmp_path / "out/run.json").read_text())["inputs"]
    assert inputs["t1-2 image"]["path"] == str(tmp_path / "at2/t1.nii.gz")


@pytest.mark.parametrize("name", ["labels.nii.gz", "agreement.nii.gz"])
def test_no_label_map_of_an_atlas_is_replaced(folder, tmp_path, name):
    manual = tmp_path / name
    manual.write_bytes((folder / "atlases/head_labels.nii.gz").read_bytes())
    table = tmp_path / "atlases.csv"
    table.write_text(f"image,labels\n{folder}/atlases/head.nii.gz,{name}\n")
    before = manual.read_bytes()
    with pytest.raises(OutputError, match=f"{name}: a result would replace this input; choose another output folder"):
        propagate_labels(folder / "target.nii.gz", atlases_of(table), tmp_path, options=QUICK)
    assert manual.read_bytes() == before
    assert not (tmp_path / "runs").exists()


def test_images_without_labels_are_no_atlases(folder, tmp_path):
    write_volume(tmp_path / "lonely.nii.gz", read_volume(folder / "target.nii.gz"))
    with pytest.raises(InputError, match="no image with a label map"):
        atlases_of(tmp_path)
