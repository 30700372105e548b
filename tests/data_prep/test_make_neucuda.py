"""The program that cuts traced neurons into training cubes: origins, pieces, faults of single volumes, resuming."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from medwave.core.errors import InputError
from medwave.data import NeuronCubes
from medwave.data.cube_folder import read_table
from medwave.models import FibreNet, open_network, read_weights_info
from medwave.tracing import check_alignment, flip_y, scale
from medwave.transforms import Microscope, grow_tree, render_neuron
from medwave.volumes import read_swc, write_swc
from medwave.workflows.train_waveunet import fibre_scores, train_waveunet

PROGRAM = Path(__file__).resolve().parents[2] / "data_prep" / "make_neucuda.py"
SHAPE = (20, 70, 60)


def program():
    spec = importlib.util.spec_from_file_location("make_neucuda", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_neucuda"] = module
    spec.loader.exec_module(module)
    return module


def run(monkeypatch, source, output, *options):
    monkeypatch.setattr(sys, "argv", ["make_neucuda", str(source), "-o", str(output), "--size", "16,32,32", *options])
    program().main()


@pytest.fixture(scope="module")
def neurons():
    trees = [grow_tree(SHAPE, seed=seed) for seed in range(2)]
    return [render_neuron(tree, SHAPE, Microscope(), seed=seed) for seed, tree in enumerate(trees)]


def save(folder, name, neuron, tree=None, units="voxels", spacing=None):
    meta = {"axes": "ZYX"} | ({"spacing": spacing[0], "unit": "um"} if spacing else {})
    resolution = None if spacing is None else (1 / spacing[2], 1 / spacing[1])
    tifffile.imwrite(folder / f"{name}.tif", neuron.image, imagej=True, metadata=meta, resolution=resolution)
    write_swc(folder / f"{name}.swc", neuron.tree if tree is None else tree, header=[], units=units)


@pytest.fixture
def pair(tmp_path, neurons):
    source = tmp_path / "source"
    source.mkdir()
    for name, neuron in zip(("one", "two"), neurons, strict=True):
        save(source, name, neuron)
    return source


def bright(output, volume):
    """Mean image on fibre and on background, over all cubes of a volume."""
    found = {1: [], 0: []}
    for row in read_table(output):
        if row.volume == volume:
            image, label = (tifffile.imread(row.path(output, part)) for part in ("image", "label"))
            for value, values in found.items():
                values.append(image[label == value])
    return [np.concatenate(values).mean() for values in found.values()]


def test_two_neurons_become_a_data_set(pair, tmp_path, monkeypatch, capsys):
    run(monkeypatch, pair, tmp_path / "cubes", "--test", "two")
    said = capsys.readouterr().out
    assert "one: " in said
    assert "y from the top by its image" in said
    about = json.loads((tmp_path / "cubes" / "dataset.json").read_text())
    assert about["neurons"] == {"train": ["one"], "test": ["two"]}
    assert about["statistics_of_training_cubes"]["mean_of_means"] > 0
    fibre, dark = bright(tmp_path / "cubes", "one")
    assert fibre > 5 * dark
    assert len(NeuronCubes(tmp_path / "cubes", "test")) == about["cubes"]["test"] > 50
    tree = read_swc(tmp_path / "cubes" / "volumes" / "one" / "tree.swc")
    assert tree.length == pytest.approx(read_swc(pair / "one.swc").length, rel=0.02)


@pytest.mark.slow
def test_a_network_is_trained_on_the_cubes_and_scored_on_those_set_aside(pair, tmp_path, monkeypatch):
    pytest.importorskip("ignite", reason="training needs the extra train")
    run(monkeypatch, pair, tmp_path / "cubes", "--test", "two")
    shared = {"cubes": str(tmp_path / "cubes"), "synthetic": 0, "width": 4, "size": (16, 24, 24), "epochs": 1}
    result = train_waveunet(tmp_path / "run", steps=15, batch=2, average=0.8, learning_rate=0.02, **shared)
    aside = NeuronCubes(tmp_path / "cubes", "test")
    items = [aside[i] for i in range(len(aside))]
    cubes = [(item["image"][None], item["label"][None]) for item in items]
    with torch.inference_mode():
        scores = fibre_scores(open_network(result.weights, FibreNet), cubes)
    assert result.best_score == pytest.approx(scores.iou, abs=0.01)  # its weights are kept in half precision
    assert scores.iou > 0.3
    assert "cubes of traced volumes of cubes (share 1)" in read_weights_info(result.weights).provenance
    with pytest.raises(InputError, match="nothing to train on"):
        train_waveunet(tmp_path / "none", cubes_share=0, **shared)


def test_an_interrupted_run_goes_on_and_one_volume_does_not_depend_on_the_others(pair, tmp_path, monkeypatch, capsys):
    cubes = tmp_path / "cubes"
    run(monkeypatch, pair, cubes)
    files = {p: p.read_bytes() for p in cubes.rglob("*") if p.is_file()}
    (cubes / "volumes" / "two" / "volume.json").unlink()
    (cubes / "volumes" / "two" / "0003_image.tif").unlink()
    (cubes / "cubes.csv").unlink()
    before = (cubes / "volumes" / "one" / "0003_image.tif").stat().st_mtime_ns
    capsys.readouterr()
    run(monkeypatch, pair, cubes)
    assert "one: complete" in capsys.readouterr().out
    assert (cubes / "volumes" / "one" / "0003_image.tif").stat().st_mtime_ns == before
    assert {p: p.read_bytes() for p in cubes.rglob("*") if p.is_file()} == files

    (pair / "one.swc").unlink()
    run(monkeypatch, pair, tmp_path / "alone")
    for path in (tmp_path / "alone" / "volumes" / "two").iterdir():
        assert path.read_bytes() == files[cubes / "volumes" / "two" / path.name]


def test_other_options_do_not_mix_with_finished_cubes(pair, tmp_path, monkeypatch, capsys):
    run(monkeypatch, pair, tmp_path / "cubes")
    with pytest.raises(SystemExit, match="no volume could be used"):
        run(monkeypatch, pair, tmp_path / "cubes", "--seed", "5")
    assert "made with another seed" in capsys.readouterr().err


def test_y_is_counted_from_the_side_where_the_image_is_bright(pair, neurons, tmp_path, monkeypatch, capsys):
    save(pair, "one", neurons[0], flip_y(neurons[0].tree, SHAPE[1]))
    run(monkeypatch, pair, tmp_path / "cubes")
    said = capsys.readouterr().out
    assert "y from the bottom by its image" in said.splitlines()[0]
    assert "y from the top by its image" in said.splitlines()[1]
    fibre, dark = bright(tmp_path / "cubes", "one")
    assert fibre > 5 * dark


def test_volumes_that_cannot_be_used_are_left_out_and_named(pair, neurons, tmp_path, monkeypatch, capsys):
    far = replace(neurons[1].tree, positions=neurons[1].tree.positions[:, [1, 0, 2]] * (0.8, 1.1, 1.0))
    assert not check_alignment(far, neurons[1].image).aligned
    save(pair, "two", neurons[1], far)
    save(pair, "three", neurons[0])
    (pair / "three.swc").write_text("1 3 5 5 5 1 2\n2 3 9 9 9 1 1\n")  # its parents run in a circle
    with pytest.raises(SystemExit, match="2 volumes are missing from the cubes: three, two"):
        run(monkeypatch, pair, tmp_path / "cubes")
    said = capsys.readouterr().err
    assert "three.swc" in said
    assert "does not lie on the bright voxels" in said
    assert {row.volume for row in read_table(tmp_path / "cubes")} == {"one"}
    assert json.loads((tmp_path / "cubes" / "dataset.json").read_text())["options"]["left_out"] == ["three", "two"]


def test_a_table_names_pieces_clean_boxes_and_noise(pair, tmp_path, monkeypatch):
    table = pair / "neurons.csv"
    rows = ["name,image,swc,neuron,clean,noise,y_origin"]
    rows += [f'one_{n},one.tif,one.swc,one,"0:-1,0:-1,{a}:{b}",,top' for n, (a, b) in enumerate([(0, 40), (20, -1)])]
    rows += ["two,two.tif,two.swc,,,0.1,auto", "gone,gone.tif,one.swc,,,,top"]
    table.write_text("\n".join(rows) + "\n")
    cubes = tmp_path / "cubes"
    with pytest.raises(SystemExit, match="1 volumes are missing from the cubes: gone"):
        run(monkeypatch, table, cubes, "--test", "two", "--no-crop")
    found = read_table(cubes)
    assert {row.split for row in found if row.neuron == "one"} == {"train"}
    assert {row.volume for row in found} == {"one_0", "one_1", "two"}
    for row in found:
        label = tifffile.imread(row.path(cubes, "label"))
        columns = np.arange(row.x, row.x + 32)
        clean = {"one_0": columns < 40, "one_1": columns >= 20, "two": np.ones(32, bool)}[row.volume]
        assert (label[:, :, ~clean] == 255).all()
        assert (label[:, :, clean] != 255).all()
        assert row.known_share >= 0.5
    image = tifffile.imread(next(row for row in found if row.volume == "two").path(cubes, "image")).astype(int)
    assert np.abs(np.diff(image)).mean() > 10


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("name,image\na,one.tif\n", "a column name and a column image and a column swc"),
        ("name,image,swc\na,one.tif\n", "line 2: names no swc"),
        ('name,image,swc,cleans\na,one.tif,one.swc,"0:9,0:9,0:9"\n', "no column 'cleans' is read; did you mean clean"),
        ("name,image,swc,noise\na,one.tif,one.swc,much\n", "got 'much'"),
        ("name,image,swc\na,one.tif,one.swc\na,two.tif,two.swc\n", "a name|twice \\['a'\\]"),
        ("name,image,swc,y_origin\na,one.tif,one.swc,left\n", "auto, top or bottom"),
    ],
)
def test_damaged_tables_are_refused(pair, tmp_path, monkeypatch, table, words):
    (pair / "neurons.csv").write_text(table)
    with pytest.raises(SystemExit, match=words):
        run(monkeypatch, pair / "neurons.csv", tmp_path / "cubes")
    assert not (tmp_path / "cubes").exists()


def test_large_volumes_are_made_smaller_with_their_trees(pair, tmp_path, monkeypatch):
    run(monkeypatch, pair, tmp_path / "cubes", "--longest", "40")
    fibre, dark = bright(tmp_path / "cubes", "one")
    assert fibre > 4 * dark
    rows = read_table(tmp_path / "cubes")
    assert max(row.x for row in rows) <= 8
    assert max(row.y for row in rows) <= 8


def test_micrometres_are_voxels_of_their_image(pair, neurons, tmp_path, monkeypatch):
    run(monkeypatch, pair, tmp_path / "voxels")
    spacing = (0.5, 0.5, 0.5)
    save(pair, "one", neurons[0], scale(neurons[0].tree, spacing, radius_factor=0.5), units="um", spacing=spacing)
    run(monkeypatch, pair, tmp_path / "um")
    for row in read_table(tmp_path / "um")[:5]:
        labels = [tifffile.imread(row.path(tmp_path / name, "label")) for name in ("voxels", "um")]
        assert (labels[0] != labels[1]).mean() < 1e-3  # files round positions to four digits


@pytest.mark.data
@pytest.mark.slow
def test_a_real_neuron_becomes_cubes(data_folder, tmp_path, monkeypatch):
    real = data_folder / "neurons" / "real_traced"
    (tmp_path / "neurons.csv").write_text(f"name,image,swc\na,{real / 'neuron_a.tif'},{real / 'neuron_a.swc'}\n")
    monkeypatch.setattr(sys, "argv", ["make_neucuda", str(tmp_path / "neurons.csv"), "-o", str(tmp_path / "cubes")])
    program().main()
    rows = read_table(tmp_path / "cubes")
    assert len(rows) == 16 + 8 * 16
    share = np.mean([row.fibre_share for row in rows if row.group == "any"])
    assert 0.001 < share < 0.05
    fibre, dark = bright(tmp_path / "cubes", "a")
    assert fibre > 20 * dark
