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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

_pool: tuple[int, int, ThreadPoolExecutor] | None = None
_limit = 0


def thread_count() -> int:
    """How many threads loops take."""
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


def run_slabs(kernel: Callable[..., None], length: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` over ``[0, length)``, split evenly among the threads."""
    threads = min(thread_count(), length)
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
