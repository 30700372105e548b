"""Images made up from label maps: seeded, on the scale of real ones, dark where there is nothing."""

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.transforms import image_of_labels, random_contrast, strip_skull
from medwave.transforms.label_images import CSF, STRUCTURES


@pytest.fixture
def head():
    """A head of nested boxes: skin 507, fluid, grey and white matter of both sides, ventricles."""
    labels = np.zeros((40, 44, 36), dtype=np.int16)
    for margin, left, right in ((3, 507, 507), (6, CSF, CSF), (9, 3, 42), (12, 2, 41), (16, 4, 43)):
        inner = labels[margin:-margin, margin:-margin, margin:-margin]
        inner[: inner.shape[0] // 2] = left
        inner[inner.shape[0] // 2 :] = right
    return labels


def test_an_image_follows_from_its_seed(head):
    contrast = random_contrast(seed=3)
    first, again, other = (image_of_labels(head, contrast, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(contrast, random_contrast(seed=3))
    assert not np.array_equal(contrast, random_contrast(seed=4))


@pytest.mark.parametrize("seed", range(5))
def test_an_image_lies_between_0_and_1_and_is_dark_outside(head, seed):
    image = image_of_labels(head, random_contrast(seed=seed), seed=seed)
    assert image.shape == head.shape
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() == 1
    assert (image[head == 0] == 0).all()
    assert image[head > 0].std() > 0.01


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
    image = image_of_labels(brain, contrast, seed=11)
    assert image[brain == 2].mean() > image[brain == 3].mean() + 0.1


def test_stripping_leaves_the_brain(head):
    kept, bare = strip_skull(head, fluid=True), strip_skull(head, fluid=False)
    assert set(np.unique(kept)) == {0, CSF, 2, 3, 4, 41, 42, 43}
    assert set(np.unique(bare)) == {0, 2, 3, 4, 41, 42, 43}
    assert (kept[head < 100] == head[head < 100]).all()
    assert CSF not in STRUCTURES


@pytest.mark.parametrize("value", [-1, 1024])
def test_labels_without_a_contrast_are_refused(head, value):
    head[20, 20, 20] = value
    with pytest.raises(InputError, match="between 0 and 1023"):
        image_of_labels(head, random_contrast(seed=0), seed=0)


def test_an_empty_map_is_refused():
    with pytest.raises(InputError, match="holds a label"):
        image_of_labels(np.zeros((4, 4, 4), dtype=np.int16), random_contrast(seed=0), seed=0)
