"""Reconstruct a neuron: a volume of any microscopy format in; probabilities, a mask and a tree out.

The volume is segmented (:mod:`medwave.workflows.segment`); what the network calls fibre is traced; and the tree is
scored where a true one is given. What is seen there are the probabilities, which keep dim fibres; the grey values above
the background (as Li & Shen, Bioinformatics 38:809, 2022, doi 10.1093/bioinformatics/btab716, hand on to APP2), which
leave out what is dim beside the brightest fibres, so that false fibre costs little; or both, the probability times the
root of the grey values on a scale on which one voxel in a thousand is above 1. Neither the network nor the trace takes
the volume at once; what is finished of a trace lies in ``trace.parts`` beside the probabilities till there is a tree.

Positions in ``tree.swc`` are x y z; in voxels they count voxel centres of the input as it is, from 0, also where only a
region of it was looked at. ``run.json`` comes last and marks a complete run. Repeated with other options of tracing, a
run keeps its probabilities and traces anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medwave import __version__
from medwave.core.errors import InputError, MissingFileError, MissingProgramError
from medwave.core.files import StrPath, json_text, write_json
from medwave.core.locks import only_run_in
from medwave.core.provenance import Stage, StageClock, versions
from medwave.core.tree import Tree
from medwave.models.weights import NEURON_WEIGHTS, shipped_weights, weight_file
from medwave.scale import Workers
from medwave.tracing import topology, translate
from medwave.volumes import open_stack
from medwave.volumes.location import absolute, fingerprint_at, is_url, location
from medwave.workflows.block_progress import OnProgress
from medwave.workflows.neuron_page import read_gold, write_neuron_page
from medwave.workflows.options import ScoreOptions
from medwave.workflows.options_neurons import ReconstructOptions
from medwave.workflows.run_folder import MARK, result_folder
from medwave.workflows.score import ScoredFiles
from medwave.workflows.segment import Segmentation, no_fibre, parse_region, segment_into
from medwave.workflows.segment_store import MASK, PROBABILITY, RECORD, keep_input
from medwave.workflows.trace import (
    check_root,
    check_spacing,
    doubts,
    header,
    make_tree,
    naming,
    stack_of,
    trace_options,
    write_tree,
)
from medwave.workflows.trace_source import FibreSource, Source, Stack, VolumeSource, stacks
from medwave.workflows.vaa3d import find_vaa3d

TREE, REPORT, PARTS = "tree.swc", "report.html", "trace.parts"
FILES = {
    "tree": (TREE, "the tree, in the units of its header"),
    "probability": (PROBABILITY, "probability of fibre, 0 to 255 for 0 to 1, OME-Zarr"),
    "mask": (MASK, "255 where the probability is above the threshold, OME-Zarr"),
    "record": (MARK, "what was run, on what, and what came out"),
}


@dataclass(frozen=True)
class Reconstruction:
    """The result of :func:`reconstruct`.

    Attributes:
        segmentation: the probabilities and the mask.
        tree: in the units of the options, as written: voxels of the input, or micrometres.
        scores: how it compares, in voxels, with what of the true tree lies in the region, when one was given.
        options: the options used, the precision resolved.
        stages: cost of each step of this run.
        warnings: what a person should know.
    """

    segmentation: Segmentation
    tree: Tree
    scores: ScoredFiles | None
    options: ReconstructOptions
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.segmentation.folder


def reconstruct(
    volume: StrPath,
    output: StrPath,
    *,
    gold: StrPath | None = None,
    weights: StrPath | None = None,
    options: ReconstructOptions | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
    **changes: Any,
) -> Reconstruction:
    """Reconstruct the neurons of a volume into a folder; repeated after an interruption it goes on where it was.

    Args:
        volume: anything :func:`medwave.volumes.open_stack` opens.
        output: the folder; made when absent.
        gold: SWC file of the true tree, to score the trace with; in the units of the options unless it says so.
        weights: as for :func:`medwave.segment`.
        options: all options; single ones can be given by name: ``reconstruct(v, o, units="um")``.
        command_line: the command that repeats the run, for the record.
        on_stage: told the name of each step when it begins.
        on_progress: told about each block of the segmentation, and how far each step of the trace is.
        workers: of a cluster, which then segment and trace, as for :func:`medwave.segment`.

    Raises:
        MedwaveError: one of its leaves, for an unusable volume, weights, device or gold tree, nothing to trace, or a
            folder that cannot be written or holds something else.
    """
    options = replace(options or ReconstructOptions(), **changes)
    clock, notes = StageClock(on_stage), []
    asked = request(volume, gold, weights, options)

    if gold is not None:
        keep_input(gold, Path(output) / TREE)
    _check(volume, gold, options, notes.append)
    with result_folder(output) as folder, only_run_in(folder):
        result = segment_into(folder, volume, weights, options, on_stage, on_progress, workers)
        _check_fibre(result, options)
        notes += result.warnings
        options = replace(options, precision=result.options.precision)
        with clock.stage("trace"):
            tree = _traced(result, options, workers, on_progress)
        with clock.stage("write"):
            notes += _doubts(result, tree, options)
            written = _written(result, tree, options)
        made = Reconstruction(result, written, None, options, (*result.stages, *clock.stages), tuple(notes))
        with clock.stage("report"):
            scores = _page(made, gold, command_line)
        made = replace(made, scores=scores, stages=(*result.stages, *clock.stages))
        _record(made, asked, gold, command_line)
    return made


def _check(volume: StrPath, gold: StrPath | None, options: ReconstructOptions, warn: Callable[[str], None]) -> None:
    """What would go wrong after hours of segmentation goes wrong now."""
    if options.tracer == "vaa3d" and find_vaa3d() is None:
        raise MissingProgramError(
            f"{volume}: vaa3d is not on the PATH; put it there and repeat this, or leave out --tracer"
        )
    with open_stack(
        volume, channel=options.channel, level=options.level, axes=options.axes, spacing_um=options.spacing
    ) as opened:
        check_spacing(volume, opened.spacing_um, options.units, warn)
        region = parse_region(options.region, opened.shape)
        check_root(volume, options.root, opened.spacing_um, region)
        if gold is not None:
            read_gold(gold, opened, options.units, box=region.slices)
    trace_options(options, opened.spacing_um, kind="probability", threshold=options.threshold)


def _check_fibre(result: Segmentation, options: ReconstructOptions) -> None:
    """Refuse what cannot be traced, in words of the probabilities."""
    if not result.fibre_voxels:
        raise InputError(
            f"{result.volume}: {no_fibre(options)}: there is nothing to trace; "
            "lower the --threshold, or check that the volume is the right one"
        )
    if result.fibre_share > options.largest_foreground_share:
        raise InputError(
            f"{result.volume}: {result.fibre_share:.1%} have a probability above {options.threshold:g}, at most "
            f"{options.largest_foreground_share:.0%} may be fibre: a trace would run for long and be a tangle; raise "
            "the --threshold or --largest-foreground, or give weights that fit the image"
        )


def _traced(
    result: Segmentation, options: ReconstructOptions, workers: Workers | None, on_progress: OnProgress | None
) -> Tree:
    """The tree in voxels of the region, of the probabilities or of the image within the mask."""
    start, shape = result.region.start, result.region.shape
    probability = absolute(result.probability)
    source: Source
    if options.trace_on == "probability":
        source, threshold = VolumeSource(Stack(probability), start, shape, "probability"), options.threshold
    else:
        background = float(result.record["intensities"]["center"])
        both, threshold = options.trace_on == "both", 0.0
        mask = absolute(result.mask) if options.smallest_piece_voxels > 1 else None
        source = FibreSource(
            stack_of(result.volume, options), start, shape, probability, options.threshold, background, both, mask
        )
    how = trace_options(options, result.spacing_um, kind="probability", threshold=threshold)
    if options.trace_on == "probability":  # its pieces are those of the mask
        how = replace(how, smallest_component_voxels=max(how.smallest_component_voxels, options.smallest_piece_voxels))
    if how.roots is not None:
        how = replace(how, roots=tuple((z - start[0], y - start[1], x - start[2]) for z, y, x in how.roots))
    inputs = json.loads((result.folder / RECORD).read_text(encoding="utf-8"))
    inputs["smallest_piece"] = options.smallest_piece_voxels
    with stacks(), naming(result.volume):
        return make_tree(
            source, result.folder / TREE, how, options.tracer, inputs=inputs, workers=workers,
            on_progress=on_progress, parts=result.probability.with_name(PARTS),
        )  # fmt: skip


def _doubts(result: Segmentation, tree: Tree, options: ReconstructOptions) -> list[str]:
    """What the image says against a tree in voxels of the region."""
    moved = translate(tree, np.array(result.region.start[::-1], dtype=np.float64))
    with stacks():
        opened = stack_of(result.volume, options).open()
        return doubts(moved, opened.read, opened.shape)


def _written(result: Segmentation, tree: Tree, options: ReconstructOptions) -> Tree:
    """Write the tree in voxels of the input or micrometres; returns it so."""
    moved = translate(tree, np.array(result.region.start[::-1], dtype=np.float64))
    comments = [
        *header(result.volume, result.shape, result.spacing_um, options),
        f"fibre by network: {result.record['weights']['model']}, weights {result.record['weights']['sha256'][:16]}, "
        f"probability above {options.threshold:g}, traced on {options.trace_on}",
    ]
    if options.region is not None:
        comments.append(f"only region {options.region} (z y x) was looked at")
    return write_tree(result.folder / TREE, moved, result.spacing_um, result.offset_voxels, options, comments)


def request(
    volume: StrPath, gold: StrPath | None, weights: StrPath | None, options: ReconstructOptions
) -> dict[str, Any]:
    """What a run was asked for, as plain values: a complete run that was asked the same need not be repeated.

    Raises:
        MissingFileError: when a file is not there.
    """
    own = NEURON_WEIGHTS if weights is None else ()
    given = {} if weights is None else {"weights": weight_file(weights)}
    inputs = {"volume": volume, "gold": gold, **{name: shipped_weights(name) for name in own}, **given}
    for path in inputs.values():
        if path is not None and not is_url(path) and not location(path).exists():
            raise MissingFileError(f"{path}: no such file or folder; check the name")
    seen = {role: None if path is None else fingerprint_at(path) for role, path in inputs.items()}
    return json.loads(json_text({**seen, "options": asdict(options)}))


def _page(made: Reconstruction, gold: StrPath | None, command_line: str) -> ScoredFiles | None:
    """Write the report; how the tree compares with the true one."""
    result = made.segmentation
    scores = write_neuron_page(
        made.folder / REPORT, result.volume, made.tree, options=made.options, probability=result.probability,
        mask=result.mask, gold=gold, box=result.region.slices, stages=made.stages, warnings=made.warnings, files=FILES,
        command_line=command_line,
    )  # fmt: skip
    if gold is None or scores is None:
        return None
    return ScoredFiles(made.folder / TREE, Path(gold), scores, ScoreOptions(), "voxels")


def _record(made: Reconstruction, asked: dict[str, Any], gold: StrPath | None, command_line: str) -> None:
    """Write ``run.json``."""
    record = {**made.segmentation.record, "options": asdict(made.options), "warnings": made.warnings}
    if gold is not None:
        record["inputs"] = {**record["inputs"], "gold": {"path": str(gold), **asked["gold"]}}
    write_json(made.folder / MARK, {
        "medwave": __version__, "command": command_line, **record, "tree": topology(made.tree)._asdict(),
        "request": asked, "scores": None if made.scores is None else made.scores.as_dict(),
        "stages": [asdict(stage) for stage in made.stages],
        "files": {name: path for name, (path, _) in FILES.items()} | {"report": REPORT}, "versions": versions(),
    })  # fmt: skip
