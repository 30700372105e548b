"""``medwave train classify|segment|detect`` and the evaluations: a run, and what is said about bad data."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from medwave.data import synthetic_boxes
from medwave.models import list_models
from medwave.workflows.image_options import TrainClassifierOptions, TrainSegmenterOptions

pytest.importorskip("ignite", reason="training needs the extra train")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = (100 * labels[:, None, None, None] + rng.integers(0, 60, (40, 16, 16, 3))).astype(np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return path


TRAIN = ("--width", "0.0625", "--small-images", "--epochs", "1", "--batch", "8", "--average", "0.5")


def test_a_classifier_is_trained(medwave, data, tmp_path):
    done = medwave("train", "classify", data, *TRAIN, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "epoch 1/1, loss" in done.err
    assert "best: accuracy" in done.out
    weights = tmp_path / "run" / "best.safetensors"
    quick = ("--no-corruptions", "--attacks", "4", "--attack-steps", "2", "--shifts", "1")
    done = medwave("evaluate-classifier", data, "--weights", weights, *quick, "-o", tmp_path / "page")
    assert done.code == 0, done.err
    assert "accuracy" in done.out
    assert (tmp_path / "page" / "report.html").exists()
    piped = medwave("evaluate-classifier", data, "--weights", weights, *quick, "-o", tmp_path / "page", "--json", "-")
    measured = json.loads(piped.out)
    assert measured == json.loads((tmp_path / "page" / "run.json").read_text())["result"]
    assert f"accuracy {measured['accuracy']:.4f} of {measured['images']} images" in done.out
    done = medwave("evaluate-segmenter", tmp_path, "--weights", weights, "-o", tmp_path / "other")
    assert done.code == 2
    assert "none of the known layouts" in done.err


def test_a_detector_is_trained(medwave, tmp_path):
    synthetic_boxes(tmp_path / "boxes.npz", (32, 32), {"train": 4, "val": 2, "test": 2}, seed=0, side_voxels=(8, 16))
    small = ("--width", "0.125", "--channels", "16", "--finest", "4", "--epochs", "1", "--batch", "2")
    done = medwave("train", "detect", tmp_path / "boxes.npz", *small, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "epoch 1/1, loss" in done.err
    assert "best: mAP@.5" in done.out
    weights = tmp_path / "run" / "best.safetensors"
    words = ("evaluate-detector", tmp_path / "boxes.npz", "--weights", weights, "-o", tmp_path / "page")
    done = medwave(*words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"report: {tmp_path / 'page' / 'report.html'}"
    measured = json.loads(medwave(*words, "--json", "-").out)
    assert measured == json.loads((tmp_path / "page" / "run.json").read_text())["result"]
    assert f"mAP@.5 {measured['map_50']:.4f}, mAP@.5:.95 {measured['map_50_95']:.4f} of 2 images" in done.out
    done = medwave("evaluate-detector", tmp_path / "boxes.npz", "--weights", weights, "--shown", "-1", "-o", "other")
    assert (done.code, "shown: at least 0, got" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "classify", "no.npz"), "no.npz: no such file"),
        (("train", "segment", "no"), "no: no such folder"),
        (("train", "classify", "no.npz", "--network", "resnet19"), "no.npz"),
        (("train", "classify", "no.npz", "--augment", "resized_crop"), "give --size"),
        (("train", "segment", "no", "--epochs", "0"), "epochs: at least 1"),
        (("train", "detect", "no.npz"), "no.npz: no such file"),
        (("train", "detect", "no.npz", "--batch", "0"), "batch: at least 1"),
        (("train", "detect", "no.npz", "--seed", "-1"), "seed: at least 0"),
        (("train", "classify", "no.npz", "--device", "foo"), "device 'foo' is not usable here"),
        (("train", "segment", "no", "--device", "cuda:99"), "device 'cuda:99' is not usable here"),
        (("train", "detect", "no.npz", "--device", "foo"), "device 'foo' is not usable here"),
        (("evaluate-classifier", "no.npz", "--weights", "no", "--device", "foo"), "device 'foo' is not usable here"),
        (("evaluate-segmenter", "no", "--weights", "no", "--device", "foo"), "device 'foo' is not usable here"),
        (("evaluate-detector", "no.npz", "--weights", "no", "--device", "foo"), "device 'foo' is not usable here"),
    ],
)
def test_a_bad_request_is_one_line(medwave, tmp_path, words, message):
    done = medwave(*words, "-o", tmp_path / "run")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["classify", "segment"])
def test_the_recipes_are_configurations_of_networks_that_are_known(kind):
    configs = (Path(__file__).parents[2] / f"pipelines/{kind}_images/configs").glob("*.yaml")
    recipes = [path for path in configs if "\nrun:" not in path.read_text()]  # those are of the MONAI bundle
    assert len(recipes) >= 2
    made = {"classify": TrainClassifierOptions, "segment": TrainSegmenterOptions}[kind]
    for recipe in recipes:
        options = made(**yaml.safe_load(recipe.read_text()))
        assert options.network in list_models(kind)
        assert f"medwave train {kind}" in recipe.read_text()
