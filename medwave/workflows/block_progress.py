"""How far work on a volume is, block by block."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockProgress:
    """How far a step is.

    Attributes:
        done, total: blocks, those of earlier runs included.
        seconds_left: of this step, estimated from this run; None before its first block.
        voxels_per_s: of this run so far; None before its first block, and where it is not measured.
        step: what is done.
        things: what is counted, in place of blocks.
    """

    done: int
    total: int
    seconds_left: float | None
    voxels_per_s: float | None = None
    step: str = "segment"
    things: str = "blocks"


OnProgress = Callable[[BlockProgress], None]


class BlockClock:
    """Tells how far a step is, at once and after each block.

    Args:
        told: is told.
        total: blocks of the step.
        before: blocks that earlier runs finished.
        step, things: as for :class:`BlockProgress`.
    """

    def __init__(
        self, told: OnProgress, total: int, before: int = 0, *, step: str = "segment", things: str = "blocks"
    ) -> None:
        self.told, self.total, self.before, self.step, self.things = told, total, before, step, things
        self.done, self.began = before, time.monotonic()
        told(BlockProgress(before, total, None, None, step, things))

    def note(self) -> None:
        """A block is done."""
        self.done += 1
        per_block = (time.monotonic() - self.began) / (self.done - self.before)
        left = per_block * (self.total - self.done)
        self.told(BlockProgress(self.done, self.total, left, None, self.step, self.things))
