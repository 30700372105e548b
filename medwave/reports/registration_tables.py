"""Key figures and tables of the registration page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from medwave.core.geometry import Volume
from medwave.reports.page import Cell, Table, Tile, measured, number
from medwave.reports.run_tables import record_tables

if TYPE_CHECKING:
    from medwave.reports.registration import FigureOfMerit, RegistrationReport


def key_tiles(report: RegistrationReport) -> list[Tile]:
    """The first two measures with a value, then folds, Dice, true error and CPU time where known."""
    tiles = [_measure_tile(m) for m in report.figures if m.after is not None][:2]
    if report.jacobian is not None:
        folds = int(np.count_nonzero(report.jacobian <= 0))
        share = 100 * folds / max(1, int(np.count_nonzero(np.isfinite(report.jacobian))))
        detail = f"{number(share)} % of the volume" if folds else "determinant positive everywhere"
        tiles.append(Tile("Folded voxels", number(folds), "", detail, "bad" if folds else "good"))
    if report.dice:
        before, after = _mean([s.before for s in report.dice.values()]), _mean([s.after for s in report.dice.values()])
        detail = f"from {_dice(before)}, {len(report.dice)} structures"
        tiles.append(Tile("Mean Dice", _dice(after), "", detail, _tone(before, after, "higher")))
    if report.true_error_mean_mm is not None:
        before, after = report.true_error_mean_mm
        detail = f"from {measured(before, 'mm')} mm"
        tiles.append(Tile("Mean true error", measured(after, "mm"), "mm", detail, _tone(before, after, "lower")))
    if report.stages:
        wall = sum(stage.wall_s for stage in report.stages)
        tiles.append(
            Tile("CPU time", number(sum(s.cpu_s for s in report.stages)), "s", f"{number(wall)} s by the clock")
        )
    return tiles


def measure_table(report: RegistrationReport) -> Table | None:
    """All measures before, after the affine, at the end; the end is marked when it is better or worse."""
    rows = [_measure_row(m) for m in report.figures]
    if report.true_error_mean_mm is not None:
        before, after = report.true_error_mean_mm
        marked = Cell(measured(after, "mm"), tone=_tone(before, after, "lower"))
        rows.append([Cell("Mean true error (mm)"), Cell(measured(before, "mm")), Cell(number(None)), marked])
    if not rows:
        return None
    head = ("Measure", "Before", "After affine", "After")
    return Table("Figures of merit", head, rows, numeric=frozenset({1, 2, 3}))


def _measure_row(measure: FigureOfMerit) -> list[Cell]:
    start = measure.after_affine if measure.before is None else measure.before
    values = (measure.before, measure.after_affine, measure.after)
    before, middle, after = (measured(value, measure.unit) for value in values)
    marked = Cell(after, tone=_tone(start, measure.after, measure.better))
    return [Cell(_with_unit(measure.name, measure.unit), detail=measure.note), Cell(before), Cell(middle), marked]


def dice_table(report: RegistrationReport) -> Table | None:
    """Overlap per structure, smallest first."""
    if not report.dice:
        return None
    worst = sorted(report.dice.items(), key=lambda item: item[1].after if _known(item[1].after) else -1.0)
    rows = [
        [
            Cell(score.name),
            Cell(str(label)),
            Cell(_dice(score.before)),
            Cell(_dice(score.after), bar=min(max(score.after, 0.0), 1.0) if _known(score.after) else None),
            Cell(_change(score.before, score.after), tone=_tone(score.before, score.after, "higher")),
        ]
        for label, score in worst
    ]
    return Table(
        "Dice per structure, smallest first",
        ("Structure", "Label", "Before", "After", "Change"),
        rows,
        numeric=frozenset({1, 2, 3, 4}),
        folded=len(rows) > 12,
        summary=f"Dice of all {len(rows)} structures",
    )


def run_tables(report: RegistrationReport) -> list[Table]:
    """Geometry of the two images, cost of the stages, files, options and versions: those that are given."""
    recorded = record_tables(report.stages, report.files, report.options, report.versions)
    return [_image_table(report.fixed, report.moving), *recorded]


def _image_table(fixed: Volume, moving: Volume) -> Table:
    both = (fixed, moving)
    lines = {
        "Name": [v.name for v in both],
        "Voxels": [" × ".join(str(n) for n in v.grid.shape) for v in both],
        "Voxel size (mm)": [" × ".join(f"{s:.4g}" for s in v.grid.spacing_mm) for v in both],
        "Axes grow towards": [v.grid.orientation for v in both],
        "Values": [f"{number(np.min(v.data))} to {number(np.max(v.data))}" for v in both],
        "Data type": [str(v.data.dtype) for v in both],
    }
    return Table("Images", ("", "Fixed", "Moving"), [[name, *values] for name, values in lines.items()])


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _measure_tile(measure: FigureOfMerit) -> Tile:
    steps = [
        f"{word} {measured(value, measure.unit)}"
        for word, value in (("before", measure.before), ("after affine", measure.after_affine))
        if value is not None
    ]
    start = measure.after_affine if measure.before is None else measure.before
    return Tile(
        measure.name,
        measured(measure.after, measure.unit),
        measure.unit,
        ", ".join(steps),
        _tone(start, measure.after, measure.better),
    )


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and bool(np.isfinite(value))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if _known(v)]
    return float(np.mean(known)) if known else None


def _tone(before: float | None, after: float | None, better: str) -> str:
    """ "good" when the value moved the right way, "bad" when it moved the wrong way, "" when that cannot be said."""
    if not (_known(before) and _known(after)) or better not in ("higher", "lower") or after == before:
        return ""
    return "good" if (after > before) == (better == "higher") else "bad"


def _dice(value: float | None) -> str:
    return f"{value:.3f}" if _known(value) else number(None)


def _change(before: float | None, after: float | None) -> str:
    if not (_known(before) and _known(after)):
        return number(None)
    change = after - before
    return f"{'+' if change >= 0 else '−'}{abs(change):.3f}"
