"""Writing an ITK transform file with h5py: groups, strings, float64 and packed float32 vectors.

Why not SimpleITK: it stores a field as float64 without compression (118 MB for 160x192x160 voxels, four to nine times
what is needed), and after a write that failed, as on a full disk, it leaves a broken file open, which crashes Python at
its end. Here a field is stored as float32 in chunks, shuffled (byte planes apart) and deflated by
:mod:`medwave.core.deflate`; every HDF5 reader undoes both, and ITK takes float32 parameters for a double transform. The
library writes through a Python file, whose first error is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

from medwave.core.deflate import ShuffledPacker

_CHUNK = 1 << 18


@dataclass(frozen=True)
class PackedFloats:
    """A float32 vector to be stored shuffled and deflated.

    Attributes:
        length: number of values.
        parts: arrays that give the values in order when put together.
        sample: values like them, by which they are packed well.
    """

    length: int
    parts: Iterable[npt.NDArray[np.float32]]
    sample: npt.NDArray[np.float32]


Tree = dict[str, "str | npt.NDArray[np.float64] | PackedFloats | Tree"]
"""A group: names to strings, float64 vectors, packed float32 vectors and groups."""


class _Told:
    """A file that remembers why it could not be written: HDF5 only says that it could not."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise


def write_tree(file: BinaryIO, tree: Tree) -> None:
    """Write an HDF5 file whose root group is the tree into a file that is open to write and read.

    Raises:
        OSError: when the file cannot be written.
    """
    told = _Told(file)
    try:
        with h5py.File(told, "w") as root:
            _fill(root, tree)
    except (OSError, RuntimeError) as error:
        raise told.error or error from None


def _fill(group: Any, tree: Tree) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _fill(group.create_group(name), value)
        elif isinstance(value, str):
            group.create_dataset(name, data=[value], dtype=h5py.string_dtype("ascii"))
        elif isinstance(value, PackedFloats):
            packed = group.create_dataset(
                name, (value.length,), "<f4", chunks=(min(_CHUNK, value.length),), shuffle=True, compression=1
            )
            packer = ShuffledPacker(value.sample)
            for number, block in enumerate(_blocks(value.parts, packed.chunks[0])):
                packed.id.write_direct_chunk((number * len(block),), packer.block(block))
        else:
            group.create_dataset(name, data=value, dtype="<f8")


def _blocks(parts: Iterable[npt.NDArray[np.float32]], length: int) -> Iterator[npt.NDArray[np.float32]]:
    """The values of the parts in blocks of one length; zeros fill the last."""
    block, filled = np.zeros(length, "<f4"), 0
    for part in parts:
        values = part.ravel()
        while values.size:
            taken = min(length - filled, values.size)
            block[filled : filled + taken] = values[:taken]
            values, filled = values[taken:], filled + taken
            if filled == length:
                yield block
                filled = 0
    if filled:
        block[filled:] = 0
        yield block
