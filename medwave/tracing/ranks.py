"""Exact ranks of values that are only ever seen in blocks: which value has so many below it.

Values become unsigned numbers in the same order, which are looked at 16 bits at a time, the first ones first: how often
each occurs, among the values that begin with the bits known so far. 8 and 16 bits take one look at the volume, 32 bits
take two.
"""

from __future__ import annotations

import numpy as np

DIGIT_BITS = 16


def digits(dtype: np.dtype) -> int:
    """How many looks at the volume it takes."""
    return max(1, dtype.itemsize * 8 // DIGIT_BITS)


def digit_counts(values: np.ndarray, known: int = 0, looks: int = 0) -> np.ndarray:
    """(65536,) how often each value of the next 16 bits occurs; (256,) where there are 8.

    Args:
        values: finite numbers.
        known: the bits that earlier looks found.
        looks: how many these were.
    """
    keys = _keys(values)
    left = (digits(values.dtype) - looks - 1) * DIGIT_BITS
    if looks:
        keys = keys[keys >> np.array(left + DIGIT_BITS, keys.dtype) == known]
    if digits(values.dtype) > 1:
        keys = keys >> np.array(left, keys.dtype) & np.array((1 << DIGIT_BITS) - 1, keys.dtype)
    return np.bincount(keys.astype(np.int64), minlength=1 << min(DIGIT_BITS, 8 * values.dtype.itemsize))


def digit_at(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The 16 bits of the value with ``rank`` values below it, and its rank among those that begin with them."""
    below = np.cumsum(counts)
    digit = int(np.searchsorted(below, rank, side="right"))
    return digit, rank - int(below[digit] - counts[digit])


def values_of(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(n,) the values of all their bits, (n,) int."""
    bits = keys.astype(f"u{dtype.itemsize}")
    top = np.array(1 << 8 * dtype.itemsize - 1, bits.dtype)
    if dtype.kind == "i":
        bits = bits ^ top
    elif dtype.kind == "f":
        bits = np.where(bits & top, bits ^ top, ~bits)
    return bits.view(dtype)


def all_values(dtype: np.dtype) -> np.ndarray:
    """Every value of a type of at most 16 bits, in order; what is not finite is 0."""
    keys = np.arange(1 << min(8 * dtype.itemsize, DIGIT_BITS))
    return np.nan_to_num(values_of(keys % 2 if dtype.kind == "b" else keys, dtype), nan=0, posinf=0, neginf=0)


def _keys(values: np.ndarray) -> np.ndarray:
    """Unsigned numbers (n,) in the order of the values."""
    flat = np.ascontiguousarray(values).reshape(-1)
    size, top = flat.dtype.itemsize, 1 << flat.dtype.itemsize * 8 - 1
    if flat.dtype.kind in "bu":
        return flat.view(f"u{size}")
    keys = flat.view(f"u{size}")
    mark = np.array(top, keys.dtype)
    if flat.dtype.kind == "i":
        return keys ^ mark
    return np.where(keys & mark, ~keys, keys | mark)
