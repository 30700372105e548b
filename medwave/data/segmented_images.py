"""Images with a class for each pixel, in the layouts of CamVid, Pascal VOC and Cityscapes.

Conventions
    =========== ==================================== ============================================= ==============
    layout      images                               labels                                        unknown
    =========== ==================================== ============================================= ==============
    camvid      ``SPLIT/NAME.*``                     ``SPLITannot/NAME.png``                       11
    voc         ``JPEGImages/NAME.jpg``              ``SegmentationClass/NAME.png``, names in      255
                                                     ``ImageSets/Segmentation/SPLIT.txt``
    cityscapes  ``leftImg8bit/SPLIT/CITY/*.png``     ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``   ids not scored
    =========== ==================================== ============================================= ==============

    Images come as uint8 ``(H, W, 3)``, labels as uint8 ``(H, W)`` with
    :data:`medwave.transforms.images.UNKNOWN_LABEL` where nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath, input_file
from medwave.data.images import SUFFIXES, read_image, read_labels
from medwave.transforms.images import UNKNOWN_LABEL as UNKNOWN

Bytes = npt.NDArray[np.uint8]

CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog",
    "horse", "motorbike", "person", "plant", "sheep", "sofa", "train", "monitor",
)  # fmt: skip
CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip

_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_LAST = 33


@dataclass(frozen=True)
class SegmentedImages:
    """Images by number, each with a class for each pixel.

    Attributes:
        pairs: file of each image and of its labels.
        classes: their names.
        codes: code in the files -> class or the label of what is unknown; other codes are refused.
    """

    pairs: tuple[tuple[Path, Path], ...]
    classes: tuple[str, ...]
    codes: dict[int, int]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Says what image ``index`` is, for messages."""
        return str(self.pairs[index][0])

    def item(self, index: int) -> tuple[Bytes, Bytes]:
        """Image ``(H, W, 3)`` and label ``(H, W)``.

        Raises:
            InputError: when a file cannot be read, sizes differ, or a code is no class; the file is named.
        """
        file, partner = self.pairs[index]
        image, label = read_image(file, upright=False), read_labels(partner)
        if label.shape != image.shape[:2]:
            raise InputError(f"{partner}: labels are {image.shape[:2]} (rows, columns) as the image, got {label.shape}")
        table = np.full(256, UNKNOWN, dtype=np.uint8)
        for code, value in self.codes.items():
            table[code] = value
        strangers = np.setdiff1d(label, list(self.codes))
        if len(strangers):
            raise InputError(
                f"{partner}: class {strangers[0]} is out of range; there are {len(self.classes)} classes and the codes "
                f"{min(self.codes)} to {max(self.codes)}"
            )
        return image, table[label]


def read_segmented(folder: StrPath, split: str) -> SegmentedImages:
    """A split of a data set whose layout is recognised by its folders.

    Raises:
        MissingFileError: when the folder, the split or a label file is not there.
        InputError: when the layout is none of those of the module, or the split has no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"{root}: no such folder")
    if (root / "JPEGImages").is_dir():
        pairs, classes = _voc(root, split), VOC
        codes = {**{i: i for i in range(len(VOC))}, UNKNOWN: UNKNOWN}
    elif (root / "leftImg8bit").is_dir():
        pairs, classes = _cityscapes(root, split), CITYSCAPES
        codes = {**dict.fromkeys(range(_CITYSCAPES_LAST + 1), UNKNOWN), UNKNOWN: UNKNOWN}
        codes |= {code: number for number, code in enumerate(_CITYSCAPES_IDS)}
    elif any(root.glob("*annot")):
        pairs, classes = _camvid(root, split), CAMVID
        codes = {**{i: i for i in range(len(CAMVID))}, len(CAMVID): UNKNOWN}
    else:
        raise InputError(
            f"{root}: is none of the known layouts: SPLIT and SPLITannot (CamVid), JPEGImages and SegmentationClass "
            "(Pascal VOC), leftImg8bit and gtFine (Cityscapes)"
        )
    if not pairs:
        raise InputError(f"{root}: the split {split!r} has no image")
    for _, partner in pairs:
        input_file(partner)
    return SegmentedImages(tuple(pairs), classes, codes)


def _camvid(root: Path, split: str) -> list[tuple[Path, Path]]:
    if not (root / split).is_dir():
        raise MissingFileError(f"{root / split}: no such folder; name another split")
    images = sorted(p for p in (root / split).iterdir() if p.suffix.lower() in SUFFIXES)
    return [(p, root / f"{split}annot" / f"{p.stem}.png") for p in images]


def _voc(root: Path, split: str) -> list[tuple[Path, Path]]:
    names = input_file(root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split()
    return [(root / "JPEGImages" / f"{n}.jpg", root / "SegmentationClass" / f"{n}.png") for n in names]


def _cityscapes(root: Path, split: str) -> list[tuple[Path, Path]]:
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    pairs = []
    for image in images:
        name = image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
        pairs.append((image, root / "gtFine" / split / image.parent.name / name))
    return pairs
