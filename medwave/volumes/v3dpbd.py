"""Vaa3D's packed format ``.v3dpbd``, 8 and 16 bits.

Conventions
    The header is that of :mod:`medwave.volumes.v3draw` with another magic. One stream of codes follows that covers all
    voxels in file order (x fastest, then y, z, c). A code announces a run of literal values, of small differences to
    the value before, or of one repeated value; the value before the first is 0. In 8-bit streams four 2-bit
    differences lie in a byte, lowest bits first; in 16-bit streams differences of 3, 4 or 5 bits lie most
    significant bit first.

A run cannot be found without decoding all before it, so such a file is unpacked whole, up to the channel's end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.errors import VolumeFormatError
from medwave.volumes.stack import LazyVolume, check_channel, check_shape
from medwave.volumes.v3draw import Header

DONE, CUT_SHORT, OVERRUN = 0, 1, 2


def unpack_v3dpbd(path: Path, header: Header, *, channel: int) -> LazyVolume:
    """Unpack one channel of a file whose header has been read.

    Raises:
        VolumeFormatError: when it is not 8 or 16 bits, or the stream ends too early or too late.
        GeometryError: when it is empty or a single slice.
        InputError: when it lacks the channel.
    """
    channels, *zyx = header.shape
    check_channel(str(path), channel, channels)
    shape = check_shape(str(path), zyx)
    if header.dtype.itemsize > 2:
        raise VolumeFormatError(
            f"{path}: packed files hold 8 or 16 bits per voxel, the header says {8 * header.dtype.itemsize}; "
            "save it in Vaa3D as .v3draw"
        )
    stream = np.fromfile(path, np.uint8, offset=header.offset)
    if 128 * stream.size < math.prod(header.shape):  # the longest run of a byte; spares memory for absurd headers
        raise _stream_error(path, header, CUT_SHORT)
    values, outcome = decode(stream, header.dtype, math.prod(shape), channel, channels)
    if outcome != DONE:
        raise _stream_error(path, header, outcome)
    volume = LazyVolume.from_array(values.reshape(shape), name=path)
    volume.channels = channels
    return volume


def decode(
    stream: npt.NDArray[np.uint8], dtype: np.dtype[Any], voxels: int, channel: int = 0, channels: int = 1
) -> tuple[npt.NDArray[Any], int]:
    """Unpack one channel of a stream.

    Args:
        stream: the bytes after the header.
        dtype: uint8 or uint16 in the byte order of the file.
        voxels: voxels of one channel.
        channel: which channel to keep.
        channels: how many the stream holds.

    Returns:
        The values ``(voxels,)`` in native byte order, and ``DONE``, ``CUT_SHORT`` (the stream ends before the last
        voxel) or ``OVERRUN`` (a run passes the last voxel, or bytes follow it).
    """
    values = np.empty(voxels, dtype.newbyteorder("="))
    if dtype.itemsize == 1:
        return values, int(_unpack_8(stream, values, channel * voxels, channels * voxels))
    low = 1 if dtype.str[0] == ">" else 0
    return values, int(_unpack_16(stream, values, channel * voxels, channels * voxels, low))


def _stream_error(path: Path, header: Header, outcome: int) -> VolumeFormatError:
    what = "is truncated: it ends before the last voxel" if outcome == CUT_SHORT else "overruns the last voxel"
    return VolumeFormatError(
        f"{path}: the packed data {what} of shape {header.shape} (c, z, y, x); copy or download it again"
    )


@compiler()
def _put(values: npt.NDArray[Any], at: int, value: int) -> None:
    """Keep a value if it belongs to the channel that is kept."""
    if 0 <= at < values.size:
        values[at] = value


@compiler()
def _unpack_8(stream: npt.NDArray[np.uint8], values: npt.NDArray[np.uint8], first: int, total: int) -> int:
    at, done, prior = 0, 0, 0
    while done < total:
        if at >= stream.size:
            return CUT_SHORT
        code = np.int64(stream[at])
        at += 1
        if code < 33:
            count, needed = code + 1, code + 1
        elif code < 128:
            count = code - 32
            needed = (count + 3) // 4
        else:
            count, needed = code - 127, 1
        if at + needed > stream.size:
            return CUT_SHORT
        if done + count > total:
            return OVERRUN
        for n in range(count):
            if code < 33:
                prior = np.int64(stream[at + n])
            elif code < 128:
                step = (np.int64(stream[at + n // 4]) >> (2 * (n % 4))) & 3
                prior = (prior + (step if step < 3 else -1)) & 255
            else:
                prior = np.int64(stream[at])
            _put(values, done + n - first, prior)
        at += needed
        done += count
    return DONE if at == stream.size else OVERRUN


@compiler()
def _unpack_16(stream: npt.NDArray[np.uint8], values: npt.NDArray[np.uint16], first: int, total: int, low: int) -> int:
    """``low`` is the place of the low byte in a pair: 0 in little-endian files, 1 in big-endian ones."""
    at, done, prior = 0, 0, 0
    while done < total:
        if at >= stream.size:
            return CUT_SHORT
        code = np.int64(stream[at])
        at += 1
        bits = 0
        if code < 32:
            count, needed = code + 1, 2 * (code + 1)
        elif code < 223:
            bits = 3 if code < 80 else (4 if code < 183 else 5)
            count = code - (31 if code < 80 else (79 if code < 183 else 182))
            needed = (count * bits + 7) // 8
        else:
            count, needed = code - 222, 2
        if at + needed > stream.size:
            return CUT_SHORT
        if done + count > total:
            return OVERRUN
        for n in range(count):
            if bits > 0:
                prior = (prior + _difference(stream, at, n * bits, bits)) & 65535
            elif code < 32 or n == 0:
                place = at + (2 * n if code < 32 else 0)
                prior = np.int64(stream[place + low]) | (np.int64(stream[place + 1 - low]) << 8)
            _put(values, done + n - first, prior)
        at += needed
        done += count
    return DONE if at == stream.size else OVERRUN


@compiler()
def _difference(stream: npt.NDArray[np.uint8], at: int, bit: int, bits: int) -> int:
    """The difference of ``bits`` bits that starts at a bit of the run, most significant bit first."""
    place = at + bit // 8
    pair = np.int64(stream[place]) << 8
    if bit % 8 + bits > 8:
        pair |= np.int64(stream[place + 1])
    code = (pair >> (16 - bits - bit % 8)) & ((1 << bits) - 1)
    turn = 1 << (bits - 1)
    return code if code <= turn else turn - code
