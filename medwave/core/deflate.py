"""Deflate at the speed of a copy: gzip streams and zlib blocks by ISA-L.

ISA-L packs float32 displacements four times as fast as zlib's level 1, and a tenth smaller. Where its Python package
has no wheel zlib stands in: other bytes, the same content for every reader.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_GZIP_BITS = 16 + zlib.MAX_WBITS
_LEVEL = 1

_deflate: Any
try:
    from isal import isal_zlib as _deflate
except ImportError:
    _deflate = zlib


def gzip_packer() -> Any:
    """A compressor with ``compress(data)`` and ``flush()`` whose bytes together are a gzip file."""
    return _deflate.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_BITS)


def gunzip(content: bytes) -> bytes:
    """The content of a gzip file, of one member or several.

    Raises:
        EOFError: when it ends too early.
        zlib.error: when it is damaged.
    """
    parts = []
    while content:
        unpacker = _deflate.decompressobj(_GZIP_BITS)
        try:
            parts.append(unpacker.decompress(content))
        except _deflate.error as error:
            raise zlib.error(str(error)) from None
        if not unpacker.eof:
            raise EOFError("the stream ended before its end mark")
        content = unpacker.unused_data.lstrip(b"\0")  # gzip allows zeros after a member
    return parts[0] if len(parts) == 1 else b"".join(parts)


def shuffled_block(values: npt.NDArray[Any]) -> bytes:
    """What HDF5's shuffle and deflate filters make of a block: byte planes apart, then a zlib stream."""
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.itemsize).T
    packer = _deflate.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS)
    return bytes(packer.compress(np.ascontiguousarray(planes).data) + packer.flush())
