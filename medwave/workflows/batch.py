"""Many items in one run: complete ones are passed over, failures are noted and passed by, in one or several processes.

A job is told by an object with three methods (:class:`Work`). With one process everything runs in this one; with
more, each has a process of its own for many items, started anew (spawn), so that no state of the parent leaks in. A
process that dies, for want of memory say, costs its own item only; when the parent dies, however suddenly, its
processes end too, and what they left is made again by the next run. On a cluster each item is a task, which takes as
much of the memory of a worker as it says it needs, and goes to another worker when one dies or fails unexpectedly.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from medwave.core.errors import InputError, MedwaveError
from medwave.core.files import StrPath, input_file, write_text
from medwave.scale import Workers

DONE, BEFORE, FAILED = "done", "complete before", "failed"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

T = TypeVar("T")
Record = dict[str, Any]


class Work(Protocol[T]):
    """What is done to each item; to run in several processes it must be picklable."""

    def name(self, item: T) -> str:
        """What to call the item in an error that names no file."""

    def known(self, item: T) -> Record | None:
        """The record of a complete run that was asked the same, or None."""

    def run(self, item: T) -> Record:
        """Do the work and return its record."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of an item: a status, the error when it failed and the record otherwise."""

    item: T
    status: str
    error: str = ""
    run: Record = field(default_factory=dict)
    wall_s: float = 0.0


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is: items settled, of how many, and seconds left (None until one was done)."""

    done: int
    total: int
    seconds_left: float | None


def threads_each(threads: int, jobs: int) -> int:
    """Threads of one of ``jobs`` processes; 0 threads means the processors of this machine, shared out."""
    if threads or jobs == 1:
        return threads
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // jobs)


def run_items(
    items: Sequence[T],
    work: Work[T],
    *,
    jobs: int = 1,
    threads: int = 0,
    on_begin: Callable[[T, int], None] | None = None,
    on_outcome: Callable[[Outcome[T], BatchProgress], None] | None = None,
    workers: Workers | None = None,
    memory_bytes: Sequence[int] | None = None,
) -> list[Outcome[T]]:
    """Work through all items.

    Args:
        items: in the order in which they begin.
        work: what to do.
        jobs: processes at a time.
        threads: of the maths libraries in each process, when there are several.
        on_begin: told each item and its number, from 0, before it is looked at; with several processes, when one
            takes it.
        on_outcome: told what became of an item, in the order in which they end.
        workers: of a cluster; ``jobs``, ``threads`` and ``on_begin`` then mean nothing.
        memory_bytes: that each item needs there.

    Returns:
        Outcomes in the order of the items.
    """
    if jobs < 1:
        raise InputError(f"jobs: one or more processes, got {jobs}")
    clock = _Clock(len(items), jobs if workers is None else workers.slots(), on_outcome)
    if workers is None and jobs == 1:
        return [clock.note(_attempt(work, item, number, on_begin)) for number, item in enumerate(items)]
    settled: dict[int, Outcome[T]] = {}
    for number, item in enumerate(items):
        if (record := work.known(item)) is not None:
            settled[number] = clock.note(Outcome(item, BEFORE, run=record))
    left = [number for number in range(len(items)) if number not in settled]
    if workers is not None:
        needs = 0 if memory_bytes is None else [memory_bytes[number] for number in left]
        for done in workers.run(_task, [(work, items[number]) for number in left], memory_bytes=needs, name="item"):
            number = left[done.number]
            settled[number] = clock.note(done.result or _given_up(work, items[number], done.error, done.attempts))
        return [settled[number] for number in range(len(items))]
    with _Processes(work, min(jobs, len(left)), threads) as processes:
        for number, outcome in processes.outcomes(items, left, on_begin):
            settled[number] = clock.note(outcome)
    return [settled[number] for number in range(len(items))]


class _Clock(Generic[T]):
    """Counts outcomes and tells how long the rest will take."""

    def __init__(self, total: int, jobs: int, told: Callable[[Outcome[T], BatchProgress], None] | None) -> None:
        self.total, self.jobs, self.told = total, jobs, told
        self.count = 0
        self.spent: list[float] = []

    def note(self, outcome: Outcome[T]) -> Outcome[T]:
        self.count += 1
        if outcome.status != BEFORE:
            self.spent.append(outcome.wall_s)
        if self.told:
            left = self.total - self.count
            mean = sum(self.spent) / len(self.spent) if self.spent else None
            seconds = None if mean is None else mean * left / min(self.jobs, max(left, 1))
            self.told(outcome, BatchProgress(self.count, self.total, seconds))
        return outcome


def _attempt(work: Work[T], item: T, number: int, on_begin: Callable[[T, int], None] | None) -> Outcome[T]:
    if on_begin:
        on_begin(item, number)
    record = work.known(item)
    return Outcome(item, BEFORE, run=record) if record is not None else _outcome(work, item)


def _outcome(work: Work[T], item: T) -> Outcome[T]:
    began = time.monotonic()
    try:
        record = work.run(item)
    except MedwaveError as error:
        return Outcome(item, FAILED, str(error), wall_s=time.monotonic() - began)
    except Exception as error:  # one item that meets a fault of ours must not cost the others
        said = f"{work.name(item)}: unexpected {type(error).__name__}: {error}"
        return Outcome(item, FAILED, said, wall_s=time.monotonic() - began)
    return Outcome(item, DONE, run=record, wall_s=time.monotonic() - began)


def _task(item: tuple[Work[T], T]) -> Outcome[T]:
    """An item on a cluster; an error that is nobody's fault is left to the cluster, which tries elsewhere."""
    work, thing = item
    began = time.monotonic()
    try:
        record = work.run(thing)
    except MedwaveError as error:
        return Outcome(thing, FAILED, str(error), wall_s=time.monotonic() - began)
    return Outcome(thing, DONE, run=record, wall_s=time.monotonic() - began)


def _given_up(work: Work[T], item: T, error: Exception | None, attempts: int) -> Outcome[T]:
    said = f"{work.name(item)}: {type(error).__name__}: {error}"
    return Outcome(item, FAILED, said if attempts == 1 else f"{said} (tried {attempts} times)")


class _Processes(Generic[T]):
    """Processes that take items one after another."""

    def __init__(self, work: Work[T], count: int, threads: int) -> None:
        self.work, self.threads = work, threads
        self.workers: dict[Connection, Any] = {}
        self.count = count

    def __enter__(self) -> _Processes[T]:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self.workers.items():
            process.terminate()
            process.join()
            connection.close()

    def outcomes(
        self, items: Sequence[T], left: Sequence[int], on_begin: Callable[[T, int], None] | None
    ) -> Iterator[tuple[int, Outcome[T]]]:
        """Hand out the items of these numbers, and give each one's outcome when it comes."""
        waiting, running = list(left), dict[Connection, int]()
        began: dict[int, float] = {}
        while waiting or running:
            for connection in self._free(running, len(waiting)):
                number = waiting.pop(0)
                if on_begin:
                    on_begin(items[number], number)
                with contextlib.suppress(OSError):  # it died before; to read from it tells so
                    connection.send(items[number])
                running[connection], began[number] = number, time.monotonic()
            for ready in wait(list(running)):
                connection = ready  # type: ignore[assignment]
                number = running.pop(connection)
                try:
                    yield number, connection.recv()
                except (EOFError, OSError):  # reset: it died before it read its item
                    yield number, self._lost(connection, items[number], time.monotonic() - began[number])

    def _free(self, running: dict[Connection, int], wanted: int) -> list[Connection]:
        """Idle processes, started where there are too few."""
        while len(self.workers) < min(self.count, len(running) + wanted):
            self._start()
        return [connection for connection in self.workers if connection not in running][:wanted]

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(self.work, there), daemon=True)
        with _environment(dict.fromkeys(_THREAD_VARIABLES, str(self.threads)) if self.threads else {}):
            process.start()
        there.close()
        self.workers[here] = process

    def _lost(self, connection: Connection, item: T, wall_s: float) -> Outcome[T]:
        process = self.workers.pop(connection)
        process.join()
        connection.close()
        said = f"{self.work.name(item)}: its process ended with code {process.exitcode}"
        if process.exitcode == -9:
            said += " (killed, perhaps for want of memory: try fewer --jobs)"
        return Outcome(item, FAILED, said, wall_s=wall_s)


def _serve(work: Work[Any], connection: Connection) -> None:
    """The life of a process: items in, outcomes out, until the parent closes the line or dies."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # Ctrl-C reaches the parent too, which tells
        while True:
            connection.send(_outcome(work, connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that a process started in the block inherits."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def read_table(path: StrPath, needed: Sequence[str], known: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV table with their line numbers; every known column is there, empty where the table lacks it.

    Args:
        path: UTF-8, with commas and a line of heads, about which spaces do not count.
        needed: columns that the table must have and every row must fill.
        known: all columns that are read; others are left alone, but for those that are nearly one of them.

    Raises:
        MissingFileError, InputError: when it cannot be read, lacks a column, a row or a value, misspells a column, has
            one twice, or has more values in a row than columns.
    """
    file = input_file(path)
    try:
        reader = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig")), strict=True)
        reader.fieldnames = [head.strip() for head in reader.fieldnames or ()]
        rows = [(reader.line_num, row) for row in reader]  # blank lines give no row, yet count
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV table ({error}); write it as UTF-8 with commas") from None
    _refuse_misspelt(path, reader.fieldnames, known)
    if not rows or not set(needed) <= rows[0][1].keys():
        free = ", ".join(column for column in known if column not in needed)
        raise InputError(
            f"{path}: this table has a column {' and a column '.join(needed)} and at least one row; {free} are free"
        )
    twice = [column for column in known if reader.fieldnames.count(column) > 1]
    if twice:
        raise InputError(f"{path}: there are two columns {twice[0]}; keep one of them")
    table = []
    for line, row in rows:
        beyond: Any = row.get(None, ())  # where DictReader puts them
        if any(map(str.strip, beyond)):
            raise InputError(
                f"{path}: line {line}: has more values than there are columns; name all columns in the first line, and "
                "put values with commas in quotes"
            )
        values = {column: (row.get(column) or "").strip() for column in known}
        for column in needed:
            if not values[column]:
                raise InputError(f"{path}: line {line}: names no {column}")
        table.append((line, values))
    return table


def _refuse_misspelt(path: StrPath, heads: Collection[str], known: Sequence[str]) -> None:
    """Refuse heads that are nearly a known one that is absent, in any order of words: it would be passed over."""
    spelt = {_words(column): column for column in known if column not in heads}
    for head in heads:
        near = [] if head in known else difflib.get_close_matches(_words(head), spelt, n=1, cutoff=0.85)
        if near:
            raise InputError(f"{path}: no column {head!r} is read; did you mean {spelt[near[0]]}? rename it")


def _words(head: str) -> str:
    return "_".join(sorted(re.findall(r"[^\W_]+", head.lower())))


def own_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Names of folders to make: one that comes again gets a number.

    Raises:
        InputError: when a name is not that of a folder.
    """
    used, found = set(taken), []
    for base in names:
        if not base or base != Path(base).name or base in (".", ".."):
            raise InputError(f"{base}: the name of an item is that of a folder to make, without any / in it")
        number = next(n for n in range(1, len(used) + 2) if _numbered(base, n) not in used)
        used.add(_numbered(base, number))
        found.append(_numbered(base, number))
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def write_table(path: StrPath, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a CSV table in one go."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
