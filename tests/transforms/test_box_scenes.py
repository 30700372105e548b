"""Synthetic scenes: boxes are exact, objects apart, and a seed says everything."""

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.transforms.box_scenes import KINDS, box_scene


@pytest.mark.parametrize("shape", [(64, 48), (32, 36, 40)])
def test_boxes_hold_their_objects_tightly_and_objects_are_apart(shape):
    ndim, seen = len(shape), set()
    for seed in range(12):
        how = {"seed": seed, "noise": 0.0, "side_voxels": (8, 16)}
        scene, without = (box_scene(shape, contrast=(c, c), **how) for c in (0.3, 0.0))
        drawn = scene.image.astype(int) - without.image > 30
        left = drawn.copy()
        for box, label in zip(scene.boxes.astype(int), scene.labels, strict=True):
            inside = tuple(slice(a, b) for a, b in zip(box[:ndim], box[ndim:], strict=True))
            for axis in range(ndim):  # the first and last plane of the box meet the object
                planes = drawn[inside].any(axis=tuple(b for b in range(ndim) if b != axis))
                assert planes[[0, -1]].all()
            assert left[inside].any()
            left[inside] = False
            sides = box[ndim:] - box[:ndim]
            assert 3 <= sides.max() <= 18
            seen.add(KINDS[label])
        assert not left.any()
        assert 1 <= len(scene.labels) <= 4
    assert seen == set(KINDS)


def test_a_seed_gives_one_scene_and_noise_changes_nothing_else():
    first, again = (box_scene((48, 48), seed=5) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    noisy = box_scene((48, 48), seed=5, noise=0.4)
    assert np.array_equal(noisy.boxes, first.boxes)
    assert np.std(noisy.image.astype(float)) > np.std(first.image.astype(float))


def test_what_is_no_scene_is_refused():
    with pytest.raises(InputError, match="two or three axes"):
        box_scene((64,), seed=0)
    with pytest.raises(InputError, match="side_voxels: from 3 to below"):
        box_scene((16, 16), seed=0)
