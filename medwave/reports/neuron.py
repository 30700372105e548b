"""The page of one reconstruction: the tree over the volume, in space and in numbers, and against a gold tree.

Conventions
    Projections are those of :func:`medwave.reports.projections.project`; trees are x y z in voxels of the same volume,
    radii in voxels of x, whatever the units of the file they were written to. Lengths on the page are micrometres
    where the voxel size is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import Tree
from medwave.core.tree_paths import topology
from medwave.metrics import TraceScores
from medwave.reports import colours
from medwave.reports.charts import Chart
from medwave.reports.neuron_frame import Frame, image_levels, share_levels
from medwave.reports.neuron_plates import EXTRA, GOLD, SUBPIXELS, TREE, inside, lines_of, ortho, scene
from medwave.reports.neuron_tables import (
    branch_tables,
    distance_chart,
    key_tiles,
    run_tables,
    score_tables,
    tree_charts,
)
from medwave.reports.page import Chapter, number, write_page
from medwave.reports.projections import Projections, project
from medwave.reports.registration import STATUSES, VERDICTS
from medwave.reports.run_tables import OutputFile, Stage
from medwave.volumes import LazyVolume

TOLERANCE_VOXELS = 2.0
"""From here on a tree is drawn as away from the gold tree."""

Picturable = Projections | LazyVolume | npt.NDArray[Any]


@dataclass(frozen=True)
class NeuronReport:
    """All that the report shows, as plain data. Only the first three fields are needed.

    Rows of ``stages`` and ``files`` may be plain tuples in the order of their named fields.

    Attributes:
        name: of the volume.
        image: the volume ``(z, y, x)``, an array, lazy, or projected already; only its projections are kept.
        tree: the reconstruction, x y z in voxels of the volume, radii in voxels of x.
        probability: of fibre, 0 to 1 or bytes 0 to 255; as ``image``.
        mask: fibre where not 0; as ``image``.
        gold: the true tree, in voxels of the volume; it may reach beyond it.
        scores: of the tree against the gold tree.
        score_units: unit of the lengths in ``scores``.
        spacing_um: voxel size along z, y, x; None when it is not known.
        origin: voxel z, y, x of the volume at which what is shown begins, when only a part of it is.
        status: "ok", "warning" or "failed".
        messages: what a person should know: warnings, reasons of a failure.
        stages: cost of each step, in order.
        options: option -> value, as used.
        versions: package -> version.
        files: name -> (path relative to the report, description).
        command_line: the command that repeats the run.

    Raises:
        GeometryError: when probability or mask are not on the voxels of the image.
        InputError: when the status is unknown.
    """

    name: str
    image: Picturable
    tree: Tree
    probability: Picturable | None = None
    mask: Picturable | None = None
    gold: Tree | None = None
    scores: TraceScores | None = None
    score_units: str = "voxels"
    spacing_um: tuple[float, float, float] | None = None
    origin: tuple[int, int, int] = (0, 0, 0)
    status: str = "ok"
    messages: Sequence[str] = ()
    stages: Sequence[Stage] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, OutputFile] = field(default_factory=dict)
    command_line: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InputError(f"the status of a neuron report is one of {', '.join(STATUSES)}, got {self.status!r}")
        for name in ("image", "probability", "mask"):
            value = getattr(self, name)
            if value is None:
                continue
            pictures = value if isinstance(value, Projections) else project(value)
            if name != "image" and pictures.shape != self.image.shape:
                raise GeometryError(
                    f"neuron report: the {name} lies on the voxels of the image, {self.image.shape} (z, y, x), got "
                    f"{pictures.shape}"
                )
            object.__setattr__(self, name, pictures)
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in self.stages))
        object.__setattr__(self, "files", {name: OutputFile(*row) for name, row in self.files.items()})


def write_neuron_report(path: str | Path, report: NeuronReport) -> Path:
    """Write one self-contained HTML page about a reconstruction, 1.5 MB at most.

    Args:
        path: the file to write; links to ``report.files`` are relative to its folder.
        report: what to show.

    Returns:
        The path written.

    Raises:
        OutputError: when the file cannot be written.
    """
    frame = Frame.of(report.image, report.spacing_um, report.origin)
    tree = frame.placed(report.tree)
    gold = None if report.gold is None else inside(frame.placed(report.gold), frame)
    lines, gold_lines = lines_of(tree, frame, gold), None if gold is None else lines_of(gold, frame)
    layers = {"Image": image_levels(report.image)}
    for title, pictures in (("Probability", report.probability), ("Mask", report.mask)):
        if pictures is not None:
            layers[title] = share_levels(pictures)
    tolerance = TOLERANCE_VOXELS * min(frame.step)
    return write_page(
        path,
        "neuron.html.j2",
        kind="neuron",
        name=report.name,
        verb="reconstructed" if report.probability is not None else "traced",
        sentence=_sentence(tree, frame),
        status=report.status,
        verdict=VERDICTS[report.status],
        messages=report.messages,
        tiles=key_tiles(report, tree, frame),
        chapters=_chapters(report, tree, frame),
        charts=_charts(report, tree, frame),
        ortho=ortho(report.name, frame, layers, lines, gold_lines, tolerance),
        scene=scene(frame, layers["Image"], tree, lines, gold_lines) if len(lines) else None,
        subpixels=SUBPIXELS,
        keys=_keys(frame, tolerance if gold is not None else None),
        command_line=report.command_line,
    )


def _keys(frame: Frame, tolerance: float | None) -> list[tuple[str, str, str]]:
    """Name, text and colour of the kinds of lines over the projections."""
    if tolerance is None:
        return [("tree", "Tree", colours.css(TREE))]
    near = f"{tolerance:g} {frame.unit} of the gold tree"
    return [
        ("tree", f"Tree within {near}", colours.css(TREE)),
        ("extra", "Tree elsewhere", colours.css(EXTRA)),
        ("gold", "Gold tree below it", colours.css(GOLD)),
    ]


def _sentence(tree: Tree, frame: Frame) -> str:
    counts = topology(tree)
    if not counts.branches:
        return "No branch was found. The run"
    pieces = "one piece" if counts.roots == 1 else f"{number(counts.roots)} pieces"
    return f"{number(counts.length)} {frame.unit} of fibre, {number(counts.branches)} branches in {pieces}. The run"


def _chapters(report: NeuronReport, tree: Tree, frame: Frame) -> list[Chapter]:
    chapters = [Chapter("space", "In space")] if tree.length > 0 else []
    chapters.append(
        Chapter(
            "projections",
            "Over the volume",
            "The brightest voxel along each axis, at one scale; dim fibres are lifted. What is traced lies on a bright "
            "line in all three planes; hide the tree to compare.",
        )
    )
    if report.scores is not None:
        chapters.append(
            Chapter("gold", "Against the gold tree", tables=score_tables(report.scores, report.score_units))
        )
    chapters.append(Chapter("branches", "Branches", tables=branch_tables(tree, frame)))
    chapters.append(Chapter("run", "Volume and run", tables=run_tables(report)))
    return chapters


def _charts(report: NeuronReport, tree: Tree, frame: Frame) -> dict[str, list[Chart]]:
    charts = {"branches": tree_charts(tree, frame)}
    distances = None if report.scores is None else distance_chart(report.scores, report.score_units)
    return {name: drawn for name, drawn in (charts | {"gold": [distances] if distances else []}).items() if drawn}
