"""Pieces that both Triton kernels are made of: boundary arithmetic and sums of tiles.

Conventions
    Positions, sizes and offsets as in :mod:`medwave.wavelets.extension`, whose rules these functions compute on the
    fly. An index of -1 stands for a zero: it is loaded under a mask. ``FAR`` says that a signal may be shorter than
    the filter, so that one reflection or one turn does not bring every position home.
    A set of tiles is a tuple; weights are compile-time constants, and a tap of zero costs nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def wrapped(at: tl.tensor, period: tl.tensor, FAR: tl.constexpr) -> tl.tensor:
    """``at`` modulo ``period``; it is off by one period at most unless ``FAR``."""
    if FAR:
        at = at % period  # the sign of a remainder differs between languages: the next line takes either
    at = tl.where(at < 0, at + period, at)
    return tl.where(at >= period, at - period, at)


@triton.jit
def source(at: tl.tensor, size: tl.tensor, BEYOND: tl.constexpr, REPEAT: tl.constexpr, FAR: tl.constexpr) -> tl.tensor:
    """The sample that stands at position ``at``, -1 for a zero: ``extension.source_index``."""
    even = size + size % 2
    if BEYOND == "zero":
        limit = even if REPEAT else size
        index = tl.where((at >= 0) & (at < limit), tl.minimum(at, size - 1), -1)
    elif BEYOND == "periodic":
        at = wrapped(at, even, FAR)
        index = tl.minimum(at, size - 1) if REPEAT else tl.where(at < size, at, -1)
    else:
        EDGE: tl.constexpr = 1 if BEYOND == "symmetric" else 0
        period = 2 * size - 2 + 2 * EDGE
        if FAR:
            at = wrapped(at, period, FAR)
        at = tl.where(at < 0, -EDGE - at, at)
        index = tl.where(at >= size, period - EDGE - at, at)
    return index


@triton.jit
def coefficient(at: tl.tensor, count: tl.tensor, PERIODIC: tl.constexpr, FAR: tl.constexpr) -> tl.tensor:
    """The coefficient at ``at``: it goes round, or -1 stands for a zero outside."""
    if PERIODIC:
        index = wrapped(at, count, FAR)
    else:
        index = tl.where((at >= 0) & (at < count), at, -1)
    return index


@triton.jit
def fetch(pointer: tl.tensor, at: tl.tensor, seen: tl.tensor, MASKED: tl.constexpr, ACC: tl.constexpr) -> tl.tensor:
    """Values at offsets ``at`` in the accumulating type; zero where ``seen`` (an index) is -1."""
    if MASKED:
        value = tl.load(pointer + at, mask=seen >= 0, other=0.0)
    else:
        value = tl.load(pointer + at)
    return value.to(ACC)


@triton.jit
def zeros(COUNT: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr) -> tl.tuple:
    """``COUNT`` tiles of zeros."""
    tiles = ()  # type: tuple[object, ...]
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.full((BR, BW), 0.0, ACC),)
    return tiles


@triton.jit
def group(tiles: tl.tuple, index: tl.constexpr, SIZE: tl.constexpr) -> tl.tuple:
    """Tiles ``index * SIZE`` to ``(index + 1) * SIZE``."""
    return tiles[index * SIZE : (index + 1) * SIZE]


@triton.jit
def add(total: tl.tuple, part: tl.tuple, TAPS: tl.constexpr, FIRST: tl.constexpr, GROUPS: tl.constexpr) -> tl.tuple:
    """``total[g * n + i] + TAPS[FIRST + g] * part[i]`` for ``n`` parts: one group of tiles per weight."""
    tiles = ()  # type: tuple[object, ...]
    for g in tl.static_range(GROUPS):
        for i in tl.static_range(len(part)):
            tile = total[g * len(part) + i]
            if TAPS[FIRST + g] != 0.0:
                tile = tile + TAPS[FIRST + g] * part[i]
            tiles = tiles + (tile,)
    return tiles


@triton.jit
def mirrored(
    k: tl.tensor, u: tl.tensor, size: tl.tensor, views: tl.tensor, OFFSET: tl.constexpr, FOLD: tl.constexpr
) -> tl.tuple:
    """Where pair ``u`` of samples is seen again, for view ``k`` of ``views``.

    The extension repeats the signal in blocks; block ``n`` holds it shifted (even ``n``) or mirrored (odd ``n``).
    The adjoint adds to a sample what stands at its copies: pair ``u`` collects from pair ``u'``.

    Returns:
        ``(u', swap, even, odd, lanes)``: the pair; whether its members change places; which members collect; and
        -1 for those lanes of ``u`` that do not.
    """
    if FOLD == "last":  # an odd signal repeats its last sample once: a mirror for that sample alone
        flip = k == 1
        last = size - 1 + OFFSET
        pair = tl.where(flip, size + OFFSET - 1 - u, u)
        lanes = tl.where(flip & (u != last // 2), -1, 0)
        even = (k == 0) | (last % 2 == 0)
        odd = (k == 0) | (last % 2 == 1)
        swap = flip
    elif FOLD == "symmetric":
        n = k - views // 2
        flip = (n & 1) == 1
        pair = ((n + 1) >> 1) * size + tl.where(flip, OFFSET - 1 - u, u)
        lanes = tl.where(u == u, 0, -1)
        even = k >= 0
        odd = k >= 0
        swap = flip
    else:  # reflect: the border itself has no copy, and the members of a pair part: one view for each
        n = k // 2 - views // 4
        phase = k % 2
        flip = (n & 1) == 1
        pair = ((n + 1) >> 1) * (size - 1) + tl.where(flip, OFFSET - phase - u, u)
        sample = 2 * u + phase - OFFSET
        lanes = tl.where(flip & ((sample <= 0) | (sample >= size - 1)), -1, 0)
        even = phase == 0
        odd = phase == 1
        swap = k < 0
    return pair, swap, even, odd, lanes


@triton.jit
def collects(
    k: tl.tensor, first: tl.tensor, last: tl.tensor, size: tl.tensor, count: tl.tensor, views: tl.tensor,
    OFFSET: tl.constexpr, PAIRS: tl.constexpr, FOLD: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Whether view ``k`` holds anything for the pairs ``first`` to ``last``: most tiles see themselves only."""
    if FOLD == "last":
        end = (size - 1 + OFFSET) // 2
        found = (k == 0) | ((first <= end) & (last >= end))
    else:
        a, _, _, _, _ = mirrored(k, first, size, views, OFFSET, FOLD)
        b, _, _, _, _ = mirrored(k, last, size, views, OFFSET, FOLD)
        found = (tl.maximum(a, b) >= 0) & (tl.minimum(a, b) < count + PAIRS - 1)
    return found


@triton.jit
def collect(total: tl.tuple, part: tl.tuple, swap: tl.tensor, even: tl.tensor, odd: tl.tensor) -> tl.tuple:
    """Add a view's pairs, (even, odd) groups of tiles, to those of the samples."""
    half: tl.constexpr = len(part) // 2
    tiles = ()  # type: tuple[object, ...]
    for i in tl.static_range(len(part)):
        wanted = even if i < half else odd
        value = tl.where(swap, part[(i + half) % len(part)], part[i])
        tiles = tiles + (total[i] + tl.where(wanted, value, tl.zeros_like(value)),)
    return tiles
