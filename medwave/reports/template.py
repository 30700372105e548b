"""The page over a template: how it came about, iteration by iteration, and how far it still moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medwave.core.geometry import Volume
from medwave.reports import figures
from medwave.reports.charts import histogram
from medwave.reports.page import Cell, Chapter, Figure, Strip, Table, Tile, measured, number, picture, write_page
from medwave.reports.run_tables import record_tables
from medwave.reports.sections import Sections

PICTURE_HEIGHT_PX = 300


@dataclass(frozen=True)
class TemplateRow:
    """One iteration.

    Attributes:
        file: of its template, relative to the page.
        volume: its template; all lie on one grid.
        images: how many it is made of.
        shift_mm: mean step from the last shape to this one, in the subject; of the first, from the image that all
            were aligned to.
        change: root mean square of the new less the last template, as a share of the brightness; None of the first.
        spread: mean standard deviation over the images, likewise.
    """

    file: str
    volume: Volume
    images: int
    shift_mm: float
    change: float | None
    spread: float


def write_template_page(
    path: Path, rows: Sequence[TemplateRow], *, failed: Mapping[str, str], options: Mapping[str, object],
    versions: Mapping[str, str], command_line: str,
) -> Path:  # fmt: skip
    """Write the page.

    Args:
        path: file to write; files are linked relative to it.
        rows: the iterations, the first is the average after linear alignment.
        failed: image that was left out -> reason.
        options, versions: of the run.
        command_line: the command that repeats it.

    Raises:
        OutputError: when it cannot be written.
    """
    last = rows[-1]
    chapters = [
        Chapter("templates", "Templates", figures=[_plates(rows)]),
        Chapter("convergence", "Convergence", tables=[_table(rows)]),
    ]
    if failed:
        cells = [[Cell(name), Cell(reason, tone="bad")] for name, reason in failed.items()]
        chapters.append(Chapter("failures", "Left out", tables=[Table("Images left out", ("Image", "Why"), cells)]))
    return write_page(
        path,
        "template.html.j2",
        kind="template",
        sentence=f"The template of {last.images} images, made anew {_times(len(rows) - 1)};",
        status="warning" if failed else "ok",
        verdict=f"{number(len(failed))} could not be used." if failed else "all images could be used.",
        messages=(),
        tiles=[
            Tile("Images", number(last.images), "", f"{number(len(failed))} left out", "bad" if failed else ""),
            Tile("Last change of shape", measured(last.shift_mm, "mm"), "mm", "mean in the subject"),
            Tile("Last change of grey", _percent(last.change), "%", "of the brightness"),
            Tile("Spread of the images", _percent(last.spread), "%", f"{_percent(rows[0].spread)} % at first"),
        ],
        chapters=[*chapters, Chapter("run", "Run", tables=record_tables((), {}, options, versions))],
        charts=[_chart(rows)] if len(rows) > 1 else [],
        command_line=command_line,
    )


def _plates(rows: Sequence[TemplateRow]) -> Figure:
    sections = Sections(rows[-1].volume, height_px=PICTURE_HEIGHT_PX)
    strips = []
    for count, row in enumerate(rows):
        title = f"Iteration {count}" if count else "After linear alignment"
        planes = figures.anatomy(sections, row.volume.data, figures.grey_window(row.volume.data))
        pictures = [
            picture(rgb, alt=f"Template, {title.lower()}, {s.plane}", caption=s.title if row is rows[-1] else "")
            for rgb, s in zip(planes, sections.items, strict=True)
        ]
        strips.append(Strip(title, pictures))
    text = "The same planes of each template: what all images have in common grows sharper from one to the next."
    return Figure("iterations", "From blurred to sharp", text, strips[::-1])


def _chart(rows: Sequence[TemplateRow]) -> object:
    shifts = np.array([[row.shift_mm for row in rows[1:]]])
    labels = [f"Iteration {count}" for count in range(1, len(rows))]
    ticks = [((count + 0.5) / len(labels), str(count + 1)) for count in range(len(labels))]
    return histogram(
        shifts, labels, name="shift", title="How far the shape moved", x_ticks=ticks, x_label="Iteration",
        y_label="mm", text="Mean step from the shape of the last template to that in the middle of the images.",
    )  # fmt: skip


def _table(rows: Sequence[TemplateRow]) -> Table:
    cells = [
        [
            Cell(str(count) if count else "linear", file=row.file),
            Cell(number(row.images)),
            Cell(measured(row.shift_mm, "mm")),
            Cell(_percent(row.change)),
            Cell(_percent(row.spread)),
        ]
        for count, row in enumerate(rows)
    ]
    head = ("Iteration", "Images", "Change of shape (mm)", "Change of grey (%)", "Spread of the images (%)")
    return Table("Measures of each iteration", head, cells, numeric=frozenset({1, 2, 3, 4}))


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _percent(share: float | None) -> str:
    return number(None if share is None else 100 * share)
