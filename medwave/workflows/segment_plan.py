"""What a segmentation will take, before it begins: tasks, bytes, memory, and hours from a timed probe.

The probe reads cubes spread over the region, tells which are empty, and predicts one of the others, twice: the first
call of a network pays for its start. With a cluster that is done by one of its workers. Hours are those of the cubes
alone, as if tasks filled the workers to the end; masks and pyramids come on top, as does waiting for a queue.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medwave.core.files import StrPath
from medwave.core.threads import limited_threads
from medwave.cubes import Box
from medwave.cubes.plan import CubePlan, Triple, around
from medwave.engine.fibres import (
    BLOCK,
    FibrePredictor,
    blocks_within,
    bordered,
    columns_of,
    fibre_plan,
    is_empty,
)
from medwave.models.weights import weight_file
from medwave.scale import Workers
from medwave.volumes import open_stack
from medwave.volumes.location import absolute
from medwave.workflows.options_neurons import SegmentOptions
from medwave.workflows.segment import load_fibre_network, parse_region, suited_weights, volume_scale
from medwave.workflows.segment_tasks import own_device, shards_of, task_bytes

LOOKED_AT = 16
"""Cubes that the probe reads."""
_PYRAMID = 8 / 7
"""A store with its coarser levels against its finest alone, where all axes are halved."""


@dataclass(frozen=True)
class SegmentPlan:
    """What :func:`plan_segmentation` found.

    Attributes:
        shape: of the volume, (z, y, x).
        region: the part to segment.
        blocks, tasks: how many.
        cubes: that are predicted or passed over, those that several tasks (without a cluster: columns) share counted
            for each.
        cubes_once: the same, each counted once.
        bytes_in: that tasks read, as values in memory.
        bytes_out: that are written at most, before compression, pyramids included.
        task_bytes: memory of a worker.
        slots: tasks at a time.
        empty_share: of the cubes that the probe looked at.
        read_s, predict_s: seconds for one cube; predict_s is None when all that were looked at are empty.
    """

    shape: Triple
    region: Box
    blocks: int
    tasks: int
    cubes: int
    cubes_once: int
    bytes_in: int
    bytes_out: int
    task_bytes: int
    slots: int
    empty_share: float
    read_s: float
    predict_s: float | None

    @property
    def hours(self) -> float:
        """Expected time of the segmentation."""
        seconds = self.read_s + (1 - self.empty_share) * (self.predict_s or 0.0)
        return self.cubes * seconds / self.slots / 3600

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**asdict(self), "hours": self.hours}


class _Probe(NamedTuple):
    """Plain values that travel."""

    volume: str
    weights: str | None
    options: SegmentOptions
    plan: CubePlan
    cubes: tuple[Box, ...]
    threads: int


class _Seen(NamedTuple):
    empty_share: float
    read_s: float
    predict_s: float | None


def plan_segmentation(
    volume: StrPath, *, weights: StrPath | None = None, options: SegmentOptions | None = None,
    workers: Workers | None = None,
) -> SegmentPlan:  # fmt: skip
    """Lay out a segmentation without writing anything.

    Args:
        volume, weights, options, workers: as for :func:`medwave.segment`.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume, weights or device.
    """
    options = options or SegmentOptions()
    with open_stack(
        volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    ) as opened:
        shape, itemsize = opened.shape, opened.dtype.itemsize
    region = parse_region(options.region, shape)
    plan = fibre_plan(shape, overlap=options.overlap)
    blocks = blocks_within(shape, region, size=(options.shard,) * 3 if options.sharded else BLOCK)
    shards = shards_of(blocks, options.shard)
    parts = [around(column) for column in columns_of(plan, blocks)] if workers is None else [s.box for s in shards]
    cubes = sum(count_touching(plan, part) for part in parts)
    threads = options.threads or (workers.threads if workers else 0)
    path = None if weights is None else absolute(weight_file(weights))
    probe = _Probe(absolute(volume), path, options, plan, _spread(plan, region), threads)
    seen = _probe(probe) if workers is None else workers.call(_probe, probe)
    written = sum(math.prod(block.shape) for block in blocks)
    return SegmentPlan(
        shape, region, len(blocks), len(shards), cubes, count_touching(plan, region),
        cubes * math.prod(plan.size) * itemsize, int(2 * written * _PYRAMID), task_bytes(shards),
        1 if workers is None else workers.slots(), *seen,
    )  # fmt: skip


def count_touching(plan: CubePlan, box: Box) -> int:
    """How many cubes of a plan share a voxel with a box."""
    return math.prod(
        sum(s < stop and s + size > start for s in starts)
        for starts, size, start, stop in zip(plan.starts, plan.size, box.start, box.stop, strict=True)
    )


def _spread(plan: CubePlan, region: Box) -> tuple[Box, ...]:
    """Cubes spread evenly over a region, found without listing all of them."""
    axes = [
        [s for s in starts if s < stop and s + size > start]
        for starts, size, start, stop in zip(plan.starts, plan.size, region.start, region.stop, strict=True)
    ]
    counts = [len(axis) for axis in axes]
    total = math.prod(counts)
    chosen = np.unique(np.linspace(0, total - 1, min(LOOKED_AT, total)).round().astype(np.int64))
    boxes = []
    for z, y, x in zip(*np.unravel_index(chosen, counts), strict=True):
        a, b, c = axes[0][z], axes[1][y], axes[2][x]
        boxes.append(Box((a, b, c), (a + plan.size[0], b + plan.size[1], c + plan.size[2])))
    return tuple(boxes)


def _probe(probe: _Probe) -> _Seen:
    how = probe.options
    with (
        limited_threads(probe.threads),
        open_stack(probe.volume, channel=how.channel, level=how.level, axes=how.axes, spacing_um=how.spacing) as volume,
    ):
        scale = volume_scale(volume, parse_region(how.region, volume.shape))
        read = bordered(lambda box: volume.read(box.slices), volume.shape)
        began, busy, empty = time.perf_counter(), None, 0
        for cube in probe.cubes:
            voxels = read(cube)
            if how.skip_empty and is_empty(scale, voxels):
                empty += 1
            else:
                busy = voxels
        read_s = (time.perf_counter() - began) / len(probe.cubes)
        predict_s = None
        if busy is not None:
            path = suited_weights(scale) if probe.weights is None else Path(probe.weights)
            model = load_fibre_network(path)
            predictor = FibrePredictor(model, scale, device=own_device(how.device), precision=how.precision)
            for _ in range(2):
                began = time.perf_counter()
                list(predictor([busy]))
                predict_s = time.perf_counter() - began
    return _Seen(empty / len(probe.cubes), read_s, predict_s)
