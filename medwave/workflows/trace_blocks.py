"""Trace a volume of any size: block by block and piece by piece, here or on a cluster, always to the same tree.

A volume is looked at for its grey scale and threshold, its foreground is collected block by block, the pieces of all
blocks are merged and traced in groups (:mod:`medwave.tracing.blocks`), and the trees of all groups become one forest,
for which the volume is read again only where gaps may be bridged. Blocks and groups are tasks, each of which leaves one
file in a folder of parts; a repeated run goes on with those that are missing. ``job.json`` there pins what shapes
them: parts of another job are thrown away.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave import __version__
from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.core.files import json_text
from medwave.core.tree import Tree
from medwave.cubes import Box
from medwave.cubes.components import BlockLabels
from medwave.cubes.plan import CubePlan, Triple
from medwave.scale import Workers
from medwave.tracing import TraceOptions
from medwave.tracing.blocks import GROUP_VOXELS, Part, block_voxels, group_pieces, group_voxels
from medwave.tracing.foreground import Voxels, foreground_of
from medwave.tracing.forest import assemble
from medwave.tracing.grey import GreyScale
from medwave.tracing.pieces import PieceTrees, large_pieces, merge_pieces, trace_pieces
from medwave.tracing.roots import given_roots, nearest_voxels
from medwave.tracing.tracer import GreyLevels, voxel_spacing
from medwave.tracing.voxels import VoxelsInTiles
from medwave.volumes.location import absolute, location, put_bytes, put_json, reached, remove_store
from medwave.workflows.block_progress import OnProgress
from medwave.workflows.trace_look import EVERYTHING, look_at
from medwave.workflows.trace_source import Source, block_size, is_stored
from medwave.workflows.trace_tasks import COLLECT, TRACE, Step, Tasks

JOB = "job.json"


@dataclass(frozen=True)
class _Job:
    """What every task knows."""

    source: Source
    options: TraceOptions
    parts: str
    scale: GreyScale | None = None
    levels: GreyLevels = EVERYTHING

    def file(self, step: Step, number: int) -> Path:
        """Where a task leaves what it found."""
        return location(self.parts) / f"{step.name}-{number:07d}.npz"


def trace_source(
    source: Source, options: TraceOptions, parts: Path, *, inputs: Any, workers: Workers | None = None,
    on_progress: OnProgress | None = None, block: Triple | None = None, group_voxels: int = GROUP_VOXELS,
) -> Tree:  # fmt: skip
    """Trace a volume.

    Args:
        source: what is traced.
        options: how; roots count from the corner of the part that is traced.
        parts: folder of the parts, made when absent and removed when the tree is there; on a cluster all workers write
            to it.
        inputs: what tells whether the source is still the same, as plain values.
        workers: of a cluster, which then do the work.
        on_progress: told how far each step of several tasks is.
        block: size of blocks, in place of one that suits the file.
        group_voxels: most foreground voxels that are traced together, but for larger pieces.

    Returns:
        As :func:`medwave.tracing.trace` of the whole: the same tree, whatever the blocks.

    Raises:
        MedwaveError: as there; and when parts cannot be written, or the cluster goes away.
    """
    size = block or block_size(source)
    job, tasks = _Job(source, options, absolute(parts)), Tasks(workers, on_progress)
    _begin(parts, _pinned(job, inputs, size, group_voxels))
    with _unless_unusable(parts):
        scale, levels = _look(tasks, job, size)
    job = replace(job, scale=scale, levels=levels)
    boxes = _with_foreground(job, size)
    _do(tasks, COLLECT, _collect, [(job, number, box) for number, box in boxes.items()], job)
    with _unless_unusable(parts):
        given, homes = _given(job, list(boxes))
        groups = group_pieces({number: _labels(job, number) for number in boxes}, options, homes, group_voxels)
    work = [(job, number, group, given) for number, group in enumerate(groups)]
    _do(tasks, TRACE, _trace_group, work, job)
    trees = merge_pieces([_load(job.file(TRACE, n), PieceTrees) for n in range(len(groups))] or [_NO_TREES])
    grey = VoxelsInTiles(lambda box: source.grey(_box(box), scale), source.shape)
    with _unless_unusable(parts):
        tree = assemble(trees, grey, voxel_spacing(options), options)
    remove_store(parts)
    return tree


def _begin(parts: Path, pinned: Any) -> None:
    """Keep the parts of this job; throw those of another away."""
    if _read_json(parts / JOB) != pinned:
        remove_store(parts)
        try:
            parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{parts}: cannot be made ({error.strerror}); choose another output") from error
        put_json(parts / JOB, pinned)


@contextlib.contextmanager
def _unless_unusable(parts: Path) -> Iterator[None]:
    """Take the parts away where the volume or an option is to blame, which no repetition cures."""
    try:
        yield
    except (InputError, GeometryError):
        remove_store(parts)
        raise


def _do(tasks: Tasks, step: Step, function: Callable[[Any], None], items: Sequence[Any], job: _Job) -> None:
    """Call a function on the items, whose second part is their number, that left no file yet."""
    there = {path.name for path in location(job.parts).iterdir()}
    left = [item for item in items if job.file(step, item[1]).name not in there]
    for _ in tasks.run(step, function, left, before=len(items) - len(left)):
        pass


def _look(tasks: Tasks, job: _Job, size: Triple) -> tuple[GreyScale, GreyLevels]:
    """The grey scale of a volume and the levels of its trace; looked at once, or again where parts are not there."""
    path = location(job.parts) / "look.json"
    known = _read_json(path)
    if known is None:
        scale, levels = look_at(tasks, job.source, job.options, size)
        put_json(path, {"scale": asdict(scale), "levels": levels._asdict()})
        known = _read_json(path) or {}
    return GreyScale(**known["scale"]), GreyLevels(**known["levels"])


# --- foreground ------------------------------------------------------------------------------------------------------


def _collect(item: tuple[_Job, int, Box]) -> None:
    """Leave the foreground of a block."""
    job, number, box = item
    path = job.file(COLLECT, number)
    if path.exists() or job.scale is None:
        return
    scale, spacing = job.scale, voxel_spacing(job.options)
    found = block_voxels(
        lambda wide: job.source.grey(wide, scale), box, job.source.shape, job.levels.threshold, spacing, job.options
    )
    nearest, distance = nearest_voxels(found.voxels.place, _wanted(job.options), spacing)
    labels = {f"labels_{name}": column for name, column in asdict(found.labels).items()}
    at = np.searchsorted(found.voxels.place, nearest)
    label = found.label[np.minimum(at, max(len(found.label) - 1, 0))] if len(found.label) else nearest
    _save(
        path, **found.voxels._asdict(), label=found.label, **labels, nearest=nearest, distance=distance,
        nearest_label=label,
    )  # fmt: skip


def _with_foreground(job: _Job, size: Triple) -> dict[int, Box]:
    """The blocks that may hold foreground, or see some beyond their far sides, by their numbers.

    All but those of which nothing is stored, where what is not stored is background.
    """
    source, boxes = job.source, CubePlan(job.source.shape).blocks(size)
    there = is_stored(source.shown, source.start, source.shape, size)
    absent = next((box for box, stored in zip(boxes, there, strict=True) if not stored), None)
    if absent is None or job.scale is None or job.options.cross_gaps:  # dark rims reach into blocks beside fibre
        return dict(enumerate(boxes))
    z, y, x = absent.start
    if source.grey(Box((z, y, x), (z + 1, y + 1, x + 1)), job.scale)[0, 0, 0] > job.levels.threshold:
        return dict(enumerate(boxes))
    grid = there.reshape([-(-n // step) for n, step in zip(source.shape, size, strict=True)])
    for axis in range(3):
        before = np.moveaxis(grid.copy(), axis, 0)
        before[:-1] |= before[1:]
        grid = np.moveaxis(before, 0, axis)
    return {number: boxes[number] for number in np.flatnonzero(grid.reshape(-1)).tolist()}


def _labels(job: _Job, number: int) -> BlockLabels:
    with _opened(job.file(COLLECT, number)) as arrays:
        return BlockLabels(**{each.name: arrays[f"labels_{each.name}"] for each in fields(BlockLabels)})


def _wanted(options: TraceOptions) -> npt.NDArray[np.float64]:
    return np.array([] if options.roots is None else options.roots, dtype=np.float64).reshape(-1, 3)


def _given(job: _Job, blocks: Sequence[int]) -> tuple[npt.NDArray[np.int64], list[tuple[int, int]]]:
    """Positions of the roots that were asked for, and the block and label of each."""
    wanted = _wanted(job.options)
    if not len(wanted):
        return np.empty(0, np.int64), []
    nearest, distance = np.full(len(wanted), -1, np.int64), np.full(len(wanted), np.inf)
    home: list[tuple[int, int]] = [(-1, -1)] * len(wanted)
    for number in blocks:
        with _opened(job.file(COLLECT, number)) as arrays:
            place, away, label = arrays["nearest"], arrays["distance"], arrays["nearest_label"]
        closer = (away < distance) | ((away == distance) & (place < nearest) & np.isfinite(away))
        for root in np.flatnonzero(closer):
            nearest[root], distance[root], home[root] = place[root], away[root], (number, int(label[root]))
    return given_roots(wanted, nearest, distance), home


# --- trees -----------------------------------------------------------------------------------------------------------


def _trace_group(item: tuple[_Job, int, Sequence[Part], npt.NDArray[np.int64]]) -> None:
    """Leave the trees of a group of pieces."""
    job, number, parts, given = item
    path = job.file(TRACE, number)
    if path.exists():
        return
    voxels = group_voxels([(*_voxels(job, part.block), part.labels) for part in parts])
    spacing, options = voxel_spacing(job.options), job.options
    foreground = foreground_of(
        voxels, job.source.shape, job.levels.threshold, spacing, connectivity=options.connectivity
    )
    trees = trace_pieces(large_pieces(foreground, options, given), given, job.levels.radius, options)
    _save(path, **{each.name: getattr(trees, each.name) for each in fields(PieceTrees)})


def _voxels(job: _Job, block: int) -> tuple[Voxels, npt.NDArray[np.int32]]:
    with _opened(job.file(COLLECT, block)) as arrays:
        return Voxels(*(arrays[name] for name in Voxels._fields)), arrays["label"]


_NO_TREES = PieceTrees(
    np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0),
    np.empty(0, np.int64), np.empty(0), np.empty(0),
)  # fmt: skip


# --- files -----------------------------------------------------------------------------------------------------------


def _pinned(job: _Job, inputs: Any, size: Triple, group_voxels: int) -> Any:
    """All that shapes the parts, as plain values."""
    pinned = {"medwave": __version__, "inputs": inputs, "source": asdict(job.source), "options": asdict(job.options)}
    return json.loads(json_text({**pinned, "block": size, "group_voxels": group_voxels}))


def _box(slices: tuple[slice, slice, slice]) -> Box:
    z, y, x = slices
    return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))


def _read_json(path: Path) -> Any:
    """The content of a file of plain values; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _save(path: Path, **arrays: npt.NDArray[Any]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    put_bytes(path, content.getvalue())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The arrays of a part, read when they are asked for."""
    with reached(path), path.open("rb") as stream, np.load(stream) as arrays:
        yield arrays


def _load(path: Path, kind: type[PieceTrees]) -> PieceTrees:
    with _opened(path) as arrays:
        return kind(**{each.name: arrays[each.name] for each in fields(kind)})
