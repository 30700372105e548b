"""Training cubes: each item follows from its seed and index, labels fit images, mixtures keep their shares."""

import numpy as np
import pytest
import torch

from medwave.core.errors import InputError
from medwave.data import AxonCubes, Mixture, SyntheticNeurons
from medwave.data.neurons import IGNORE

SIZE = (16, 32, 32)


def axon_cubes(length=20, seed=0):
    rng = np.random.default_rng(0)
    image = rng.integers(100, 200, (20, 40, 40)).astype(np.uint16)
    label = np.full(image.shape, IGNORE)
    label[10] = 0
    label[10, 20] = 1
    image[10, 20] = 3000
    return AxonCubes([(image, label)], length, SIZE, seed=seed)


@pytest.mark.parametrize(
    "make", [lambda seed: SyntheticNeurons(20, SIZE, seed=seed), lambda seed: axon_cubes(20, seed)]
)
def test_an_item_follows_from_seed_and_index(make):
    first, again, other = make(1), make(1), make(2)
    for index in (0, 7, 19):
        for name in ("image", "label", "skeleton"):
            assert torch.equal(first[index][name], again[index][name])
    assert not torch.equal(first[3]["image"], other[3]["image"])
    assert not torch.equal(first[3]["image"], first[4]["image"])
    with pytest.raises(IndexError):
        first[20]


def test_synthetic_items_have_fibres_brighter_than_background():
    items = [SyntheticNeurons(12, SIZE, seed=5)[i] for i in range(12)]
    for item in items:
        assert item["image"].shape == item["label"].shape == item["skeleton"].shape == (1, *SIZE)
        assert set(item["label"].unique().tolist()) <= {0, 1}
        assert (item["skeleton"].bool() & (item["label"] != 1)).sum() == 0
    contrast = [float(i["image"][i["label"] == 1].mean() - i["image"][i["label"] == 0].mean())
                for i in items if (i["label"] == 1).sum() > 20]  # fmt: skip
    assert len(contrast) >= 6
    assert np.median(contrast) > 0.3


def test_labels_turn_with_their_image():
    for index in range(20):
        item = axon_cubes()[index]
        bright = item["image"] > 2
        assert torch.equal(bright, item["label"] == 1)


def test_every_crop_of_sparse_labels_holds_a_labelled_plane():
    rng = np.random.default_rng(0)
    label = np.full((64, 40, 40), IGNORE)
    label[3] = 0
    label[3, 20] = 1
    data = AxonCubes([(rng.normal(size=label.shape), label)], 60, SIZE)
    depths = set()
    for index in range(60):
        found = (data[index]["label"][0] != IGNORE).any(dim=2).any(dim=1).nonzero()
        assert len(found) == 1
        depths.add(int(found))
    assert len(depths) >= 7  # planes 0 to 3 of the crop, and 12 to 15 where it is flipped


def test_a_mixture_takes_its_parts_in_turn_and_no_item_twice():
    synthetic, real = SyntheticNeurons(9, SIZE, seed=1), axon_cubes(9)
    mixture = Mixture([(synthetic, 2), (real, 1)])
    assert len(mixture) == 27
    assert torch.equal(mixture[2]["image"], real[0]["image"])
    assert torch.equal(mixture[5]["image"], real[1]["image"])
    assert torch.equal(mixture[3]["image"], synthetic[1]["image"])


def test_cubes_smaller_than_a_crop_are_refused():
    with pytest.raises(InputError, match="none smaller"):
        AxonCubes([(np.zeros((8, 40, 40)), np.zeros((8, 40, 40), int))], 5, SIZE)
    with pytest.raises(InputError, match="at least one cube"):
        AxonCubes([], 5, SIZE)
    with pytest.raises(InputError, match="needs a label"):
        AxonCubes([(np.zeros((20, 40, 40)), np.full((20, 40, 40), IGNORE))], 5, SIZE)
