"""Loops that numba compiles once per machine and loads from disk ever after.

A kernel found on disk is machine code that needs nothing of numba's compiler, yet numba first sets up all that a
compilation could need: half a CPU second, in a process that may live for five. Here that waits for a kernel that is
not on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys


class _KernelCache(FunctionCache):
    """numba's cache of one function on disk; a compilation, should it come to that, sets up the compiler itself."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # the arrays that kernels make
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


def compiler(**options: Any) -> Callable[[Any], Any]:
    """A decorator: ``numba.njit`` with the GIL released and the machine code kept on disk.

    Args:
        options: of ``numba.njit``, such as ``fastmath`` and ``error_model``.
    """
    decorate = numba.njit(cache=True, nogil=True, **options)

    def build(function: Any) -> Any:
        kernel = decorate(function)
        if type(getattr(kernel, "_cache", None)) is FunctionCache:  # none where numba is told not to compile or keep
            kernel._cache = _KernelCache(function)  # type: ignore[no-untyped-call]
        return kernel

    return build
