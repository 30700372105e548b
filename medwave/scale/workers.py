"""A function and many items, given to the workers of a cluster.

Items are handed out as workers become free, a few ahead, so that millions of them need no memory here or in the
scheduler. A worker that dies costs nothing: Dask gives its items to others. An item whose function raises is tried
again, on a worker that has not tried it where there is one; errors that no repetition cures (unusable values, geometry,
devices, packages, results that cannot be written) are not tried again.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from medwave.core.errors import (
    ClusterError,
    DeviceError,
    GeometryError,
    InputError,
    MedwaveError,
    MissingPackageError,
    OutputError,
)

ATTEMPTS = 4
"""How often an item is tried."""

_AHEAD = 2
_FEWEST_OPEN = 64
_ASK_S = 1.0
"""How long what the scheduler says of its workers counts: asking costs as much as a task that does nothing."""
_FINAL = (InputError, GeometryError, DeviceError, MissingPackageError, OutputError)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Done(Generic[R]):
    """What became of an item.

    Attributes:
        number: of the item, from 0.
        result: of the function; None when it failed.
        error: of the last attempt, or None.
        attempts: how often it was tried.
    """

    number: int
    result: R | None
    error: Exception | None
    attempts: int


@dataclass(frozen=True)
class _Failed:
    error: Exception
    worker: str


class Workers:
    """The workers of an open cluster; see :func:`medwave.scale.open_workers`.

    Args:
        client: of Dask.
        threads: that a task may use.
        memory_bytes: that each worker declares as its resource ``memory``; None asks those that are there.
    """

    def __init__(self, client: Any, *, threads: int = 1, memory_bytes: int | None = None) -> None:
        self.client, self.threads, self.memory_bytes = client, threads, memory_bytes

    @property
    def dashboard(self) -> str:
        """Address of the page on which Dask shows what the cluster does."""
        return str(self.client.dashboard_link)

    def slots(self) -> int:
        """Tasks that run at a time, as far as workers are there by now."""
        return max(1, sum(worker["nthreads"] for worker in self._known().values()))

    def call(self, function: Callable[[T], R], item: T) -> R:
        """Call a function on one worker.

        Raises:
            Exception: what the function raised.
        """
        (done,) = self.run(function, [item])
        if done.error is not None:
            raise done.error
        return done.result  # type: ignore[return-value]

    def run(
        self, function: Callable[[T], R], items: Sequence[T], *, memory_bytes: int | Sequence[int] = 0, name: str = ""
    ) -> Iterator[Done[R]]:
        """Call a function on every item, and give each one's end when it comes, in any order.

        Args:
            function: importable on the workers.
            items: picklable; those that come first begin first.
            memory_bytes: what a call needs, or each of them; where workers declare a resource ``memory``, no more run
                at a time than fit.
            name: of the tasks on the dashboard.

        Raises:
            ClusterError: when the scheduler is gone, or no worker has the memory. What is done stays done.
        """
        from distributed import as_completed

        waiting = deque((number, 1, frozenset[str]()) for number in range(len(items)))
        running: dict[Any, tuple[int, int, frozenset[str]]] = {}
        finished = as_completed(with_results=False)
        label = f"{name or function.__name__}-{secrets.token_hex(4)}"
        needs = [memory_bytes] * len(items) if isinstance(memory_bytes, int) else memory_bytes
        bounded = self._bounded(max(needs, default=0))
        most, asked = self._open(), time.monotonic()
        try:
            while waiting or running:
                if waiting and time.monotonic() - asked > _ASK_S:
                    most, asked = self._open(), time.monotonic()
                for place in _taken(waiting, most - len(running)):
                    resources = {"memory": float(needs[place[0]])} if bounded else None
                    future = self._submit(function, items[place[0]], place, label, resources)
                    running[future] = place
                    finished.add(future)
                future = next(finished)
                if future.status in ("lost", "pending"):  # its worker died with the result: it is made again
                    finished.add(future)
                    continue
                number, attempt, tried = running.pop(future)
                outcome = _outcome(future)
                if not isinstance(outcome, _Failed):
                    yield Done(number, outcome, None, attempt)
                elif attempt == ATTEMPTS or isinstance(outcome.error, _FINAL):
                    yield Done(number, None, outcome.error, attempt)
                else:
                    waiting.appendleft((number, attempt + 1, tried | {outcome.worker}))
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self.client.cancel(list(running))

    def _submit(self, function: Callable[[T], R], item: T, place: tuple[int, int, frozenset[str]], label: str,
                resources: dict[str, float] | None) -> Any:  # fmt: skip
        number, attempt, tried = place
        others = [] if not tried else [address for address in self._known() if address not in tried]
        return self.client.submit(
            _call, function, item, key=f"{label}-{number}-{attempt}", pure=False, priority=-number,
            resources=resources, workers=others or None, allow_other_workers=bool(others),
        )  # fmt: skip

    def _open(self) -> int:
        return max(_FEWEST_OPEN, (1 + _AHEAD) * self.slots())

    def _known(self) -> dict[str, Any]:
        return dict(self.client.scheduler_info(n_workers=-1)["workers"])

    def _bounded(self, memory_bytes: int) -> bool:
        """Whether tasks are to take of the memory that workers declare; none may need more than there is."""
        if not memory_bytes:
            return False
        there = [worker.get("resources", {}).get("memory") for worker in self._known().values()]
        if self.memory_bytes is not None:
            there = [float(self.memory_bytes)]
        if not there or None in there:
            return False
        if memory_bytes > max(there):
            raise ClusterError(
                f"cluster: a task needs {memory_bytes / 1e9:.1f} GB, the workers have {max(there) / 1e9:.1f} at most; "
                "give them more memory, take fewer of them, or make tasks smaller (--shard)"
            )
        return True


def _taken(waiting: deque[T], most: int) -> Iterator[T]:
    for _ in itertools.repeat(None, min(most, len(waiting))):
        yield waiting.popleft()


def _call(function: Callable[[T], R], item: T) -> R | _Failed:
    """On the worker: the result, or the error with the address of the worker."""
    from distributed import get_worker

    try:
        return function(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some carry what cannot travel
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return _Failed(error, get_worker().address)


def _outcome(future: Any) -> Any:
    """The result, or :class:`_Failed` when workers died of the item.

    Raises:
        ClusterError: when the scheduler is gone.
    """
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        from distributed.scheduler import KilledWorker

        error = future.exception()
        if isinstance(error, KilledWorker):
            said = "several workers ended while they worked on it, perhaps for want of memory: try a smaller --shard"
            return _Failed(InputError(said), "")
        return _Failed(error if isinstance(error, MedwaveError) else RuntimeError(str(error)), "")
    raise ClusterError(
        "cluster: the scheduler is gone; what is finished stays: start the cluster again and repeat the command"
    )
