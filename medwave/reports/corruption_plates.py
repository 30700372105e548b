"""Charts and tables of what corruptions of images cost a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medwave.metrics import CorruptionErrors
from medwave.reports.charts import Chart, histogram
from medwave.reports.image_plates import percent
from medwave.reports.page import Cell, Table, number

Errors = Mapping[str, Sequence[float]]
"""Kind of corruption -> error at each severity, in [0, 1]."""


def corruption_charts(
    errors: Errors, groups: Mapping[str, Sequence[str]], *, name: str, reference: str = "",
    reference_errors: Errors | None = None, measure: str = "accuracy",
) -> list[Chart]:  # fmt: skip
    """What is right by group and severity: one chart a group, the reference beside the network.

    Args:
        errors, reference_errors: of the network, and of another one.
        groups: group -> kinds.
        name, reference: of both networks.
        measure: what 1 minus an error is called.
    """
    both = [errors, *([reference_errors] if reference_errors else [])]
    series = (name, reference) if len(both) == 2 else ()
    charts = []
    for group, kinds in groups.items():
        present = [kind for kind in kinds if kind in errors]
        if not present:
            continue
        heights = np.array([100 * (1 - np.mean([each[k] for k in present], axis=0)) for each in both])
        count = heights.shape[1]
        charts.append(
            histogram(
                heights, [f"{group}, severity {s + 1}" for s in range(count)], name=f"robust-{group}",
                title=group.capitalize(), text=", ".join(kind.replace("_", " ") for kind in present),
                x_ticks=[((s + 0.5) / count, str(s + 1)) for s in range(count)], x_label="severity",
                y_label=f"{measure} (%)", series=series,
            )
        )  # fmt: skip
    return charts


def corruption_tables(
    errors: Errors, *, caption: str = "Error (%)", reference: str = "", corruption: CorruptionErrors | None = None
) -> list[Table]:
    """Errors of each kind and severity, and against those of the reference."""
    severities = len(next(iter(errors.values())))
    head = ["Corruption", *(f"Severity {s + 1}" for s in range(severities)), "Mean"]
    rows = []
    for kind, values in errors.items():
        row = [
            Cell(kind.replace("_", " ")),
            *(Cell(percent(e)) for e in values),
            Cell(percent(float(np.mean(values)))),
        ]
        rows.append([*row, Cell(f"{corruption.by_kind[kind]:.1f}")] if corruption else row)
    if corruption:
        head.append(f"CE, % of {reference}")
    tables = [Table(caption, head, rows, numeric=frozenset(range(1, len(head))))]
    if corruption:
        groups = [[Cell(group), Cell(f"{value:.1f}")] for group, value in corruption.by_group.items()]
        groups.append([Cell("All kinds (mCE)"), Cell(f"{corruption.mce:.1f}")])
        groups.append([Cell("Relative mCE"), Cell(number(corruption.relative_mce))])
        tables.append(Table(f"Corruption error in % of {reference}", ("Group", "CE"), groups, numeric=frozenset({1})))
    return tables
