"""Items to train on: images in the order of a shuffled epoch, each through a chain drawn from its own seed.

An item is a dictionary of tensors: ``image`` ``(C, H, W)`` float32, normalised, and ``label``, one class int64 or
classes ``(H, W)`` int64 with :data:`medwave.transforms.images.UNKNOWN_LABEL` where nobody knows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from medwave.core.errors import InputError
from medwave.data.images import ClassifiedImages
from medwave.data.segmented_images import SegmentedImages
from medwave.transforms.images import ImageChain

Item = dict[str, torch.Tensor]


class ImageItems(Dataset[Item]):
    """Items of training: each epoch has every image once, in an order of its own.

    Args:
        source: images with a class, or a class for each pixel.
        length: number of items, that of all epochs together.
        chain: what is done to an image; see :mod:`medwave.transforms.images`.
        seed: item ``i`` follows from ``(seed, i)`` alone.
        one_size: option that brings images to one size, where they must have one; else they may have several.

    Raises:
        InputError: when there is no image, or, as an item is taken, when it is of another size than the first image.
    """

    def __init__(
        self, source: ClassifiedImages | SegmentedImages, length: int, chain: ImageChain, *, seed: int = 0,
        one_size: str = "",
    ) -> None:  # fmt: skip
        if not len(source):
            raise InputError("there is no image to train on")
        self.source, self.length, self.chain, self.seed, self.one_size = source, length, chain, seed, one_size
        self._size: tuple[int, ...] = ()
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        epoch, place = divmod(index, len(self.source))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.source)))
        number = int(self._order[1][place])
        image, label = self.source.item(number)
        if self.one_size:
            self._check_size(number, image.shape[:2])
        seed = int(np.random.default_rng((self.seed, index, 1)).integers(2**31))
        return self.chain(image, label, seed=seed)

    def _check_size(self, number: int, size: tuple[int, ...]) -> None:
        self._size = self._size or self.source.item(0)[0].shape[:2]
        if size != self._size:
            raise InputError(
                f"{self.source.name(number)}: has {size} rows and columns, the first image {self._size}; those of a "
                f"step need one size: say which with {self.one_size}"
            )
