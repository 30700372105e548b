"""Training items of a recognition network: pictures with an identity, mirrored and shifted at random.

An item is a dictionary of tensors: ``image`` ``(c, h, w)`` float32 in [-1, 1], ``label`` int64 and ``sample`` int64,
the number of the picture in its set (losses with a memory tell a sample from itself by it). Each pass over the set
brings every picture once, in an order of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from medwave.core.errors import InputError
from medwave.data.identities import IdentitySet
from medwave.transforms.faces import fit_picture, normalise, shifted

Item = dict[str, torch.Tensor]


class FaceItems(Dataset[Item]):
    """Items of a set.

    Args:
        pictures: the set.
        length: number of items.
        size: height and width of the items.
        channels: 1 (grey) or 3.
        mirror: turn every other picture left to right.
        shift: move pictures by up to so many pixels along each axis.
        seed: item ``i`` is drawn from ``(seed, i)`` and the pass that it belongs to alone.

    Raises:
        InputError: for fewer than two identities, or a shift that is not inside the picture.
    """

    def __init__(
        self, pictures: IdentitySet, length: int, size: tuple[int, int], *, channels: int = 3, mirror: bool = True,
        shift: int = 0, seed: int = 0,
    ) -> None:  # fmt: skip
        if len(pictures.names) < 2:
            raise InputError(f"a network learns to tell identities apart: 2 or more are needed, got {pictures.names}")
        if not 0 <= shift < min(size):
            raise InputError(f"shift: 0 or more pixels and less than the picture has, got {shift}")
        self.pictures, self.length, self.size, self.channels = pictures, length, size, channels
        self.mirror, self.shift, self.seed = mirror, shift, seed
        self._pass, self._order = -1, np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        sample = self._sample(index)
        rng = np.random.default_rng((self.seed, 1, index))
        picture = fit_picture(self.pictures.picture(sample), self.size, self.channels)
        if self.mirror and rng.random() < 0.5:
            picture = picture[:, ::-1]
        if self.shift:
            picture = shifted(picture, *rng.integers(-self.shift, self.shift, size=2, endpoint=True))
        return {
            "image": normalise(picture),
            "label": torch.tensor(int(self.pictures.labels[sample])),
            "sample": torch.tensor(sample),
        }

    def _sample(self, index: int) -> int:
        which, place = divmod(index, len(self.pictures))
        if which != self._pass:
            self._pass = which
            self._order = np.random.default_rng((self.seed, 0, which)).permutation(len(self.pictures))
        return int(self._order[place])
