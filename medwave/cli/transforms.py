"""``medwave apply`` and ``medwave evaluate``: what one does with a registration afterwards."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medwave.cli.options import JSON, OUTPUT, check_json, file_option, files_option, wants_table, with_options
from medwave.core.errors import InputError
from medwave.workflows.options import DIRECTIONS, ApplyOptions

if TYPE_CHECKING:
    from medwave.workflows.evaluate import Evaluation

Direction: Any = Enum("Direction", {name: name for name in DIRECTIONS}, type=str)


@with_options(ApplyOptions)
def apply(
    output: OUTPUT,
    paths: Annotated[
        Optional[list[Path]],  # noqa: UP045  typer needs the old form
        typer.Argument(
            metavar="RUN_DIR IMAGE",
            help="Folder that medwave register wrote, then images to move: 3-D, or 4-D NIfTI, volume by volume. With "
            "--transform: images only.",
        ),
    ] = None,
    labels: files_option("--labels", "Label map to move; keeps its labels and type.") = None,
    points: files_option("--points", "CSV of points to move, with columns x, y, z in mm.") = None,
    direction: Annotated[
        Optional[Direction],  # noqa: UP045
        typer.Option(
            "--direction",
            help="Where the data goes, for everything alike. moving-to-fixed: images, labels and points of the moving "
            "space come to the fixed space (images are resampled onto the fixed grid, by the map of composite.h5; "
            "points are moved by its inverse). fixed-to-moving: the other way. \\[default: moving-to-fixed]",
        ),
    ] = None,
    reference: file_option(
        "--reference", "Image whose grid images and labels land on; the fixed or the moving image's own when left out."
    ) = None,
    transform: files_option(
        "--transform",
        "ITK transform file in place of RUN_DIR: points pass through the files in the order given; images and labels "
        "are pulled back through the same chain, from the grid of --reference.",
    ) = None,
    suffix: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--suffix", help="Put after each name. \\[default: _to-fixed, _to-moving, or _moved]"),
    ] = None,
    *,
    options: ApplyOptions,
) -> None:
    """Move images, label maps and points with a transform that was found before, several at once."""
    from medwave.workflows.apply import apply_to_files

    given = list(paths or [])
    if transform is None:
        if not given:
            raise InputError("a transform is needed: name the folder of a run of medwave register, or --transform")
        if not given[0].is_dir():
            raise InputError(
                f"{given[0]}: the first name is the folder of a run of medwave register, this is "
                f"{'a file' if given[0].exists() else 'not there'}; name the folder, or a transform file by --transform"
            )
    written = apply_to_files(
        transform or given.pop(0),
        output,
        images=given,
        labels=labels or (),
        points=points or (),
        direction=None if direction is None else direction.value,
        reference=reference,
        suffix=suffix,
        options=options,
        on_file=lambda path: typer.echo(f"medwave: {path}", err=True),
        on_warning=lambda text: typer.echo(f"warning: {text}", err=True),
    )
    for path in written:
        typer.echo(str(path))


def evaluate(
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="RUN_DIR", help="Folder that medwave register wrote; carries the moving labels."),
    ] = None,
    labels_fixed: file_option("--labels-fixed", "Label map of the fixed image.") = None,
    labels_moving: file_option(
        "--labels-moving", "Label map of the moving image; without RUN_DIR, on the grid of the fixed one."
    ) = None,
    mask: file_option("--mask", "Non-zero where the transform is measured.") = None,
    names: file_option("--names", "CSV whose first two columns are label and name.") = None,
    json: JSON = None,
) -> None:
    """Dice and surface distances per structure, folds and inverse consistency, as a table and JSON."""
    from medwave.workflows.evaluate import evaluate as measure
    from medwave.workflows.run_folder import files_behind

    check_json(json, (*files_behind(run), labels_fixed, labels_moving, mask, names))
    result = measure(run, labels_fixed=labels_fixed, labels_moving=labels_moving, mask=mask, names=names)
    if wants_table(result.as_dict(), json):
        _print_table(result)


def _print_table(result: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if result.structures:
        table = Table("label", "structure", title="Overlap of structures", show_footer=True)
        count = len(result.structures)
        table.columns[1].footer = f"mean of {count}"
        for heading, key, digits in (("Dice", "dice", 3), ("HD95 mm", "hd95_mm", 2), ("ASSD mm", "assd_mm", 2)):
            table.add_column(heading, justify="right", footer=f"{result.mean[key]:.{digits}f}")
        for s in result.structures:
            table.add_row(str(s.label), Text(s.name), f"{s.dice:.3f}", f"{s.hd95_mm:.2f}", f"{s.assd_mm:.2f}")
        console.print(table)
    if result.in_one_map_only:
        labels = ", ".join(map(str, result.in_one_map_only))
        console.print(f"In one map only (Dice 0, left out of the mean distances): {labels}")
    if result.field is not None:
        field = result.field
        table = Table("transform", title="Transform", show_header=False)
        table.add_column(justify="right")
        table.add_row("folded voxels, whole grid", f"{field.folded_voxels} ({100 * field.folded_share:.4f} %)")
        table.add_row(f"SD of log Jacobian, {field.region}", f"{field.log_jacobian_sd:.3f}")
        table.add_row(f"inverse consistency, {field.region}", f"{field.inverse_consistency_mm:.3f} mm")
        console.print(table)
