"""Trace a neuron: a volume of any microscopy format in, an SWC file out.

Positions are x y z; in voxels they count voxel centres of the file as it is, from 0, without any flip, and radii are in
voxels of x; in micrometres all are multiplied by the voxel size.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from medwave import __version__
from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.core.files import StrPath
from medwave.core.tree import Tree
from medwave.cubes.plan import Triple
from medwave.tracing import TraceOptions, check_alignment, scale, trace
from medwave.volumes import LazyVolume, open_stack, write_swc
from medwave.workflows.options import TraceFileOptions, TreeOptions
from medwave.workflows.vaa3d import trace_with_vaa3d

Warn = Callable[[str], None]

_WORK_BYTES_PER_VOXEL = 10
"""What tracing needs besides the volume: grey values, padded once more, node numbers, and a copy while scaling."""


def trace_file(
    volume: StrPath,
    output: StrPath,
    *,
    options: TraceFileOptions | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    **changes: Any,
) -> Tree:
    """Trace the fibres of a volume and write them as SWC.

    Args:
        volume: anything :func:`medwave.volumes.open_stack` opens.
        output: the SWC file.
        options: all options; single ones can be given by name: ``trace_file(v, o, units="um")``.
        on_stage: told the name of each step when it begins.
        on_warning: told what a person should know; by default it becomes a Python warning.

    Returns:
        The tree as written, in voxels of the volume or micrometres.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume, nothing to trace, or a file that cannot be written.
    """
    options = replace(options or TraceFileOptions(), **changes)
    stage, warn = on_stage or _silent, on_warning or _python_warning
    check_output(output, volume)
    with open_stack(
        volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    ) as opened:
        spacing_um = opened.spacing_um
        check_spacing(volume, spacing_um, options.units, warn)
        check_memory(opened, math.prod(opened.shape), "trace a coarser --level of an OME-Zarr, or a part")
        stage("read")
        image = opened.read()
    stage("trace")
    how = trace_options(options, spacing_um, kind=options.kind, threshold=options.threshold)
    tree = make_tree(image, Path(volume), Path(output), how, options.tracer)
    stage("write")
    for text in doubts(tree, image):
        warn(text)
    threshold = "automatic" if options.threshold is None else f"{options.threshold:g}"
    comments = header(Path(volume), opened.shape, spacing_um, options)
    return write_tree(output, tree, spacing_um, options, [*comments, f"kind {options.kind}, threshold {threshold}"])


def make_tree(image: npt.NDArray[Any], volume: Path, output: Path, how: TraceOptions, tracer: str) -> Tree:
    """Trace an image, by medwave or by Vaa3D, whose files then lie beside the output while it runs.

    Raises:
        MedwaveError: naming the volume when its values are to blame.
    """
    try:
        if tracer == "vaa3d":
            return trace_with_vaa3d(image, output.with_name(f"{output.stem}_vaa3d"), how)
        return trace(image, options=how)
    except (InputError, GeometryError) as error:
        raise type(error)(f"{volume}: {error}") from None


def write_tree(
    output: StrPath, tree: Tree, spacing_um: tuple[float, float, float] | None, options: TreeOptions,
    comments: list[str],
) -> Tree:  # fmt: skip
    """Write a tree that is in voxels in the units of the options; returns it so."""
    if options.units == "um" and spacing_um is not None:
        tree = scale(tree, spacing_um[::-1], radius_factor=spacing_um[2])
    write_swc(output, tree, header=comments, units=options.units)
    return tree


def check_output(output: StrPath, *inputs: StrPath) -> None:
    """Refuse at once, before long work, a file that cannot be written or is an input.

    Raises:
        OutputError: naming the file.
    """
    path = Path(output)
    if path.is_dir():
        raise OutputError(f"{path}: a file is to be written, this is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} may not be written to; choose another")
    if any(path.exists() and Path(each).exists() and path.samefile(each) for each in inputs):
        raise OutputError(f"{path}: the result would replace its input; choose another name")


def trace_options(
    options: TreeOptions, spacing_um: tuple[float, float, float] | None, *, kind: Any, threshold: float | None
) -> TraceOptions:
    """The options of a file as those of :func:`medwave.tracing.trace`."""
    return TraceOptions(
        kind=kind,
        spacing=spacing_um or (1.0, 1.0, 1.0),
        threshold=threshold,
        largest_foreground_share=options.largest_foreground_share,
        shortest_segment=options.shortest_segment,
        roots=None if options.root is None else (options.root,),
        soma_radius=options.soma_radius,
        smallest_component_voxels=options.smallest_component_voxels,
        trees="one" if options.trees == "one" else "all",
        bridge_distance=options.bridge_distance,
        bridge_angle_degrees=options.bridge_angle_degrees,
        resample_step=options.resample_step,
    )


def check_spacing(volume: StrPath, spacing_um: tuple[float, float, float] | None, units: str, warn: Warn) -> None:
    """Say that voxels are taken as cubes where their size is unknown.

    Raises:
        InputError: when micrometres are wanted then.
    """
    if spacing_um is None and units == "um":
        raise InputError(f"{volume}: does not tell its voxel size, which micrometres need; give --spacing z,y,x")
    if spacing_um is None:
        warn(f"{volume} does not tell its voxel size: voxels are taken as cubes; --spacing z,y,x says otherwise")


def check_memory(volume: LazyVolume, voxels: int, advice: str) -> None:
    """Refuse to trace more voxels than fit in memory.

    Raises:
        InputError: naming the volume.
    """
    needed = (volume.dtype.itemsize + _WORK_BYTES_PER_VOXEL) * voxels
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise InputError(
            f"{volume.path}: tracing {voxels} voxels in one piece takes about {needed / 1e9:.0f} GB, this machine has "
            f"{there / 1e9:.0f}; {advice}"
        )


def doubts(tree: Tree, image: npt.NDArray[Any]) -> list[str]:
    """What the automatic alignment check says against a tree."""
    if not len(tree.edges):
        return ["the tree has no edge"]
    check = check_alignment(tree, image)
    if check.aligned:
        return []
    if check.best:
        return [f"the tree lies on brighter voxels when mirrored along {' and '.join(check.best)}: look at it"]
    return ["the image is no brighter along the tree than beside it: look at it, and try another threshold"]


def header(path: Path, shape: Triple, spacing_um: tuple[float, float, float] | None, options: TreeOptions) -> list[str]:
    """Comments for the tree of a volume: program, image, and how gaps were joined."""
    size = "unknown" if spacing_um is None else " ".join(f"{s:g}" for s in spacing_um) + " um"
    by = "medwave" if options.tracer == "medwave" else f"{options.tracer}, called by medwave"
    made = [
        f"traced by {by} {__version__}",
        f"image: {path.name}, channel {options.channel}, level {options.level}, "
        f"{' '.join(map(str, shape))} voxels (z y x), voxel size {size}",
    ]
    if options.tracer == "medwave":
        made.append(f"gaps bridged up to {options.bridge_distance:g} voxels")
    return made


def _silent(name: str) -> None:
    pass


def _python_warning(text: str) -> None:
    warnings.warn(text, stacklevel=3)
