"""The program that makes synthetic boxes, run with a person's words."""

import runpy
import sys
from pathlib import Path

import numpy as np

from medwave.data import read_boxed

PROGRAM = Path(__file__).resolve().parents[2] / "data_prep" / "make_synthetic_boxes.py"


def test_a_seed_gives_the_same_scenes_in_three_splits(tmp_path, monkeypatch, capsys):
    options = ["--shape", "24,20,20", "--counts", "3,1,2", "--sides", "6,12", "--objects", "2", "--seed", "4"]
    for name in ("a", "b"):
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), str(tmp_path / f"{name}.npz"), *options])
        runpy.run_path(str(PROGRAM), run_name="__main__")
        assert capsys.readouterr().out.endswith("3 train, 1 val, 2 test\n")
    with np.load(tmp_path / "a.npz") as first, np.load(tmp_path / "b.npz") as second:
        assert all(np.array_equal(first[name], second[name]) for name in first.files)
    read = read_boxed(tmp_path / "a.npz", "test")
    assert read.images.shape == (2, 24, 20, 20, 1)
    assert all(1 <= len(labels) <= 2 for labels in read.labels)
