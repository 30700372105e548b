"""``medwave register`` and ``medwave demo brains``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medwave.cli.options import OUTPUT, file_option, with_options
from medwave.cli.progress import command_line, progress
from medwave.workflows.options import RegisterOptions


@with_options(RegisterOptions)
def register(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="Image to register to: NIfTI, MGZ, NRRD or MHA.")],
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="Image to move.")],
    output: OUTPUT,
    fixed_labels: file_option("--labels-fixed", "Label map of the fixed image, for overlap.") = None,
    moving_labels: file_option("--labels-moving", "Label map of the moving image, carried over.") = None,
    mask_fixed: file_option("--mask-fixed", "Non-zero where the fixed image may be compared.") = None,
    mask_moving: file_option("--mask-moving", "Non-zero where the moving image may be compared.") = None,
    lesion_fixed: file_option("--lesion-fixed", "Non-zero where the fixed image may not be compared.") = None,
    lesion_moving: file_option("--lesion-moving", "Non-zero where the moving image may not be compared.") = None,
    init: file_option(
        "--init",
        "Transform to start from: ITK or ANTs (.mat, .txt, .tfm, .h5, field), flirt's matrix (-in MOVING -ref FIXED), "
        "FSL's field, FreeSurfer's .lta or register.dat, or the folder of another run.",
    ) = None,
    weights: file_option("--weights", "Weights of a WiNet (safetensors): refine from its prediction.") = None,
    *,
    options: RegisterOptions,
) -> None:
    """Register MOVING to FIXED: affine, then deformable; writes images, ITK transforms and a report."""
    from medwave.workflows.register import register as run
    from medwave.workflows.run_folder import keep_inputs, result_folder

    files = {
        "fixed": fixed, "moving": moving, "fixed_labels": fixed_labels, "moving_labels": moving_labels,
        "mask_fixed": mask_fixed, "mask_moving": mask_moving, "lesion_fixed": lesion_fixed,
        "lesion_moving": lesion_moving, "init": init, "weights": weights,
    }  # fmt: skip
    given: dict[str, Any] = {role: path for role, path in files.items() if path is not None}
    with progress() as (on_stage, on_progress), result_folder(output, "transform"):
        keep_inputs(output, given.values())
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
