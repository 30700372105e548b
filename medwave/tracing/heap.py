"""An indexed binary min-heap for compiled loops.

Items are the integers ``0 .. n-1``. The heap is four arrays that the caller owns: ``heap`` (items in heap order),
``place`` (where an item lies in ``heap``; -1: not in it) and ``key`` (one number per item), plus the number of items
in it. Items are ordered by (key, item), so equal keys leave in a fixed order and a result never depends on chance.
"""

from __future__ import annotations

from medwave.core.compiler import compiler


@compiler(inline="always")
def _before(a, b, key):
    return key[a] < key[b] or (key[a] == key[b] and a < b)


@compiler()
def sift_up(heap, place, key, slot):
    """Move the item in ``slot`` towards the top until its parent comes before it."""
    item = heap[slot]
    while slot > 0:
        above = (slot - 1) >> 1
        other = heap[above]
        if _before(other, item, key):
            break
        heap[slot] = other
        place[other] = slot
        slot = above
    heap[slot] = item
    place[item] = slot


@compiler()
def push_or_raise(heap, place, key, size, item):
    """Insert ``item``, or move it up after its key became smaller; returns the new size."""
    slot = place[item]
    if slot < 0:
        slot = size
        heap[slot] = item
        size += 1
    sift_up(heap, place, key, slot)
    return size


@compiler()
def pop(heap, place, key, size):
    """Take the first item out; returns (item, new size). The heap must not be empty."""
    first = heap[0]
    place[first] = -1
    size -= 1
    if size == 0:
        return first, size
    item = heap[size]
    slot = 0
    while True:
        below = 2 * slot + 1
        if below >= size:
            break
        if below + 1 < size and _before(heap[below + 1], heap[below], key):
            below += 1
        other = heap[below]
        if _before(item, other, key):
            break
        heap[slot] = other
        place[other] = slot
        slot = below
    heap[slot] = item
    place[item] = slot
    return first, size
