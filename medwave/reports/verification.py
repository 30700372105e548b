"""The page of one verification: how well pairs are told apart, at which threshold, and which pairs fail.

Conventions
    Scores are cosines, higher is more alike; a pair is accepted above the threshold. FAR: share of pairs of two
    identities that are accepted; TAR: share of pairs of one identity that are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError
from medwave.metrics import FoldedAccuracy, TarAtFar, equal_error_rate, roc
from medwave.reports.charts import Chart, Curve, histogram
from medwave.reports.page import Cell, Chapter, Table, Tile, number, write_page
from medwave.reports.run_tables import OutputFile, Stage, record_tables

BINS = 32
HARDEST = 10
_MOST_POINTS = 800


@dataclass(frozen=True)
class VerificationReport:
    """All that the page shows, as plain data.

    Attributes:
        name: of the list of pairs.
        first, second: name of each picture of each pair.
        same: ``(n,)`` booleans, whether a pair shows one identity; both kinds are there.
        scores: ``(n,)``.
        accuracy: over folds.
        auroc: area under the curve.
        accepted: FAR -> TAR there, None where it cannot be measured.
        stages, files, options, versions, command_line: what the run was.

    Raises:
        GeometryError: when lengths differ.
    """

    name: str
    first: Sequence[str]
    second: Sequence[str]
    same: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    accuracy: FoldedAccuracy
    auroc: float
    accepted: Mapping[float, TarAtFar | None]
    stages: Sequence[Stage] = ()
    files: Mapping[str, OutputFile] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command_line: str = ""

    def __post_init__(self) -> None:
        lengths = {len(each) for each in (self.first, self.second, self.same, self.scores)}
        if len(lengths) != 1:
            raise GeometryError(f"each pair has two names, an answer and a score, got lengths {sorted(lengths)}")


def write_verification_report(path: str | Path, report: VerificationReport) -> Path:
    """Write the page: one HTML file without any reference to the outside.

    Raises:
        OutputError: when it cannot be written.
    """
    chapters = [
        Chapter(
            "separation",
            "Separation",
            "How the scores of both kinds of pairs lie, and what each threshold makes of them.",
            tables=[_rates_table(report), _folds_table(report)],
        ),
        Chapter(
            "hardest",
            "Hardest pairs",
            "Pairs of one identity with the lowest scores, and of two with the highest: often wrong labels.",
            tables=_hardest_tables(report),
        ),
        Chapter("run", "Run", tables=record_tables(report.stages, report.files, report.options, report.versions)),
    ]
    return write_page(
        path,
        "verification.html.j2",
        kind="verification",
        name=report.name,
        sentence=_sentence(report),
        status="ok",
        verdict="were scored.",
        messages=(),
        tiles=key_tiles(report),
        chapters=[c for c in chapters if c.tables or (c.name == "run" and report.command_line)],
        histograms=[score_histogram(report)],
        curves=[roc_curve(report)],
        command_line=report.command_line,
    )


def key_tiles(report: VerificationReport) -> list[Tile]:
    """Accuracy, equal error rate, area under the curve, TAR at the smallest FAR that can be measured, CPU time."""
    error = equal_error_rate(report.scores, report.same)
    folds = len(report.accuracy.accuracies)
    tiles = [
        Tile("Accuracy", _percent(report.accuracy.mean), "%", f"± {_percent(report.accuracy.std)} over {folds} folds"),
        Tile("Equal error rate", _percent(error.rate), "%", f"at a threshold of {number(error.threshold)}"),
        Tile("Area under the curve", _percent(report.auroc), "%"),
    ]
    measured = {far: found for far, found in report.accepted.items() if found is not None}
    if measured:
        far = min(measured)
        found = measured[far]
        tiles.append(
            Tile(f"TAR at FAR {far:g}", _percent(found.tar), "%", f"at a threshold of {number(found.threshold)}")
        )
    if report.stages:
        wall = sum(stage.wall_s for stage in report.stages)
        cpu = sum(stage.cpu_s for stage in report.stages)
        tiles.append(Tile("CPU time", number(cpu), "s", f"{number(wall)} s by the clock"))
    return tiles


def score_histogram(report: VerificationReport) -> Chart:
    """Share of the pairs of each kind per score, in percent."""
    low, high = float(report.scores.min()), float(report.scores.max())
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    kinds = (report.scores[report.same], report.scores[~report.same])
    heights = np.stack([100 * np.histogram(values, edges)[0] / len(values) for values in kinds])
    labels = [f"score {number(float(a))} to {number(float(b))}" for a, b in itertools.pairwise(edges)]
    return histogram(
        heights,
        labels,
        name="scores",
        title="Scores",
        text="The less the two overlap, the fewer errors any threshold makes.",
        x_ticks=[(share, f"{low + share * (high - low):.2f}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        x_label="score (cosine)",
        y_label="share of the pairs of a kind (%)",
        series=("one identity", "two identities"),
    )


def roc_curve(report: VerificationReport) -> Curve:
    """TAR over FAR, which is on a scale of decades down to one different pair."""
    curve = roc(report.scores, report.same)
    negatives = int((~report.same).sum())
    decades = max(1, math.ceil(math.log10(negatives)))
    place = np.clip(1 + np.log10(np.maximum(curve.far, 10.0**-decades)) / decades, 0, 1)
    highest = np.flatnonzero(np.r_[np.diff(place) > 0, True])  # the last threshold of each FAR
    kept = np.unique(np.r_[0, highest[:: max(1, len(highest) // _MOST_POINTS)], len(place) - 1])
    points = [(float(place[n]), float(curve.tar[n])) for n in kept]
    ticks = [(1 - n / decades, "1" if n == 0 else f"{10.0**-n:g}") for n in range(decades, -1, -1)]
    error = equal_error_rate(report.scores, report.same).rate
    mark = (max(0.0, 1 + math.log10(max(error, 10.0**-decades)) / decades), 1 - error)
    return Curve(
        "roc",
        "Recognised against falsely accepted",
        "Each point is a threshold; the dot is where both kinds of error are equally frequent.",
        f"TAR over FAR: an equal error rate of {_percent(error)} percent.",
        points,
        mark,
        ticks,
        [(0.0, "0"), (0.5, "50"), (1.0, "100")],
        "pairs of two identities accepted (FAR)",
        "pairs of one identity accepted (TAR, %)",
    )


def _sentence(report: VerificationReport) -> str:
    same = int(report.same.sum())
    return f"{number(same)} pairs of one identity and {number(len(report.same) - same)} of two"


def _rates_table(report: VerificationReport) -> Table:
    rows = []
    for far, found in report.accepted.items():
        if found is None:
            rows.append([Cell(f"{far:g}"), Cell("too few pairs of two identities", tone="muted"), Cell("–"), Cell("–")])
        else:
            tar = Cell(f"{_percent(found.tar)} %", bar=found.tar)
            rows.append([Cell(f"{far:g}"), tar, Cell(number(found.threshold)), Cell(number(found.far))])
    head = ("FAR at most", "TAR", "Threshold", "FAR there")
    return Table("Recognised at a rate of false acceptance", head, rows, numeric=frozenset({1, 2, 3}))


def _folds_table(report: VerificationReport) -> Table:
    found = report.accuracy
    rows = [
        [Cell(str(n)), Cell(f"{_percent(float(value))} %"), Cell(number(float(threshold)))]
        for n, (value, threshold) in enumerate(zip(found.accuracies, found.thresholds, strict=True), start=1)
    ]
    summary = f"Accuracy of each of {len(rows)} folds"
    head = ("Fold", "Accuracy", "Threshold, from the others")
    return Table("Accuracy by fold", head, rows, numeric=frozenset({1, 2}), folded=True, summary=summary)


def _hardest_tables(report: VerificationReport) -> list[Table]:
    tables = []
    for kind, caption, sign in ((True, "Least alike of one identity", 1), (False, "Most alike of two identities", -1)):
        places = np.flatnonzero(report.same == kind)
        hardest = places[np.argsort(sign * report.scores[places], kind="stable")][:HARDEST]
        rows = [[Cell(report.first[n]), Cell(report.second[n]), Cell(number(float(report.scores[n])))] for n in hardest]
        tables.append(Table(caption, ("First", "Second", "Score"), rows, numeric=frozenset({2})))
    return tables


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
