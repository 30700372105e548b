"""Training of detectors as a job: it learns in 2-D, a volume trains, a stop changes nothing."""

import json

import numpy as np
import pytest
import torch

from medwave.core.errors import InputError
from medwave.data import read_boxed, synthetic_boxes
from medwave.models import WaveRetinaNet, open_network
from medwave.workflows.classifier_measures import spread
from medwave.workflows.detect import train_detector
from medwave.workflows.evaluate_detector import evaluate_detector
from medwave.workflows.train_options import TrainDetectorOptions

pytest.importorskip("ignite", reason="training needs the extra train")

SMALL = TrainDetectorOptions(
    width=0.125, channels=16, finest=4, anchor_strides=2.5, epochs=1, batch=8, learning_rate=1e-2, average=0.8
)
EASY = {"objects": 1, "side_voxels": (12, 18), "contrast": (0.5, 0.5), "noise": 0.03}


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "plane.npz"
    synthetic_boxes(path, (32, 32), {"train": 64, "val": 12, "test": 24}, seed=0, **EASY)
    return path


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "space.npz"
    synthetic_boxes(path, (16, 24, 16), {"train": 8, "val": 2}, seed=0, **EASY | {"side_voxels": (6, 12)})
    return path


def test_a_detector_learns_to_find_objects(tmp_path, plane):
    result = train_detector(plane, tmp_path / "run", options=SMALL, finest=8, anchor_strides=2, epochs=6)
    measured = evaluate_detector(plane, result.weights, tmp_path / "found")
    assert measured["map_50"] > 0.4
    assert max(result.history) > result.history[0]
    assert json.loads((tmp_path / "found" / "run.json").read_text())["result"] == measured
    found = json.loads((tmp_path / "found" / "boxes.json").read_text())
    assert found["classes"] == ["ball", "ring", "rod"]
    assert len(found["images"]) == 24
    assert measured["map_by_overlap"]["0.5"] == measured["map_50"] >= measured["map_75"]
    assert sum(measured["objects"].values()) == sum(len(labels) for labels in read_boxed(plane, "test").labels)
    page = (tmp_path / "found" / "report.html").read_text()
    for word in (
        "RetinaNet on wave_resnet18 haar",
        "Average precision",
        f"{100 * measured['map_50']:.2f}",
        "boxes.json",
    ):
        assert word in page
    assert "Corruptions" not in page
    some = evaluate_detector(
        plane, result.weights, tmp_path / "found", reference=result.weights, images=2, shown=0, corruptions=True
    )
    assert some["reference_map_50"] == some["map_50"]
    assert some["reference_map_50_corrupted"] == some["map_50_corrupted"]
    assert [len(values) for values in some["map_50_corrupted"].values()] == [5] * 15
    assert json.loads((tmp_path / "found" / "boxes.json").read_text())["numbers"] == spread(24, 2).tolist()
    assert "(reference)" in (tmp_path / "found" / "report.html").read_text()


def test_a_run_in_volumes_that_was_stopped_goes_on_to_the_same_weights(tmp_path, space):
    options = {"epochs": 2, "batch": 4}
    whole = train_detector(space, tmp_path / "whole", options=SMALL, **options)

    def stop(epoch, loss, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_detector(space, tmp_path / "parts", options=SMALL, on_epoch=stop, **options)
    parts = train_detector(space, tmp_path / "parts", options=SMALL, **options)
    assert parts.history == whole.history
    first, second = (open_network(r.weights, WaveRetinaNet).state_dict() for r in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(InputError, match="belongs to a run with other options"):
        train_detector(space, tmp_path / "parts", options=SMALL, sampled=32, **options)


def test_what_does_not_fit_is_refused(tmp_path, plane, space):
    with pytest.raises(InputError, match="channels: a multiple of 8 from 16 on, got 8"):
        train_detector(plane, tmp_path, channels=8)
    with pytest.raises(InputError, match="needs a network that classifies"):
        train_detector(plane, tmp_path, network="unet")
    with pytest.raises(InputError, match="this backbone has the strides"):
        train_detector(plane, tmp_path, options=SMALL, finest=3)
    arrays = dict(np.load(plane))
    arrays |= {f"val_{name}": arrays[f"val_{name}"][:0] for name in ("boxes", "labels", "owner")}
    np.savez(tmp_path / "none.npz", **arrays)
    with pytest.raises(InputError, match="need a box at least"):
        train_detector(tmp_path / "none.npz", tmp_path)
    weights = train_detector(space, tmp_path / "run", options=SMALL).weights
    with pytest.raises(InputError, match="takes images of 3 axes and 1 channels, these have 2"):
        evaluate_detector(plane, weights, tmp_path / "found")
    with pytest.raises(InputError, match="these are volumes; leave --corruptions out"):
        evaluate_detector(space, weights, tmp_path / "found", split="val", corruptions=True)
    assert not (tmp_path / "found").exists()
    volumes = evaluate_detector(space, weights, tmp_path / "found", split="val")
    assert volumes["images"] == 2
