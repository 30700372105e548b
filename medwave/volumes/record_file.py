"""InsightFace's training sets: ``train.rec`` (MXNet RecordIO) with its index ``train.idx``. Read by plain arithmetic.

Layout, little endian
    A record is the magic number ``0xced7230a``, a word whose upper 3 bits are a flag and whose lower 29 bits are a
    length, and so many bytes, filled up to a multiple of 4. Flag 0: a whole record; 1, 2, 3: the first, a middle, the
    last part of one that held the magic number itself, which stood where parts meet.
    A record begins with ``flag`` uint32, ``label`` float32, ``id`` and ``id2`` uint64; with a flag of n > 0, n labels
    as float32 follow. The rest is a picture as PNG or JPEG.
    ``.idx`` has a line ``key TAB offset`` per record. In sets of InsightFace record 0 holds no picture: its two labels
    are the first key that is no picture and the last key plus one; pictures have the keys from 1 on.

Sources
    The layout is that of dmlc-core's recordio and MXNet's image records.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import MissingFileError, VolumeFormatError
from medwave.core.files import StrPath, input_file

_MAGIC = 0xCED7230A
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_HEADER = struct.Struct("<IfQQ")


class Record(NamedTuple):
    """Labels ``(n,)`` float32 and the bytes that follow, those of a picture or none."""

    labels: npt.NDArray[np.float32]
    content: bytes


class RecordFile:
    """A record file with its index. Opened anew for each record, so that it may be shared by processes.

    Args:
        path: the ``.rec``; the ``.idx`` lies beside it.

    Attributes:
        keys: ``(n,)`` int64, of the records that are pictures, ascending.

    Raises:
        MissingFileError: when one of the two files is not there.
        VolumeFormatError: when one is damaged or something else.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = input_file(path)
        index = self.path.with_suffix(".idx")
        if not index.is_file():
            raise MissingFileError(f"{index}: a record file is read by its index, which must lie beside it")
        self._all_keys, self._offsets = _read_index(index, self.path.stat().st_size)
        keys = self._all_keys
        head = self.read(int(keys[0]))
        if keys[0] == 0 and not head.content:
            if len(head.labels) < 1 or not 1 <= head.labels[0] <= 2**31:
                raise VolumeFormatError(f"{self.path}: its first record does not say which keys are pictures")
            keys = keys[(keys > 0) & (keys < int(head.labels[0]))]
            while len(keys) and not self.read(int(keys[-1])).content:  # beyond 2^24 the label is a rounded number
                keys = keys[:-1]
        self.keys = keys

    def read(self, key: int) -> Record:
        """One record.

        Raises:
            VolumeFormatError: when the file is cut short or damaged there, or the index lacks the key.
        """
        offset = self._offset(key)
        with self.path.open("rb") as stream:
            stream.seek(offset)
            body = self._body(stream, key)
        if len(body) < _HEADER.size:
            raise self._damage(key)
        flag, label, _, _ = _HEADER.unpack_from(body)
        end = _HEADER.size + 4 * flag
        if len(body) < end:
            raise self._damage(key)
        labels = np.frombuffer(body, "<f4", flag, _HEADER.size) if flag else np.array([label], np.float32)
        return Record(labels.astype(np.float32), body[end:])

    def labels(self) -> npt.NDArray[np.int64]:
        """Identity of each picture, the first label of its record; reads the head of each record only."""
        found = np.empty(len(self.keys), dtype=np.int64)
        with self.path.open("rb") as stream:
            for n, key in enumerate(self.keys.tolist()):
                stream.seek(self._offset(key))
                head = stream.read(8 + _HEADER.size + 4)
                if len(head) < 8 + _HEADER.size + 4 or struct.unpack_from("<I", head)[0] != _MAGIC:
                    raise self._damage(key)
                flag, label, _, _ = _HEADER.unpack_from(head, 8)
                value = struct.unpack_from("<f", head, 8 + _HEADER.size)[0] if flag else label
                if not (0 <= value < 2**31 and value == int(value)):
                    raise VolumeFormatError(f"{self.path}: record {key} has label {value}, which is no identity")
                found[n] = int(value)
        return found

    def _offset(self, key: int) -> int:
        place = int(np.searchsorted(self._all_keys, key))
        if place == len(self._all_keys) or self._all_keys[place] != key:
            raise VolumeFormatError(f"{self.path}: its index has no record {key}")
        return int(self._offsets[place])

    def _body(self, stream: object, key: int) -> bytes:
        parts: list[bytes] = []
        while True:
            head = stream.read(8)  # type: ignore[attr-defined]
            if len(head) < 8:
                raise self._damage(key)
            magic, word = struct.unpack("<II", head)
            part, length = word >> 29, word & 0x1FFFFFFF
            expected = (_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)
            content = stream.read(-(-length // 4) * 4)  # type: ignore[attr-defined]
            if magic != _MAGIC or part not in expected or len(content) < length:
                raise self._damage(key)
            parts.append(content[:length])
            if part in (_WHOLE, _LAST):
                return struct.pack("<I", _MAGIC).join(parts)

    def _damage(self, key: int) -> VolumeFormatError:
        return VolumeFormatError(
            f"{self.path}: record {key} is cut short or not where its index says; copy both files again"
        )


def _read_index(path: Path, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Keys, ascending, and the offset of each; arrays, since there may be tens of millions."""
    try:
        text = path.read_text(encoding="ascii")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy's way to say that text is no number
            numbers = np.fromstring(text, dtype=np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
        keys, offsets = numbers.reshape(-1, 2).T
    except (UnicodeDecodeError, ValueError, DeprecationWarning):
        raise VolumeFormatError(f"{path}: an index has a line `key TAB offset` per record; this has others") from None
    if not len(keys):
        raise VolumeFormatError(f"{path}: the index names no record")
    outside = (keys < 0) | (offsets < 0) | (offsets >= size)
    if outside.any():
        key, offset = keys[outside][0], offsets[outside][0]
        raise VolumeFormatError(f"{path}: record {key} at offset {offset} lies outside its record file")
    order = np.argsort(keys, kind="stable")
    return keys[order], offsets[order]
