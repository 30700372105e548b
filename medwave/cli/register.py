"""``medwave register`` and ``medwave demo brains``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from medwave.cli.options import with_options
from medwave.cli.progress import command_line, progress
from medwave.workflows.options import RegisterOptions

OUTPUT = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made when absent.")]


def _file(name: str, text: str) -> Any:
    return Annotated[Optional[Path], typer.Option(name, help=text)]  # noqa: UP045  typer needs the old form


@with_options(RegisterOptions)
def register(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="Image to register to: NIfTI, MGZ, NRRD or MHA.")],
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="Image to move.")],
    output: OUTPUT,
    fixed_labels: _file("--labels-fixed", "Label map of the fixed image, for overlap.") = None,
    moving_labels: _file("--labels-moving", "Label map of the moving image, carried over.") = None,
    mask_fixed: _file("--mask-fixed", "Non-zero where the fixed image may be compared.") = None,
    mask_moving: _file("--mask-moving", "Non-zero where the moving image may be compared.") = None,
    lesion_fixed: _file("--lesion-fixed", "Non-zero where the fixed image may not be compared.") = None,
    lesion_moving: _file("--lesion-moving", "Non-zero where the moving image may not be compared.") = None,
    init: _file("--init", "ITK affine (fixed to moving points) to start from.") = None,
    weights: _file("--weights", "Weights of a WiNet (safetensors): refine from its prediction.") = None,
    *,
    options: RegisterOptions,
) -> None:
    """Register MOVING to FIXED: affine, then deformable; writes images, ITK transforms and a report."""
    from medwave.workflows.register import register as run
    from medwave.workflows.run_folder import result_folder

    files = {
        "fixed": fixed, "moving": moving, "fixed_labels": fixed_labels, "moving_labels": moving_labels,
        "mask_fixed": mask_fixed, "mask_moving": mask_moving, "lesion_fixed": lesion_fixed,
        "lesion_moving": lesion_moving, "init": init, "weights": weights,
    }  # fmt: skip
    given: dict[str, Any] = {role: path for role, path in files.items() if path is not None}
    with progress() as (on_stage, on_progress), result_folder(output, "transform"):
        result = run(**given, options=options, on_stage=on_stage, on_progress=on_progress)
        on_stage("write")
        report = result.save(output, inputs=given, command_line=command_line())
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"report: {report}")


@with_options(RegisterOptions)
def demo_brains(output: OUTPUT = Path("medwave-demo"), *, options: RegisterOptions) -> None:
    """Register a brain to itself under a known transform and state the true error in mm."""
    from medwave.workflows.demo import demo_brains as run
    from medwave.workflows.run_folder import result_folder

    with progress() as (on_stage, on_progress), result_folder(output, "transform", "sample"):
        report, before, after = run(
            output, options=options, command_line=command_line(), on_stage=on_stage, on_progress=on_progress
        )
    typer.echo(
        f"true error in the brain: {before.mean_mm:.2f} mm before, {after.mean_mm:.2f} mm after (mean), "
        f"{after.p95_mm:.2f} mm at the 95th percentile"
    )
    typer.echo(f"report: {report.resolve()}")
