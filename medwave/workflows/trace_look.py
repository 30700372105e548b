"""The first look at a volume that is traced: its grey scale, and the threshold and levels that follow from it.

The rank of a value among all is found digit by digit, 16 bits at a time (:mod:`medwave.tracing.ranks`): floating point
values are looked at several times, block by block, and never sorted. Blocks that a store does not hold are not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medwave.cubes import Box
from medwave.cubes.plan import CubePlan, Triple
from medwave.tracing import TraceOptions
from medwave.tracing.grey import GreyScale, brightest_rank, check_finite, check_probabilities, cut_at
from medwave.tracing.ranks import DIGIT_BITS, all_values, digit_at, digit_counts, digits, values_of
from medwave.tracing.tracer import GreyLevels, grey_levels
from medwave.workflows.trace_source import FibreSource, Source, is_stored
from medwave.workflows.trace_tasks import COUNT, LOOK, Tasks

EVERYTHING = GreyLevels(0.0, 0.0)
"""What is not 0 is fibre."""


def look_at(tasks: Tasks, source: Source, options: TraceOptions, size: Triple) -> tuple[GreyScale, GreyLevels]:
    """The grey scale of a volume and the levels of its trace.

    Args:
        tasks: where it is done.
        source: what is traced.
        options: how.
        size: of blocks.

    Raises:
        InputError: for values that cannot be traced: not finite, all one, no probabilities.
    """
    dtype, share = source.dtype, source.top_share
    looks, key = digits(dtype), 0
    boxes, rest, others = stored_boxes(source, size)
    low, high, counts = _seen(tasks, source, boxes, 0, 0)
    if rest is not None:
        least, most, each = _see((source, rest, 0, 0))
        low, high, counts = min(low, least), max(high, most), counts + others * each
    voxels = int(counts.sum())
    if share is not None:
        key, rank = digit_at(counts, brightest_rank(voxels, share))
        for look in range(1, looks):
            more = _seen(tasks, source, boxes, key, look)[2]
            more = more if rest is None else more + others * _see((source, rest, key, look))[2]
            digit, rank = digit_at(more, rank)
            key = key << DIGIT_BITS | digit
    top = high if share is None else float(values_of(np.array([key]), dtype)[0])
    if isinstance(source, FibreSource):
        return source.scale(low, top), EVERYTHING
    scale = cut_at(source.scale(low, top), options.threshold)
    if source.kind == "probability" and scale.rule == "linear":
        check_probabilities(dtype, low, high)
    if looks == 1:
        values = all_values(dtype)
        grey = scale.grey(values.reshape(-1, 1, 1)).reshape(-1)
        counts = np.bincount(grey, weights=counts[: len(values)], minlength=256).astype(np.int64)
    else:
        counts = np.zeros(256, np.int64)
        for each in tasks.run(COUNT, _count, [(source, box, scale) for box in boxes]):
            counts += each
        if rest is not None:
            counts += others * _count((source, rest, scale))
    return scale, grey_levels(scale, counts, options, most_voxels=voxels)


def looks_at(source: Source) -> int:
    """How often :func:`look_at` reads each block that is stored."""
    looks = digits(source.dtype)
    ranked = 1 if source.top_share is None else looks
    return ranked if looks == 1 or isinstance(source, FibreSource) else ranked + 1


def stored_boxes(source: Source, size: Triple) -> tuple[list[Box], Box | None, int]:
    """The blocks of which something is stored; of the others, which have one value, a voxel, and how many they have."""
    boxes = CubePlan(source.shape).blocks(size)
    there = is_stored(source.stack, source.start, source.shape, size)
    absent = [box for box, stored in zip(boxes, there, strict=True) if not stored]
    if not absent:
        return boxes, None, 0
    z, y, x = absent[0].start
    stored_boxes = [box for box, stored in zip(boxes, there, strict=True) if stored]
    return stored_boxes, Box((z, y, x), (z + 1, y + 1, x + 1)), sum(math.prod(box.shape) for box in absent)


def _seen(
    tasks: Tasks, source: Source, boxes: Sequence[Box], known: int, looks: int
) -> tuple[float, float, npt.NDArray[np.int64]]:  # fmt: skip
    """Of all blocks what :func:`_see` gives of one."""
    low, high, counts = np.inf, -np.inf, digit_counts(np.empty(0, source.dtype), known, looks)
    for least, most, each in tasks.run(LOOK, _see, [(source, box, known, looks) for box in boxes]):
        low, high = min(low, least), max(high, most)
        counts += each
    return low, high, counts


def _see(item: tuple[Source, Box, int, int]) -> tuple[float, float, npt.NDArray[np.int64]]:
    """The smallest and the largest value of a block, and its counts of 16 bits."""
    source, box, known, looks = item
    values = source.values(box)
    check_finite(values)
    return float(values.min()), float(values.max()), digit_counts(values, known, looks)


def _count(item: tuple[Source, Box, GreyScale]) -> npt.NDArray[np.int64]:
    source, box, scale = item
    return np.bincount(source.grey(box, scale).reshape(-1), minlength=256)
