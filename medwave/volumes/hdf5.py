"""Writing the little of HDF5 that an ITK transform file needs: groups, strings, float64 and packed float32 vectors.

Why not SimpleITK: it stores a field as float64 without compression (118 MB for 160x192x160 voxels, four to nine times
what is needed), and after a write that failed, as on a full disk, HDF5 leaves a broken file open, which crashes
Python at its end. Here a field is stored as float32 in chunks, shuffled (byte planes apart) and deflated; every
HDF5 reader undoes both, and ITK takes float32 parameters for a double transform.

Layout: HDF5 File Format Specification, version 0 superblock, version 1 object headers, groups as symbol tables
(https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html). All numbers are little-endian, all addresses
count from the start of the file, and every block starts at a multiple of eight bytes. The superblock, which says
where the tree begins, is written last.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

UNDEFINED = 0xFFFFFFFFFFFFFFFF
LEAF_K, NODE_K, CHUNK_K = 4, 16, 32  # the library's defaults; half the number of entries in a node
SUPERBLOCK_BYTES = 96
MOST_CHUNKS = 2 * CHUNK_K
MOST_MEMBERS = 2 * LEAF_K
HEAP_BYTES = 4096
IEEE_FLOAT = {
    4: struct.pack("<B3sIHHBBBBI", 0x11, bytes([0x20, 31, 0]), 4, 0, 32, 23, 8, 0, 23, 127),
    8: struct.pack("<B3sIHHBBBBI", 0x11, bytes([0x20, 63, 0]), 8, 0, 64, 52, 11, 0, 52, 1023),
}
VARIABLE_STRING = struct.pack("<B3sI", 0x19, bytes([1, 0, 0]), 16) + struct.pack("<B3sIHH", 0x10, bytes(3), 1, 0, 8)


@dataclass(frozen=True)
class PackedFloats:
    """A float32 vector to be stored shuffled and deflated.

    Attributes:
        length: number of values.
        parts: arrays that give the values in order when put together.
    """

    length: int
    parts: Iterable[npt.NDArray[np.float32]]


Tree = dict[str, "str | npt.NDArray[np.float64] | PackedFloats | Tree"]
"""A group: names to strings, float64 vectors, packed float32 vectors and groups, at most eight of them."""


def write_tree(file: BinaryIO, tree: Tree) -> None:
    """Write an HDF5 file whose root group is the tree."""
    file.write(bytes(SUPERBLOCK_BYTES))
    root = _write_group(file, tree)
    end = file.tell()
    header = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0])
    header += struct.pack("<HHI", LEAF_K, NODE_K, 0) + struct.pack("<4Q", 0, UNDEFINED, end, UNDEFINED)
    header += struct.pack("<QQII16x", 0, root, 0, 0)
    file.seek(0)
    file.write(header)
    file.seek(end)


def _write_group(file: BinaryIO, members: Tree) -> int:
    if not 0 < len(members) <= MOST_MEMBERS:
        raise ValueError(f"a group holds one to {MOST_MEMBERS} members here, got {len(members)}")
    addresses = {name: _write_member(file, members[name]) for name in sorted(members)}
    names, places = bytes(8), {}  # the first name of a heap is empty
    for name in addresses:
        places[name] = len(names)
        names += _padded(name.encode("ascii") + b"\0")
    name_data = _append(file, names)
    heap = _append(file, b"HEAP" + struct.pack("<B3xQQQ", 0, len(names), 1, name_data))
    leaf = b"SNOD" + struct.pack("<BxH", 1, len(addresses))
    for name, address in addresses.items():
        leaf += struct.pack("<QQI4x16x", places[name], address, 0)
    leaf_address = _append(file, leaf.ljust(8 + 40 * MOST_MEMBERS, b"\0"))
    node = b"TREE" + struct.pack("<BBHQQ", 0, 0, 1, UNDEFINED, UNDEFINED)
    node += struct.pack("<QQQ", 0, leaf_address, places[max(places)])
    node_address = _append(file, node.ljust(24 + 8 * (4 * NODE_K + 1), b"\0"))
    return _append(file, _object_header([(0x0011, struct.pack("<QQ", node_address, heap))]))


def _write_member(file: BinaryIO, value: str | npt.NDArray[np.float64] | PackedFloats | Tree) -> int:
    if isinstance(value, str):
        return _write_string(file, value)
    if isinstance(value, PackedFloats):
        return _write_packed(file, value)
    if isinstance(value, np.ndarray):
        return _write_plain(file, value)
    return _write_group(file, value)


def _write_string(file: BinaryIO, text: str) -> int:
    """A vector of one string of variable length, which lies in a heap of its own, as ITK writes strings."""
    content = text.encode("ascii")
    heap = b"GCOL" + struct.pack("<B3xQ", 1, HEAP_BYTES)
    heap += struct.pack("<HH4xQ", 1, 1, len(content)) + _padded(content)
    heap += struct.pack("<HH4xQ", 0, 0, HEAP_BYTES - len(heap))
    heap_address = _append(file, heap.ljust(HEAP_BYTES, b"\0"))
    data = _append(file, struct.pack("<IQI", len(content), heap_address, 1))
    return _append(file, _dataset(1, VARIABLE_STRING, struct.pack("<BBQQ", 3, 1, data, 16)))


def _write_plain(file: BinaryIO, values: npt.NDArray[np.float64]) -> int:
    content = np.ascontiguousarray(values, dtype="<f8").tobytes()
    data = _append(file, content)
    return _append(file, _dataset(len(values), IEEE_FLOAT[8], struct.pack("<BBQQ", 3, 1, data, len(content))))


def _write_packed(file: BinaryIO, values: PackedFloats) -> int:
    """A vector of float32 in at most 64 chunks of equal length (the last one padded), each shuffled and deflated."""
    chunk_length = max(1, -(-values.length // MOST_CHUNKS))
    node = b""
    count = 0
    for chunk in _chunks(values, chunk_length):
        planes = np.ascontiguousarray(chunk.view(np.uint8).reshape(-1, 4).T)
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
        packed = packer.compress(planes.data) + packer.flush()
        node += struct.pack("<IIQQQ", len(packed), 0, count * chunk_length, 0, _append(file, packed))
        count += 1
    node = b"TREE" + struct.pack("<BBHQQ", 1, 0, count, UNDEFINED, UNDEFINED) + node
    node += struct.pack("<IIQQ", 0, 0, count * chunk_length, 0)
    node_address = _append(file, node.ljust(24 + 24 * (MOST_CHUNKS + 1) + 8 * MOST_CHUNKS, b"\0"))
    layout = struct.pack("<BBBQII", 3, 2, 2, node_address, chunk_length, 4)
    shuffle, deflate = struct.pack("<HHHHII", 2, 0, 1, 1, 4, 0), struct.pack("<HHHHII", 1, 0, 1, 1, 1, 0)
    filters = struct.pack("<BB6x", 1, 2) + shuffle + deflate
    return _append(file, _dataset(values.length, IEEE_FLOAT[4], layout, (0x000B, filters)))


def _chunks(values: PackedFloats, chunk_length: int) -> Iterator[npt.NDArray[np.float32]]:
    chunk, filled = np.zeros(chunk_length, "<f4"), 0
    for part in values.parts:
        flat, start = np.ravel(part), 0
        while start < flat.size:
            step = min(chunk_length - filled, flat.size - start)
            chunk[filled : filled + step] = flat[start : start + step]
            filled, start = filled + step, start + step
            if filled == chunk_length:
                yield chunk
                filled = 0
    if filled:
        chunk[filled:] = 0
        yield chunk


def _dataset(length: int, datatype: bytes, layout: bytes, *more: tuple[int, bytes]) -> bytes:
    space = struct.pack("<BBB5xQ", 1, 1, 0, length)
    fill = bytes([2, 2, 2, 0])  # space allocated when written, no fill value
    return _object_header([(0x0001, space), (0x0003, datatype), (0x0005, fill), (0x0008, layout), *more])


def _object_header(messages: list[tuple[int, bytes]]) -> bytes:
    body = b""
    for kind, content in messages:
        padded = _padded(content)
        body += struct.pack("<HHB3x", kind, len(padded), 0) + padded
    return struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 8)


def _append(file: BinaryIO, content: bytes) -> int:
    """Write a block at the end of the file, and return its address."""
    address = file.tell()
    file.write(_padded(content))
    return address
