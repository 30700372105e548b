"""Memory that is freed and taken again at once, as a chain of steps on whole volumes does.

The C library of Linux (glibc) asks the system for every large array and gives it back when it is freed. The system then
clears each page anew: an eighth of the CPU seconds of a fast registration. Kept memory is used again as it is; the
process holds a tenth more at its peak, since what is kept lies in pieces. It pays where arrays are of a few sizes that
come again, and not where they are of many: a segmentation's peak doubled.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt: how much is kept free at the end of the heap, and from which size arrays are mapped by themselves."""

_KEEP = (1 << 31) - 1
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20}
"""Where glibc's own thresholds arrive after the first large arrays."""

_depth = 0


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for what comes next in the block, and give it back to the system at its end.

    Of blocks inside each other the outermost gives it back. Does nothing where the C library is another than glibc.
    """
    global _depth
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    for threshold in _USUAL:
        library.mallopt(threshold, _KEEP)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _give_back(library)


def _give_back(library: ctypes.CDLL) -> None:
    for threshold, usual in _USUAL.items():
        library.mallopt(threshold, usual)
    library.malloc_trim(0)
