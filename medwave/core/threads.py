"""Threads for compiled loops.

A kernel is a function compiled with ``nogil=True`` that works on the slab ``[start, stop)`` of its first axis and
writes nothing outside it. Where torch is in use the number of threads is torch's (``torch.set_num_threads``), so one
setting rules the networks and the loops. Torch takes two seconds and 0.2 GB to import, so it is not imported for that:
without it the number is ``OMP_NUM_THREADS``, or that of the processors of this process. A result never depends on it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_pool: tuple[int, int, ThreadPoolExecutor] | None = None
_limit = 0
_each = threading.local()  # set in a thread that runs one item of many


def thread_count() -> int:
    """How many threads loops take."""
    if getattr(_each, "running", False):
        return 1
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    if _limit:
        return _limit
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Use ``count`` threads in the block, in networks and loops alike; 0 leaves them as they are.

    A block that uses torch imports it before: what is imported inside brings its own number of threads.
    """
    global _limit
    torch = sys.modules.get("torch")
    before, limit = torch.get_num_threads() if torch else 0, _limit
    if count:
        _limit = count
        if torch:
            torch.set_num_threads(count)
    try:
        yield
    finally:
        _limit = limit
        if torch:
            torch.set_num_threads(before)


def _executor(workers: int) -> ThreadPoolExecutor:
    """The shared pool; made anew after a fork, since threads do not survive one, or when more are wanted."""
    global _pool
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < workers:
        _pool = (os.getpid(), workers, ThreadPoolExecutor(workers, thread_name_prefix="medwave"))
    return _pool[2]


def run_slabs(kernel: Callable[..., None], length: int, *arguments: Any, most: int | None = None) -> None:
    """Call ``kernel(start, stop, *arguments)`` over ``[0, length)``, split evenly among the threads.

    ``most`` bounds their number where there is little to do: to wake a thread costs a good part of a millisecond.
    """
    threads = min(thread_count(), length if most is None else min(length, most))
    if threads <= 1:
        kernel(0, length, *arguments)
        return
    bounds = [length * t // threads for t in range(threads + 1)]
    pool = _executor(threads)
    jobs = [pool.submit(kernel, bounds[t], bounds[t + 1], *arguments) for t in range(1, threads)]
    try:
        kernel(bounds[0], bounds[1], *arguments)
    finally:
        wait(jobs)  # also after an error: no loop may go on writing to arrays that the caller has taken back
    for job in jobs:
        job.result()


def run_each(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``function`` of each item, in their order, several at a time; loops within it take one thread then.

    For work that is short and much alike: each thread takes every so many-th item.
    """
    threads = min(thread_count(), len(items))
    if threads <= 1:
        return [function(item) for item in items]

    def share(first: int) -> list[R]:
        _each.running = True
        try:
            return [function(item) for item in items[first::threads]]
        finally:
            _each.running = False

    pool = _executor(threads)
    jobs = [pool.submit(share, first) for first in range(threads)]
    wait(jobs)
    shares = [job.result() for job in jobs]
    return [shares[n % threads][n // threads] for n in range(len(items))]
