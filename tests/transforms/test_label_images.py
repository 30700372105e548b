"""Images made up from label maps: seeded, on the scale of real ones, dark where there is nothing."""

import numpy as np
import pytest
import torch

from medwave.core.errors import InputError
from medwave.transforms import images_of_labels, random_contrast, strip_skull
from medwave.transforms.label_images import CSF, STRUCTURES, scaled_to_foreground


@pytest.fixture
def head():
    """A head of nested boxes: skin 507, fluid, grey and white matter of both sides, ventricles."""
    labels = np.zeros((40, 44, 36), dtype=np.int16)
    for margin, left, right in ((3, 507, 507), (6, CSF, CSF), (9, 3, 42), (12, 2, 41), (16, 4, 43)):
        inner = labels[margin:-margin, margin:-margin, margin:-margin]
        inner[: inner.shape[0] // 2] = left
        inner[inner.shape[0] // 2 :] = right
    return labels


def draw(maps, contrasts, seed):
    """Images of label maps, each in its contrast, all from one seed."""
    labels, means = torch.from_numpy(np.stack(maps)), np.stack(contrasts)
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    return images_of_labels(labels, means, rng=rng, generator=generator, spacing_mm=1.0).numpy()


def test_images_follow_from_their_seed(head):
    contrast = random_contrast(seed=3)
    first, again, other = (draw([head], [contrast], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(contrast, random_contrast(seed=3))
    assert not np.array_equal(contrast, random_contrast(seed=4))


def test_images_lie_between_0_and_1_and_are_dark_outside(head):
    images = draw([head] * 5, [random_contrast(seed=seed) for seed in range(5)], seed=0)
    assert images.shape == (5, *head.shape)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert (images.max(axis=(1, 2, 3)) == 1).all()
    assert (images[:, head == 0] == 0).all()
    assert (images[:, head > 0].std(axis=1) > 0.01).all()


def test_the_images_of_a_batch_do_not_mix(head):
    """Where an image is empty nothing comes from its neighbour, and each has strengths of its own."""
    contrast = random_contrast(seed=3)
    images = draw([head, np.zeros_like(head), head], [contrast] * 3, seed=1)
    assert (images[1] == 0).all()
    assert np.abs(images[0] - images[2]).max() > 0.1


def test_scaling_follows_the_percentiles_of_the_foreground():
    image = np.zeros(10_000, dtype=np.float32)
    image[:4000] = np.random.default_rng(0).uniform(50, 150, 4000)
    scaled = scaled_to_foreground(torch.from_numpy(np.stack([image, 3 * image]).reshape(2, 10, 10, 100))).numpy()
    assert np.allclose(scaled[0], scaled[1], atol=1e-6)
    high = np.percentile(image[::5][image[::5] > 15.1], 99.5)
    assert np.allclose(scaled[0].ravel(), np.clip(image / high, 0, 1), atol=1e-4)


def test_left_and_right_look_alike_and_contrasts_differ():
    tables = np.stack([random_contrast(seed=s) for s in range(200)])
    assert (tables[:, 0] == 0).all()
    assert tables.min() >= 0
    assert tables.max() <= 1
    for left, right in ((2, 41), (3, 42), (17, 53), (28, 60)):
        assert np.array_equal(tables[:, left], tables[:, right])
    brighter = tables[:, 2] > tables[:, 3]  # white than grey matter: often, as in T1, and often not
    assert 0.4 < brighter.mean() < 0.9


def test_means_of_tissues_show_in_the_image(head):
    contrast = np.zeros(1024, dtype=np.float32)
    contrast[[2, 41]], contrast[[3, 42]] = 1.0, 0.5
    brain = np.where(np.isin(head, (2, 3, 41, 42)), head, 0)
    image = draw([brain], [contrast], seed=11)[0]
    assert image[brain == 2].mean() > image[brain == 3].mean() + 0.1


def test_stripping_leaves_the_brain(head):
    kept, bare = strip_skull(torch.from_numpy(np.stack([head] * 2)), fluid=torch.tensor([True, False])).numpy()
    assert set(np.unique(kept)) == {0, CSF, 2, 3, 4, 41, 42, 43}
    assert set(np.unique(bare)) == {0, 2, 3, 4, 41, 42, 43}
    assert (kept[head < 100] == head[head < 100]).all()
    assert CSF not in STRUCTURES


@pytest.mark.parametrize("value", [-1, 1024])
def test_labels_without_a_contrast_are_refused(head, value):
    head[20, 20, 20] = value
    with pytest.raises(InputError, match="between 0 and 1023"):
        draw([head], [random_contrast(seed=0)], seed=0)
