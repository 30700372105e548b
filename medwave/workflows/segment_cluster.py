"""A segmentation on a cluster: the blocks, the journal and the files of :mod:`medwave.workflows.segment`, in tasks.

Only this process writes to the journal, when a worker says that a shard is written; a run may begin here, go on
on a cluster, and end on another. A shard that cannot be done is passed by and named at the end; a disk that is full
stops the run at once. The mask and each level of the pyramids are made by tasks too, which own their chunks.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from medwave.core.errors import ClusterError, InputError, MedwaveError, OutputError
from medwave.cubes import Box
from medwave.cubes.plan import Triple
from medwave.engine.fibres import CubeCount, blocks_within
from medwave.scale import Workers
from medwave.volumes import OmeZarrImage, level_shapes
from medwave.volumes.location import absolute
from medwave.workflows.options_neurons import SegmentOptions
from medwave.workflows.segment_pieces import NONE_SMALL, Pieces, small_pieces
from medwave.workflows.segment_store import MASK, SegmentStore, create_mask
from medwave.workflows.segment_tasks import (
    Shard,
    ShardWork,
    label_shard,
    mask_shard,
    predict_shard,
    pyramid_part,
    shards_of,
    task_bytes,
)

_LEVEL_BLOCK = 256
"""Voxels along each side of the part of a coarser level that one task fills."""


class ShardError(InputError):
    """Some shards could not be done; all others are."""


def predict_on(
    workers: Workers, work: ShardWork, store: SegmentStore, blocks: Sequence[Box], cubes: CubeCount,
    on_voxels: Callable[[int, int, float | None, float | None], None],
) -> None:  # fmt: skip
    """Write the probabilities of the blocks that are not finished, large shards first: small ones even out the end.

    Args:
        on_voxels: told blocks done, of how many, seconds left and voxels a second.

    Raises:
        ShardError: naming the shards that could not be done, when all others are.
        OutputError: when the store or the journal cannot be written; nothing is begun any more.
        ClusterError: when the cluster went away.
    """
    left = [block for block in blocks if block.start not in store.finished]
    shards = sorted(shards_of(left, work.options.shard), key=lambda shard: -math.prod(shard.box.shape))
    on_voxels(len(blocks) - len(left), len(blocks), None, None)
    began, voxels, failures = time.monotonic(), 0, list[tuple[Shard, Exception]]()
    total = sum(math.prod(block.shape) for block in left)
    for done in workers.run(
        predict_shard, [(work, shard) for shard in shards], memory_bytes=task_bytes(shards), name="segment"
    ):
        shard = shards[done.number]
        if isinstance(done.error, OutputError):
            raise done.error
        if done.error is not None or done.result is None:
            failures.append((shard, done.error or ClusterError("no result came")))
            continue
        cubes.predicted += done.result.predicted
        cubes.empty += done.result.empty
        for block in shard.blocks:
            store.finish(block)
            voxels += math.prod(block.shape)
        speed = voxels / max(1e-9, time.monotonic() - began)
        on_voxels(len(store.finished), len(blocks), (total - voxels) / speed, speed)
    if failures:
        raise _shard_error(work.volume, failures, len(shards))


def mask_on(
    workers: Workers, probability: OmeZarrImage, store: SegmentStore, blocks: Sequence[Box], options: SegmentOptions
) -> tuple[int, Pieces | None]:
    """As :func:`medwave.workflows.segment_store.write_mask`, in tasks."""
    mask = create_mask(store.images / MASK, probability)
    source, target = absolute(probability.path), absolute(mask.path)
    shards, size, threshold = shards_of(blocks, options.shard), options.shard, options.threshold
    pieces, small = None, iter([NONE_SMALL] * len(blocks))
    if options.smallest_piece_voxels > 1:
        parts = [(source, threshold, shard) for shard in shards]
        labelled = _all(workers, label_shard, parts, "pieces", task_bytes(shards))
        pieces, found = small_pieces(list(itertools.chain(*labelled)), options.smallest_piece_voxels)
        small = iter(found)
    items = [(source, target, threshold, shard, [next(small) for _ in shard.blocks]) for shard in shards]
    fibre = sum(_all(workers, mask_shard, items, "mask"))
    part = max(_LEVEL_BLOCK, size) if probability.files != probability.chunks else _LEVEL_BLOCK
    _fill_levels(workers, ((source, "mean"), (target, "max")), level_shapes(source), part)
    return fibre, pieces


def _fill_levels(
    workers: Workers, images: Sequence[tuple[str, str]], shapes: Sequence[Triple], part: int
) -> None:  # fmt: skip
    """Fill the coarser levels of images of one shape, a level of all of them at a time.

    Levels that are one part each are filled by one task for each image: workers would wait for one another.
    """
    parts = [blocks_within(shape, size=(part,) * 3) for shape in shapes]
    level = 1
    while level < len(parts):
        last = len(parts) if len(parts[level]) == 1 else level + 1
        steps = [tuple((n, parts[n][k]) for n in range(level, last)) for k in range(len(parts[level]))]
        _all(workers, pyramid_part, [(path, step, how) for path, how in images for step in steps], f"level {level}")
        level = last


def _all(
    workers: Workers, function: Callable[[Any], Any], items: Sequence[Any], name: str, memory_bytes: int = 0
) -> list[Any]:
    """Results of all items in their order, or the first error."""
    results: list[Any] = [None] * len(items)
    for done in workers.run(function, items, memory_bytes=memory_bytes, name=name):
        if done.error is not None:
            raise done.error
        results[done.number] = done.result
    return results


def _shard_error(volume: str, failures: Sequence[tuple[Shard, Exception]], count: int) -> ShardError:
    shard, error = failures[0]
    where = ",".join(f"{a}:{b}" for a, b in zip(shard.box.start, shard.box.stop, strict=True))
    said = str(error) if isinstance(error, MedwaveError) else f"{type(error).__name__}: {error}"
    return ShardError(
        f"{volume}: {len(failures)} of {count} shards could not be done, first that of region {where}: {said}; all "
        "others are written: repeat the command when the cause is gone"
    )
