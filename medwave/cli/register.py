"""``medwave register`` and ``medwave demo brains``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from medwave.cli.options import OUTPUT, WINET, file_option, files_option, with_options
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
    fixed_channels: files_option("--fixed-channel", "Further image of the fixed subject, such as T2 beside T1.") = None,
    moving_channels: files_option(
        "--moving-channel", "Its counterpart of the moving subject, in the same order."
    ) = None,
    channel_weights: Annotated[
        Optional[list[float]],  # noqa: UP045  typer needs the old form
        typer.Option("--channel-weight", help="What each further pair counts beside the 1 of the first. Repeated."),
    ] = None,
    landmarks_fixed: file_option("--landmarks-fixed", "CSV of points x, y, z in mm in the fixed image.") = None,
    landmarks_moving: file_option("--landmarks-moving", "CSV of the same points in the moving image.") = None,
    weights: WINET = None,
    *,
    options: RegisterOptions,
) -> None:
    """Register MOVING to FIXED: affine, then deformable; writes images, ITK transforms and a report."""
    from medwave.core.locks import only_run_in
    from medwave.core.memory import freed_memory_kept
    from medwave.core.provenance import check_unchanged
    from medwave.workflows.register import register as run
    from medwave.workflows.run_folder import files_behind, result_folder, run_files, spare_inputs

    files = {
        "fixed": fixed, "moving": moving, "fixed_labels": fixed_labels, "moving_labels": moving_labels,
        "mask_fixed": mask_fixed, "mask_moving": mask_moving, "lesion_fixed": lesion_fixed,
        "lesion_moving": lesion_moving, "init": init, "weights": weights, "landmarks_fixed": landmarks_fixed,
        "landmarks_moving": landmarks_moving,
    }  # fmt: skip
    given: dict[str, Any] = {role: path for role, path in files.items() if path is not None}
    if weights is not None:
        from medwave.models.weights import weight_file  # torch takes a second to import

        given["weights"] = weight_file(weights)
    sides = {"fixed_channel": fixed_channels or [], "moving_channel": moving_channels or []}
    hashed = given | {f"{side}_{n}": path for side, paths in sides.items() for n, path in enumerate(paths, start=1)}
    with (
        progress() as (on_stage, on_progress),
        result_folder(output, "transform"),
        only_run_in(output),
        freed_memory_kept(),
    ):
        spare_inputs(run_files(output), files_behind(*hashed.values()))
        result = run(
            **given, fixed_channels=sides["fixed_channel"], moving_channels=sides["moving_channel"],
            channel_weights=channel_weights, options=options, on_stage=on_stage, on_progress=on_progress,
        )  # fmt: skip
        check_unchanged(result.inputs)
        on_stage("write")
        report = result.save(output, command_line=command_line())
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"report: {report}")


@with_options(RegisterOptions)
def demo_brains(output: OUTPUT = Path("medwave-demo"), *, options: RegisterOptions) -> None:
    """Register a brain to itself under a known transform and state the true error in mm."""
    from medwave.core.locks import only_run_in
    from medwave.workflows.demo import demo_brains as run
    from medwave.workflows.run_folder import result_folder

    with progress() as (on_stage, on_progress), result_folder(output, "transform", "sample"), only_run_in(output):
        report, before, after = run(
            output, options=options, command_line=command_line(), on_stage=on_stage, on_progress=on_progress
        )
    typer.echo(
        f"true error in the brain: {before.mean_mm:.2f} mm before, {after.mean_mm:.2f} mm after (mean), "
        f"{after.p95_mm:.2f} mm at the 95th percentile"
    )
    typer.echo(f"report: {report.resolve()}")
