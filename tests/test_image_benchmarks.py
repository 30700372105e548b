"""Segmenters, detectors and explained channels compared: tables pair runs of one seed, validation chooses pairs."""

from importlib import import_module
from pathlib import Path

import pytest

BUDGET = {"width": 0.125, "crop": 128, "epochs": 2, "steps": 160, "learning_rate": 3e-3}


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")


def segmented(network, wavelet, seed, road, pole, validation=0.5):
    scores = {"mean_iou": (road + pole) / 2, "pixel_accuracy": 0.5, "iou": {"road": road, "pole": pole}}
    about = {"network": network, "wavelet": wavelet, "seed": seed, "parameters": 1000, "train_cpu_s": 9.0}
    return about | scores | {"validation": validation} | BUDGET


def test_segmenters_are_compared_seed_by_seed_and_thin_classes_apart():
    rows = [
        segmented("unet", "none", 0, 0.5, 0.1), segmented("unet", "haar", 0, 0.6, 0.3),
        segmented("unet", "none", 1, 0.6, 0.2), segmented("unet", "haar", 1, 0.7, 0.4),
        segmented("unet", "none", 2, 0.9, 0.9), segmented("segnet", "none", 0, 0.9, 0.9),
    ]  # fmt: skip
    lines = import_module("segmenters").tables(rows)
    assert lines[2] == "| U-Net | 1,000 | 2 | 35.0 | 15.0 | 55.0 | 50.0 | 9 |"
    assert lines[3].startswith("| U-Net, haar | 1,000 | 2 | 50.0 (+15.0 ± 0.0) | 35.0 (+20.0 ± 0.0) | 65.0 (+10.0 ± ")
    assert lines[5:] == ["| IoU, % | road | pole |", "|---|---:|---:|", "| U-Net | 55.0 | 15.0 |",
                         "| U-Net, haar | 65.0 (+10.0 ± 0.0) | 35.0 (+20.0 ± 0.0) |"]  # fmt: skip


def test_the_pair_for_more_seeds_is_chosen_by_validation_and_not_by_test():
    rows = [
        segmented("unet", "none", 0, 0.9, 0.9, 0.3), segmented("unet", "haar", 0, 0.9, 0.9, 0.5),
        segmented("segnet", "none", 0, 0.1, 0.1, 0.5), segmented("segnet", "haar", 0, 0.1, 0.1, 0.4),
        segmented("unet", "none", 1, 0.9, 0.9, 0.9),
    ]  # fmt: skip
    chosen = import_module("segmenters").best_pair
    assert chosen(rows, 0, BUDGET) == "segnet"
    other = [row | {"steps": 9} for row in rows]
    assert chosen([*rows, *(row | {"validation": 1.0} for row in other)], 0, BUDGET) == "segnet"


def explained(weight, seed, eer):
    names = ("eer", "instability", "concentration", "entropy", "silent")
    values = {f"{name}_{shift}": eer for name in names for shift in (0, 4, 8)}
    return {"weight": weight, "seed": seed, "train_cpu_s": 1.0, **values}


def test_channels_with_the_loss_are_compared_with_those_without():
    rows = [explained(0.0, 0, 0.1), explained(1.0, 0, 0.2), explained(0.0, 1, 0.2), explained(1.0, 1, 0.3),
            explained(1.0, 2, 0.9)]  # fmt: skip
    lines = import_module("channels").tables(rows)
    assert lines[2] == "| EER, % (moved by 0) | 15.00 | 25.00 | +10.00 ± 0.00 | 2 |"
    assert len(lines) == 2 + 10


def test_a_run_on_faces_leaves_a_row_and_the_figure(tmp_path):
    pytest.importorskip("ignite", reason="training needs the extra train")
    import argparse

    import numpy as np
    from PIL import Image

    program = import_module("channels")
    (tmp_path / "orl_faces").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (400, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "orl_faces" / "orl_faces.npz", images=images, subject=np.arange(40).repeat(10))
    arguments = argparse.Namespace(
        data=tmp_path, weights=[1.0], seeds=[0], epochs=1, work=tmp_path / "work", rows=tmp_path / "rows.jsonl",
        seed=0, output=tmp_path / "figure.png",
    )  # fmt: skip
    program.compare(arguments)
    program.compare(arguments)  # nothing is left to do
    (row,) = program.read_rows(arguments.rows)
    assert 0.3 < row["eer_0"] < 0.7  # noise has no faces in it
    assert 0 < row["concentration_0"] < 1
    program.draw(arguments)
    with Image.open(arguments.output) as picture:
        assert np.asarray(picture).std() > 10


def detected(ndim, wavelet, seed, ap, noisy=0.2):
    values = {"map_50": ap, "map_50_noisy": noisy, "ap_50": {"ball": ap + 0.1, "rod": ap - 0.1}}
    return {"ndim": ndim, "wavelet": wavelet, "seed": seed, "parameters": 1000, "train_cpu_s": 9.0, **values}


def test_detectors_are_compared_seed_by_seed_in_the_plane_and_in_space():
    rows = [
        detected(2, "none", 0, 0.4), detected(2, "haar", 0, 0.5), detected(3, "none", 0, 0.3),
        detected(2, "none", 1, 0.6), detected(2, "haar", 1, 0.7), detected(3, "haar", 0, 0.2, 0.3),
        detected(2, "none", 2, 0.9),
    ]  # fmt: skip
    lines = import_module("detection").tables(rows)
    assert lines[2:] == [
        "| 2-D, ResNet-18 | 1,000 | 2 | 50.0 | 20.0 | 60.0 | 40.0 | 9 |",
        "| 2-D, WaveResNet-18, haar | 1,000 | 2 | 60.0 (+10.0 ± 0.0) | 20.0 (+0.0 ± 0.0) | 70.0 (+10.0 ± 0.0) | "
        "50.0 (+10.0 ± 0.0) | 9 |",
        "| 3-D, ResNet-18 | 1,000 | 1 | 30.0 | 20.0 | 40.0 | 20.0 | 9 |",
        "| 3-D, WaveResNet-18, haar | 1,000 | 1 | 20.0 (-10.0) | 30.0 (+10.0) | 30.0 (-10.0) | 10.0 (-10.0) | 9 |",
    ]


def test_a_run_on_boxes_leaves_a_row_and_is_not_repeated(tmp_path, monkeypatch):
    pytest.importorskip("ignite", reason="training needs the extra train")
    import argparse

    program = import_module("detection")
    monkeypatch.setitem(program.SCENES, 2, {"shape": (32, 32), "side_voxels": (8, 16)})
    monkeypatch.setitem(program.SCENES[2], "noise", 0.1)
    arguments = argparse.Namespace(
        work=tmp_path / "work", axes=[2], wavelets=["haar"], seeds=[0], epochs=1, share=0.06, rows=tmp_path / "r.jsonl"
    )
    program.compare(arguments)
    program.compare(arguments)  # nothing is left to do
    (row,) = program.read_rows(arguments.rows)
    assert 0 <= row["map_50"] <= 1
    assert set(row["ap_50"]) == {"ball", "ring", "rod"}
