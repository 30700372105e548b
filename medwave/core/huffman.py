"""Deflate streams of noisy values by Huffman codes alone: several times as fast as looking for repetitions.

The last bytes of a measured float32 hardly ever repeat, and a search for repetitions in them costs more than all else.
Here each byte gets a code by how often it comes (RFC 1951, blocks with dynamic codes), and runs of zeros are the only
repetition that is looked for. A code is made once, from a sample, for all blocks of a file.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler

STREAM_END = b"\x03\x00"
"""An empty block, the last one of a deflate stream."""

_LONGEST = 12  # bits of a code: two of them fit beside what waits for a whole word
_END_OF_BLOCK, _RUN = 256, 285  # symbols; a run is 258 bytes like the one before them
_SYMBOLS = 286
_PAIRS_OF_RUN = 129
_ORDER_OF_LENGTHS = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_BYTE_BOUNDARY = b"\x00\x00\xff\xff"  # what follows the first three bits of an empty block, from a whole byte on

_compile = compiler(error_model="numpy")


@_compile
def _put(code, length, waiting, bits, words, out):  # type: ignore[no-untyped-def]
    """Append the ``length`` bits of a code, 1 to 63, to ``bits`` bits that wait; 64 go out. There is no branch."""
    joined, late = waiting | code << bits, code >> ((np.uint64(64) - bits) & np.uint64(63))
    out[words] = joined  # also while it is not full
    bits += length
    full = bits >> np.uint64(6)
    mask = np.uint64(0) - full
    return (joined & ~mask) | (late & mask), bits & np.uint64(63), words + np.int64(full)


@_compile
def _entry(entry):  # type: ignore[no-untyped-def]
    return np.uint64(entry & np.uint32(0xFFFFFF)), np.uint64(entry >> np.uint32(24))


@_compile
def _encode(pairs, table, run, end, first, out):  # type: ignore[no-untyped-def]
    """Write the codes of bytes into ``out``; returns how many bytes they take.

    Args:
        pairs: the bytes, two by two, ``(N,)`` uint16.
        table: code of each pair, its number of bits in the upper byte, ``(65536,)`` uint32.
        run, end: code of 258 more zeros, and what ends the block, as in the table.
        first: bits that come before, likewise.
        out: uint64, room enough.
    """
    waiting, bits = _entry(first)
    words, place, count = 0, 0, pairs.shape[0]
    while place < count:
        code, length = _entry(table[pairs[place]])
        place += 1
        if place < count and (pairs[place - 1] | pairs[place]) != 0:  # mostly
            more, further = _entry(table[pairs[place]])
            waiting, bits, words = _put(code | more << length, length + further, waiting, bits, words, out)
            place += 1
            continue
        waiting, bits, words = _put(code, length, waiting, bits, words, out)
        last = place
        while last < count and pairs[place - 1] == 0 and pairs[last] == 0:
            last += 1
        code, length = _entry(run)
        while last - place >= _PAIRS_OF_RUN:
            waiting, bits, words = _put(code, length, waiting, bits, words, out)
            place += _PAIRS_OF_RUN
        code, length = _entry(table[0])
        while place < last:
            waiting, bits, words = _put(code, length, waiting, bits, words, out)
            place += 1
    code, length = _entry(end)
    waiting, bits, words = _put(code, length, waiting, bits, words, out)
    out[words] = waiting
    return 8 * words + (np.int64(bits) + 7) // 8


class HuffmanCode:
    """A code for bytes like those of a sample.

    Args:
        sample: bytes, uint8 of any shape; a byte that it lacks gets a long code.
    """

    def __init__(self, sample: npt.NDArray[np.uint8]) -> None:
        counts = np.zeros(_SYMBOLS, dtype=np.int64)
        counts[:256] = 1 + np.bincount(sample.ravel(), minlength=256)
        counts[[_END_OF_BLOCK, _RUN]] = 1
        lengths = _lengths(counts)
        entries = _entries(lengths)
        low, high = entries[None, :256], entries[:256, None]
        code = (low & 0xFFFFFF) | ((high & 0xFFFFFF) << (low >> 24))
        self._table = (code | ((low >> 24) + (high >> 24)) << 24).ravel()
        self._run = entries[_RUN] + np.uint32(1 << 24)  # the distance, 1, has the only code there: one bit, 0
        self._end = entries[_END_OF_BLOCK] + np.uint32(3 << 24)  # an empty block begins with three zeros
        head = _head(lengths)
        whole = len(head) // 8 * 8
        self._head = np.packbits(head[:whole], bitorder="little").tobytes()
        rest = head[whole:]
        self._first = np.uint32(int(rest @ (1 << np.arange(len(rest)))) | len(rest) << 24)

    def block(self, values: npt.NDArray[Any]) -> bytes:
        """The bytes of a contiguous array, an even number of them, as blocks of a deflate stream: whole bytes."""
        pairs = values.reshape(-1).view(np.uint16)
        out = np.empty(3 * len(pairs) // 8 + 8, dtype=np.uint64)
        length = _encode(pairs, self._table, self._run, self._end, self._first, out)
        return b"".join((self._head, out.view(np.uint8)[:length].data, _BYTE_BOUNDARY))


def _lengths(counts: npt.NDArray[np.int64]) -> list[int]:
    """Bits of each symbol's code by Huffman's method, 0 where it never comes; counts are evened out until all fit."""
    while True:
        heap = [(count, symbol) for symbol, count in enumerate(counts.tolist()) if count]
        heapq.heapify(heap)
        above: dict[int, int] = {}
        for node in range(len(counts), len(counts) + len(heap) - 1):  # every node joins the two rarest
            (few, one), (more, other) = heapq.heappop(heap), heapq.heappop(heap)
            above[one] = above[other] = node
            heapq.heappush(heap, (few + more, node))
        depths: dict[int, int] = {}
        for node in sorted(above, reverse=True):
            depths[node] = depths.get(above[node], 0) + 1
        lengths = [depths.get(symbol, 0) for symbol in range(len(counts))]
        if max(lengths) <= _LONGEST:
            return lengths
        counts = np.where(counts > 0, 1 + counts // 2, 0)


def _entries(lengths: list[int]) -> npt.NDArray[np.uint32]:
    """The canonical code of each symbol, first bit lowest, and its number of bits in the upper byte."""
    entries, code, before = np.zeros(len(lengths), dtype=np.uint32), 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        entries[symbol] = int(f"{code:0{length}b}"[::-1], 2) | length << 24
        code, before = code + 1, length
    return entries


def _head(lengths: list[int]) -> npt.NDArray[np.uint8]:
    """The bits that begin a block and tell its code: every length takes four bits."""
    fields = [(0, 1), (2, 2), (_SYMBOLS - 257, 5), (0, 5), (len(_ORDER_OF_LENGTHS) - 4, 4)]
    fields += [(4 if length <= 15 else 0, 3) for length in _ORDER_OF_LENGTHS]
    bits = [value >> place & 1 for value, width in fields for place in range(width)]
    for length in (*lengths, 1):  # the last one is that of the only distance
        bits += [length >> place & 1 for place in (3, 2, 1, 0)]  # its code is itself, first bit highest
    return np.array(bits, dtype=np.uint8)
