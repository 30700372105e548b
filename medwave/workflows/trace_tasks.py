"""The tasks of a trace: here one after another or on the workers of a cluster, and how far each step is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from medwave.core.threads import limited_threads
from medwave.scale import Workers
from medwave.tracing.blocks import GROUP_VOXELS
from medwave.workflows.block_progress import BlockClock, OnProgress

_BLOCK_BYTES, _GROUP_BYTES = 1_500_000_000, 800_000_000 + 300 * 2 * GROUP_VOXELS
_PROCESS_BYTES = 300_000_000
_BYTES_PER_FOREGROUND_VOXEL = 300


def most_bytes(block_voxels: int, itemsize: int, foreground_voxels: int) -> int:
    """Memory of the largest task, libraries included.

    Args:
        block_voxels, itemsize: of a block, and bytes of its values.
        foreground_voxels: of the volume, at most; those of a group are traced together.
    """
    group = _BYTES_PER_FOREGROUND_VOXEL * min(foreground_voxels, GROUP_VOXELS)
    return _PROCESS_BYTES + max((4 + 4 * itemsize) * block_voxels, group)


class Step(NamedTuple):
    """Tasks of one kind.

    Attributes:
        name: of the tasks on a cluster, and of the files that they leave.
        words: what they do.
        things: what each of them works on.
        memory_bytes: that a task needs.
    """

    name: str
    words: str
    things: str
    memory_bytes: int


LOOK = Step("look", "look at grey values", "blocks", _BLOCK_BYTES)
COUNT = Step("count", "count grey values", "blocks", _BLOCK_BYTES)
COLLECT = Step("block", "collect foreground", "blocks", _BLOCK_BYTES)
TRACE = Step("trees", "trace", "groups of pieces", _GROUP_BYTES)


@dataclass(frozen=True)
class Tasks:
    """Where tasks are done, and who is told.

    Attributes:
        workers: of a cluster; None: this process.
        on_progress: told how far each step of several tasks is.
    """

    workers: Workers | None = None
    on_progress: OnProgress | None = None

    def run(
        self, step: Step, function: Callable[[Any], Any], items: Sequence[Any], *, before: int = 0
    ) -> Iterator[Any]:  # fmt: skip
        """What a function gives for all items, in any order; ``before`` more were done by an earlier run."""
        clock = None
        if self.on_progress and len(items) + before > 1:
            clock = BlockClock(self.on_progress, len(items) + before, before, step=step.words, things=step.things)
        for result in self._results(step, function, items):
            yield result
            if clock:
                clock.note()

    def _results(self, step: Step, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        if self.workers is None:
            yield from map(function, items)
            return
        tasks = [(function, item, self.workers.threads) for item in items]
        for done in self.workers.run(_task, tasks, memory_bytes=step.memory_bytes, name=step.name):
            if done.error is not None:
                raise done.error
            yield done.result


def _task(item: tuple[Callable[[Any], Any], Any, int]) -> Any:
    function, each, threads = item
    with limited_threads(threads):
        return function(each)
