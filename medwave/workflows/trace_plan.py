"""What a trace will take, before it begins: blocks, bytes and memory. Only what tells the size of a volume is read.

Bytes are those of the looks at grey values and of the collection of foreground, each of which reads every stored block
once; voxels where gaps may be bridged, and those along the tree that are compared with their surroundings, come on top.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from medwave.core.files import StrPath
from medwave.cubes import Box
from medwave.cubes.plan import CubePlan, Triple
from medwave.workflows.options import TraceFileOptions
from medwave.workflows.trace import check_root, naming, stack_of, trace_options
from medwave.workflows.trace_look import looks_at, stored_boxes
from medwave.workflows.trace_source import VolumeSource, block_size, stacks
from medwave.workflows.trace_tasks import most_bytes


@dataclass(frozen=True)
class TracePlan:
    """What :func:`plan_trace` found.

    Attributes:
        shape: of the volume, (z, y, x).
        blocks: how many there are.
        stored_blocks: those of which the file holds something; the others are not read.
        looks: how often their grey values are looked at before foreground is collected.
        bytes_in: that are read, as values in memory.
        task_bytes: memory of the largest task, at most. What joins the trees takes more the more fibre there is.
    """

    shape: Triple
    blocks: int
    stored_blocks: int
    looks: int
    bytes_in: int
    task_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def plan_trace(volume: StrPath, *, options: TraceFileOptions | None = None) -> TracePlan:
    """Lay out a trace by medwave without writing anything.

    Args:
        volume, options: as for :func:`medwave.workflows.trace.trace_file`.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume or options.
    """
    options = options or TraceFileOptions()
    stack = stack_of(volume, options)
    with stacks(), naming(volume):
        opened = stack.open()
        check_root(volume, options.root, opened.spacing_um, Box((0, 0, 0), opened.shape))
        trace_options(options, opened.spacing_um, kind=options.kind, threshold=options.threshold)
        source = VolumeSource(stack, (0, 0, 0), opened.shape, options.kind)
        size = block_size(source)
        boxes, _, _ = stored_boxes(source, size)
        looks = looks_at(source)
        itemsize = source.dtype.itemsize
    read = sum(math.prod(box.shape) for box in boxes)
    return TracePlan(
        opened.shape, len(CubePlan(opened.shape).blocks(size)), len(boxes), looks, (looks + 1) * read * itemsize,
        most_bytes(math.prod(size), itemsize, int(options.largest_foreground_share * math.prod(opened.shape))),
    )  # fmt: skip
