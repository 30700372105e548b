"""The LZW codec of TIFF, compiled: tifffile decodes it only with a further package.

Conventions
    TIFF 6.0, section 13: codes of 9 to 12 bits, most significant bit first; 256 clears the table, 257 ends the data;
    the width grows one code early.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler

CLEAR, END, FIRST_FREE, TABLE_SIZE = 256, 257, 258, 4096


def lzw_decode(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Unpack a strip or tile.

    Args:
        data: the packed bytes.
        size: how many bytes it holds unpacked.

    Returns:
        The bytes ``(size,)``.

    Raises:
        ValueError: when the data are damaged or hold fewer bytes.
    """
    out = np.empty(size, np.uint8)
    if _unpack(np.frombuffer(data, np.uint8), out) != size:
        raise ValueError("the LZW data are damaged or end too early")
    return out


@compiler()
def _unpack(data: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> int:
    """Bytes written. An entry of the table is a stretch of the output, so that no string is ever built."""
    start = np.zeros(TABLE_SIZE, np.int64)
    length = np.zeros(TABLE_SIZE, np.int64)
    held, bits, width, free = 0, 0, 9, FIRST_FREE
    at, done, before, before_length = 0, 0, -1, 0
    while done < out.size:
        while bits < width:
            if at >= data.size:
                return done
            held = ((held << 8) | np.int64(data[at])) & 0xFFFFFF
            bits += 8
            at += 1
        code = (held >> (bits - width)) & ((1 << width) - 1)
        bits -= width
        if code == END:
            return done
        if code == CLEAR:
            width, free, before = 9, FIRST_FREE, -1
            continue
        if before >= 0 and free < TABLE_SIZE:  # the string before and the first byte of this one, as they lie
            start[free], length[free] = before, before_length + 1
            free += 1
            if free + 1 >= (1 << width) and width < 12:
                width += 1
        if code >= CLEAR and code >= free:
            return done
        count = 1 if code < CLEAR else min(length[code], out.size - done)
        if code < CLEAR:
            out[done] = code
        else:
            for n in range(count):  # byte by byte: an entry may end with the byte it is just writing
                out[done + n] = out[start[code] + n]
        before, before_length = done, count
        done += count
    return done


def undo_differences(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """TIFF's predictor 2 undone: values ``(..., width, samples)`` are steps along the row, modulo 2**bits."""
    return np.cumsum(values, axis=-2, dtype=values.dtype.newbyteorder("="))
