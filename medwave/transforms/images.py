"""MONAI chains for photographs: sizes, augmentation, and the normalisation that all image networks here share.

Conventions
    Images come as uint8 ``(H, W, C)`` and leave as float32 ``(C, H, W)``, normalised by :data:`MEAN` and
    :data:`DEVIATION` (one or three channels; others by a half and a quarter). A label is one class, or classes
    ``(H, W)``, which goes through the same crops and flips and is read at the nearest pixel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms as monai_transforms
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms import Compose, RandFlipd, RandomizableTransform, RandSpatialCropd, Resized, SpatialPadd

from medwave.core.errors import InputError

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet; a grey image has their means."""

CHAINS = ("crop", "resized_crop", "scale_crop", "none")
"""Augmentations: shifted crop and flip (small images); a part of random area and aspect, resized, and flip (ImageNet);
scaled by a half to two, crop and flip (segmentation); nothing."""

RESIZE_RATIO = 256 / 224
"""What is resized before the centre is cropped for evaluation, in terms of the crop."""

UNKNOWN_LABEL = 255
"""Label of pixels whose class nobody knows."""

_SHIFT = 0.125


def normaliser(channels: int, ndim: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation that images in [0, 1] are normalised by, shaped to broadcast over ``(C, ...)``."""
    if channels == 3:
        mean, deviation = MEAN, DEVIATION
    elif channels == 1:
        mean, deviation = (float(np.mean(MEAN)),), (float(np.mean(DEVIATION)),)
    else:
        mean, deviation = (0.5,) * channels, (0.25,) * channels
    shape = (channels, *(1,) * ndim)
    return torch.tensor(mean).reshape(shape), torch.tensor(deviation).reshape(shape)


def unit_tensor(image: np.ndarray) -> torch.Tensor:
    """``(H, W, C)`` bytes as ``(C, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0))).float() / 255


def centre_resized(image: np.ndarray, size: int, ratio: float = RESIZE_RATIO) -> np.ndarray:
    """The shorter side resized to ``size * ratio`` and the centre ``(size, size)``; ``(H, W, C)`` bytes.

    An image that has that size already stays as it is.
    """
    if image.shape[:2] == (size, size):
        return image
    return centre(resized_bytes(image, round(size * ratio)), size)


def resized_bytes(image: np.ndarray, shorter: int) -> np.ndarray:
    """``(H, W, C)`` bytes whose shorter side has so many pixels."""
    from PIL import Image

    factor = shorter / min(image.shape[:2])
    wanted = tuple(max(shorter, round(n * factor)) for n in image.shape[1::-1])
    layers = [
        np.asarray(Image.fromarray(image[..., c]).resize(wanted, Image.Resampling.BILINEAR))
        for c in range(image.shape[2])
    ]
    return np.stack(layers, axis=2)


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """The middle ``(size, size)`` of an image that is not smaller."""
    row, column = ((n - size) // 2 for n in image.shape[:2])
    return image[row : row + size, column : column + size]


class RandomResizedCropd(RandomizableTransform):
    """A part of random area (8 % to all) and aspect (3:4 to 4:3), resized; as ImageNet is trained on.

    Szegedy et al., arXiv:1409.4842.
    """

    def __init__(self, size: int) -> None:
        RandomizableTransform.__init__(self)
        self.resize = Resized(["image"], (size, size), mode="bilinear", anti_aliasing=True)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The item with another image."""
        image = data["image"]
        height, width = image.shape[1:]
        rows, columns = height, width
        for _ in range(10):
            area = self.R.uniform(0.08, 1) * height * width
            aspect = np.exp(self.R.uniform(np.log(3 / 4), np.log(4 / 3)))
            tried = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
            if 0 < tried[0] <= height and 0 < tried[1] <= width:
                rows, columns = tried
                break
        top, left = self.R.randint(0, height - rows + 1), self.R.randint(0, width - columns + 1)
        return self.resize({**data, "image": image[:, top : top + rows, left : left + columns]})


class RandomScaled(RandomizableTransform):
    """Image and label scaled by a half to two."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The item at another scale."""
        factor = 2 ** self.R.uniform(-1, 1)
        size = [max(1, round(n * factor)) for n in data["image"].shape[1:]]
        resize = Resized(["image", "label"], size, mode=("bilinear", "nearest-exact"))  # "nearest" is half a pixel off
        return resize(data)


class ImageChain:
    """Augmentation and normalisation of one image.

    Args:
        kind: a word of :data:`CHAINS`.
        size: rows and columns of the result; None keeps those of the image (``crop`` and ``none`` only).

    Raises:
        InputError: for an unknown kind, or one that needs a size.
    """

    def __init__(self, kind: str, size: Sequence[int] | None = None) -> None:
        if kind not in CHAINS:
            raise InputError(f"augment is one of {', '.join(CHAINS)}, got {kind!r}")
        if size is None and kind in ("resized_crop", "scale_crop"):
            raise InputError(f"augment {kind!r}: needs the size of the crop")
        self.kind, self.size = kind, None if size is None else tuple(size)
        self._made: dict[tuple[Any, ...], Compose] = {}

    def __call__(self, image: np.ndarray, label: Any, *, seed: int = 0) -> dict[str, torch.Tensor]:
        """``image`` and ``label`` as tensors; what is random follows from the seed."""
        pixelwise = np.ndim(label) == 2
        data: dict[str, Any] = {"image": unit_tensor(image)}
        if pixelwise:
            data["label"] = torch.from_numpy(np.ascontiguousarray(label)).float()[None]
        if self.kind != "none":
            key = (*data, *(image.shape[:2] if self.size is None or self.kind == "crop" else ()))
            if key not in self._made:
                self._made[key] = self._chain(tuple(data), image.shape[:2])
            chain = self._made[key]
            chain.set_random_state(seed=seed)
            with _without_records():
                data = chain(data)
        mean, deviation = normaliser(image.shape[2])
        picture = (plain(data["image"]) - mean) / deviation
        classes = plain(data["label"])[0].long() if pixelwise else torch.tensor(int(label))
        return {"image": picture.contiguous(), "label": classes}

    def _chain(self, keys: tuple[str, ...], shape: tuple[int, ...]) -> Compose:
        size = self.size or shape
        flip = RandFlipd(keys, prob=0.5, spatial_axis=1)
        if self.kind == "resized_crop":
            return Compose([RandomResizedCropd(size[0]), flip])
        crop = RandSpatialCropd(keys, size, random_size=False)
        if self.kind == "crop":
            larger = [max(n, s) + 2 * round(_SHIFT * s) for n, s in zip(shape, size, strict=True)]
            return Compose([*self._padded(keys, larger), crop, flip])
        return Compose([RandomScaled(), *self._padded(keys, size), crop, flip])

    @staticmethod
    def _padded(keys: tuple[str, ...], size: Sequence[int]) -> list[monai_transforms.Transform]:
        """Images are padded by black, labels by what nobody knows."""
        values = {"image": 0.0, "label": float(UNKNOWN_LABEL)}
        return [SpatialPadd(key, size, mode="constant", value=values[key]) for key in keys]


@contextlib.contextmanager
def _without_records() -> Iterator[None]:
    """Let MONAI keep no record of its transforms: half of their time on small images."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without MONAI's record of transforms."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
