"""The page of one registration: what was aligned with what, how well, and what the deformation does.

Conventions
    Every array lies on the fixed grid ``(D, H, W)`` in the axis order of the fixed file; the displacement is
    ``(3, D, H, W)`` in voxels of the fixed grid, pull-back. ``before`` is the moving image brought to the fixed
    grid by the headers (or an initial transform) alone, ``affine_only`` by the affine, ``warped`` by everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.geometry import Volume
from medwave.reports.page import Chapter, write_page
from medwave.reports.registration_plates import alignment_plates, deformation_plates, native_plate
from medwave.reports.registration_tables import dice_table, key_tiles, measure_table, run_tables
from medwave.reports.run_tables import OutputFile, Stage
from medwave.reports.sections import Sections

Array = npt.NDArray[np.generic]
FloatingArray = npt.NDArray[np.floating]
STATUSES = ("ok", "warning", "failed")


class FigureOfMerit(NamedTuple):
    """One measure before, after the affine and at the end; ``better`` is "higher", "lower" or "" (not a quality)."""

    name: str
    before: float | None = None
    after_affine: float | None = None
    after: float | None = None
    unit: str = ""
    note: str = ""
    better: str = ""


class DiceScore(NamedTuple):
    """Overlap of one structure: its name, Dice before (header or affine) and after."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class RegistrationReport:
    """All that the report shows, as plain data. Only the first three fields are needed.

    Rows of ``figures``, ``stages``, ``dice`` and ``files`` may be plain tuples in the order of their named fields.

    Attributes:
        fixed: the fixed image on its grid.
        moving: the moving image on its own grid.
        warped: moving image after the whole transform, on the fixed grid ``(D, H, W)``.
        before: moving image on the fixed grid by headers or initial transform alone.
        affine_only: moving image on the fixed grid after the affine.
        displacement_voxels: ``(3, D, H, W)``, voxels of the fixed grid, pull-back.
        jacobian: determinant of p + u(p), ``(D, H, W)``; NaN where it is not defined. Values <= 0 are folds.
        fixed_labels, warped_labels: label maps on the fixed grid; their borders are drawn when both are given.
        figures: measures, most important first; the first two that have a value become key figures.
        dice: label -> (name, before, after).
        true_error_mm: distance to the known true position per voxel, mm, ``(D, H, W)``.
        true_error_mean_mm: mean true error in mm (before, after).
        status: "ok", "warning" or "failed".
        messages: what a person should know: warnings, reasons of a failure.
        stages: cost of each step, in order.
        options: option -> value, as used.
        versions: package -> version.
        files: name -> (path relative to the report, description).
        command_line: the command that repeats the run.

    Raises:
        GeometryError: when an array is not on the fixed grid.
        InputError: when the status is unknown.
    """

    fixed: Volume
    moving: Volume
    warped: Array
    before: Array | None = None
    affine_only: Array | None = None
    displacement_voxels: FloatingArray | None = None
    jacobian: FloatingArray | None = None
    fixed_labels: Array | None = None
    warped_labels: Array | None = None
    figures: Sequence[FigureOfMerit] = ()
    dice: Mapping[int, DiceScore] = field(default_factory=dict)
    true_error_mm: FloatingArray | None = None
    true_error_mean_mm: tuple[float, float] | None = None
    status: str = "ok"
    messages: Sequence[str] = ()
    stages: Sequence[Stage] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, OutputFile] = field(default_factory=dict)
    command_line: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InputError(
                f"the status of a registration report is one of {', '.join(STATUSES)}, got {self.status!r}"
            )
        shape = self.fixed.grid.shape
        on_grid = ("warped", "before", "affine_only", "jacobian", "fixed_labels", "warped_labels", "true_error_mm")
        wanted = dict.fromkeys(on_grid, shape) | {"displacement_voxels": (3, *shape)}
        for name, expected in wanted.items():
            array = getattr(self, name)
            if array is not None and array.shape != expected:
                raise GeometryError(
                    f"registration report: {name} lies on the fixed grid: its shape is {expected}, got {array.shape}"
                )
        rows = {
            "figures": tuple(FigureOfMerit(*row) for row in self.figures),
            "stages": tuple(Stage(*row) for row in self.stages),
            "dice": {label: DiceScore(*row) for label, row in self.dice.items()},
            "files": {name: OutputFile(*row) for name, row in self.files.items()},
        }
        for name, value in rows.items():
            object.__setattr__(self, name, value)


VERDICTS = {
    "ok": "succeeded.",
    "warning": "finished with a warning: read it before you use the result.",
    "failed": "failed: do not use its result.",
}


def write_registration_report(path: str | Path, report: RegistrationReport) -> Path:
    """Write one self-contained HTML page about a registration.

    Args:
        path: the file to write; links to ``report.files`` are relative to its folder.
        report: what to show.

    Returns:
        The path written.

    Raises:
        OutputError: when the file cannot be written.
    """
    tables = [table for table in (measure_table(report), dice_table(report)) if table is not None]
    sections = Sections(report.fixed)
    middle = (
        "Slices near the middle of the fixed image, where they show most of it. L, R, A, P, S and I are the person's "
        "left, right, front, back, head and feet."
    )
    after = "What the transform does to space after the affine part."
    chapters = [
        Chapter("alignment", "Alignment", middle, figures=alignment_plates(report, sections)),
        Chapter("deformation", "Deformation", after, figures=deformation_plates(report, sections)),
        Chapter("measures", "Measures", tables=tables),
        Chapter("run", "Images and run", figures=[native_plate(report)], tables=run_tables(report)),
    ]
    return write_page(
        path,
        "registration.html.j2",
        kind="registration",
        fixed_name=report.fixed.name,
        moving_name=report.moving.name,
        sentence=_sentence(report),
        status=report.status,
        verdict=VERDICTS[report.status],
        messages=report.messages,
        tiles=key_tiles(report),
        chapters=[chapter for chapter in chapters if chapter.figures or chapter.tables],
        command_line=report.command_line,
    )


def _sentence(report: RegistrationReport) -> str:
    """The beginning of the sentence that the verdict ends: by which kind of transform."""
    linear = "a rigid motion" if report.options.get("affine") == "rigid" else "an affine"
    kinds = [
        kind
        for kind, there in ((linear, report.affine_only), ("a deformation", report.displacement_voxels))
        if there is not None
    ]
    return f"The registration by {' and '.join(kinds)}" if kinds else "The registration"
