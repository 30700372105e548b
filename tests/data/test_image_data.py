"""Images with classes: layouts that are read, and what is said about damaged ones."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from medwave.core.errors import InputError, MissingFileError
from medwave.data import ImageItems, read_classified, read_segmented
from medwave.data.images import read_image
from medwave.transforms.images import UNKNOWN_LABEL, ImageChain


def picture(path, value=0, size=(12, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "P") else (value,) * 3).save(path)


def folder(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        for number, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(tmp_path / split / name / f"{i}.png", 10 * number + i)
    return tmp_path


def arrays(path, **changes):
    content = {
        "train_images": np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3),
        "train_labels": np.array([0, 1, 1, 0, 1]),
        "classes": np.array(["a", "b"]),
    }
    np.savez(path, **(content | changes))
    return path


def test_folders_have_the_classes_of_train(tmp_path):
    source = read_classified(folder(tmp_path), "train")
    assert source.classes == ("cat", "dog")
    np.testing.assert_array_equal(source.labels, [0, 0, 0, 1, 1, 1])
    image, label = source.item(4)
    assert image.shape == (10, 12, 3)
    assert (image[0, 0, 0], label) == (11, 1)
    part = source.subset([5, 0])
    assert [part.item(i)[1] for i in range(2)] == [1, 0]
    assert part.name(0).endswith("2.png")


def test_arrays_are_read_with_or_without_channels_and_names(tmp_path):
    source = read_classified(arrays(tmp_path / "a.npz"), "train")
    assert (len(source), source.classes, source.item(1)[0].shape) == (5, ("a", "b"), (4, 4, 3))
    grey = tmp_path / "b.npz"
    np.savez(grey, test_images=np.zeros((2, 6, 5), np.uint8), test_labels=np.array([0, 3], np.uint8))
    source = read_classified(grey, "test")
    assert (source.classes, source.item(0)[0].shape) == (("0", "1", "2", "3"), (6, 5, 1))


def test_an_empty_class_a_strange_one_and_a_missing_split_are_named(tmp_path):
    root = folder(tmp_path)
    with pytest.raises(MissingFileError, match=r"test: no such folder; the folders of .* are train, val"):
        read_classified(root, "test")
    (root / "val" / "bird").mkdir()
    with pytest.raises(InputError, match="bird: is no class of"):
        read_classified(root, "val")
    (root / "train" / "bird").mkdir()
    with pytest.raises(InputError, match=r"train.bird: holds no image"):
        read_classified(root, "train")


def test_a_corrupt_image_is_refused_or_skipped_by_name(tmp_path):
    root = folder(tmp_path)
    bad = root / "train" / "cat" / "1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(InputError, match=r"cat.1\.png: is no image that can be read"):
        read_classified(root, "train").item(1)
    source = read_classified(root, "train", on_corrupt="skip")
    with pytest.warns(UserWarning, match=r"skipped: .*cat.1\.png"):
        image, label = source.item(1)
    assert (image[0, 0, 0], label) == (2, 0)  # the next one
    assert source.item(1)[1] == 0  # said once
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(InputError, match="none of the 6 images"):
        read_classified(root, "train", on_corrupt="skip").item(0)
    with pytest.raises(InputError, match="on_corrupt"):
        read_classified(root, "train", on_corrupt="ignore")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.array([0, 1, 1, 0, 2])}, "image 4 of train has class 2; 0 to 1 have names"),
        ({"train_labels": np.array([0, 1, -1, 0, 1])}, "image 2 of train has class -1"),
        ({"train_labels": np.array([0, 1])}, "with N labels"),
        ({"train_images": np.zeros((5, 4, 4, 3))}, "images are uint8"),
        ({"train_labels": np.array([0, 1, 1, 0, 1.5])}, "whole numbers"),
        ({"train_labels": np.array([0, 1, 1, 0, None])}, "objects instead of numbers"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_classified(arrays(tmp_path / "a.npz", **changes), "train")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"\.npz file of arrays is needed"):
        read_classified(path, "train")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InputError, match="one array"):
        read_classified(tmp_path / "a.npy", "train")
    with pytest.raises(MissingFileError, match="holds no test_images"):
        read_classified(arrays(path), "test")
    with pytest.raises(MissingFileError):
        read_classified(tmp_path / "no.npz", "train")


def test_an_epoch_has_every_image_once_and_items_follow_from_their_number(tmp_path):
    source = read_classified(arrays(tmp_path / "a.npz", train_labels=np.array([0, 1, 2, 3, 4]),
                                    classes=np.array(list("abcde"))), "train")  # fmt: skip
    items = ImageItems(source, 15, ImageChain("crop"), seed=1)
    orders = [[int(items[5 * epoch + i]["label"]) for i in range(5)] for epoch in range(3)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert orders[0] != orders[1] or orders[1] != orders[2]
    again = ImageItems(source, 15, ImageChain("crop"), seed=1)[7]
    assert torch.equal(items[7]["image"], again["image"])
    with pytest.raises(IndexError):
        items[15]


@pytest.mark.parametrize("kind", [folder, lambda path: arrays(path / "a.npz")])
def test_items_reach_processes_that_are_spawned(tmp_path, kind):
    source = read_classified(kind(tmp_path), "train").subset([4, 1])
    items = ImageItems(source, 4, ImageChain("crop"), seed=1)
    there = pickle.loads(pickle.dumps(items))
    assert torch.equal(there[3]["image"], items[3]["image"])
    assert there.source.name(0) == source.name(0)


def camvid(root, code=3):
    picture(root / "train" / "one.png", 50)
    picture(root / "trainannot" / "one.png", code, mode="L")
    return root


def test_camvid_has_eleven_classes_and_an_unknown_one(tmp_path):
    source = read_segmented(camvid(tmp_path), "train")
    image, label = source.item(0)
    assert (image.shape, label.shape, int(label[0, 0]), len(source.classes)) == ((10, 12, 3), (10, 12), 3, 11)
    camvid(tmp_path, code=11)
    assert (read_segmented(tmp_path, "train").item(0)[1] == UNKNOWN_LABEL).all()
    camvid(tmp_path, code=12)
    with pytest.raises(InputError, match=r"one\.png: class 12 is out of range; there are 11 classes"):
        read_segmented(tmp_path, "train").item(0)


def test_voc_and_cityscapes_are_recognised(tmp_path):
    voc, city = tmp_path / "voc", tmp_path / "city"
    picture(voc / "JPEGImages" / "a.jpg")
    (voc / "SegmentationClass").mkdir()
    label = Image.fromarray(np.full((10, 12), 20, np.uint8))
    label.putpalette(bytes(range(256)) * 3)
    label.save(voc / "SegmentationClass" / "a.png")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    source = read_segmented(voc, "val")
    assert (len(source.classes), int(source.item(0)[1][0, 0])) == (21, 20)
    picture(city / "leftImg8bit" / "val" / "ulm" / "ulm_0_leftImg8bit.png")
    picture(city / "gtFine" / "val" / "ulm" / "ulm_0_gtFine_labelIds.png", 33, mode="L")
    source = read_segmented(city, "val")
    assert (len(source.classes), int(source.item(0)[1][0, 0])) == (19, 18)
    picture(city / "gtFine" / "val" / "ulm" / "ulm_0_gtFine_labelIds.png", 9, mode="L")
    assert (source.item(0)[1] == UNKNOWN_LABEL).all()


@pytest.mark.parametrize("pixels", [np.full((4, 4), 40000, np.uint16), np.full((4, 4), 0.5, np.float32)])
def test_images_of_more_than_8_bits_are_refused_by_name(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match=r"deep\.tif: pictures have 8 bits per channel.*convert it"):
        read_image(tmp_path / "deep.tif")


def test_images_are_turned_as_the_camera_noted(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(pixels, -1))


def test_labels_of_pixels_lie_on_the_pixels_that_are_stored(tmp_path):
    camvid(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3  # to be turned upside down
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[:5] = 255
    file = next((tmp_path / "train").iterdir())
    Image.fromarray(pixels).save(file, exif=exif)
    np.testing.assert_array_equal(read_segmented(tmp_path, "train").item(0)[0], pixels)


def test_labels_of_more_than_8_bits_keep_their_values(tmp_path):
    camvid(tmp_path)
    file = tmp_path / "trainannot" / "one.png"
    Image.fromarray(np.full((10, 12), 3, np.uint16)).save(file)
    assert (read_segmented(tmp_path, "train").item(0)[1] == 3).all()
    Image.fromarray(np.full((10, 12), 256 + 3, np.uint16)).save(file)
    with pytest.raises(InputError, match=r"one\.png: class 259 is out of range"):
        read_segmented(tmp_path, "train").item(0)
    picture(file, 3)
    with pytest.raises(InputError, match=r"one\.png: labels are one whole number per pixel, got uint8 \(10, 12, 3\)"):
        read_segmented(tmp_path, "train").item(0)


def test_segmented_data_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="none of the known layouts"):
        read_segmented(tmp_path, "train")
    with pytest.raises(MissingFileError):
        read_segmented(tmp_path / "no", "train")
    camvid(tmp_path)
    with pytest.raises(MissingFileError, match="val: no such folder"):
        read_segmented(tmp_path, "val")
    picture(tmp_path / "trainannot" / "one.png", 3, (5, 5), "L")
    with pytest.raises(InputError, match=r"labels are \(10, 12\)"):
        read_segmented(tmp_path, "train").item(0)
    (tmp_path / "trainannot" / "one.png").unlink()
    with pytest.raises(MissingFileError, match="trainannot"):
        read_segmented(tmp_path, "train")


@pytest.mark.data
def test_the_real_sets_are_read(data_folder):
    cifar = data_folder / "images" / "cifar10_subset" / "cifar10_subset.npz"
    train, test = (read_classified(cifar, split) for split in ("train", "test"))
    assert (len(train), len(test), len(train.classes)) == (9000, 2500, 10)
    assert np.bincount(test.labels).tolist() == [250] * 10
    root = data_folder / "images" / "camvid"
    assert [len(read_segmented(root, split)) for split in ("train", "val", "test")] == [367, 101, 233]
    image, label = read_segmented(root, "test").item(5)
    assert image.shape[:2] == label.shape == (240, 320)
    assert set(np.unique(label)) <= {*range(11), UNKNOWN_LABEL}
