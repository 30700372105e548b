"""The page of a network that finds objects: average precision by class and overlap, mistakes, robustness.

Conventions
    Shares are in [0, 1] and shown in per cent. Overlaps are intersections over unions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medwave.metrics import AveragePrecision, OperatingPoint
from medwave.reports.box_plates import ShownBoxes, box_figures, recall_text
from medwave.reports.charts import Chart, histogram
from medwave.reports.corruption_plates import corruption_charts, corruption_tables
from medwave.reports.image_plates import percent
from medwave.reports.images import Run, against, signed, write_image_page
from medwave.reports.page import Cell, Chapter, Table, Tile, number


@dataclass(frozen=True)
class DetectorReport:
    """All that the page of a detector shows, as plain data.

    Attributes:
        name: of the network.
        images: number of images or volumes.
        classes: their names.
        boxes: number of true boxes of each class.
        precision: overlap from which a box is right -> average precision; 0.5 and 0.75 are there.
        point: where precision and recall balance best, at an overlap of 0.5.
        reference: name of another network, empty for none.
        reference_precision: as ``precision``, of the reference.
        errors, reference_errors: kind of corruption -> 1 - mean average precision (0.5) at each severity.
        groups: group of corruptions -> kinds.
        shown: images with the most mistakes.
        run: see :class:`medwave.reports.Run`.
    """

    name: str
    images: int
    classes: Sequence[str]
    boxes: Sequence[int]
    precision: Mapping[float, AveragePrecision]
    point: OperatingPoint
    reference: str = ""
    reference_precision: Mapping[float, AveragePrecision] | None = None
    errors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    reference_errors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shown: Sequence[ShownBoxes] = ()
    run: Run = field(default_factory=Run)


def write_detector_report(path: str | Path, report: DetectorReport) -> Path:
    """Write the page of a detector: one HTML file without any reference to the outside.

    Raises:
        OutputError: when it cannot be written.
    """
    text = "A found box is right when it overlaps a true box of its class, which no surer one has taken, by so much."
    chapters = [Chapter("precision", "Average precision", text, tables=[_class_table(report)])]
    charts: dict[str, list[Chart]] = {"precision": [_overlap_chart(report)]}
    if report.shown:
        chapters.append(Chapter("worst", "Worst images", figures=box_figures(report.classes, report.shown)))
    if report.errors:
        charts["corruptions"] = corruption_charts(
            report.errors, report.groups, name=report.name, reference=report.reference,
            reference_errors=report.reference_errors, measure="mAP",
        )  # fmt: skip
        text = "Mean average precision at an overlap of 0.5 under 15 kinds of corruption of the same images."
        kept = {kind: [1 - error for error in errors] for kind, errors in report.errors.items()}
        tables = corruption_tables(kept, caption="Mean average precision (%)")
        chapters.append(Chapter("corruptions", "Corruptions", text, tables=tables))
    sentence = f"{number(report.images)} images with {number(sum(report.boxes))} objects. The network"
    return write_image_page(
        path, report.name, "detector", sentence, (), _tiles(report), [*chapters, report.run.chapter()], charts,
        report.run,
    )  # fmt: skip


def mean_over_overlaps(precision: Mapping[float, AveragePrecision]) -> float:
    """The mean of the means at all overlaps."""
    return float(np.mean([each.mean for each in precision.values()]))


def _tiles(report: DetectorReport) -> list[Tile]:
    other, point = report.reference_precision, report.point
    tiles = [
        Tile("mAP, overlap 0.5", percent(report.precision[0.5].mean), "%", against(other and other[0.5].mean,
                                                                                   report.reference)),
        Tile("mAP, 0.5 to 0.95", percent(mean_over_overlaps(report.precision)), "%",
             against(other and mean_over_overlaps(other), report.reference)),
    ]  # fmt: skip
    if np.isfinite(point.score):
        tiles.append(Tile("Best F1", percent(point.f1), "%", recall_text(point.precision, point.recall)))
        tiles.append(Tile("From a score of", percent(point.score), "%", "boxes that score less are not drawn"))
    else:
        tiles.append(Tile("Best F1", "0", "%", "no box is right"))
    if report.errors:
        mean = 1 - float(np.mean(list(report.errors.values())))
        tiles.append(Tile("Corrupted", percent(mean), "%", "mean mAP over all kinds and severities"))
    return tiles


def _class_table(report: DetectorReport) -> Table:
    half, other = report.precision[0.5], report.reference_precision
    rows = []
    for name, count in zip(report.classes, report.boxes, strict=True):
        value = half.by_class[name]
        whole = float(np.mean([each.by_class[name] for each in report.precision.values()]))
        row = [
            Cell(name), Cell(number(count)), Cell(percent(value), bar=None if np.isnan(value) else value),
            Cell(percent(report.precision[0.75].by_class[name])), Cell(percent(whole)),
        ]  # fmt: skip
        if other is not None:
            row += [Cell(percent(other[0.5].by_class[name])), Cell(signed(value - other[0.5].by_class[name]))]
        rows.append(row)
    head = ["Class", "Objects", "AP at 0.5 (%)", "at 0.75", "0.5 to 0.95"]
    if other is not None:
        head += [f"AP at 0.5 of {report.reference}", "Difference"]
    return Table("By class", head, rows, numeric=frozenset(range(1, len(head))))


def _overlap_chart(report: DetectorReport) -> Chart:
    both = [report.precision, *([report.reference_precision] if report.reference_precision else [])]
    overlaps = list(report.precision)
    heights = np.array([[100 * each[overlap].mean for overlap in overlaps] for each in both])
    ticks = [((n + 0.5) / len(overlaps), f"{o:g}") for n, o in enumerate(overlaps) if n % 2 == 0]
    return histogram(
        heights, [f"overlap {overlap:g}" for overlap in overlaps], name="map-by-overlap",
        title="Precision by overlap", text="How exact the boxes are: mean average precision falls as more is asked.",
        x_ticks=ticks, x_label="overlap that is asked", y_label="mAP (%)",
        series=(report.name, report.reference) if len(both) == 2 else (),
    )  # fmt: skip
