"""The program that makes synthetic neurons, run as a person runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medwave.volumes import open_stack, read_swc

PROGRAM = Path(__file__).resolve().parents[2] / "data_prep" / "make_synthetic_neurons.py"


def run(folder, *options):
    command = [sys.executable, str(PROGRAM), "-o", str(folder), "--shape", "16,48,48", *options]
    subprocess.run(command, check=True, capture_output=True)


def test_files_fit_together_and_a_seed_gives_the_same_ones(tmp_path):
    run(tmp_path / "a", "--count", "2")
    run(tmp_path / "b", "--count", "2")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"neuron_00{n}{end}" for n in (0, 1) for end in (".swc", ".tif", "_mask.tif")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    image = open_stack(tmp_path / "a" / "neuron_000.tif")
    assert image.shape == (16, 48, 48)
    tree, mask = read_swc(tmp_path / "a" / "neuron_000.swc"), tifffile.imread(tmp_path / "a" / "neuron_000_mask.tif")
    z, y, x = np.rint(tree.positions[:, ::-1]).astype(int).T
    assert mask[z, y, x].all()


def test_a_given_tree_is_rendered_in_a_volume_that_holds_it(tmp_path):
    run(tmp_path, "--count", "1")
    run(tmp_path / "again", "--swc", str(tmp_path / "neuron_000.swc"), "--photons", "80", "--background", "2")
    first, second = read_swc(tmp_path / "neuron_000.swc"), read_swc(tmp_path / "again" / "neuron_000.swc")
    assert second.length == pytest.approx(first.length, rel=1e-4)
    shape = np.array(tifffile.imread(tmp_path / "again" / "neuron_000.tif").shape)
    assert (second.positions[:, ::-1] < shape).all()
