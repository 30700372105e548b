"""``medwave convert-transform``, ``compose``, ``invert`` and ``jacobian``: transforms as files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medwave.cli.options import file_option
from medwave.workflows.options import TRANSFORM_FORMS

if TYPE_CHECKING:
    from medwave.workflows.transform_files import Written

Form: Any = Enum("Form", {name: name for name in TRANSFORM_FORMS}, type=str)
_WHAT = "Folder that medwave register wrote, or a transform file of ITK, ANTs, FSL or FreeSurfer"
_CHAIN = f"{_WHAT}. Of several, points pass through them in the order given."
_WHERE = "File to write: .h5 (nothing is resampled), .nii.gz (one field), .tfm, .txt or .mat (linear ones)."

Sources = Annotated[list[Path], typer.Argument(metavar="TRANSFORM...", help=_CHAIN)]
Output = Annotated[Path, typer.Option("--output", "-o", help=_WHERE)]


def convert_transform(
    sources: Sources,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write. itk: .h5, .nii.gz (one field), .tfm, .txt, .mat. fsl: .nii.gz (relative field), or "
            "any other name for flirt's matrix. freesurfer: .lta, or .nii.gz for mri_warp_convert.",
        ),
    ],
    to: Annotated[Form, typer.Option("--to", help="Program to write for.")] = "itk",
    fixed: file_option("--fixed", "The fixed image (FSL: the reference), where the transform does not tell.") = None,
    moving: file_option("--moving", "The moving image (FSL: the input), where the transform does not tell.") = None,
    inverse: Annotated[bool, typer.Option("--inverse", help="Write the map from moving to fixed instead.")] = False,
) -> None:
    """Convert a transform between ITK, FSL and FreeSurfer; prints the command that uses the result."""
    from medwave.workflows.transform_files import convert_transform as run

    form = getattr(to, "value", to)
    written = run(sources, output, to=form, fixed=fixed, moving=moving, inverse=inverse)
    _say(written)
    if written.hint:
        typer.echo(f"use it: {written.hint}")


def compose(
    sources: Sources,
    output: Output,
    reference: file_option(
        "--reference", "Image whose grid a field .nii.gz lies on; by itself the fixed one of the first run."
    ) = None,
) -> None:
    """Join transforms to one: points pass through them in order, images are pulled back through the same chain."""
    from medwave.workflows.transform_files import compose_transforms

    _say(compose_transforms(sources, output, reference=reference))


def invert(
    source: Annotated[Path, typer.Argument(metavar="TRANSFORM", help=f"{_WHAT}.")],
    output: Output,
    reference: file_option(
        "--reference", "Image whose grid a field .nii.gz lies on; by itself the moving one of a run."
    ) = None,
) -> None:
    """Write the inverse of a transform: as a run stored it, else found by Newton steps."""
    from medwave.workflows.transform_files import invert_transform

    _say(invert_transform(source, output, reference=reference))


def jacobian(
    sources: Sources,
    output: Annotated[Path, typer.Option("--output", "-o", help="Map to write: .nii.gz or .nii.")],
    reference: file_option("--reference", "Image whose grid the map lies on; by itself the first fixed one.") = None,
    log: Annotated[bool, typer.Option("--log", help="Natural logarithm; folds count as 1e-9.")] = False,
    linear: Annotated[
        bool, typer.Option("--linear/--no-linear", help="Whether affine parts count, or the deformation only.")
    ] = True,
) -> None:
    """Map how a transform changes volume per voxel: determinant of its Jacobian, 1 = none, 0 and below = folds."""
    from medwave.workflows.transform_files import check_result, folded_voxels, jacobian_map, write_jacobian

    check_result(output, *sources, reference)
    volume = jacobian_map(sources, reference=reference, log=log, linear=linear)
    write_jacobian(output, volume)
    typer.echo(str(output))
    typer.echo(f"folded voxels: {folded_voxels(volume, log=log)}")


def _say(written: Written) -> None:
    typer.echo(str(written.path))
    if written.residual_voxels > 0.1:
        typer.echo(
            f"warning: the inverse misses by up to {written.residual_voxels:.2f} voxels somewhere: the transform folds "
            "there, or its inverse leaves the grid",
            err=True,
        )
