"""First calls of compiled loops, one process at a time.

numba keeps on disk what it compiles, with one index per function. Processes that add different signatures of one
function at the same moment may give both the same file, and whoever loads them later would run one in place of the
other. So whoever compiles, or loads what another has compiled, holds a lock on the folder; the others wait, and then
find the work done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "medwave.lock"
"""The file in numba's cache folder that is locked."""

_ready: set[tuple[Callable[..., None], Hashable]] = set()


def compile_in_turn(kernel: Callable[..., None], kind: Hashable, *arguments: Any) -> None:
    """Make a slab kernel (see :mod:`medwave.core.threads`) ready to run on arguments like these.

    Args:
        kernel: is called on the empty slab, on the first call in this process.
        kind: stands for the types of the arguments; one kind, one signature.
    """
    if (kernel, kind) in _ready:
        return
    with _turn(kernel):
        kernel(0, 0, *arguments)
    _ready.add((kernel, kind))


@contextlib.contextmanager
def _turn(kernel: Callable[..., None]) -> Iterator[None]:
    """Hold the lock of the kernel's cache folder; where there is none to hold, go on without."""
    folder = getattr(getattr(kernel, "_cache", None), "cache_path", None)
    try:
        stream = (Path(folder) / LOCK_NAME).open("a") if fcntl and folder else None
    except OSError:  # numba cannot write there either
        stream = None
    if stream is None:
        yield
        return
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # given up when the stream is closed
        yield
