"""Sets of pictures with an identity each: folders, InsightFace's record files, arrays.

Conventions
    A picture is uint8 ``(h, w, c)`` with 1 or 3 channels. Identities are whole numbers from 0 in the order of their
    names; names are kept.

    ====================  ==========================================================================================
    what is opened        identities
    ====================  ==========================================================================================
    folder                each folder that holds pictures, at any depth, is one; its path from the top is its name
    ``train.rec``         the label of each record; needs ``train.idx`` beside it
    ``.npz``              arrays ``images`` ``(n, h, w)`` or ``(n, h, w, 3)`` uint8 and ``labels`` or ``subject`` (n,)
    ====================  ==========================================================================================
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError, MissingFileError, VolumeFormatError
from medwave.core.files import StrPath
from medwave.volumes.pictures import decode_picture, picture_files, read_picture
from medwave.volumes.record_file import RecordFile

UInt8Array = npt.NDArray[np.uint8]
_LABEL_ARRAYS = ("labels", "subject")


class IdentitySet:
    """Pictures and their identities.

    Attributes:
        labels: ``(n,)`` int64, identity of each picture, 0 to ``len(names) - 1``.
        names: of the identities.
        sources: of each picture: a path from the top, or a number in words; a sequence.
    """

    def __init__(self, identities: Sequence[str] | Sequence[int] | npt.NDArray[Any], sources: Sequence[str]) -> None:
        unique, labels = np.unique(np.asarray(identities), return_inverse=True)
        self.labels = labels.astype(np.int64).ravel()
        self.names = tuple(map(str, unique.tolist()))
        self.sources = sources

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int) -> UInt8Array:
        """One picture."""
        raise NotImplementedError


class _Numbered(Sequence[str]):
    """Names such as ``picture 7``, made when they are asked for: a set may have tens of millions."""

    def __init__(self, word: str, numbers: Sequence[int] | npt.NDArray[np.int64]) -> None:
        self.word, self.numbers = word, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Numbered(self.word, self.numbers[index])
        return f"{self.word} {self.numbers[index]}"


class FolderSet(IdentitySet):
    """Pictures in folders, one per identity."""

    def __init__(self, folder: Path) -> None:
        self.files = picture_files(folder)
        if not self.files:
            raise MissingFileError(f"{folder}: holds no picture (PNG, JPEG, BMP, PGM, TIFF or WebP), at any depth")
        paths = [file.relative_to(folder) for file in self.files]
        super().__init__([path.parent.as_posix() for path in paths], [path.as_posix() for path in paths])

    def picture(self, index: int) -> UInt8Array:
        """Read a file; errors as in :func:`medwave.volumes.pictures.read_picture`."""
        return read_picture(self.files[index])


class RecordSet(IdentitySet):
    """Pictures of a record file."""

    def __init__(self, path: Path) -> None:
        self.records = RecordFile(path)
        super().__init__(self.records.labels(), _Numbered("record", self.records.keys))

    def picture(self, index: int) -> UInt8Array:
        """Read a record; raises VolumeFormatError where it is damaged."""
        key = int(self.records.keys[index])
        return decode_picture(self.records.read(key).content, f"{self.records.path}, record {key}")


class ArraySet(IdentitySet):
    """Pictures in memory, ``(n, h, w)`` or ``(n, h, w, c)`` uint8, and the identity of each."""

    def __init__(self, pictures: UInt8Array, identities: Sequence[str | int]) -> None:
        if pictures.ndim == 3:
            pictures = pictures[..., None]
        if pictures.ndim != 4 or pictures.shape[3] not in (1, 3) or pictures.dtype != np.uint8:
            raise InputError(
                f"pictures are uint8 (n, h, w), (n, h, w, 1) or (n, h, w, 3), got {pictures.dtype} {pictures.shape}"
            )
        if len(pictures) != len(identities) or not len(pictures):
            raise InputError(f"each picture has one identity, got {len(identities)} for {len(pictures)}")
        self.pictures = pictures
        super().__init__(identities, _Numbered("picture", range(len(pictures))))

    def picture(self, index: int) -> UInt8Array:
        """One picture."""
        return self.pictures[index]


class _Chosen(Sequence[str]):
    """Some of the names of another sequence."""

    def __init__(self, names: Sequence[str], places: npt.NDArray[np.int64]) -> None:
        self.names, self.places = names, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Chosen(self.names, self.places[index])
        return self.names[int(self.places[index])]


class PartOfSet(IdentitySet):
    """The pictures of some identities of a set; identities are counted anew."""

    def __init__(self, whole: IdentitySet, identities: npt.NDArray[np.int64]) -> None:
        self.whole = whole
        self.places = np.flatnonzero(np.isin(whole.labels, identities))
        super().__init__(whole.labels[self.places], _Chosen(whole.sources, self.places))
        self.names = tuple(whole.names[identity] for identity in np.unique(whole.labels[self.places]))

    def picture(self, index: int) -> UInt8Array:
        """One picture; errors as those of the whole set."""
        return self.whole.picture(int(self.places[index]))


def open_identities(path: StrPath) -> IdentitySet:
    """Open a folder, a ``.rec`` or an ``.npz`` (see the module).

    Raises:
        MissingFileError: when it, its index, or any picture is not there.
        VolumeFormatError: when it is damaged or of another kind.
        InputError: when arrays do not fit.
    """
    source = Path(path)
    if source.is_dir():
        return FolderSet(source)
    if not source.is_file():
        raise MissingFileError(f"{source}: no such folder or file of pictures")
    if source.suffix == ".rec":
        return RecordSet(source)
    if source.suffix == ".npz":
        return ArraySet(*_arrays(source))
    raise VolumeFormatError(f"{source}: pictures come as a folder, a .rec with its .idx, or an .npz")


def _arrays(path: Path) -> tuple[UInt8Array, list[int]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            name = next((each for each in _LABEL_ARRAYS if each in content), None)
            if name is None or "images" not in content:
                raise VolumeFormatError(
                    f"{path}: needs the arrays images and {' or '.join(_LABEL_ARRAYS)}, has {', '.join(content)}"
                )
            return content["images"], np.asarray(content[name]).astype(np.int64).ravel().tolist()
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, VolumeFormatError):
            raise
        raise VolumeFormatError(f"{path}: not an .npz of plain arrays ({type(error).__name__})") from None
