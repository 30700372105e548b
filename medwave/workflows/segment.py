"""Segment fibres: a volume of any microscopy format and any size in, probabilities and a mask out, as OME-Zarr.

``probability.ome.zarr`` holds 0 to 255 for a probability of 0 to 1, ``mask.ome.zarr`` 255 where it is above the
threshold, both with all voxels of the input (0 outside the region) and a pyramid of coarser levels. ``run.json`` comes
last and marks a complete run. A run that was interrupted goes on when it is repeated (see
:mod:`medwave.workflows.segment_store`); how cubes are cut, blended and passed over says :mod:`medwave.engine.fibres`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave import __version__
from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath, write_json
from medwave.core.locks import only_run_in
from medwave.core.provenance import Stage, StageClock, fingerprint, versions
from medwave.core.threads import limited_threads
from medwave.cubes import Box
from medwave.cubes.plan import CubePlan, Triple
from medwave.engine.fibres import BLOCK, CubeCount, FibrePredictor, blocks_within, fibre_plan, predict_fibres
from medwave.models import FibreNet, open_network, shipped_weights
from medwave.models.weights import read_weights_info, weight_file
from medwave.scale import Workers
from medwave.transforms.microscopy import EmptyVolumeError, IntensityScale, sampled_scale
from medwave.volumes import LazyVolume, OmeZarrImage, open_stack
from medwave.volumes.location import absolute, fingerprint_at, location
from medwave.workflows.block_progress import BlockClock, BlockProgress, OnProgress
from medwave.workflows.options_neurons import SegmentOptions
from medwave.workflows.run_folder import MARK, result_folder
from medwave.workflows.segment_cluster import mask_on, predict_on
from medwave.workflows.segment_store import MASK, PROBABILITY, SegmentStore, as_bytes, keep_input, write_mask
from medwave.workflows.segment_tasks import ShardWork, precision_there


@dataclass(frozen=True)
class Segmentation:
    """The result of :func:`segment`.

    Attributes:
        folder: where it lies.
        volume: the input.
        shape: voxels of the input, (z, y, x).
        spacing_um: voxel size along z, y, x, or None when unknown.
        region: the part that was segmented.
        fibre_voxels: how many voxels are fibre.
        blocks, blocks_before: blocks of the region; those that an earlier run had finished.
        cubes: what this run predicted and passed over.
        options: the options used, the precision resolved.
        record: everything about the run but its stages, as it stands in ``run.json``.
        stages: cost of each step of this run.
        warnings: what a person should know.
        offset_voxels: of the input, as of :class:`medwave.volumes.LazyVolume`.
    """

    folder: Path
    volume: Path
    shape: Triple
    spacing_um: tuple[float, float, float] | None
    region: Box
    fibre_voxels: int
    blocks: int
    blocks_before: int
    cubes: CubeCount
    options: SegmentOptions
    record: dict[str, Any]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    offset_voxels: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def probability(self) -> Path:
        """The OME-Zarr of probabilities."""
        return self._images / PROBABILITY

    @property
    def mask(self) -> Path:
        """The OME-Zarr of fibre and background."""
        return self._images / MASK

    @property
    def _images(self) -> Path:
        return self.folder if self.options.store is None else location(self.options.store)

    @property
    def fibre_share(self) -> float:
        """Share of the region that is fibre."""
        return self.fibre_voxels / math.prod(self.region.shape)


@dataclass(frozen=True)
class _Job:
    """An opened volume with all that shapes its probabilities."""

    volume: LazyVolume
    region: Box
    scale: IntensityScale
    model: FibreNet
    weights: Path
    options: SegmentOptions
    plan: CubePlan
    blocks: list[Box]
    pinned: dict[str, Any]
    provenance: dict[str, Any]


def segment(
    volume: StrPath,
    output: StrPath,
    *,
    weights: StrPath | None = None,
    options: SegmentOptions | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
    **changes: Any,
) -> Segmentation:
    """Segment the fibres of a volume into a folder; repeated after an interruption it goes on where it was.

    Args:
        volume: anything :func:`medwave.volumes.open_stack` opens.
        output: the folder; made when absent. Images go to ``options.store`` where that is given.
        weights: of a fibre network: a file (safetensors), or one of the two that come with medwave by its name:
            ``"neuron_noise"`` for volumes whose noise can be seen, ``"neuron"`` for volumes whose background was cut to
            zero (a file of that name comes first). The one that suits the volume when left out.
        options: all options; single ones can be given by name: ``segment(v, o, threshold=0.4)``.
        command_line: the command that repeats the run, for the record.
        on_stage: told the name of each step when it begins.
        on_progress: told about each block.
        workers: of a cluster (:func:`medwave.scale.open_workers`) that do the work; all of them read the volume and
            the weights and write to the folder under the same names. The result has the same bytes.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume, weights or device, or a folder that cannot be written
            or holds something else.
    """
    options = replace(options or SegmentOptions(), **changes)
    with result_folder(output) as folder, only_run_in(folder):
        result = segment_into(folder, volume, weights, options, on_stage, on_progress, workers)
        stages = [asdict(stage) for stage in result.stages]
        write_json(folder / MARK, {
            "medwave": __version__, "command": command_line, **result.record, "stages": stages,
            "files": {"probability": PROBABILITY, "mask": MASK}, "versions": versions(),
        })  # fmt: skip
    return result


def segment_into(
    folder: Path, volume: StrPath, weights: StrPath | None, options: SegmentOptions,
    on_stage: Callable[[str], None] | None, on_progress: OnProgress | None,
    workers: Workers | None = None,
) -> Segmentation:  # fmt: skip
    """As :func:`segment`, into a folder that is there and in which no other run works.

    ``run.json`` is left to the caller; that of an earlier run is taken away.
    """
    clock = StageClock(on_stage)
    with limited_threads(options.threads), _opened(volume, options) as opened, _naming(volume):
        with clock.stage("look"):
            job = prepare(opened, weights, options, workers)
        images = folder if options.store is None else location(options.store)
        keep_input(volume, images / PROBABILITY, images / MASK)
        store = SegmentStore(folder, job.pinned, images, options.shard if options.sharded else 0)
        (folder / MARK).unlink(missing_ok=True)
        with store.open(opened) as image:
            before, cubes = len(store.finished), CubeCount()
            with clock.stage("segment"):
                predict = _predict if workers is None else partial(_predict_on, workers)
                predict(job, store, image, cubes, on_progress)
            with clock.stage("mask"):
                if workers is None:
                    small = options.smallest_piece_voxels
                    fibre, pieces = write_mask(images, image, job.blocks, options.threshold, small)
                else:
                    fibre, pieces = mask_on(workers, image, store, job.blocks, options)
    options = job.options
    doubts = [] if fibre else [f"{volume}: {no_fibre(options)}: the mask is empty"]
    record = {
        "warnings": doubts,
        "options": asdict(options),
        "inputs": {"volume": {"path": str(volume), **job.pinned["volume"]}},
        "weights": job.provenance,
        "shape_zyx": opened.shape,
        "spacing_um_zyx": opened.spacing_um,
        "region_zyx": [job.region.start, job.region.stop],
        "cubes": {"size": job.plan.size, "stride": job.plan.stride, "margin": job.plan.margin, **asdict(cubes)},
        "blocks": {"size": job.pinned["blocks"], "count": len(job.blocks), "finished_before": before},
        "intensities": asdict(job.scale),
        "fibre_voxels": fibre,
        "pieces": None if pieces is None else asdict(pieces),
    }
    return Segmentation(
        folder, location(volume), opened.shape, opened.spacing_um, job.region, fibre, len(job.blocks), before, cubes,
        options, record, tuple(clock.stages), tuple(doubts), opened.offset_voxels,
    )  # fmt: skip


def prepare(
    volume: LazyVolume, weights: StrPath | None, options: SegmentOptions, workers: Workers | None = None
) -> _Job:
    """Check everything that can be wrong before a folder is touched, and lay the cubes.

    Raises:
        MedwaveError: for unusable weights, a device that is not there, a region outside, or a volume of one value.
    """
    region = parse_region(options.region, volume.shape)
    scale = volume_scale(volume, region)
    path = suited_weights(scale) if weights is None else weight_file(weights)
    model, info = load_fibre_network(path), read_weights_info(path)
    seen = fingerprint(path)["sha256"]
    asked = (options.device, options.precision)
    precision = precision_there(asked) if workers is None else workers.call(precision_there, asked)
    plan = fibre_plan(volume.shape, overlap=options.overlap)
    size = (options.shard,) * 3 if options.sharded else BLOCK
    pinned = {
        "volume": fingerprint_at(volume.path),
        "channel": options.channel,
        "level": options.level,
        "axes": options.axes,
        "spacing": volume.spacing_um,
        "region": [region.start, region.stop],
        "weights": seen,
        "precision": precision,
        "skip_empty": options.skip_empty,
        "cubes": [plan.size, plan.stride, plan.margin],
        "blocks": size,
    }
    provenance = {"path": str(path), "sha256": seen, **asdict(info)}
    return _Job(
        volume, region, scale, model, path, replace(options, precision=precision), plan,
        blocks_within(volume.shape, region, size=size), pinned, provenance,
    )  # fmt: skip


def volume_scale(volume: LazyVolume, region: Box) -> IntensityScale:
    """The scale of the whole volume.

    Where it is so sparse that nothing was found, of the chunks that its store holds; and where nothing is found there
    either, of the region.

    Raises:
        EmptyVolumeError: when neither holds more than one value.
        InputError: when a value is not finite.
    """
    try:
        return sampled_scale(volume.read, volume.shape)
    except EmptyVolumeError:
        if there := volume.stored() if volume.stored else []:
            with contextlib.suppress(EmptyVolumeError):
                return sampled_scale(volume.read, volume.shape, there)
        if region.shape == volume.shape:
            raise
        z, y, x = region.start

        def read(box: tuple[slice, slice, slice]) -> npt.NDArray[np.generic]:
            moved = (slice(s.start + a, s.stop + a) for s, a in zip(box, (z, y, x), strict=True))
            return volume.read(tuple(moved))  # type: ignore[arg-type]

        return sampled_scale(read, region.shape)


def no_fibre(options: SegmentOptions) -> str:
    """What an empty mask says."""
    least = options.smallest_piece_voxels
    within = f" in a piece of {least} voxels or more" if least > 1 else ""
    return f"no voxel{within} has a probability above {options.threshold:g}"


def suited_weights(scale: IntensityScale) -> Path:
    """The weights that come with medwave for a volume of this scale."""
    return shipped_weights("neuron_noise" if scale.noise_seen else "neuron")


def load_fibre_network(path: Path) -> FibreNet:
    """The network of a weight file.

    Raises:
        MedwaveError: when the file is absent, damaged, no safetensors, or not of a network for fibres in one channel.
    """
    model = open_network(path, FibreNet)
    if model.in_channels != 1 or model.head.out_channels != 2:
        raise InputError(
            f"{path}: segmentation needs a network that tells fibre from background in one channel, this one has "
            f"{model.in_channels} channels and {model.head.out_channels} classes; give other --weights"
        )
    return model


def parse_region(text: str | None, shape: Triple) -> Box:
    """The box of ``"z0:z1,y0:y1,x0:x1"``; a bound that is left out is that of the volume.

    Raises:
        InputError: when it is written otherwise.
        GeometryError: when it is empty or reaches beyond the volume.
    """
    if text is None:
        return Box((0, 0, 0), shape)
    try:
        bounds = [part.split(":") for part in text.split(",")]
        (z, y, x) = [
            (int(start) if start.strip() else 0, int(stop) if stop.strip() else n)
            for (start, stop), n in zip(bounds, shape, strict=True)
        ]
    except ValueError:
        raise InputError(f"region: three ranges z0:z1,y0:y1,x0:x1 are needed, got {text!r}") from None
    if not all(0 <= start < stop <= n for (start, stop), n in zip((z, y, x), shape, strict=True)):
        raise GeometryError(
            f"region: {text} is to hold a voxel and lie within the volume of {shape} (z, y, x) voxels; choose another"
        )
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


def _predict(
    job: _Job, store: SegmentStore, image: OmeZarrImage, cubes: CubeCount,
    on_progress: OnProgress | None,
) -> None:  # fmt: skip
    """Write the blocks that are not finished yet."""
    left = [block for block in job.blocks if block.start not in store.finished]
    how, before = job.options, len(job.blocks) - len(left)
    clock = BlockClock(on_progress or (lambda _: None), len(job.blocks), before)
    predictor = FibrePredictor(job.model, job.scale, device=how.device, precision=how.precision)
    predicted = predict_fibres(
        predictor, job.plan, left, read=lambda box: job.volume.read(box.slices), shape=job.volume.shape,
        skip_empty=how.skip_empty, count=cubes,
    )  # fmt: skip
    for block, probability in predicted:
        image.write(block.slices, as_bytes(probability))
        store.finish(block)
        clock.note()


def _predict_on(
    workers: Workers, job: _Job, store: SegmentStore, image: OmeZarrImage, cubes: CubeCount,
    on_progress: OnProgress | None,
) -> None:  # fmt: skip
    """The same on a cluster."""
    work = ShardWork(
        absolute(job.volume.path), absolute(job.weights), job.pinned["weights"], absolute(image.path), job.options,
        job.scale, job.plan, job.options.threads or workers.threads,
    )  # fmt: skip
    told = on_progress or (lambda _: None)
    predict_on(workers, work, store, job.blocks, cubes, lambda *at: told(BlockProgress(*at)))


def _opened(volume: StrPath, options: SegmentOptions) -> LazyVolume:
    return open_stack(
        volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    )


@contextlib.contextmanager
def _naming(volume: StrPath) -> Iterator[None]:
    """Errors about values name the volume."""
    try:
        yield
    except (InputError, GeometryError) as error:
        if str(error).startswith("the "):
            raise type(error)(f"{volume}: {error}") from None
        raise
