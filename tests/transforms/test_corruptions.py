"""Corruptions: seeded, in range, worse at each severity; chains keep images and labels together."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError
from medwave.transforms.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupt
from medwave.transforms.images import MEAN, UNKNOWN_LABEL, ImageChain, RandomScaled, centre_resized, normaliser


def scene(size=64, channels=3):
    """Smooth shades, an edge and a texture."""
    rows, columns = np.mgrid[:size, :size] / size
    layers = [0.5 + 0.3 * np.sin(4 * rows + c) * np.cos(5 * columns) + 0.15 * (rows > columns) for c in range(channels)]
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(size, size, 1)), (3, 3, 0))
    texture = 0.1 * noise / noise.std()
    return np.rint(255 * np.clip(np.stack(layers, 2) + texture, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_seeded_keeps_the_shape_and_grows_with_its_severity(kind):
    image = scene()
    change = []
    for severity in SEVERITIES:
        made = [corrupt(image, kind, severity, seed=seed) for seed in range(4)]
        assert made[0].dtype == np.uint8
        assert made[0].shape == image.shape
        np.testing.assert_array_equal(made[0], corrupt(image, kind, severity, seed=0))
        change.append(np.mean([np.abs(m.astype(float) - image).mean() for m in made]))
    assert change[0] > 0.2
    assert all(np.diff(change) > 0)


def test_groups_hold_all_fifteen_kinds_once():
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 15
    assert list(map(len, GROUPS.values())) == [3, 4, 4, 4]


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(8, 9), (33, 20, 1), (16, 16, 4)])
def test_grey_images_and_other_channels_are_taken(kind, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    assert corrupt(image, kind, 5).shape == shape


def test_noise_has_the_strength_that_it_says():
    flat = np.full((200, 200), 128, np.uint8)
    noise = corrupt(flat, "gaussian_noise", 1).astype(float) - 128
    assert noise.std() / 255 == pytest.approx(0.04, rel=0.03)
    hit = corrupt(flat, "impulse_noise", 3) != 128
    assert hit.mean() == pytest.approx(0.06, rel=0.1)
    faint = corrupt(scene(), "contrast", 3).astype(float)
    assert faint.std() / scene().std() == pytest.approx(0.36, rel=0.05)


def test_blurs_keep_a_constant_and_the_mean():
    flat = np.full((40, 40, 3), 77, np.uint8)
    for kind in (*GROUPS["blur"], "elastic", "pixelate"):
        np.testing.assert_array_equal(corrupt(flat, kind, 5), flat)


@pytest.mark.parametrize(
    ("image", "kind", "severity", "error"),
    [
        (np.zeros((16, 16), np.uint8), "rain", 1, InputError),
        (np.zeros((16, 16), np.uint8), "fog", 6, InputError),
        (np.zeros((16, 16)), "fog", 1, GeometryError),
        (np.zeros((4, 16), np.uint8), "fog", 1, GeometryError),
    ],
)
def test_what_cannot_be_corrupted_is_refused(image, kind, severity, error):
    with pytest.raises(error):
        corrupt(image, kind, severity)


def test_labels_go_with_their_pixels():
    """An image whose grey value is its label: after any crop, scale and flip, the two agree."""
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 5, (6, 8)), np.ones((8, 8))).astype(np.uint8)
    image = np.repeat((40 * label + 20)[..., None], 3, axis=2)
    mean, deviation = normaliser(3)
    for kind, size in (("crop", None), ("crop", (32, 32)), ("scale_crop", (40, 40))):
        chain = ImageChain(kind, size)
        agree = []
        for seed in range(6):
            item = chain(image, label, seed=seed)
            grey = ((item["image"] * deviation + mean)[0] * 255 - 20) / 40
            known = item["label"] != UNKNOWN_LABEL
            assert item["label"].shape == grey.shape == torch.Size(size or label.shape)
            assert (grey[~known] < -0.4).all()  # what is padded is black and unknown
            agree.append((grey[known].round() == item["label"][known]).float().mean())
        assert min(agree) > (0.999 if kind == "crop" else 0.8)  # scaled images blend at borders


def test_scaled_labels_lie_on_their_image():
    """Each pixel and its label hold the number of the row: no scale moves the one against the other."""
    rows = torch.arange(60.0)[:, None].expand(60, 50)[None]
    scaled = RandomScaled()
    for seed in range(5):
        scaled.set_random_state(seed)
        item = scaled({"image": rows, "label": rows})
        assert item["image"].shape != rows.shape
        assert abs(float((item["label"] - item["image"]).mean())) < 0.1


def test_chains_are_seeded_and_leave_images_alone_when_told():
    chain = ImageChain("resized_crop", (24, 24))
    first, again, other = (chain(scene(), 3, seed=s)["image"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3, 24, 24)
    plain = ImageChain("none")(scene(), 3)
    mean, deviation = normaliser(3)
    restored = ((plain["image"] * deviation + mean) * 255).round().byte().numpy()
    np.testing.assert_array_equal(np.moveaxis(restored, 0, -1), scene())
    assert plain["label"] == 3
    assert normaliser(1)[0].item() == pytest.approx(np.mean(MEAN))


def test_evaluation_crops_the_centre_and_leaves_images_of_that_size():
    image = scene(64)
    assert centre_resized(image, 64) is image
    assert centre_resized(image, 32).shape == (32, 32, 3)
    wide = np.concatenate([image, image], axis=1)
    assert centre_resized(wide, 56).shape == (56, 56, 3)


def test_a_chain_that_lacks_its_size_is_refused():
    with pytest.raises(InputError, match="augment is one of"):
        ImageChain("flip")
    with pytest.raises(InputError, match="needs the size"):
        ImageChain("resized_crop")
