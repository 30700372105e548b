"""The page about a trace or a reconstruction, made from its files.

Trees come as they were written: x y z in voxels of the volume, or in micrometres. The volume and what was predicted
from it are projected block by block; they are never held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.core.provenance import Stage, StageClock, versions
from medwave.core.tree import Tree
from medwave.metrics import TraceScores, score_trace
from medwave.reports import NeuronReport, Projections, project, write_neuron_report
from medwave.scale import Workers
from medwave.tracing import crop, scale
from medwave.volumes import open_stack, read_swc, read_swc_units
from medwave.volumes.location import location
from medwave.volumes.stack import Spacing
from medwave.workflows.block_progress import OnProgress
from medwave.workflows.options import TraceFileOptions
from medwave.workflows.trace import check_output, trace_file


class _Opened(Protocol):
    """How a volume was opened, and in which units its tree was written."""

    channel: int
    level: int
    axes: str | None
    spacing: tuple[float, float, float] | None
    units: str


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
    with open_stack(
        volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    ) as opened:
        spacing_um, image = opened.spacing_um, project(opened, box=box)
    origin = (0, 0, 0) if box is None else tuple(part.start or 0 for part in box)
    shown, true, scores = _in_voxels(tree, options.units, spacing_um, volume), None, None
    messages = list(warnings)
    if gold is not None:
        true = _in_voxels(read_swc(gold), read_swc_units(gold) or options.units, spacing_um, gold)
        first = np.array(origin[::-1]) - 0.5
        inside = crop(true, first, first + image.shape[::-1])
        if inside.length < 0.999 * true.length:
            share = 100 * inside.length / true.length
            messages.append(f"{share:.0f} % of the gold tree lie inside the volume; the rest is not counted.")
        scores = score_trace(inside, shown)
    report = NeuronReport(
        name=location(volume).name,
        image=image,
        tree=shown,
        probability=_projected(probability, box),
        mask=_projected(mask, box),
        gold=true,
        scores=scores,
        spacing_um=spacing_um,
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
    check_output(page, volume, *([] if gold is None else [gold]))
    if gold is not None:
        read_swc(gold)  # a damaged file is told now, not after the trace
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


def _in_voxels(tree: Tree, units: str, spacing_um: Spacing | None, name: StrPath) -> Tree:
    if units != "um":
        return tree
    if spacing_um is None:
        raise InputError(f"{name}: is in micrometres, the volume does not tell its voxel size; give --spacing z,y,x")
    return scale(tree, [1 / s for s in spacing_um[::-1]], radius_factor=1 / spacing_um[2])


def _projected(path: StrPath | None, box: tuple[slice, slice, slice] | None) -> Projections | Any:
    if path is None:
        return None
    with open_stack(path) as opened:
        return project(opened, box=box)
