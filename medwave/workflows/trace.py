"""Trace a neuron: a volume of any microscopy format in, an SWC file out.

Positions are x y z; in voxels they count voxel centres of the file as it is, from 0, without any flip, and radii are in
voxels of x; in micrometres all are multiplied by the voxel size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from medwave import __version__
from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.core.files import StrPath
from medwave.core.tree import Tree
from medwave.tracing import TraceOptions, check_alignment, scale, trace
from medwave.volumes import LazyVolume, open_stack, write_swc
from medwave.workflows.options import TraceFileOptions

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
        if spacing_um is None and options.units == "um":
            raise InputError(f"{volume}: does not tell its voxel size, which micrometres need; give --spacing z,y,x")
        if spacing_um is None:
            warn(f"{volume} does not tell its voxel size: voxels are taken as cubes; --spacing z,y,x says otherwise")
        _check_memory(opened)
        stage("read")
        image = opened.read()
    stage("trace")
    try:
        tree = trace(image, options=_trace_options(options, spacing_um))
    except (InputError, GeometryError) as error:
        raise type(error)(f"{volume}: {error}") from None
    stage("write")
    for text in _doubts(tree, image):
        warn(text)
    if spacing_um is not None and options.units == "um":
        tree = scale(tree, spacing_um[::-1], radius_factor=spacing_um[2])
    write_swc(output, tree, header=_header(Path(volume), opened, options), units=options.units)
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


def _trace_options(options: TraceFileOptions, spacing_um: tuple[float, float, float] | None) -> TraceOptions:
    return TraceOptions(
        kind=options.kind,
        spacing=spacing_um or (1.0, 1.0, 1.0),
        threshold=options.threshold,
        largest_foreground_share=options.largest_foreground_share,
        shortest_segment=options.shortest_segment,
        roots=None if options.root is None else (options.root,),
        soma_radius=options.soma_radius,
        smallest_component_voxels=options.smallest_component_voxels,
        trees=options.trees,
        bridge_distance=options.bridge_distance,
        bridge_angle_degrees=options.bridge_angle_degrees,
        resample_step=options.resample_step,
    )


def _check_memory(volume: LazyVolume) -> None:
    voxels = volume.nbytes // volume.dtype.itemsize
    needed = volume.nbytes + _WORK_BYTES_PER_VOXEL * voxels
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise InputError(
            f"{volume.path}: tracing {voxels} voxels in one piece takes about {needed / 1e9:.0f} GB, this machine has "
            f"{there / 1e9:.0f}; trace a coarser --level of an OME-Zarr, or a part"
        )


def _doubts(tree: Tree, image: Any) -> list[str]:
    """What the automatic alignment check says against a tree."""
    if not len(tree.edges):
        return ["the tree has no edge"]
    check = check_alignment(tree, image)
    if check.aligned:
        return []
    if check.best:
        return [f"the tree lies on brighter voxels when mirrored along {' and '.join(check.best)}: look at it"]
    return ["the image is no brighter along the tree than beside it: look at it, and try another threshold"]


def _header(path: Path, volume: LazyVolume, options: TraceFileOptions) -> list[str]:
    size = "unknown" if volume.spacing_um is None else " ".join(f"{s:g}" for s in volume.spacing_um) + " um"
    threshold = "automatic" if options.threshold is None else f"{options.threshold:g}"
    return [
        f"traced by medwave {__version__}",
        f"image: {path.name}, channel {options.channel}, level {options.level}, "
        f"{' '.join(map(str, volume.shape))} voxels (z y x), voxel size {size}",
        f"kind {options.kind}, threshold {threshold}, gaps bridged up to {options.bridge_distance:g} voxels",
    ]


def _silent(name: str) -> None:
    pass


def _python_warning(text: str) -> None:
    warnings.warn(text, stacklevel=3)
