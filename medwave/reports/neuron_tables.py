"""Key figures, tables and charts of the neuron page.

Conventions
    Trees come in the units of the frame (micrometres, or voxels). Scores keep the units in which they were measured.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from medwave.core.tree import SOMA, Tree
from medwave.core.tree_paths import Topology, node_lengths, topology
from medwave.metrics import TraceScores
from medwave.reports.charts import Chart, even_bins, histogram
from medwave.reports.neuron_frame import Frame
from medwave.reports.page import Cell, Table, Tile, number
from medwave.reports.run_tables import record_tables
from medwave.tracing import branch_table

if TYPE_CHECKING:
    from medwave.reports.neuron import NeuronReport

MOST_BRANCHES = 60
DISTANCE_BINS = 16


def key_tiles(report: NeuronReport, tree: Tree, frame: Frame) -> list[Tile]:
    """Length, branches, pieces, then F1 and distance to the gold tree, and CPU time where known."""
    counts = topology(tree)
    tips = f"{number(counts.forks)} forks, {number(counts.tips)} tips"
    pieces = f"{number(len(tree))} nodes" + (", one with a soma" if _somata(tree) == 1 else "")
    tiles = [
        Tile("Length", number(counts.length), frame.unit, f"mean radius {number(_mean_radius(tree))} {frame.unit}"),
        Tile("Branches", number(counts.branches), "", tips),
        Tile("Pieces", number(counts.roots), "", pieces),
    ]
    if report.scores is not None:
        s = report.scores
        found = s.at_tolerance.by_samples
        detail = f"precision {number(found.precision)}, recall {number(found.recall)}"
        bad = "bad" if s.failed else ""
        tiles.append(
            Tile(f"F1 within {s.at_tolerance.tolerance:g} {report.score_units}", number(found.f1), "", detail, bad)
        )
        detail = "ESA: mean distance of trace and gold tree"
        tiles.append(Tile("Distance to gold", number(s.distances.esa), report.score_units, detail, bad))
    if report.stages:
        wall = sum(stage.wall_s for stage in report.stages)
        cpu = sum(stage.cpu_s for stage in report.stages)
        tiles.append(Tile("CPU time", number(cpu), "s", f"{number(wall)} s by the clock"))
    return tiles


def tree_charts(tree: Tree, frame: Frame) -> list[Chart]:
    """Length by radius and by branch order."""
    if not tree.length > 0:
        return []
    return [_length_by_radius(tree, frame), _length_by_order(tree, frame)]


def _length_by_radius(tree: Tree, frame: Frame) -> Chart:
    weights = node_lengths(tree)
    known = weights > 0
    edges = even_bins(float(np.percentile(tree.radius[known], 99)), 14)
    inside = np.minimum(tree.radius, (edges[-2] + edges[-1]) / 2)  # the thickest few go to the last bin
    heights, _ = np.histogram(inside, edges, weights=weights)
    labels = [f"radius {number(float(a))} to {number(float(b))}" for a, b in itertools.pairwise(edges)]
    labels[-1] = f"radius {number(float(edges[-2]))} or more"
    return histogram(
        heights[None],
        labels,
        name="length-by-radius",
        title="Length by radius",
        text=f"How much of the {number(tree.length)} {frame.unit} is how thick.",
        x_ticks=_ticks(edges),
        x_label=f"radius ({frame.unit})",
        y_label=f"length ({frame.unit})",
    )


def _length_by_order(tree: Tree, frame: Frame) -> Chart:
    branches = branch_table(tree)
    heights = np.bincount(branches.order, branches.length)[1:]
    count = len(heights)
    every = max(1, math.ceil(count / 12))
    ticks = [((i + 0.5) / count, str(i + 1)) for i in range(0, count, every)]
    return histogram(
        heights[None],
        [f"order {i + 1}" for i in range(count)],
        name="length-by-order",
        title="Length by branch order",
        text="Order 1 leaves a root; every fork on the way adds one.",
        x_ticks=ticks,
        x_label="branch order",
        y_label=f"length ({frame.unit})",
    )


def distance_chart(scores: TraceScores, units: str) -> Chart | None:
    """How far samples of each tree lie from the other; what is further than the last bin is counted in it."""
    sides = [d[np.isfinite(d)] for d in (scores.gold_distances, scores.trace_distances)]
    if not all(len(d) for d in sides):
        return None
    width = scores.at_tolerance.tolerance / 4
    edges = width * np.arange(DISTANCE_BINS + 1)
    heights = np.stack([100 * np.histogram(np.minimum(d, edges[-1] - width / 2), edges)[0] / len(d) for d in sides])
    labels = [f"{a:g} to {b:g} {units}" for a, b in itertools.pairwise(edges)]
    labels[-1] = f"{edges[-2]:g} {units} or more"
    shown = [(i / DISTANCE_BINS, f"{edges[i]:g}") for i in range(0, DISTANCE_BINS + 1, 4)]
    shown[-1] = (1.0, f"{edges[-1]:g}+")
    return histogram(
        heights,
        labels,
        name="distances",
        title="Distance between trace and gold tree",
        text="Gold samples far from the trace are what it misses; trace samples far from the gold tree are what it "
        "invents, or what the gold tree leaves out.",
        x_ticks=shown,
        x_label=f"distance to the other tree ({units})",
        y_label="per cent of samples",
        series=("gold to trace", "trace to gold"),
    )


def score_tables(scores: TraceScores, units: str) -> list[Table]:
    """Distances, precision and recall under each rule, the curve, and the topology of both trees."""
    d, limit = scores.distances, f"{scores.at_tolerance.tolerance:g}"
    numeric = frozenset({1, 2, 3})
    rows = [
        [Cell("ESA", "mean distance"), *_cells(d.esa_gold_to_trace, d.esa_trace_to_gold, d.esa)],
        [Cell("DSA", f"mean of those of {limit} or more"), *_cells(d.dsa_gold_to_trace, d.dsa_trace_to_gold, d.dsa)],
        [Cell("PDS", f"share of those of {limit} or more"), *_cells(d.pds_gold_to_trace, d.pds_trace_to_gold, d.pds)],
    ]
    head = (f"Distances ({units})", "Gold to trace", "Trace to gold", "Both")
    tables = [Table("Distances between the trees", head, rows, numeric)]
    at = scores.at_tolerance
    rules = (
        ("Samples", "each counts the same", at.by_samples),
        ("Length", "by the length it stands for", at.by_length),
        ("Matched once", "a fibre traced twice is half wrong", scores.one_to_one),
        ("Connected", "ends of an edge also joined in the other tree", scores.path),
    )
    rows = [[Cell(name, note), *_cells(*score, bars=True)] for name, note, score in rules]
    rows.append([Cell("DIADEM, simplified", "forks and tips"), "", "", *_cells(scores.diadem.score, bars=True)])
    rows.append([Cell("Found by one component"), "", *_cells(scores.largest_component_recall, bars=True), ""])
    head = ("Rule", "Precision", "Recall", "F1")
    tables.append(Table(f"Found within {limit} {units}", head, rows, numeric))
    tables.append(_topology_table(scores.gold_topology, scores.trace_topology))
    rows = [[Cell(f"{p.tolerance:g}"), *_cells(*p.by_samples), *_cells(*p.by_length)] for p in scores.curve]
    head = (f"Within ({units})", "Precision", "Recall", "F1", "by length: precision", "Recall", "F1")
    caption = "Precision and recall by tolerance"
    tables.append(Table(caption, head, rows, frozenset(range(1, 7)), folded=True, summary=caption))
    return tables


def _topology_table(gold: Topology, trace: Topology | None) -> Table:
    rows = []
    for name, value in gold._asdict().items():
        made = None if trace is None else getattr(trace, name)
        ratio = None if made is None or not value else made / value
        label = {"roots": "Components"}.get(name, name.capitalize())
        rows.append([Cell(label), *_cells(value, made, ratio)])
    return Table("Topology", ("", "Gold", "Trace", "Trace / gold"), rows, frozenset({1, 2, 3}))


def branch_tables(tree: Tree, frame: Frame) -> list[Table]:
    """The counts of the tree, and its longest branches."""
    counts = topology(tree)
    rows = [
        ["Nodes", number(counts.nodes)],
        ["Components", number(counts.roots)],
        ["Components with a soma", number(_somata(tree))],
        ["Forks", number(counts.forks)],
        ["Tips", number(counts.tips)],
        ["Branches", number(counts.branches)],
        [f"Length ({frame.unit})", number(counts.length)],
        [f"Mean radius ({frame.unit})", number(_mean_radius(tree))],
    ]
    tables = [Table("The tree in numbers", ("", "Value"), rows, frozenset({1}))]
    b = branch_table(tree)
    if not len(b.length):
        return tables
    straight = np.linalg.norm(tree.positions[b.bottom] - tree.positions[b.top], axis=1)
    bend = np.divide(b.length, straight, out=np.full(len(straight), np.nan), where=straight > 0)
    chosen = np.argsort(-b.length, kind="stable")[:MOST_BRANCHES]
    longest = float(b.length.max()) or 1.0
    rows = []
    for row in chosen.tolist():
        x, y, z = frame.voxels(tree.positions[b.bottom[row]])
        rows.append(
            [
                Cell(str(row + 1)),
                Cell(number(b.order[row])),
                Cell(number(b.component[row] + 1)),
                Cell(number(b.length[row]), bar=b.length[row] / longest),
                Cell(number(b.mean_radius[row])),
                Cell(number(b.path_length[row])),
                Cell(number(bend[row])),
                Cell(f"{x:.0f}, {y:.0f}, {z:.0f}"),
            ]
        )
    head = (
        "Branch", "Order", "Piece", f"Length ({frame.unit})", f"Mean radius ({frame.unit})",
        f"Root to end ({frame.unit})", "Length / straight", "Ends at voxel x, y, z",
    )  # fmt: skip
    count = f"the {len(rows)} longest of {number(len(b.length))}" if len(rows) < len(b.length) else f"all {len(rows)}"
    caption = f"Branches, longest first: {count}"
    tables.append(Table(caption, head, rows, frozenset(range(1, 8)), folded=len(rows) > 12, summary=caption))
    return tables


def run_tables(report: NeuronReport) -> list[Table]:
    """The volume, then cost, files, options and versions: those that are given."""
    spacing = report.spacing_um
    rows = [
        ["Name", report.name],
        ["Voxels (z, y, x)", " × ".join(map(str, report.image.shape))],
        *([["First voxel (z, y, x)", ", ".join(map(str, report.origin))]] if any(report.origin) else []),
        ["Voxel size (z, y, x)", "not known" if spacing is None else " × ".join(f"{s:.4g}" for s in spacing) + " µm"],
    ]
    recorded = record_tables(report.stages, report.files, report.options, report.versions)
    return [Table("Volume", ("", "Value"), rows), *recorded]


def _cells(*values: float | None, bars: bool = False) -> list[Cell]:
    return [
        Cell(number(v), bar=min(max(float(v), 0.0), 1.0) if bars and v is not None and math.isfinite(v) else None)
        for v in values
    ]


def _ticks(edges: np.ndarray) -> list[tuple[float, str]]:
    every = max(1, math.ceil((len(edges) - 1) / 6))
    shown = [(i / (len(edges) - 1), f"{edges[i]:.4g}") for i in range(0, len(edges) - 1, every)]
    return [*shown, (1.0, "more")]


def _somata(tree: Tree) -> int:
    return int((tree.kind[tree.roots] == SOMA).sum())


def _mean_radius(tree: Tree) -> float:
    weights = node_lengths(tree)
    return float(np.average(tree.radius, weights=weights)) if weights.sum() > 0 else math.nan
