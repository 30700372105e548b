"""Threads for compiled loops.

A kernel is a function compiled with ``nogil=True`` that works on the slab ``[start, stop)`` of its first axis and
writes nothing outside it. The number of threads is torch's (``torch.set_num_threads``), so one setting rules the
networks and the loops, and a result never depends on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

_pool: tuple[int, int, ThreadPoolExecutor] | None = None


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Use ``count`` threads in the block, in networks and loops alike; 0 leaves them as they are."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _executor(workers: int) -> ThreadPoolExecutor:
    """The shared pool; made anew after a fork, since threads do not survive one, or when more are wanted."""
    global _pool
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < workers:
        _pool = (os.getpid(), workers, ThreadPoolExecutor(workers, thread_name_prefix="medwave"))
    return _pool[2]


def run_slabs(kernel: Callable[..., None], length: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` over ``[0, length)``, split evenly among torch's threads."""
    threads = min(torch.get_num_threads(), length)
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
