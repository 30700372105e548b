"""Images with boxes: files give back what was written, flips carry boxes along, and bad boxes are named."""

import numpy as np
import pytest
import torch

from medwave.core.errors import InputError, MissingFileError
from medwave.data import BoxItems, read_boxed, synthetic_boxes
from medwave.data.boxes import write_boxed
from medwave.transforms.box_scenes import box_scene


@pytest.mark.parametrize("shape", [(32, 40), (24, 26, 28)])
def test_a_file_gives_back_the_scenes_and_a_seed_says_them(tmp_path, shape):
    synthetic_boxes(tmp_path / "a.npz", shape, {"train": 3, "test": 2}, seed=1, side_voxels=(6, 12))
    scene = box_scene(shape, seed=np.random.default_rng((1, 0, 2)), side_voxels=(6, 12))
    read = read_boxed(tmp_path / "a.npz", "train")
    assert (len(read), read.ndim, read.classes) == (3, len(shape), ("ball", "ring", "rod"))
    assert np.array_equal(read.images[2, ..., 0], scene.image)
    assert np.array_equal(read.boxes[2], scene.boxes)
    assert np.array_equal(read.labels[2], scene.labels)
    assert read.tensor(0).shape == (1, *shape)
    with pytest.raises(MissingFileError, match="holds no val_images"):
        read_boxed(tmp_path / "a.npz", "val")


@pytest.mark.parametrize("ndim", [2, 3])
def test_flipped_items_hold_the_object_in_their_box(tmp_path, ndim):
    image = np.zeros((20, 24, 28)[:ndim], np.uint8)
    image[(slice(2, 5), slice(7, 13), slice(20, 27))[:ndim]] = 255
    near, far = [2, 7, 20][:ndim], [5, 13, 27][:ndim]
    scene = box_scene((20, 24, 28)[:ndim], seed=0, side_voxels=(6, 8))._replace(
        image=image, boxes=np.array([near + far], np.float32), labels=np.array([2])
    )
    empty = scene._replace(boxes=np.zeros((0, 2 * ndim), np.float32), labels=np.zeros(0, np.int64))
    write_boxed(tmp_path / "one.npz", {"train": [scene, empty]})
    items = BoxItems(read_boxed(tmp_path / "one.npz", "train"), 40, seed=3)
    places = set()
    for item in items:
        if item["labels"].tolist() == [-1]:
            continue
        box = item["boxes"][0].int()
        inside = tuple(slice(int(a), int(b)) for a, b in zip(box[:ndim], box[ndim:], strict=True))
        bright = item["image"][0] > 0
        assert bright[inside].all()
        assert bright.sum() == bright[inside].numel()
        places.add(tuple(box.tolist()))
    assert len(places) == 2**ndim
    assert torch.equal(items[7]["image"], items[7]["image"])
    with pytest.raises(IndexError):
        items[40]


CASES = {
    "far corner": ({"train_boxes": [[1, 1, 9, 5]]}, "box 0 is .* the far one beyond the first"),
    "empty": ({"train_boxes": [[4, 4, 4, 6]]}, "the far one beyond the first"),
    "class": ({"train_labels": [1]}, "has a class from 0 to 0"),
    "owner": ({"train_owner": [3]}, "belongs to an image from 0 to 1"),
    "owners": ({"train_owner": [0, 1]}, "train_owner are one whole number"),
    "floats": ({"train_images": np.zeros((2, 8, 8))}, "uint8"),
    "axes": ({"train_boxes": [[1, 5]]}, "uint8"),
    "objects": ({"train_labels": np.array([None])}, "npz file of numbers"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_boxes_are_named(tmp_path, case):
    changes, message = CASES[case]
    arrays = {
        "classes": ["cell"], "train_images": np.zeros((2, 8, 8), np.uint8), "train_boxes": [[1, 1, 5, 5]],
        "train_labels": [0], "train_owner": [1],
    }  # fmt: skip
    np.savez(tmp_path / "x.npz", **arrays | changes)
    with pytest.raises(InputError, match=message):
        read_boxed(tmp_path / "x.npz", "train")


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.npz").write_text("boxes")
    with pytest.raises(InputError, match="npz file of numbers"):
        read_boxed(tmp_path / "x.npz", "train")
    with pytest.raises(InputError, match="split val: needs images, all of one size"):
        write_boxed(tmp_path / "y.npz", {"val": []})
