"""Pairs of pictures for verification, from a list with a folder or from one of InsightFace's ``.bin`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath
from medwave.volumes.pair_bin import read_pair_bin
from medwave.volumes.pair_list import read_pair_list
from medwave.volumes.pictures import SUFFIXES, decode_picture, read_picture

UInt8Array = npt.NDArray[np.uint8]


class PairSet:
    """Pairs of pictures; each picture is there once, however many pairs it is in.

    Attributes:
        sources: name of each picture.
        first, second: ``(n,)`` int64, numbers of the pictures of each pair.
        same: ``(n,)``, whether they show one identity.
        folds: number of folds that the list names, 0 for none.
    """

    def __init__(self, pairs: list[tuple[str, str]], same: npt.NDArray[np.bool_], folds: int = 0) -> None:
        self.sources = tuple(dict.fromkeys(name for pair in pairs for name in pair))
        numbers = {name: number for number, name in enumerate(self.sources)}
        self.first = np.array([numbers[first] for first, _ in pairs], dtype=np.int64)
        self.second = np.array([numbers[second] for _, second in pairs], dtype=np.int64)
        self.same, self.folds = same, folds

    def __len__(self) -> int:
        return len(self.sources)

    def picture(self, index: int) -> UInt8Array:
        """One picture."""
        raise NotImplementedError


class ListedPairs(PairSet):
    """Pairs of a list, pictures in a folder."""

    def __init__(self, path: StrPath, folder: StrPath) -> None:
        listed = read_pair_list(path)
        super().__init__(list(zip(listed.first, listed.second, strict=True)), listed.same, listed.folds)
        self.files = [_file(Path(folder), name, path) for name in self.sources]

    def picture(self, index: int) -> UInt8Array:
        """Read a file; errors as in :func:`medwave.volumes.pictures.read_picture`."""
        return read_picture(self.files[index])


class PackedPairs(PairSet):
    """Pairs of a ``.bin`` file, in memory as the bytes of their files."""

    def __init__(self, path: StrPath) -> None:
        self.path = path
        self.contents, same = read_pair_bin(path)
        names = [f"picture {n}" for n in range(len(self.contents))]
        super().__init__(list(zip(names[::2], names[1::2], strict=True)), same)

    def picture(self, index: int) -> UInt8Array:
        """Decode a picture; raises VolumeFormatError where it is damaged."""
        return decode_picture(self.contents[index], f"{self.path}, {self.sources[index]}")


def open_pairs(path: StrPath, folder: StrPath | None) -> PairSet:
    """Open a ``.bin``, or a list of pairs with the folder of its pictures.

    Raises:
        MissingFileError: when the file, or a picture that it names, is not there.
        InputError: when a list comes without a folder, or a line is wrong.
        VolumeFormatError: when a ``.bin`` is damaged.
    """
    if Path(path).suffix == ".bin":
        return PackedPairs(path)
    if folder is None:
        raise InputError(f"{path}: a list of pairs names pictures; give their folder with --images")
    return ListedPairs(path, folder)


def _file(folder: Path, name: str, path: StrPath) -> Path:
    if (folder / name).is_file():
        return folder / name
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise MissingFileError(f"{folder / name}: no such picture (with or without an ending), but {path} names it")
