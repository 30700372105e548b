"""Loops that numba compiles once per machine and loads from disk ever after.

A kernel found on disk is machine code that needs nothing of numba's compiler, yet numba first sets up all that a
compilation could need: extensions of all installed packages, and its own library for arrays and strings. That takes
more than half a CPU second, in a process that may live for five. Here it waits for a kernel that is not on disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def _absent(package: str, *, wanted: bool) -> Iterator[None]:
    """Let an optional package of numba be missing while numba is imported, unless it is wanted or there already."""
    if wanted or package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # which Python takes for missing
    try:
        yield
    finally:
        del sys.modules[package]


with _absent("coverage", wanted="NUMBA_JIT_COVERAGE" in os.environ):  # where tests are run: a tenth of a second
    import numba
    from numba.core import entrypoints, environment
    from numba.core.caching import FunctionCache
    from numba.core.runtime.nrt import rtsys


class _KernelCache(FunctionCache):
    """numba's cache of one function on disk; a compilation, should it come to that, sets up the compiler itself."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # the arrays that kernels make
        found = None
        with self._guard_against_spurious_io_errors(), _without_modules_of_numba():
            found = self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        if found is None:
            # what a dispatcher does before it looks for a kernel
            entrypoints.init_all()  # type: ignore[no-untyped-call]
        return found


@contextlib.contextmanager
def _without_modules_of_numba() -> Iterator[None]:
    """Load kernels without the modules of the functions of numba in them, which compiled code never looks at.

    Runs under numba's lock of the compiler.
    """
    rebuild = environment._rebuild_env

    def build(module: str, constants: list[Any], name: str) -> Any:
        if module in sys.modules or not module.startswith("numba.") or name in environment.Environment._memo:
            return rebuild(module, constants, name)  # type: ignore[no-untyped-call]
        made: Any = environment.Environment({"__name__": module})
        made.consts[:] = constants
        made.env_name = name
        environment.Environment._memo[name] = made
        return made

    environment._rebuild_env = build
    try:
        yield
    finally:
        environment._rebuild_env = rebuild


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
            kernel._compilation_chain_init_hook = _nothing
        return kernel

    return build


def _nothing() -> None: ...
