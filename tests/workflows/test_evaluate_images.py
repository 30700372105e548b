"""Evaluations on photographs: figures of networks whose answers are known, pages, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from medwave.core.errors import GeometryError, InputError
from medwave.models import build, save_weights
from medwave.transforms.corruptions import CORRUPTIONS
from medwave.workflows.evaluate_images import evaluate_classifier, evaluate_segmenter
from medwave.workflows.image_options import EvaluateClassifierOptions

TINY = {"width": 0.0625}


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """Dark images are class 0, bright ones class 1; a fifth is labelled wrongly."""
    rng = np.random.default_rng(0)
    true = np.arange(40) % 2
    images = (80 + 100 * true[:, None, None, None] + rng.integers(-20, 20, (40, 16, 16, 3))).astype(np.uint8)
    labels = np.where(np.arange(40) % 5 == 0, 1 - true, true)
    path = tmp_path_factory.mktemp("data") / "bright.npz"
    np.savez(path, test_images=images, test_labels=labels, classes=np.array(["dark", "bright"]))
    return path


def says_bright(path, flipped=False):
    """A network whose logits are the brightness and its negative."""
    network = build("resnet18", classes=2, stem="small", **TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.conv1.weight[0, :, 1, 1] = 1 / 3
        network.bn1.weight[0] = 1
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in layer:
                if block.downsample is not None:
                    block.downsample[0].weight[0, 0] = 1
                    block.downsample[1].weight[0] = 1
        network.bn1.bias[0] = 4  # stays positive through the activations
        network.fc.weight[:, 0] = torch.tensor([1.0, -1.0] if flipped else [-1.0, 1.0])
        network.fc.bias[:] = torch.tensor([4.2, -4.2] if not flipped else [-4.2, 4.2])
    return save_weights(network, path)


def test_figures_of_a_classifier_whose_answers_are_known(tmp_path, bright):
    weights, worse = says_bright(tmp_path / "a.safetensors"), says_bright(tmp_path / "b.safetensors", flipped=True)
    result = evaluate_classifier(
        bright, weights, tmp_path / "out", reference=worse, attacks=10, attack_steps=2, shifts=2, carlini_wagner=60
    )  # fmt: skip
    assert result["accuracy"] == pytest.approx(0.8)
    assert result["shift_consistency"] == 1
    assert list(result["errors"]) == list(CORRUPTIONS)
    assert result["errors"]["gaussian_noise"][0] == pytest.approx(0.2)
    assert result["reference_errors"]["gaussian_noise"][0] == pytest.approx(0.8)
    assert result["errors"]["brightness"][4] == pytest.approx(0.5, abs=0.11)  # all is bright now
    assert result["mce"] < 100
    assert [a["epsilon"] for a in result["attacks"]] == [1, 2, 4, 8] * 3
    assert result["least_change"] == pytest.approx(50 / 255 * 12**0.5, rel=0.15)  # it looks at 4 pixels of 3 samples
    assert result["carlini_wagner"] == pytest.approx(50 / 255 * 12**0.5, rel=0.15)
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert written["result"]["accuracy"] == pytest.approx(0.8)
    page = (tmp_path / "out" / "report.html").read_text()
    for word in (
        "Corruption error",
        "Confusion matrix",
        "Wrong with the most confidence",
        "PGD",
        "DeepFool",
        "Carlini and Wagner",
        "80.00",
    ):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_part_without_the_rest(tmp_path, bright):
    weights = says_bright(tmp_path / "a.safetensors")
    result = evaluate_classifier(
        bright, weights, tmp_path / "out", images=10, corruptions=False, attacks=0, shifts=0
    )  # fmt: skip
    assert (result["images"], result["errors"], result["mce"], result["attacks"]) == (10, {}, None, [])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Corruptions" not in page


def test_an_attack_without_images_is_refused():
    with pytest.raises(InputError, match="carlini_wagner"):
        EvaluateClassifierOptions(attacks=0, carlini_wagner=10)


def test_weights_of_another_network_are_refused(tmp_path, bright):
    three = save_weights(build("wave_resnet18", classes=3, **TINY), tmp_path / "three.safetensors")
    with pytest.raises(InputError, match="knows 3 classes, the data have 2"):
        evaluate_classifier(bright, three, tmp_path / "out")
    other = save_weights(build("wave_unet", classes=2, depth=11, **TINY), tmp_path / "unet.safetensors")
    with pytest.raises(InputError, match="that classifies is needed, this is a WUNet"):
        evaluate_classifier(bright, other, tmp_path / "out")
    grey = save_weights(build("wave_resnet18", classes=2, in_channels=1, **TINY), tmp_path / "grey.safetensors")
    with pytest.raises(ValueError, match="in_channels=3"):
        evaluate_classifier(bright, grey, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_other_channels_are_refused(tmp_path):
    images = np.zeros((2, 16, 16, 4), np.uint8)
    np.savez(tmp_path / "four.npz", test_images=images, test_labels=[0, 1])
    weights = says_bright(tmp_path / "a.safetensors")
    with pytest.raises(GeometryError, match=r"takes images \(N, 3\).*in_channels=4"):
        evaluate_classifier(tmp_path / "four.npz", weights, tmp_path / "out")


def test_images_of_several_sizes_need_one(tmp_path):
    for name, size in (("a", 20), ("b", 30)):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (size, 25)).save(tmp_path / "test" / name / "0.png")
    weights = save_weights(build("wave_resnet18", classes=2, **TINY), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"several sizes.*--size"):
        evaluate_classifier(tmp_path, weights, tmp_path / "out")
    result = evaluate_classifier(
        tmp_path, weights, tmp_path / "out", size=16, corruptions=False, attacks=0, shifts=1
    )  # fmt: skip
    assert result["images"] == 2


def test_a_segmenter_is_measured_on_whole_images(tmp_path):
    """A network that always answers class 2, on images of which two thirds are of it."""
    root = tmp_path / "camvid"
    for folder in ("test", "testannot"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(2):
        label = np.full((33, 40), 2, np.uint8)
        label[:11] = 9
        label[0] = 11
        Image.fromarray(rng.integers(0, 256, (33, 40, 3), dtype=np.uint8)).save(root / "test" / f"{i}.png")
        Image.fromarray(label).save(root / "testannot" / f"{i}.png")
    network = build("wave_segnet", classes=11, depth=11, **TINY)
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.zero_()
        network.classifier.bias[2] = 1
    weights = save_weights(network, tmp_path / "w.safetensors")
    result = evaluate_segmenter(root, weights, tmp_path / "out", reference=weights, overlays=1)
    assert result["pixel_accuracy"] == pytest.approx(22 / 32)
    assert result["iou"]["pole"] == pytest.approx(22 / 32)
    assert result["iou"]["pedestrian"] == 0
    assert np.isnan(result["iou"]["car"])
    assert result["mean_iou"] == result["reference_mean_iou"] == pytest.approx(11 / 32)
    page = (tmp_path / "out" / "report.html").read_text()
    for word in ("Thin classes: pole, sign, pedestrian, bicyclist", "Overlays", "(reference)"):
        assert word in page
    with pytest.raises(InputError, match="that segments is needed"):
        evaluate_segmenter(root, says_bright(tmp_path / "c.safetensors"), tmp_path / "out")
