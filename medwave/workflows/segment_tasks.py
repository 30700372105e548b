"""What the workers of a cluster do for a segmentation: predict a shard, make its mask, fill a part of the pyramid.

A task gets plain values that travel, and opens the volume and the network once per process. The shard is predicted as
one block, so that each of its cubes is predicted once and its voxels are sums in the order of any other run: the same
bytes. It writes the blocks that are not finished yet, and no other task writes to their chunks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from medwave.core.errors import InputError
from medwave.core.provenance import fingerprint
from medwave.core.threads import limited_threads
from medwave.cubes import Box
from medwave.cubes.components import BlockLabels
from medwave.cubes.plan import CubePlan, around
from medwave.engine.fibres import CubeCount, FibrePredictor, predict_fibres, resolved_precision
from medwave.engine.predict import usable_device
from medwave.models import FibreNet, open_network
from medwave.transforms.microscopy import IntensityScale
from medwave.volumes import LazyVolume, OmeZarrImage, fill_level, open_stack
from medwave.volumes.location import stamp
from medwave.workflows.options_neurons import SegmentOptions
from medwave.workflows.segment_pieces import Small, label_fibre
from medwave.workflows.segment_store import as_bytes, mask_block

_BYTES_PER_VOXEL = 14
"""Of a shard: sums, weights and their quotient in float32, and a block as bytes with its copies."""
_PROCESS_BYTES = 2_000_000_000
"""Libraries, network and the activations of one cube."""


@dataclass(frozen=True)
class ShardWork:
    """All that shapes the probabilities of a volume, and where they go.

    Attributes:
        volume, weights, probability: where workers find them.
        weights_sha256: that the weights must have.
        options: with the precision resolved.
        scale, plan: the intensities and the cubes of the whole volume.
        threads: of a task.
    """

    volume: str
    weights: str
    weights_sha256: str
    probability: str
    options: SegmentOptions
    scale: IntensityScale
    plan: CubePlan
    threads: int


class Shard(NamedTuple):
    """A part of a volume that one task predicts: the box around its blocks, and the blocks."""

    box: Box
    blocks: tuple[Box, ...]


class _Tools(NamedTuple):
    volume: LazyVolume
    predictor: FibrePredictor
    image: OmeZarrImage


_opened: dict[tuple[ShardWork, Any], _Tools] = {}
_opening = threading.Lock()


def shards_of(blocks: Sequence[Box], size: int) -> list[Shard]:
    """Blocks by the shards, cubes of ``size`` voxels counted from the corner of the volume, in which they lie."""
    found: dict[tuple[int, ...], list[Box]] = {}
    for block in blocks:
        found.setdefault(tuple(start // size for start in block.start), []).append(block)
    return [Shard(around(inside), tuple(sorted(inside))) for _, inside in sorted(found.items())]


def task_bytes(shards: Sequence[Shard]) -> int:
    """Memory that a task needs, at most."""
    return _PROCESS_BYTES + _BYTES_PER_VOXEL * max((math.prod(shard.box.shape) for shard in shards), default=0)


def predict_shard(item: tuple[ShardWork, Shard]) -> CubeCount:
    """Write the probabilities of the blocks of a shard; returns how many cubes were predicted and passed over.

    Raises:
        MedwaveError: when the volume, the weights or the device are unusable here, or it cannot be written.
    """
    work, shard = item
    with limited_threads(work.threads):
        tools, count = _tools(work), CubeCount()
        predicted = predict_fibres(
            tools.predictor, work.plan, [shard.box], read=lambda box: tools.volume.read(box.slices),
            shape=tools.volume.shape, skip_empty=work.options.skip_empty, count=count,
        )  # fmt: skip
        for box, probability in predicted:
            for block in shard.blocks:
                tools.image.write(block.slices, as_bytes(probability[block.within(box)]))
    return count


def label_shard(item: tuple[str, float, Shard]) -> list[BlockLabels]:
    """What each block of a shard tells about the pieces of fibre within it."""
    probability, threshold, shard = item
    source = OmeZarrImage(probability)
    return [label_fibre(source, block, threshold) for block in shard.blocks]


def mask_shard(item: tuple[str, str, float, Shard, Sequence[Small]]) -> int:
    """Write the mask of a shard without the small pieces of each block; returns how many voxels are fibre."""
    probability, mask, threshold, shard, small = item
    source, target = OmeZarrImage(probability), OmeZarrImage(mask)
    return sum(mask_block(source, target, *each, threshold) for each in zip(shard.blocks, small, strict=True))


def pyramid_part(item: tuple[str, Sequence[tuple[int, Box]], str]) -> None:
    """Fill boxes of levels of a pyramid, each from the level before, in their order."""
    path, steps, method = item
    for level, box in steps:
        fill_level(path, level, box.slices, method=method)


def precision_there(item: tuple[str, str]) -> str:
    """What a precision means on the device of a worker.

    Raises:
        DeviceError: when the worker has no such device.
    """
    device, precision = item
    return resolved_precision(precision, usable_device(own_device(device)))


def own_device(device: str) -> str:
    """The device of this worker: of several that ``cuda`` may mean, the one with the number of the worker."""
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{_worker_number() % count}" if count > 1 else device


def _worker_number() -> int:
    from distributed import get_worker

    try:
        return int(get_worker().name)
    except ValueError:  # no worker, or one with a name in words
        return 0


def _tools(work: ShardWork) -> _Tools:
    """Opened once per process; those of an earlier job are let go, and those of a volume that was replaced."""
    with _opening:
        key = work, stamp(work.volume)
        if key not in _opened:
            _opened.clear()
            _opened[key] = _open(work)
        return _opened[key]


def _open(work: ShardWork) -> _Tools:
    if fingerprint(work.weights)["sha256"] != work.weights_sha256:
        raise InputError(f"{work.weights}: on a worker these are other weights than those of the command; copy them")
    options = work.options
    volume = open_stack(
        work.volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    )
    model: Any = open_network(work.weights, FibreNet)
    predictor = FibrePredictor(model, work.scale, device=own_device(options.device), precision=options.precision)
    return _Tools(volume, predictor, OmeZarrImage(work.probability))
