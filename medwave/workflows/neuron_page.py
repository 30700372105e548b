"""The page about a trace or a reconstruction, made from its files.

Trees come as they were written: x y z in voxels of the volume, or in micrometres. The volume and what was predicted
from it are projected block by block; they are never held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from medwave.core.errors import InputError, OutputError
from medwave.core.files import StrPath, check_output
from medwave.core.provenance import Stage, StageClock, versions
from medwave.core.tree import Tree
from medwave.metrics import TraceScores, score_trace
from medwave.reports import NeuronReport, Projections, project, write_neuron_report
from medwave.scale import Workers
from medwave.tracing import crop
from medwave.volumes import LazyVolume, open_stack, read_swc, read_swc_units
from medwave.volumes.location import location
from medwave.workflows.block_progress import OnProgress
from medwave.workflows.options import TraceFileOptions
from medwave.workflows.trace import trace_file
from medwave.workflows.tree_units import to_voxels


class _Opened(Protocol):
    """How a volume was opened, and in which units its tree was written."""

    channel: int
    level: int
    axes: str | None
    spacing: tuple[float, float, float] | None
    units: str


def _open(volume: StrPath, options: _Opened) -> LazyVolume:
    return open_stack(
        volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    )


class GoldTree(NamedTuple):
    """A true tree in voxels of a volume: all of it, and the part of it in what was looked at."""

    whole: Tree
    inside: Tree


def read_gold(
    gold: StrPath, volume: LazyVolume, units: str, *, box: tuple[slice, slice, slice] | None = None
) -> GoldTree:
    """Read the true tree of a volume.

    Args:
        gold: SWC file.
        volume: what is traced.
        units: of the tree, unless its file says them: ``"um"`` or ``"voxels"``.
        box: three slices along z, y, x: the part of the volume that is looked at.

    Raises:
        MedwaveError: one of its leaves, for a file that cannot be read, a tree in micrometres where the voxel size is
            unknown, and one of which no edge lies in what is looked at.
    """
    whole = _in_voxels(read_swc(gold), read_swc_units(gold) or units, volume, gold)
    if not whole.length > 0:
        raise InputError(f"{gold}: the gold tree has no length: nothing can be compared with it; check the file")
    bounds = [part.indices(size)[:2] for part, size in zip(box or (slice(None),) * 3, volume.shape, strict=True)]
    first, end = np.array(bounds[::-1]).T
    inside = crop(whole, first - 0.5, end - 0.5)
    if not inside.length > 0:
        spans = (f"{a:.6g} to {b:.6g}" for a, b in zip(whole.positions.min(0), whole.positions.max(0), strict=True))
        raise InputError(
            f"{gold}: no part of the gold tree lies in the voxels of {volume.path} that are traced, x y z from "
            f"{first.tolist()} to {(end - 1).tolist()}: in voxels it spans "
            f"{', '.join(spans)}; check its units and axes (medwave swc convert)"
        )
    return GoldTree(whole, inside)


def write_neuron_page(
    path: StrPath,
    volume: StrPath,
    tree: Tree,
    *,
    options: _Opened,
    probability: StrPath | None = None,
    mask: StrPath | None = None,
    gold: StrPath | None = None,
    box: tuple[slice, slice, slice] | None = None,
    stages: Sequence[Stage] = (),
    warnings: Sequence[str] = (),
    files: Mapping[str, tuple[str, str]] | None = None,
    command_line: str = "",
) -> TraceScores | None:
    """Write the page of one neuron.

    Args:
        path: the HTML file.
        volume: what was traced.
        tree: as it was written, in the units of the options.
        options: how the volume was opened (channel, level, axes, spacing) and the units of the tree.
        probability, mask: volumes on the voxels of ``volume``.
        gold: SWC file of the true tree; what lies outside the volume or box is not counted.
        box: three slices along z, y, x: the part of the volume that was looked at.
        stages, warnings, files, command_line: as for :class:`medwave.reports.NeuronReport`.

    Returns:
        The scores against the gold tree in voxels, when one is given.

    Raises:
        MedwaveError: one of its leaves, for files that cannot be read or written.
    """
    with _open(volume, options) as opened:
        image = project(opened, box=box)
        true = None if gold is None else read_gold(gold, opened, options.units, box=box)
    origin = (0, 0, 0) if box is None else tuple(part.start or 0 for part in box)
    shown, scores = _in_voxels(tree, options.units, opened, volume), None
    messages = list(warnings)
    if true is not None:
        share = true.inside.length / true.whole.length
        if share < 0.999:
            messages.append(f"{100 * share:.0f} % of the gold tree lie inside the volume; the rest is not counted.")
        scores = score_trace(true.inside, shown)
    report = NeuronReport(
        name=location(volume).name,
        image=image,
        tree=shown,
        probability=_projected(probability, box),
        mask=_projected(mask, box),
        gold=None if true is None else true.whole,
        scores=scores,
        spacing_um=opened.spacing_um,
        origin=origin,  # type: ignore[arg-type]
        status="warning" if warnings else "ok",
        messages=messages,
        stages=[tuple(asdict(stage).values()) for stage in stages],  # type: ignore[misc]
        options=asdict(options),  # type: ignore[call-overload]
        versions=versions(),
        files=files or {},  # type: ignore[arg-type]
        command_line=command_line,
    )
    write_neuron_report(Path(path), report)
    return scores


def trace_with_page(
    volume: StrPath,
    output: StrPath,
    page: StrPath,
    *,
    gold: StrPath | None = None,
    options: TraceFileOptions | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
    workers: Workers | None = None,
) -> Tree:
    """Trace a volume as :func:`medwave.workflows.trace.trace_file` does, and write a page about it.

    Args:
        volume, output, options, on_stage, on_progress, on_warning: as there.
        page: the HTML file.
        gold: SWC file of the true tree, to show and to score against.
        command_line: the command that repeats the run, for the record.
        workers: as for that function.
    """
    options = options or TraceFileOptions()
    inputs = [volume] if gold is None else [volume, gold]
    check_output(page, *inputs)
    check_output(output, *inputs)
    if Path(page).resolve() == Path(output).resolve():
        raise OutputError(f"{page}: the page would replace the tree; choose another name for one of them")
    if gold is not None:  # one that cannot be compared with is told now, not after the trace
        with _open(volume, options) as opened:
            read_gold(gold, opened, options.units)
    clock, warnings = StageClock(), []

    def warn(text: str) -> None:
        warnings.append(text)
        on_warning(text)

    with clock.stage("trace"):
        tree = trace_file(
            volume, output, options=options, on_stage=on_stage, on_progress=on_progress, on_warning=warn,
            workers=workers,
        )  # fmt: skip
    on_stage("report")
    write_neuron_page(
        page, volume, tree, options=options, gold=gold, stages=clock.stages, warnings=warnings,
        files=_beside(page, output), command_line=command_line,
    )  # fmt: skip
    return tree


def _beside(page: StrPath, output: StrPath) -> dict[str, tuple[str, str]]:
    """The tree as a file of the page, where both lie in one folder."""
    if Path(page).resolve().parent != Path(output).resolve().parent:
        return {}
    return {"Tree": (Path(output).name, "SWC file of the tree")}


def _in_voxels(tree: Tree, units: str, volume: LazyVolume, name: StrPath) -> Tree:
    if units != "um":
        return tree
    if volume.spacing_um is None:
        raise InputError(f"{name}: is in micrometres, the volume does not tell its voxel size; give --spacing z,y,x")
    return to_voxels(tree, volume.spacing_um, volume.offset_voxels)


def _projected(path: StrPath | None, box: tuple[slice, slice, slice] | None) -> Projections | Any:
    if path is None:
        return None
    with open_stack(path) as opened:
        return project(opened, box=box)
