"""Trace a neuron: a volume of any microscopy format in, an SWC file out.

Positions are x y z; in voxels they count voxel centres of the file as it is, from 0, without any flip, and radii are in
voxels of x; in micrometres all are multiplied by the voxel size, and count from the centre of voxel 0 of level 0.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave import __version__
from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath, check_output
from medwave.core.locks import only_run_on
from medwave.core.tree import Tree
from medwave.cubes import Box
from medwave.cubes.plan import Triple
from medwave.scale import Workers
from medwave.tracing import TraceOptions
from medwave.tracing.alignment import alignment_within
from medwave.tracing.roots import FARTHEST_FOREGROUND
from medwave.tracing.voxels import VoxelsInTiles
from medwave.volumes import write_swc
from medwave.volumes.location import absolute, fingerprint_at
from medwave.volumes.stack import Spacing
from medwave.workflows.block_progress import OnProgress
from medwave.workflows.options import TraceFileOptions, TreeOptions, VolumeOptions
from medwave.workflows.trace_blocks import trace_source
from medwave.workflows.trace_source import Source, Stack, VolumeSource, stacks
from medwave.workflows.tree_units import to_micrometres
from medwave.workflows.vaa3d import trace_with_vaa3d

Warn = Callable[[str], None]

_WORK_BYTES_PER_VOXEL = 10
"""What Vaa3D needs besides the volume."""

_MOST_SAMPLES = 20_000
"""Of a tree, for the look at whether it lies on bright voxels."""


def trace_file(
    volume: StrPath,
    output: StrPath,
    *,
    options: TraceFileOptions | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
    on_warning: Callable[[str], None] | None = None,
    workers: Workers | None = None,
    **changes: Any,
) -> Tree:
    """Trace the fibres of a volume of any size and write them as SWC; repeated after an interruption it goes on.

    What is finished lies beside the output, in a folder of its name with ``.parts``, until the tree is there.

    Args:
        volume: anything :func:`medwave.volumes.open_stack` opens.
        output: the SWC file.
        options: all options; single ones can be given by name: ``trace_file(v, o, units="um")``.
        on_stage: told the name of each step when it begins.
        on_progress: told how far each step of several blocks is.
        on_warning: told what a person should know; by default it becomes a Python warning.
        workers: of a cluster (:func:`medwave.scale.open_workers`), which then trace; all of them read the volume and
            write beside the output under the same names. The tree is the same.

    Returns:
        The tree as written, in voxels of the volume or micrometres.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume, nothing to trace, or a file that cannot be written or
            that another run is making.
    """
    options = replace(options or TraceFileOptions(), **changes)
    stage, warn = on_stage or _silent, on_warning or _python_warning
    check_output(output, volume)
    stack = stack_of(volume, options)
    with stacks(), naming(volume):
        opened = stack.open()
        spacing_um, shape = opened.spacing_um, opened.shape
        check_spacing(volume, spacing_um, options.units, warn)
        check_root(volume, options.root, spacing_um, Box((0, 0, 0), shape))
        stage("trace")
        how = trace_options(options, spacing_um, kind=options.kind, threshold=options.threshold)
        source = VolumeSource(stack, (0, 0, 0), shape, options.kind)
        tree = make_tree(
            source, Path(output), how, options.tracer, inputs=fingerprint_at(volume), workers=workers,
            on_progress=on_progress,
        )  # fmt: skip
        stage("write")
        for text in doubts(tree, opened.read, shape):
            warn(text)
    threshold = "automatic" if options.threshold is None else f"{options.threshold:g}"
    comments = header(Path(volume), shape, spacing_um, options)
    comments.append(f"kind {options.kind}, threshold {threshold}")
    return write_tree(output, tree, spacing_um, opened.offset_voxels, options, comments)


def stack_of(volume: StrPath, options: VolumeOptions) -> Stack:
    """A volume as options say how to open it."""
    return Stack(absolute(volume), options.channel, options.level, options.axes, options.spacing)


@contextlib.contextmanager
def naming(volume: StrPath) -> Iterator[None]:
    """Errors about values name the volume."""
    try:
        yield
    except (InputError, GeometryError) as error:
        if str(error).startswith(str(volume)) or str(volume) in str(error):
            raise
        raise type(error)(f"{volume}: {error}") from None


def make_tree(
    source: Source, output: Path, how: TraceOptions, tracer: str, *, inputs: Any, workers: Workers | None = None,
    on_progress: OnProgress | None = None, parts: Path | None = None,
) -> Tree:  # fmt: skip
    """Trace a source, block by block by medwave, or as a whole by Vaa3D, whose files then lie beside the output.

    Args:
        inputs: what tells whether the source is still the same, as plain values.
        workers: of a cluster, for medwave.
        on_progress: told how far each step of several blocks is, by medwave.
        parts: folder for what is finished, in place of one beside the output.

    Raises:
        OutputError: when another run makes this tree.
        MedwaveError: as for :func:`medwave.workflows.trace_blocks.trace_source` and
            :func:`medwave.workflows.vaa3d.trace_with_vaa3d`.
    """
    with only_run_on(output):
        if tracer == "vaa3d":
            whole = Box((0, 0, 0), source.shape)
            check_memory(source, "trace it with medwave, which takes it in parts")
            image = source.values(whole) if isinstance(source, VolumeSource) else source.whole()
            return trace_with_vaa3d(image, output.with_name(f"{output.stem}_vaa3d"), how)
        folder = parts or output.with_name(f"{output.name}.parts")
        return trace_source(source, how, folder, inputs=inputs, workers=workers, on_progress=on_progress)


def write_tree(
    output: StrPath, tree: Tree, spacing_um: Spacing | None, offset_voxels: Spacing, options: TreeOptions,
    comments: list[str],
) -> Tree:  # fmt: skip
    """Write a tree that is in voxels in the units of the options; returns it so."""
    if options.units == "um" and spacing_um is not None:
        tree = to_micrometres(tree, spacing_um, offset_voxels)
    write_swc(output, tree, header=comments, units=options.units)
    return tree


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


def check_root(volume: StrPath, root: Spacing | None, spacing_um: Spacing | None, box: Box) -> None:
    """Refuse a root (z, y, x) in voxels that is too far from a box for any foreground in it.

    Raises:
        InputError: naming the volume.
    """
    if root is None:
        return
    size, last = np.array(spacing_um or (1.0, 1.0, 1.0)), np.array(box.stop) - 1
    outside = np.linalg.norm((root - np.clip(root, box.start, last)) * size / size[2])
    if not outside <= FARTHEST_FOREGROUND:
        raise InputError(
            f"{volume}: the root (z, y, x) = {tuple(root)} is more than {FARTHEST_FOREGROUND:g} voxels outside of "
            f"what is traced, voxels {tuple(box.start)} to {tuple(last.tolist())}: check the order of its axes"
        )


def check_memory(source: Source, advice: str) -> None:
    """Refuse to hand on more voxels at once than fit in memory.

    Raises:
        InputError: naming the volume.
    """
    voxels = math.prod(source.shape)
    needed = (source.dtype.itemsize + _WORK_BYTES_PER_VOXEL) * voxels
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise InputError(
            f"{source.stack.path}: {voxels} voxels in one piece take about {needed / 1e9:.0f} GB, this machine has "
            f"{there / 1e9:.0f}; {advice}"
        )


def doubts(
    tree: Tree, read: Callable[[tuple[slice, slice, slice]], npt.NDArray[Any]], shape: Triple
) -> list[str]:  # fmt: skip
    """What the automatic alignment check says against a tree.

    Args:
        tree: in voxels of the volume.
        read: gives the values of a box.
        shape: of the volume.
    """
    if not len(tree.edges):
        return ["the tree has no edge"]
    check = alignment_within(tree, VoxelsInTiles(read, shape), None, most_samples=_MOST_SAMPLES)
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
