"""Vaa3D's raw format ``.v3draw``, read where boxes are asked for, and written in one pass.

Conventions
    On disk: 24 bytes of magic, ``L`` or ``B`` for the byte order of all that follows, an int16 with the bytes per
    voxel (1 uint8, 2 uint16, 4 float32), four int32 sizes X, Y, Z, C, then the voxels with x fastest, then y, z, c.
    Old files hold the sizes as int16; the size of the file tells which. The format has no voxel size.
    In memory: (z, y, x), one channel. Rows are kept in file order: nothing is flipped.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, OutputError, VolumeFormatError
from medwave.core.files import StrPath, atomic_path, input_file
from medwave.volumes.stack import Box, LazyVolume, check_channel, check_shape

RAW_MAGIC = b"raw_image_stack_by_hpeng"
PACKED_MAGIC = b"v3d_volume_pkbitdf_encod"
OLD_PACKED_MAGIC = b"v3d_stack_pkbit_by_gene1"
SIZES_OFFSET = len(RAW_MAGIC) + 3
LONG_SIZES, SHORT_SIZES = "4i", "4h"
DTYPES = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.float32)}
BYTE_ORDERS = {"little": "<", "big": ">"}
SLAB_BYTES = 1 << 24


@dataclass(frozen=True)
class Header:
    """What stands before the voxels: shape (c, z, y, x), type with the byte order of the file, offset of the data."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    offset: int

    @property
    def payload(self) -> int:
        """Bytes of the voxels when they are not packed."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_v3d(path: StrPath, *, channel: int = 0) -> LazyVolume:
    """Open ``.v3draw`` (mapped, read where asked) or ``.v3dpbd`` (unpacked whole), told apart by the magic.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is neither, has another type of voxel, or its size contradicts its header.
        GeometryError: when it is empty or a single slice.
        InputError: when it lacks the channel.
    """
    file = input_file(path)
    with file.open("rb") as stream:
        head = stream.read(SIZES_OFFSET + struct.calcsize(LONG_SIZES))
    magic = head[: len(RAW_MAGIC)]
    if magic == RAW_MAGIC:
        return _map_raw(file, _raw_header(file, head), channel)
    if magic == PACKED_MAGIC:
        from medwave.volumes.v3dpbd import unpack_v3dpbd

        return unpack_v3dpbd(file, _packed_header(file, head), channel=channel)
    if magic == OLD_PACKED_MAGIC:
        raise VolumeFormatError(
            f"{file}: an older packed variant of Vaa3D whose layout is not public; save it in Vaa3D as .v3draw"
        )
    raise VolumeFormatError(f"{file}: not a v3draw or v3dpbd file, whatever its name says; check where it came from")


def write_v3draw(path: StrPath, volume: npt.NDArray[Any] | LazyVolume, *, byte_order: str = "little") -> None:
    """Write a volume as ``.v3draw`` slab by slab; the file appears when it is complete.

    Args:
        path: name ending in ``.v3draw``, ``.raw`` or ``.vaa3draw``.
        volume: ``(Z, Y, X)`` or ``(C, Z, Y, X)`` array, or an open volume, of uint8, uint16 or float32.
        byte_order: "little" or "big".

    Raises:
        InputError: when the type of the values has no place in the format.
        GeometryError: when it is not a volume.
        OutputError: when it cannot be written.
    """
    if not str(path).lower().endswith((".v3draw", ".raw", ".vaa3draw")):
        raise OutputError(f"{path}: a volume for Vaa3D is written as .v3draw; end the name so")
    if byte_order not in BYTE_ORDERS:
        raise InputError(f'{path}: the byte order is "little" or "big", got "{byte_order}"')
    dtype = volume.dtype.newbyteorder("=")
    if dtype not in DTYPES.values():
        raise InputError(f"{path}: v3draw holds uint8, uint16 or float32, got {dtype.name}; convert the values first")
    shape = tuple(volume.shape) if len(volume.shape) == 4 else (1, *volume.shape)
    check_shape(str(path), shape[1:])
    if shape[0] < 1 or max(shape) >= 1 << 31:
        raise GeometryError(f"{path}: v3draw holds 1 to 2**31 - 1 along each axis, got shape {shape}; crop it first")
    order = BYTE_ORDERS[byte_order]
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(RAW_MAGIC + (b"L" if order == "<" else b"B"))
        file.write(struct.pack(order + "h" + LONG_SIZES, dtype.itemsize, *shape[::-1]))
        for slab in _slabs(volume, shape):
            file.write(np.ascontiguousarray(slab, dtype=dtype.newbyteorder(order)).data)


def _slabs(volume: npt.NDArray[Any] | LazyVolume, shape: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
    depth = max(1, SLAB_BYTES // (shape[2] * shape[3] * volume.dtype.itemsize))
    for channel in range(shape[0]):
        for z in range(0, shape[1], depth):
            part = slice(z, min(z + depth, shape[1]))
            if isinstance(volume, LazyVolume):
                yield volume.read((part, slice(None), slice(None)))
            else:
                yield (volume[channel] if volume.ndim == 4 else volume)[part]


def _raw_header(path: Path, head: bytes) -> Header:
    """The header whose sizes agree with the size of the file: int32 sizes, else the int16 ones of old files."""
    size = path.stat().st_size
    for sizes in (LONG_SIZES, SHORT_SIZES):
        if len(head) >= SIZES_OFFSET + struct.calcsize(sizes):
            header = _parse(path, head, sizes)
            if min(header.shape) > 0 and header.offset + header.payload == size:
                return header
    header = _parse(path, head, LONG_SIZES)
    _check_not_empty(path, header)
    needed = header.offset + header.payload
    what = "truncated" if size < needed else "longer than its header says"
    raise VolumeFormatError(
        f"{path}: the file is {what}: {needed} bytes for shape {header.shape} (c, z, y, x) of {header.dtype.name}, "
        f"{size} there; copy or download it again"
    )


def _packed_header(path: Path, head: bytes) -> Header:
    header = _parse(path, head, LONG_SIZES)
    _check_not_empty(path, header)
    return header


def _check_not_empty(path: Path, header: Header) -> None:
    if min(header.shape) < 1:
        raise GeometryError(f"{path}: the volume is empty, its header says {header.shape} (c, z, y, x); write it again")


def _parse(path: Path, head: bytes, sizes: str) -> Header:
    order = {b"L": "<", b"B": ">"}.get(head[len(RAW_MAGIC) : len(RAW_MAGIC) + 1])
    offset = SIZES_OFFSET + struct.calcsize(sizes)
    if order is None or len(head) < offset:
        what = "the byte order is neither L nor B" if len(head) >= offset else "it ends within the header"
        raise VolumeFormatError(f"{path}: not a usable v3draw header, {what}; copy or download it again")
    width, *xyzc = struct.unpack_from(order + "h" + sizes, head, len(RAW_MAGIC) + 1)
    if width not in DTYPES:
        raise VolumeFormatError(
            f"{path}: voxels of 1, 2 or 4 bytes are known (uint8, uint16, float32), the header says {width}; "
            "convert the file in Vaa3D"
        )
    x, y, z, c = xyzc
    return Header((c, z, y, x), DTYPES[width].newbyteorder(order), offset)


def _map_raw(path: Path, header: Header, channel: int) -> LazyVolume:
    channels, *zyx = header.shape
    check_channel(str(path), channel, channels)
    shape = check_shape(str(path), zyx)
    start = header.offset + channel * (header.payload // channels)

    def fetch(box: Box) -> npt.NDArray[Any]:
        return np.memmap(path, header.dtype, "r", start, shape)[box]  # anew: what was read counts while it is mapped

    return LazyVolume(path, shape, header.dtype, fetch, chunks=(1, *shape[1:]), channels=channels)
