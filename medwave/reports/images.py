"""The pages of networks on photographs: what a classifier or a segmenter gets right, what confuses it, and how much.

Conventions
    Shares are in [0, 1] and shown in per cent. A confusion matrix has the true class in its rows. Corruption errors are
    in per cent of those of the reference network. Pictures are uint8 ``(H, W)`` or ``(H, W, C)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError
from medwave.metrics import CorruptionErrors, OverlapScores, overlap_scores
from medwave.reports.charts import Chart
from medwave.reports.corruption_plates import corruption_charts, corruption_tables
from medwave.reports.image_plates import (
    Overlay,
    ShownImage,
    confused_tables,
    matrix_figures,
    overlay_figures,
    percent,
    shown_picture,
)
from medwave.reports.page import Cell, Chapter, Figure, Strip, Table, Tile, number, write_page
from medwave.reports.run_tables import OutputFile, Stage, record_tables


@dataclass(frozen=True)
class Run:
    """What every page ends with: cost, files, options, versions, the command."""

    stages: Sequence[Stage] = ()
    files: Mapping[str, OutputFile] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command_line: str = ""

    def chapter(self) -> Chapter:
        """The last chapter of a page."""
        return Chapter("run", "Run", tables=record_tables(self.stages, self.files, self.options, self.versions))


@dataclass(frozen=True)
class ClassifierReport:
    """All that the page of a classifier shows, as plain data.

    Attributes:
        name: of the network.
        classes: their names.
        matrix: confusion matrix ``(classes, classes)``.
        errors: kind of corruption -> error at each severity; empty when not measured.
        groups: group -> kinds.
        reference: name of the network that corruption errors are relative to, empty for none.
        reference_errors: as ``errors``, of the reference.
        corruption: errors of the network against those of the reference.
        consistency: share of shifted crops with the same answer.
        attacks: rows of kind, half-width of the box in steps of a byte, accuracy.
        attacked: number of images that were attacked.
        least_change: median length (L2, of samples in [0, 1]) of the least change that fools the network, by DeepFool.
        carlini_wagner: the same by the attack of Carlini and Wagner; None when not measured.
        worst: images that were got wrong with the most confidence.
        messages: what a person should know.
        run: see :class:`Run`.

    Raises:
        GeometryError: when the matrix does not have the classes.
    """

    name: str
    classes: Sequence[str]
    matrix: npt.NDArray[np.integer]
    errors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reference: str = ""
    reference_errors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    corruption: CorruptionErrors | None = None
    consistency: float | None = None
    attacks: Sequence[tuple[str, int, float]] = ()
    attacked: int = 0
    least_change: float | None = None
    carlini_wagner: float | None = None
    worst: Sequence[ShownImage] = ()
    messages: Sequence[str] = ()
    run: Run = Run()

    def __post_init__(self) -> None:
        _check_matrix(self.matrix, self.classes)


@dataclass(frozen=True)
class SegmenterReport:
    """All that the page of a segmenter shows, as plain data.

    Attributes:
        name: of the network.
        classes: their names.
        matrix: confusion matrix over all pixels whose class is known.
        thin: names of classes that are thin, which are shown apart.
        reference: name of another network, empty for none.
        reference_matrix: its confusion matrix.
        overlays: images with the lowest mean IoU.
        run: see :class:`Run`.

    Raises:
        GeometryError: when a matrix does not have the classes.
    """

    name: str
    classes: Sequence[str]
    matrix: npt.NDArray[np.integer]
    thin: Sequence[str] = ()
    reference: str = ""
    reference_matrix: npt.NDArray[np.integer] | None = None
    overlays: Sequence[Overlay] = ()
    run: Run = Run()

    def __post_init__(self) -> None:
        _check_matrix(self.matrix, self.classes)
        if self.reference_matrix is not None:
            _check_matrix(self.reference_matrix, self.classes)


def write_classifier_report(path: str | Path, report: ClassifierReport) -> Path:
    """Write the page of a classifier: one HTML file without any reference to the outside.

    Raises:
        OutputError: when it cannot be written.
    """
    scores = overlap_scores(report.matrix)
    chapters = [
        Chapter(
            "classes", "Classes", "Rows are true classes, columns are answers.",
            figures=matrix_figures(report.matrix, report.classes),
            tables=[*confused_tables(report.matrix, report.classes), _class_table(report.classes, scores, None, "")],
        )
    ]  # fmt: skip
    charts: dict[str, list[Chart]] = {}
    if report.errors:
        charts["corruptions"] = corruption_charts(
            report.errors, report.groups, name=report.name, reference=report.reference,
            reference_errors=report.reference_errors,
        )  # fmt: skip
        text = "Errors under 15 kinds of corruption of the same images, each at five severities."
        tables = corruption_tables(report.errors, reference=report.reference, corruption=report.corruption)
        chapters.append(Chapter("corruptions", "Corruptions", text, tables=tables))
    if report.attacks:
        text = (
            f"{number(report.attacked)} images, each changed by at most so many steps of a byte in each sample, away "
            "from the true answer."
        )
        lengths = {"DeepFool": report.least_change, "Carlini and Wagner": report.carlini_wagner}
        told = [f"{number(length)} ({name})" for name, length in lengths.items() if length is not None]
        if told:
            text += (
                " The shortest change that fools the network, with no bound on a sample, has a median length of "
                f"{' or '.join(told)}; samples go from 0 to 1."
            )
        chapters.append(Chapter("attacks", "Attacks", text, tables=[_attack_table(report)]))
    if report.worst:
        tiles = [shown_picture(shown) for shown in report.worst]
        strips = [Strip("", tiles[start : start + 6]) for start in range(0, len(tiles), 6)]
        figure = Figure("worst-images", "Wrong with the most confidence", "Answer, true class, confidence.", strips)
        chapters.append(Chapter("worst", "Worst images", figures=[figure]))
    images = int(report.matrix.sum())
    return write_image_page(
        path, report.name, "classifier", f"{number(images)} images of {len(report.classes)} classes. The network",
        report.messages, _classifier_tiles(report, scores), [*chapters, report.run.chapter()], charts, report.run,
    )  # fmt: skip


def write_segmenter_report(path: str | Path, report: SegmenterReport) -> Path:
    """Write the page of a segmenter: one HTML file without any reference to the outside.

    Raises:
        OutputError: when it cannot be written.
    """
    scores = overlap_scores(report.matrix)
    other = None if report.reference_matrix is None else overlap_scores(report.reference_matrix)
    tables = [_class_table(report.classes, scores, other, report.reference)]
    thin = [n for n, name in enumerate(report.classes) if name in report.thin]
    if thin:
        tables.append(_thin_table(report, scores, other, thin))
    chapters = [
        Chapter("overlap", "Overlap by class", tables=tables),
        Chapter(
            "confusion", "Confusion", "Rows are true classes, columns are answers.",
            figures=matrix_figures(report.matrix, report.classes),
            tables=confused_tables(report.matrix, report.classes),
        ),
    ]  # fmt: skip
    if report.overlays:
        chapters.append(Chapter("worst", "Worst images", figures=overlay_figures(report.classes, report.overlays)))
    tiles = [
        Tile("Mean IoU", percent(scores.mean_iou), "%", against(other and other.mean_iou, report.reference)),
        Tile("Pixels right", percent(scores.pixel_accuracy), "%"),
        Tile("Mean over classes", percent(scores.class_accuracy), "%", "share of each class that is right"),
        Tile("IoU by frequency", percent(scores.weighted_iou), "%"),
    ]
    sentence = f"{number(int(report.matrix.sum()))} pixels of {len(report.classes)} classes. The network"
    return write_image_page(
        path, report.name, "segmenter", sentence, (), tiles, [*chapters, report.run.chapter()], {}, report.run
    )


def write_image_page(
    path: str | Path, name: str, kind: str, sentence: str, messages: Sequence[str], tiles: Sequence[Tile],
    chapters: Sequence[Chapter], charts: Mapping[str, Sequence[Chart]], run: Run,
) -> Path:  # fmt: skip
    """The page that all networks on images share; chapters without content are left out."""
    return write_page(
        path, "images.html.j2", kind=kind, name=name, sentence=sentence, status="warning" if messages else "ok",
        verdict="was evaluated.", messages=messages, tiles=tiles,
        chapters=[c for c in chapters if c.tables or c.figures or (c.name == "run" and run.command_line)],
        charts=charts, command_line=run.command_line,
    )  # fmt: skip


def _classifier_tiles(report: ClassifierReport, scores: OverlapScores) -> list[Tile]:
    tiles = [Tile("Accuracy", percent(scores.pixel_accuracy), "%", f"of {number(int(report.matrix.sum()))} images")]
    if report.errors:
        mean = float(np.mean(list(report.errors.values())))
        tiles.append(Tile("Corrupted", percent(1 - mean), "%", "mean accuracy over all kinds and severities"))
    if report.corruption is not None:
        tiles.append(Tile("mCE", f"{report.corruption.mce:.1f}", "%", f"of {report.reference}; below 100 is better"))
    if report.consistency is not None:
        tiles.append(Tile("Shift consistency", percent(report.consistency), "%"))
    strongest = [row for row in report.attacks if row[0] == "pgd"]
    if strongest:
        kind, epsilon, accuracy = strongest[0]
        tiles.append(Tile(f"{kind.upper()} {epsilon}/255", percent(accuracy), "%", "accuracy under attack"))
    return tiles


def _attack_table(report: ClassifierReport) -> Table:
    widths = sorted({epsilon for _, epsilon, _ in report.attacks})
    found = {(kind, epsilon): accuracy for kind, epsilon, accuracy in report.attacks}
    kinds = dict.fromkeys(kind for kind, _, _ in report.attacks)
    rows = [
        [Cell(kind.upper()), *(Cell(percent(found.get((kind, e), np.nan)), bar=found.get((kind, e))) for e in widths)]
        for kind in kinds
    ]
    head = ("Attack", *(f"{e}/255" for e in widths))
    return Table("Accuracy (%) under attack", head, rows, numeric=frozenset(range(1, len(head))))


def _class_table(
    classes: Sequence[str], scores: OverlapScores, other: OverlapScores | None, reference: str
) -> Table:  # fmt: skip
    rows = []
    for n, name in enumerate(classes):
        iou, right = float(scores.iou[n]), float(scores.accuracy[n])
        row = [Cell(name), Cell(percent(iou), bar=None if np.isnan(iou) else iou), Cell(percent(right))]
        if other is not None:
            row += [Cell(percent(float(other.iou[n]))), Cell(signed(iou - float(other.iou[n])))]
        rows.append(row)
    head = ["Class", "IoU (%)", "Found (%)"]
    if other is not None:
        head += [f"IoU of {reference}", "Difference"]
    return Table("By class", head, rows, numeric=frozenset(range(1, len(head))))


def _thin_table(
    report: SegmenterReport, scores: OverlapScores, other: OverlapScores | None, thin: Sequence[int]
) -> Table:  # fmt: skip
    mean = float(np.nanmean(scores.iou[list(thin)]))
    rows = [[Cell(report.name), Cell(percent(mean))]]
    if other is not None:
        rows.append([Cell(report.reference), Cell(percent(float(np.nanmean(other.iou[list(thin)]))))])
    names = ", ".join(report.classes[n] for n in thin)
    return Table(f"Thin classes: {names}", ("Network", "Mean IoU (%)"), rows, numeric=frozenset({1}))


def _check_matrix(matrix: npt.NDArray[np.integer], classes: Sequence[str]) -> None:
    if matrix.shape != (len(classes),) * 2:
        raise GeometryError(
            f"a confusion matrix of {len(classes)} classes has a row and a column each, got {matrix.shape}"
        )


def against(value: float | None, reference: str) -> str:
    """What the reference reaches, for a tile."""
    return "" if value is None else f"{reference}: {percent(value)} %"


def signed(value: float) -> str:
    """A difference of shares in per cent, with its sign."""
    return "–" if np.isnan(value) else f"{100 * value:+.2f}".replace("-", "−")
