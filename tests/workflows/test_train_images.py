"""Training on photographs as a job: it learns, goes on after an interruption, refuses what does not fit."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from medwave.core.errors import InputError
from medwave.data import read_classified, read_segmented
from medwave.models import ImageNetwork, open_network
from medwave.transforms.images import UNKNOWN_LABEL
from medwave.workflows.image_options import TrainClassifierOptions, TrainSegmenterOptions
from medwave.workflows.train_images import (
    _resized,
    class_weights,
    known_cross_entropy,
    train_classifier,
    train_segmenter,
)

pytest.importorskip("ignite", reason="training needs the extra train")

CLASSIFY = TrainClassifierOptions(
    width=0.0625, small_images=True, epochs=4, batch=16, learning_rate=0.1, average=0.5, seed=3
)
SEGMENT = TrainSegmenterOptions(
    network="wave_segnet", depth=11, width=0.0625, epochs=3, steps=4, batch=2, average=0.5, learning_rate=0.01
)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Stripes along one axis or the other."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    waves = 100 * np.sin(np.arange(16) * 1.5 + rng.uniform(0, 6, (120, 1)))
    images = np.where(labels[:, None, None] == 0, waves[:, :, None], waves[:, None, :]) + 128
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, train_images=images.astype(np.uint8), train_labels=labels)
    return path


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """In the layout of CamVid: a bright half is class 1, a dark one class 0, the seam unknown."""
    root = tmp_path_factory.mktemp("camvid")
    for split, count in (("train", 6), ("val", 2)):
        for part in (split, f"{split}annot"):
            (root / part).mkdir()
        for i in range(count):
            label = np.zeros((32, 40), np.uint8)
            label[:, 10 + 3 * i :] = 1
            image = np.repeat((60 + 120 * label)[..., None], 3, axis=2)
            label[:, 9 + 3 * i] = 11
            Image.fromarray(image).save(root / split / f"{i}.png")
            Image.fromarray(label).save(root / f"{split}annot" / f"{i}.png")
    return root


def test_a_classifier_learns_and_its_weights_open(tmp_path, stripes):
    result = train_classifier(stripes, tmp_path, options=CLASSIFY)
    assert result.best_score > 0.9
    network = open_network(result.weights, ImageNetwork)
    assert (network.options["wavelet"], network.common.in_channels, network.common.classes) == ("haar", 1, 2)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, stripes):
    options = {"epochs": 3, "steps": 2}
    whole = train_classifier(stripes, tmp_path / "whole", options=CLASSIFY, **options)

    def stop(epoch, loss, score):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_classifier(stripes, tmp_path / "parts", options=CLASSIFY, on_epoch=stop, **options)
    parts = train_classifier(stripes, tmp_path / "parts", options=CLASSIFY, **options)
    assert parts.history == whole.history
    first, second = (open_network(r.weights, ImageNetwork).state_dict() for r in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(InputError, match="belongs to a run with other options"):
        train_classifier(stripes, tmp_path / "parts", options=CLASSIFY, network="resnet18", **options)


def test_few_channels_and_many_images_train(tmp_path):
    """Four channels and steps of 64 images in the order channels last once broke memory inside torch."""
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", train_images=images, train_labels=np.arange(160) % 2)
    options = {"network": "resnet18", "epochs": 1, "steps": 3, "batch": 64, "holdout": 0.2}
    code = (
        "from medwave.workflows.train_images import train_classifier; "
        f"train_classifier({str(tmp_path / 'noise.npz')!r}, {str(tmp_path / 'run')!r}, width=0.0625, "
        f"small_images=True, **{options!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_resized_images_reach_processes_that_are_spawned(stripes):
    source = _resized(read_classified(stripes, "train"), 8)
    there = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(there.read(3), source.read(3))


def test_a_segmenter_learns(tmp_path, halves):
    result = train_segmenter(halves, tmp_path, options=SEGMENT, epochs=8, steps=6, balance=False)
    assert result.best_score > 0.5
    assert open_network(result.weights, ImageNetwork).common.classes == 11


def test_rare_classes_weigh_more(halves):
    weights = class_weights(read_segmented(halves, "train"))
    assert weights.shape == (11,)
    assert weights[0] > weights[1] > 0  # the dark half is the smaller one
    assert (weights[2:] == 0).all()  # nobody saw them


@pytest.mark.parametrize(
    ("train", "options", "change"),
    [(train_classifier, CLASSIFY, {"size": 32, "augment": "crop"}), (train_segmenter, SEGMENT, {"crop": 32})],
)
def test_a_folder_of_another_size_or_crop_is_refused(tmp_path, stripes, halves, train, options, change):
    data = stripes if train is train_classifier else halves
    short = {"epochs": 1, "steps": 1, "batch": 2} | change
    train(data, tmp_path, options=options, **short)
    other = {name: 64 if value == 32 else value for name, value in short.items()}
    with pytest.raises(InputError, match="belongs to a run with other options"):
        train(data, tmp_path, options=options, **other)


def test_images_of_several_sizes_are_refused_by_name_and_taken_one_by_one(tmp_path, halves):
    shutil.copytree(halves, tmp_path / "data")
    for folder in ("train", "trainannot"):
        file = tmp_path / "data" / folder / "3.png"
        Image.open(file).crop((0, 0, 32, 32)).save(file)
    message = r"3\.png: has \(32, 32\) rows and columns, the first image \(32, 40\).*--crop"
    with pytest.raises(InputError, match=message):
        train_segmenter(tmp_path / "data", tmp_path / "run", options=SEGMENT, epochs=1, steps=3)
    train_segmenter(tmp_path / "data", tmp_path / "run", options=SEGMENT, epochs=1, steps=6, batch=1)


def test_one_value_is_too_little_for_batch_normalisation(tmp_path, stripes):
    with pytest.raises(InputError, match="batch: 1 with maps of one value is too little for batch normalisation"):
        train_classifier(stripes, tmp_path, options=CLASSIFY, epochs=1, steps=1, batch=1, small_images=False)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.1, 0.2, 0.0])])
def test_the_loss_is_the_mean_over_known_pixels_and_0_where_nobody_knows(weights):
    torch.manual_seed(0)
    output = torch.randn(2, 3, 4, 5, requires_grad=True)
    label = torch.randint(0, 2, (2, 4, 5))
    label[0, :2] = UNKNOWN_LABEL
    expected = torch.nn.functional.cross_entropy(output, label, weights, ignore_index=UNKNOWN_LABEL)
    torch.testing.assert_close(known_cross_entropy(output, label, weights), expected)
    nothing = known_cross_entropy(output, torch.full_like(label, UNKNOWN_LABEL), weights)
    nothing.backward()
    assert nothing == 0
    assert (output.grad == 0).all()


def test_batches_of_unknown_pixels_do_not_end_a_training(tmp_path, halves):
    shutil.copytree(halves, tmp_path / "data")
    for file in (tmp_path / "data" / "trainannot").glob("[2-5].png"):
        Image.fromarray(np.full((32, 40), 11, np.uint8)).save(file)
    result = train_segmenter(tmp_path / "data", tmp_path / "run", options=SEGMENT, epochs=1, steps=6, batch=1)
    assert all(x.isfinite().all() for x in open_network(result.weights, ImageNetwork).state_dict().values())


@pytest.mark.parametrize(
    ("train", "options", "changes", "message"),
    [
        (train_classifier, CLASSIFY, {"network": "wave_unet"}, "segments images; train it as such"),
        (train_segmenter, SEGMENT, {"network": "resnet18"}, "classifies images"),
        (train_classifier, CLASSIFY, {"network": "resnet"}, "no network is called"),
        (train_classifier, CLASSIFY, {"network": "wave_alexnet"}, "stem"),
        (train_classifier, CLASSIFY, {"augment": "resized_crop"}, "needs the size"),
        (train_classifier, CLASSIFY, {"holdout": 0.001}, "too few to hold out"),
        (train_classifier, CLASSIFY, {"schedule": "stairs"}, "schedule"),
        (train_segmenter, SEGMENT, {"batch": 0}, "batch: at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, stripes, halves, train, options, changes, message):
    data = stripes if train is train_classifier else halves
    with pytest.raises(InputError, match=message):
        train(data, tmp_path / "run", options=options, **changes)
