"""The page over a cohort of registrations: one table to sort and step through, what stands out first.

Each row links to the report of its registration, by a path relative to the page; pictures are in the page. Without
scripts the page is complete; scripts add sorting and a view that is stepped through by keys.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from medwave.core.files import atomic_path
from medwave.core.geometry import Volume
from medwave.reports import figures
from medwave.reports.page import Chapter, Tile, measured, number, write_page
from medwave.reports.run_tables import record_tables
from medwave.reports.sections import Sections

PREVIEW_HEIGHT_PX = 220
_GAP_PX = 6


@dataclass(frozen=True)
class CohortRow:
    """One registration on the page; measures are None where they are not known.

    Attributes:
        name: what it is called.
        report: path of its report relative to the page; empty when there is none.
        preview: file that :func:`write_preview` wrote.
        failed: whether it failed.
        reasons: why it stands out, or failed.
        severity: rows come in the order of it, largest first; 0 for what does not stand out.
        dice, dice_affine: mean Dice at the end, and after the affine.
        similarity_before, similarity_after: correlation in the subject, of matched intensities between contrasts.
        folds: folded voxels.
        largest_mm: longest displacement of the deformable part in the subject.
        scale, rotation_degrees: of the affine.
        cpu_s: CPU seconds.
    """

    name: str
    report: str = ""
    preview: Path | None = None
    failed: bool = False
    reasons: Sequence[str] = ()
    severity: float = 0.0
    dice: float | None = None
    dice_affine: float | None = None
    similarity_before: float | None = None
    similarity_after: float | None = None
    folds: float | None = None
    largest_mm: float | None = None
    scale: float | None = None
    rotation_degrees: float | None = None
    cpu_s: float | None = None

    @property
    def state(self) -> str:
        """``failed``, ``check`` or empty."""
        return "failed" if self.failed else "check" if self.reasons else ""

    @property
    def address(self) -> str:
        """The preview as a ``data:`` address; empty when there is none."""
        if self.preview is None or not self.preview.is_file():
            return ""
        return "data:image/jpeg;base64," + base64.b64encode(self.preview.read_bytes()).decode("ascii")


COLUMNS = (
    ("dice", "Dice"), ("similarity_before", "Correlation before"), ("similarity_after", "after"),
    ("folds", "Folded voxels"), ("largest_mm", "Largest displacement (mm)"), ("scale", "Affine scale"),
    ("rotation_degrees", "Affine rotation (°)"), ("cpu_s", "CPU (s)"),
)  # fmt: skip


def write_preview(path: Path, fixed: Volume, warped: npt.NDArray[np.generic]) -> None:
    """Write a JPEG of three planes side by side: edges of the fixed image over the warped one on its grid."""
    sections = Sections(fixed, height_px=PREVIEW_HEIGHT_PX)
    planes = figures.edges(sections, fixed.data, warped, figures.grey_window(warped))
    gap = np.zeros((PREVIEW_HEIGHT_PX, _GAP_PX, 3), dtype=np.uint8)
    strip = np.concatenate([part for plane in planes for part in (plane, gap)][:-1], axis=1)
    with atomic_path(path) as partial:
        Image.fromarray(strip).save(partial, "JPEG", quality=82, optimize=True)


def write_cohort_index(
    path: Path, rows: Sequence[CohortRow], *, options: Mapping[str, object], command_line: str
) -> Path:
    """Write the page.

    Args:
        path: file to write; reports are linked relative to it.
        rows: in the order to show.
        options: of the registrations.
        command_line: the command that repeats the run.

    Raises:
        OutputError: when it cannot be written.
    """
    columns = [(key, title) for key, title in COLUMNS if any(getattr(row, key) is not None for row in rows)]
    failed, check = (sum(row.state == state for row in rows) for state in ("failed", "check"))
    return write_page(
        path,
        "cohort.html.j2",
        kind="cohort",
        sentence=f"{len(rows) - failed} of {len(rows)} registrations succeeded;",
        status="failed" if failed else "warning" if check else "ok",
        verdict=_verdict(failed, check),
        messages=(),
        tiles=_tiles(rows, failed, check),
        chapters=[
            Chapter("registrations", "Registrations"),
            Chapter("run", "Run", tables=record_tables((), {}, options, {})),
        ],
        command_line=command_line,
        rows=rows,
        columns=columns,
        texts=[{key: _text(row, key) for key, _ in columns} for row in rows],
    )


def _verdict(failed: int, check: int) -> str:
    apart = f"{number(check)} {'stands' if check == 1 else 'stand'} out from the others"
    if failed:
        return f"{number(failed)} failed" + (f", {apart}." if check else ".")
    return f"{apart}: look at {'it' if check == 1 else 'them'} first." if check else "none stands out from the others."


def _tiles(rows: Sequence[CohortRow], failed: int, check: int) -> list[Tile]:
    tiles = [
        Tile("Failed", number(failed), "", f"of {number(len(rows))} registrations", "bad" if failed else "good"),
        Tile("To be looked at", number(check), "", "far from the others, or with a warning"),
    ]
    for key, title, detail in (("dice", "Mean Dice", "dice_affine"), ("similarity_after", "Mean correlation", "")):
        known = [getattr(row, key) for row in rows if getattr(row, key) is not None]
        if known:
            first = [getattr(row, detail) for row in rows if detail and getattr(row, detail) is not None]
            text = f"{np.mean(first):.3f} after the affine" if first else f"lowest {min(known):.3f}"
            tiles.append(Tile(title, f"{np.mean(known):.3f}", "", text))
            break
    folds = [row.folds for row in rows if row.folds is not None]
    if folds:
        tiles.append(Tile("Folded voxels", number(int(sum(folds))), "", "in all", "bad" if any(folds) else "good"))
    spent = [row.cpu_s for row in rows if row.cpu_s is not None]
    if spent:
        tiles.append(Tile("CPU time", number(sum(spent)), "s", f"{number(sum(spent) / len(spent))} s each"))
    return tiles


def _text(row: CohortRow, key: str) -> str:
    value = getattr(row, key)
    if value is None or not math.isfinite(value):
        return number(None)
    if key in ("dice", "similarity_before", "similarity_after", "scale"):
        return f"{value:.3f}".replace("-", "−")
    return number(int(value)) if key == "folds" else measured(value, "mm" if key == "largest_mm" else "")
