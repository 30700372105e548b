"""The figures of the registration page: which pictures stand together, and what is said about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medwave.reports import colours, figures
from medwave.reports.colours import UInt8Array
from medwave.reports.figures import Array, Scale
from medwave.reports.page import ColourBar, Figure, Strip, colour_bar, measured, number, picture
from medwave.reports.sections import Sections

if TYPE_CHECKING:
    from medwave.reports.registration import RegistrationReport


def alignment_plates(report: RegistrationReport, sections: Sections) -> list[Figure]:
    """Images side by side, fixed edges over the affine start and over the result, checkerboard, differences, labels."""
    fixed, warped = report.fixed.data, report.warped
    window, moving_window = figures.grey_window(fixed), figures.grey_window(warped)
    match = figures.Matcher(fixed, warped, sections.subject.threshold)
    plates = [_side_by_side(report, sections, window, moving_window)]
    key = ((colours.css(colours.ORANGE), "edges of the fixed image"),)
    if report.affine_only is not None:
        plates.append(
            Figure(
                "affine-start",
                "After the affine",
                "Edges of the fixed image over the moving image after the affine. Outline and ventricles should nearly "
                "agree here; if they do not, the deformation started from a wrong place.",
                [
                    _strip(
                        sections,
                        figures.edges(sections, fixed, report.affine_only, moving_window),
                        "Fixed edges over affine",
                    )
                ],
                keys=key,
            )
        )
    plates.append(
        Figure(
            "edges",
            "After the deformation" if report.displacement_voxels is not None else "The result",
            "The same edges over the warped image: they should run along its own.",
            [_strip(sections, figures.edges(sections, fixed, warped, moving_window), "Fixed edges over warped")],
            keys=key,
        )
    )
    plates.append(
        Figure(
            "checkerboard",
            "Checkerboard",
            "Squares of the fixed and of the warped image in turn, grey levels matched. Contours should pass from "
            "square to square without a step.",
            [
                _strip(
                    sections,
                    figures.checkerboard(sections, fixed, warped, match, window),
                    "Checkerboard of fixed and warped",
                )
            ],
        )
    )
    plates.append(_differences(report, sections, match, window))
    if report.fixed_labels is not None and report.warped_labels is not None:
        rows = figures.label_contours(sections, fixed, report.fixed_labels, report.warped_labels, window)
        plates.append(
            Figure(
                "labels",
                "Label borders",
                "Borders of the most compact structures of each slice, at most 16, over the fixed image.",
                [_strip(sections, rows, "Label borders, fixed and warped")],
                keys=((colours.css(colours.BLUE), "fixed labels"), (colours.css(colours.ORANGE), "warped labels")),
            )
        )
    return plates


def deformation_plates(report: RegistrationReport, sections: Sections) -> list[Figure]:
    """Deformed grid, displacement length, Jacobian determinant, true error: those whose data are given."""
    fixed = report.fixed.data
    plates = []
    if report.displacement_voxels is not None:
        window = figures.grey_window(report.warped)
        rows, pitch = figures.deformed_grid(sections, report.displacement_voxels, report.warped, window)
        plates.append(
            Figure(
                "grid",
                "Deformed grid",
                f"A square grid with lines every {pitch:g} mm, drawn on the moving image after the affine and "
                "carried along by the deformation, over the warped image. Narrow cells: the tissue was compressed. "
                "Lines must not cross.",
                [_strip(sections, rows, "Deformed grid over the warped image")],
            )
        )
        rows, scale, (median, high) = figures.magnitude(sections, fixed, report.displacement_voxels)
        plates.append(
            Figure(
                "displacement",
                "Length of the displacement",
                f"How far the deformation reaches, after the affine. Within the fixed image: median "
                f"{measured(median, 'mm')} mm, 95th percentile {measured(high, 'mm')} mm.",
                [_strip(sections, rows, "Displacement length")],
                bar=_plain_bar(scale, "displacement"),
            )
        )
    if report.jacobian is not None:
        plates.append(_jacobian(report, sections))
    if report.true_error_mm is not None:
        rows, scale = figures.error_map(sections, fixed, report.true_error_mm)
        plates.append(
            Figure(
                "true-error",
                "True error",
                "Distance between the place found and the known true place.",
                [_strip(sections, rows, "True error")],
                bar=_plain_bar(scale, "error"),
            )
        )
    return plates


def native_plate(report: RegistrationReport) -> Figure:
    """The moving image as it was given, near its own middle and on its own grid."""
    sections = Sections(report.moving, height_px=240)
    rows = figures.anatomy(sections, report.moving.data, figures.grey_window(report.moving.data))
    return Figure(
        "native",
        "Moving image as given",
        "On its own grid, before any transform; directions are those of its header.",
        [_strip(sections, rows, f"Moving image {report.moving.name} on its own grid")],
    )


def _side_by_side(
    report: RegistrationReport, sections: Sections, window: figures.Window, moving_window: figures.Window
) -> Figure:
    stages: list[tuple[str, str, Array, figures.Window]] = [("Fixed", "the fixed image", report.fixed.data, window)]
    if report.before is not None:
        stages.append(("Moving, by header", "the moving image placed by its header", report.before, moving_window))
    if report.affine_only is not None:
        stages.append(("After affine", "the moving image after the affine", report.affine_only, moving_window))
    stages.append(("Warped", "the warped moving image", report.warped, moving_window))
    drawn = [figures.anatomy(sections, array, grey) for _, _, array, grey in stages]
    strips = []
    for index, section in enumerate(sections.items):
        row = [
            picture(
                drawn[s][index],
                alt=f"{section.title}: {long}",
                caption=short,
                stage=short,
                plane=section.plane,
            )
            for s, (short, long, _, _) in enumerate(stages)
        ]
        strips.append(Strip(section.title, row))
    return Figure("images", "Images side by side", "", strips, by_plane=True)


def _differences(
    report: RegistrationReport, sections: Sections, match: figures.Matcher, window: figures.Window
) -> Figure:
    named = [
        (title, array)
        for title, array in (
            ("Moving by header, minus fixed", report.before),
            ("After affine, minus fixed", report.affine_only),
            ("Warped, minus fixed", report.warped),
        )
        if array is not None
    ]
    rows, scale = figures.differences(sections, report.fixed.data, [array for _, array in named], match, window)
    limit = f"{scale.high:g}"
    ticks = ((0.0, f"−{limit} %"), (0.5, "0"), (1.0, f"+{limit} %"))
    return Figure(
        "difference",
        "Difference",
        "Grey levels matched to the fixed image, then subtracted; per cent of the fixed image's grey range, one scale "
        "for all rows. It tells little between different contrasts (T1 and T2): look at the edges there.",
        [_strip(sections, pictures, title, heading=title) for (title, _), pictures in zip(named, rows, strict=True)],
        bar=colour_bar(scale.table, label="moving darker to moving brighter", ticks=ticks),
    )


def _jacobian(report: RegistrationReport, sections: Sections) -> Figure:
    assert report.jacobian is not None
    rows, scale, folds = figures.jacobian(sections, report.fixed.data, report.jacobian)
    known = int(np.count_nonzero(np.isfinite(report.jacobian)))
    ratio = f"{2.0**scale.high:.3g}"
    ticks = ((0.0, f"1/{ratio}"), (0.5, "1"), (1.0, ratio))
    if folds:
        share = number(100 * folds / max(known, 1))
        counted = f"{number(folds)} of {number(known)} voxels are folded ({share} %); they are magenta."
    else:
        counted = "No voxel is folded."
    return Figure(
        "jacobian",
        "Local change of volume",
        f"Jacobian determinant of the deformation, on a scale of doublings. Orange: the place takes its content from a "
        f"larger piece of the moving image, which shrinks; blue: from a smaller one, which grows. {counted}",
        [_strip(sections, rows, "Jacobian determinant")],
        bar=colour_bar(scale.table, label="volume ratio, moving to fixed", ticks=ticks),
        keys=((colours.css(colours.FOLD), f"folds: {number(folds)} voxels"),) if folds else (),
    )


def _strip(sections: Sections, rows: list[UInt8Array], what: str, heading: str = "") -> Strip:
    return Strip(
        heading,
        [
            picture(rgb, alt=f"{what}; {section.title}", caption=section.title)
            for rgb, section in zip(rows, sections.items, strict=True)
        ],
    )


def _plain_bar(scale: Scale, label: str) -> ColourBar:
    middle = (scale.low + scale.high) / 2
    ticks = ((0.0, f"{scale.low:g}"), (0.5, f"{middle:g}"), (1.0, f"{scale.high:g} mm"))
    return colour_bar(scale.table, label=label, ticks=ticks)
