"""RetinaNets on wavelet pyramids: levels of the strides that are said, a short training on boxes."""

import pytest
import torch

from medwave.core.errors import InputError
from medwave.models import BoxDetector, WaveRetinaNet, build, build_retinanet, open_network, save_weights
from medwave.models.images.detection import PyramidExtractor

SMALL = {"width": 0.125, "channels": 16}


@pytest.mark.parametrize("name", ["resnet18", "wave_resnet18", "wave_densenet121", "wave_vgg11_bn"])
def test_levels_have_the_strides_that_are_said(name):
    extractor = PyramidExtractor(build(name, features_only=True, width=0.125), 8, 16).eval()
    assert extractor.strides == (8, 16, 32, 64)
    with torch.inference_mode():
        levels = list(extractor(torch.zeros(1, 3, 128, 64)).values())
    assert [tuple(level.shape) for level in levels] == [(1, 16, 128 // s, 64 // s) for s in extractor.strides]


@pytest.mark.parametrize("name", ["resnet18", "wave_resnet18"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_network_answers_at_every_level_in_the_plane_and_in_space(name, ndim):
    network = build_retinanet(name, 3, 2, ndim=ndim, in_channels=1, **SMALL).eval()
    with torch.inference_mode():
        found = network(torch.zeros(1, 1, *(64,) * ndim))
    sides = [8, 4, 2, 1]
    assert [tuple(m.shape[1:]) for m in found["classification"]] == [(6, *(s,) * ndim) for s in sides]
    assert [tuple(m.shape[1:]) for m in found["box_regression"]] == [(4 * ndim, *(s,) * ndim) for s in sides]


def boxes(seed, ndim=2, size=64):
    """A noisy image with one bright box, and its corners."""
    generator = torch.Generator().manual_seed(seed)
    side = 14 + int(torch.randint(0, 6, (1,), generator=generator))
    start = torch.randint(0, size - side, (ndim,), generator=generator)
    image = 0.2 * torch.randn(1, *(size,) * ndim, generator=generator)
    image[(slice(None), *(slice(int(s), int(s) + side) for s in start))] += 1
    return image, {"boxes": torch.cat([start, start + side])[None].float()}


def batch(first, count):
    images, targets = zip(*(boxes(first + i) for i in range(count)), strict=True)
    return torch.stack(images), torch.cat([t["boxes"] for t in targets])


def cells_in(box, side, stride):
    """Which cells of a level ``(side, side)`` have their centre in a box."""
    centres = (torch.arange(side) + 0.5) * stride
    inside = [(centres >= box[axis]) & (centres < box[2 + axis]) for axis in range(2)]
    return (inside[0][:, None] & inside[1][None]).float()


@pytest.mark.parametrize("name", ["resnet18", "wave_resnet18"])
def test_after_a_short_training_the_surest_cell_of_new_images_lies_in_the_box(name):
    torch.manual_seed(0)
    network = build_retinanet(name, 1, 1, in_channels=1, finest=8, **SMALL)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(30):
        images, truth = batch(8 * step, 8)
        logits = network(images)["classification"][0]
        wanted = torch.stack([cells_in(box, logits.shape[-1], 8) for box in truth])[:, None]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    images, truth = batch(5000, 16)
    with torch.inference_mode():
        surest = network(images)["classification"][0].flatten(1).argmax(1)
    hits = [cells_in(box, 8, 8).flatten()[cell].item() for box, cell in zip(truth, surest, strict=True)]
    assert sum(hits) >= 13


def test_what_is_no_backbone_is_refused():
    with pytest.raises(InputError, match="features_only"):
        PyramidExtractor(build("resnet18", width=0.125))
    with pytest.raises(InputError, match="strides 2, 4, 8, 16, 32, not 3"):
        build_retinanet("resnet18", 1, 1, finest=3, width=0.125)
    with pytest.raises(InputError):
        build_retinanet("wave_unet", 1, 1)


def test_weights_build_the_network_again(tmp_path):
    network = build_retinanet("wave_resnet18", 2, 2, finest=4, ndim=3, in_channels=1, anchor_strides=2.0, **SMALL)
    save_weights(network, tmp_path / "net.safetensors")
    again = open_network(tmp_path / "net.safetensors", WaveRetinaNet)
    assert again.options == network.options
    assert again.anchor_sides[0] == (8.0, 8.0 * 2**0.5)
    assert [sides[0] for sides in again.anchor_sides] == [8.0, 16.0, 32.0, 64.0, 128.0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_detector_matches_the_anchors_over_a_box_and_has_two_losses(ndim):
    torch.manual_seed(0)
    detector = BoxDetector(build_retinanet("wave_resnet18", 2, 1, finest=4, ndim=ndim, in_channels=1, **SMALL)).train()
    image, target = boxes(3, ndim, 32)
    box = target["boxes"][0]
    nothing = {"boxes": torch.zeros(0, 2 * ndim), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = detector(torch.stack([image, image]), [target | {"labels": torch.tensor([1])}, nothing])
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())
    counts = [s**ndim for s in (8, 4, 2, 1, 1)]
    first, second = detector.compute_anchor_matched_idxs(detector.anchors, [target, nothing], counts)
    assert set(second.tolist()) == {-1}
    matched = detector.anchors[0][first == 0]
    assert 0 < len(matched) < 4 * 5
    centres = (matched[:, :ndim] + matched[:, ndim:]) / 2
    assert ((centres >= box[:ndim] - 8) & (centres <= box[ndim:] + 8)).all()


def test_a_detector_finds_the_box_that_its_network_points_at():
    """Maps made by hand: one anchor is sure, and its corners are the box that the coder would ask for."""
    network = build_retinanet("resnet18", 2, 1, finest=4, in_channels=1, anchor_strides=4.0, **SMALL)
    detector = BoxDetector(network).eval()
    sides = (8, 4, 2, 1, 1)

    def maps(image):
        logits = [torch.full((1, 2, s, s), -9.0) for s in sides]
        logits[0][0, 1, 3, 5] = 4.0
        return {"classification": logits, "box_regression": [torch.zeros(1, 4, s, s) for s in sides]}

    network.forward = maps
    (found,) = detector(torch.zeros(1, 1, 32, 32))
    assert found["labels"].tolist() == [1]
    assert found["boxes"].tolist() == [[6.0, 14.0, 22.0, 30.0]]  # 16 samples about the centre of the place


def test_anchors_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="anchor_strides is above 0"):
        build_retinanet("resnet18", 1, 1, anchor_strides=0.0, width=0.125)
    with pytest.raises(InputError, match="channels: a multiple of 8 from 16 on, got 20"):
        build_retinanet("resnet18", 1, 1, channels=20, width=0.125)
