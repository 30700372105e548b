"""Measures of a run and of two label maps: known answers, agreement with the metrics, and what is refused."""

import json
import math

import numpy as np
import phantom
import pytest
import SimpleITK as sitk

import medwave
from medwave.core.errors import GeometryError, InputError
from medwave.core.files import json_text
from medwave.core.geometry import Volume
from medwave.metrics import dice, folding, inverse_consistency_mm, log_jacobian_sd, surface_distances
from medwave.volumes import read_labels, write_volume
from medwave.workflows.pullback import Pullback


def cubes(*starts, side=4, shape=(16, 16, 16), grid=None):
    """Label map of cubes 1, 2, ... on a grid of 2 mm voxels."""
    data = np.zeros(shape, np.uint8)
    for label, start in enumerate(starts, start=1):
        if start is not None:
            data[tuple(slice(s, s + side) for s in start)] = label
    return Volume(data, grid or phantom.turned(spacing_mm=(2, 2, 2), reach_mm=16), "cubes")


@pytest.fixture(scope="module")
def result():
    pair = phantom.make_pair()
    return medwave.register(
        pair.fixed, pair.moving, fixed_labels=pair.fixed_labels, moving_labels=pair.moving_labels,
        preset="fast", init=phantom.MATRIX, affine="none", threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    result.save(folder)
    return folder


def test_equal_maps_are_perfect():
    maps = cubes((1, 1, 1), (8, 8, 8))
    found = medwave.evaluate(labels_fixed=maps, labels_moving=maps)
    assert [(s.label, s.dice, s.hd95_mm, s.assd_mm) for s in found.structures] == [(1, 1.0, 0, 0), (2, 1.0, 0, 0)]
    assert found.mean == {"dice": 1.0, "hd95_mm": 0.0, "assd_mm": 0.0}
    assert found.field is None
    assert found.in_one_map_only == ()


def test_a_shifted_cube_has_its_known_overlap():
    """One voxel of 2 mm along one axis: three quarters overlap, faces 2 mm apart."""
    found = medwave.evaluate(labels_fixed=cubes((4, 4, 4)), labels_moving=cubes((5, 4, 4)))
    assert found.structures[0].dice == 0.75
    assert found.structures[0].hd95_mm == 2.0
    assert 0 < found.structures[0].assd_mm < 2.0


def test_a_structure_of_one_map_only_counts_as_missed_but_has_no_distance():
    found = medwave.evaluate(labels_fixed=cubes((1, 1, 1), (8, 8, 8)), labels_moving=cubes((1, 1, 1)))
    assert found.in_one_map_only == (2,)
    assert [s.dice for s in found.structures] == [1.0, 0.0]
    assert math.isinf(found.structures[1].assd_mm)
    assert found.mean == {"dice": 0.5, "hd95_mm": 0.0, "assd_mm": 0.0}
    assert json.loads(json_text(found.as_dict()))["structures"][1]["assd_mm"] is None


def test_a_folder_and_its_result_say_the_same(result, run):
    disk = medwave.evaluate(run, labels_fixed=result.fixed_labels, labels_moving=result.moving_labels)
    memory = medwave.evaluate(result, labels_fixed=result.fixed_labels, labels_moving=result.moving_labels)
    assert disk.mean["dice"] == pytest.approx(memory.mean["dice"], abs=1e-3)
    assert disk.field.inverse_consistency_mm == pytest.approx(memory.field.inverse_consistency_mm, abs=0.01)
    assert disk.field.folded_voxels == memory.field.folded_voxels == 0


def test_a_result_brings_its_own_labels(result):
    found = medwave.evaluate(result)
    expected = dice(result.fixed_labels.data, result.warped_labels.data)
    assert {s.label: s.dice for s in found.structures} == expected
    distances = surface_distances(
        result.fixed_labels.data, result.warped_labels.data, result.fixed_labels.grid.spacing_mm
    )
    assert {s.label: {"hd95_mm": s.hd95_mm, "assd_mm": s.assd_mm} for s in found.structures} == distances
    assert found.mean["dice"] > 0.85


def test_the_registration_beats_the_headers(result, run):
    moving = Volume(result.moving_labels.data, result.moving.grid)
    fixed = Volume(phantom.label(phantom.world(result.moving.grid)).astype(np.uint8), result.moving.grid)
    headers = medwave.evaluate(labels_fixed=fixed, labels_moving=moving)
    moved = medwave.evaluate(run, labels_fixed=fixed, labels_moving=moving)
    assert moved.mean["dice"] > headers.mean["dice"] + 0.15
    assert moved.mean["assd_mm"] < headers.mean["assd_mm"] / 2


def test_the_region_is_the_mask_else_the_labels_else_the_subject_else_everywhere(result, run):
    u, grid = result.displacement_voxels, result.fixed.grid
    mask = np.zeros(grid.shape, bool)
    mask[20:30, 20:30, 20:30] = True
    area = Volume(mask.astype(np.uint8), grid)
    maps = {"labels_fixed": result.fixed_labels, "labels_moving": result.moving_labels}
    cases = [
        (medwave.evaluate(result, mask=area, **maps), mask, "inside the mask"),
        (medwave.evaluate(result), result.fixed_labels.data > 0, "where the fixed map has a label"),
        (medwave.evaluate(run), np.ones(grid.shape, bool), "everywhere"),
    ]
    for found, region, words in cases:
        assert found.field.region == words
        assert found.field.folded_share == folding(u).share
        assert found.field.log_jacobian_sd == pytest.approx(log_jacobian_sd(u, region), abs=1e-3)
        expected = inverse_consistency_mm(u, result.inverse_voxels, grid.affine, region)
        assert found.field.inverse_consistency_mm == pytest.approx(expected, abs=2e-3)
    bare = medwave.register(result.fixed, result.moving, affine="none", deformable=False, threads=1)
    assert medwave.evaluate(bare).field.region == "in the subject"
    assert medwave.evaluate(bare).field.log_jacobian_sd == 0


def test_a_mask_may_lie_on_another_grid(result, run):
    grid = phantom.turned(order=(2, 0, 1), spacing_mm=(1.5, 2, 3), angle=0.2)
    other = medwave.evaluate(run, mask=Volume((phantom.label(phantom.world(grid)) > 0).astype(np.uint8), grid))
    own = medwave.evaluate(run, mask=result.fixed_labels)
    assert other.field.log_jacobian_sd == pytest.approx(own.field.log_jacobian_sd, rel=0.02)


def test_folds_are_counted(tmp_path):
    pair = phantom.make_pair()
    result = medwave.register(pair.fixed, pair.moving, affine="none", deformable=False, threads=1)
    result.displacement_voxels[0, 20, 20, 20] = 5.0
    found = medwave.evaluate(result).field
    assert found.folded_voxels == folding(result.displacement_voxels).count > 0
    result.save(tmp_path)
    assert medwave.evaluate(tmp_path).field.folded_voxels == found.folded_voxels


def test_names_come_from_a_table_or_a_mapping(tmp_path):
    maps = {"labels_fixed": cubes((1, 1, 1), (8, 8, 8)), "labels_moving": cubes((1, 1, 1), (8, 8, 8))}
    table = tmp_path / "names.csv"
    for text in ("Label Number,Label Name,Class\n1,left\thalf, x\n7,other,\n", "1, left  half\n\n"):
        table.write_text(text)
        for names in (table, {1: "left half"}):
            found = medwave.evaluate(**maps, names=names)
            assert [s.name for s in found.structures] == ["left half", "label 2"]


@pytest.mark.parametrize("text", ["id,name\n1,a\nx,b\n", "1,a\n2\n", "1,a\n1.5,b\n"])
def test_unusable_name_tables_are_refused_with_their_line(tmp_path, text):
    table = tmp_path / "names.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=r"names\.csv, line \d: the first two columns"):
        medwave.evaluate(labels_fixed=cubes((1, 1, 1)), labels_moving=cubes((1, 1, 1)), names=table)


def test_unusable_calls_are_refused(run, tmp_path):
    one = cubes((1, 1, 1))
    with pytest.raises(InputError, match="nothing to measure"):
        medwave.evaluate()
    with pytest.raises(InputError, match="both --labels-fixed and --labels-moving"):
        medwave.evaluate(run, labels_fixed=one)
    with pytest.raises(InputError, match=r"run\.json"):
        medwave.evaluate(tmp_path)
    with pytest.raises(GeometryError, match="without a run both label maps lie on one grid"):
        medwave.evaluate(labels_fixed=one, labels_moving=cubes((1, 1, 1), shape=(16, 16, 17), grid=phantom.turned(
            spacing_mm=(2, 2, 1.88), reach_mm=16)))  # fmt: skip
    with pytest.raises(InputError, match="a label other than 0"):
        medwave.evaluate(labels_fixed=cubes(None), labels_moving=cubes(None))
    with pytest.raises(InputError, match="no voxel of the fixed grid"):
        medwave.evaluate(run, mask=cubes(None))
    image = tmp_path / "image.nii.gz"
    write_volume(image, Volume(np.random.default_rng(0).random((16, 16, 16)), one.grid))
    with pytest.raises(InputError, match="labels are whole numbers"):
        medwave.evaluate(labels_fixed=image, labels_moving=one)


@pytest.mark.slow
@pytest.mark.data
def test_real_brains_before_registration(data_folder):
    """Pair 1003 -> 1009 by the headers alone: the overlap that SimpleITK finds, with names from the table."""
    folder = data_folder / "brains" / "benchmark"
    paths = [folder / f"{n}_labels.nii.gz" for n in (1009, 1003)]
    fixed, moving = map(read_labels, paths)
    still = Pullback(fixed.grid, np.eye(4), None)
    found = medwave.evaluate(labels_fixed=fixed, labels_moving=still.labels(moving), names=folder / "labels.csv")
    images = [sitk.ReadImage(str(path), sitk.sitkInt32) for path in paths]
    placed = sitk.Resample(images[1], images[0], sitk.Transform(), sitk.sitkNearestNeighbor)
    expected = dice(fixed.data, sitk.GetArrayFromImage(placed).T)
    assert {s.label: s.dice for s in found.structures} == expected
    assert len(found.structures) == 138
    assert all(s.name and not s.name.startswith("label ") for s in found.structures)
