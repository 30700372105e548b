"""The data set of a folder of training cubes (:mod:`medwave.data.cube_folder`), read by MONAI transforms."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from medwave.core.errors import InputError, MedwaveError
from medwave.core.files import StrPath
from medwave.data.cube_folder import SPLITS, CubeRow, read_table
from medwave.data.neurons import Item, Shape3
from medwave.transforms.fibre_chain import fibre_cube_chain


class NeuronCubes(Dataset[Item]):
    """Labelled cubes of traced neurons; items as in :mod:`medwave.data.neurons`.

    Every cube comes once before any comes again, each time in another order and, in training, varied in another way.

    Args:
        folder: that ``data_prep/make_neucuda.py`` wrote.
        split: ``"train"`` or ``"test"``.
        length: number of items; by itself one for each cube.
        size: crops of cubes; by itself whole cubes.
        augment: whether items vary; by itself in training only, so that a score is of cubes as they are.
        intensity: ``"volume"``: on the scale of the cube's volume, whatever its bit depth; ``"reference"``:
            standardised by the published constants, for 8-bit images.
        seed: item ``i`` follows from ``(seed, i)`` alone.

    Raises:
        MissingFileError: when the folder has no table.
        InputError: for an unknown word, or when the split has no cube.

    Items raise :class:`medwave.core.errors.MedwaveError` where a file of theirs is missing or damaged.
    """

    def __init__(
        self, folder: StrPath, split: str = "train", *, length: int | None = None, size: Shape3 | None = None,
        augment: bool | None = None, intensity: str = "volume", seed: int = 0,
    ) -> None:  # fmt: skip
        if split not in SPLITS or intensity not in ("volume", "reference"):
            raise InputError(
                f"split is one of {', '.join(SPLITS)} and intensity volume or reference, got {split!r}, {intensity!r}"
            )
        self.rows: list[CubeRow] = [row for row in read_table(folder) if row.split == split]
        if not self.rows:
            raise InputError(f"{folder}: has no cube to {split} with; name neurons for it when the cubes are made")
        self.folder, self.seed = folder, seed
        self.length = len(self.rows) if length is None else length
        self.shuffled = split == "train"
        varied = self.shuffled if augment is None else augment
        self.chain = fibre_cube_chain(size=size, augment=varied, intensity=intensity)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        row = self.row(index)
        files = {"image": "image", "label": "label", "skeleton": "lines"}
        names = {key: str(row.path(self.folder, part)) for key, part in files.items()}
        self.chain.set_random_state(int(np.random.default_rng((self.seed, index)).integers(2**32)))
        try:
            item: Item = self.chain({**names, "center": row.center, "width": row.width})
        except RuntimeError as error:  # MONAI wraps what its transforms raise
            if isinstance(error.__cause__, MedwaveError):
                raise error.__cause__ from None
            raise
        return item

    def row(self, index: int) -> CubeRow:
        """What the table says of the cube that item ``index`` is made from."""
        turn, place = divmod(index, len(self.rows))
        if self.shuffled:
            place = int(np.random.default_rng((self.seed, turn)).permutation(len(self.rows))[place])
        return self.rows[place]
