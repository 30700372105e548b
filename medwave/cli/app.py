"""The ``medwave`` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from medwave import __version__
from medwave.cli.options import with_options
from medwave.core.errors import MedwaveError
from medwave.workflows.options import RegisterOptions

app = typer.Typer(
    name="medwave", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
    help="Wavelet deep learning for volumetric imaging: register brains.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
demo = typer.Typer(no_args_is_help=True, help="Run a main job on a sample made on the spot.")
app.add_typer(demo, name="demo")

OUTPUT = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made when absent.")]


def file_option(name: str, text: str) -> Any:
    return Annotated[Optional[Path], typer.Option(name, help=text)]  # noqa: UP045  typer needs the old form


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medwave {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


@app.command()
@with_options(RegisterOptions)
def register(
    fixed: Annotated[Path, typer.Argument(help="Image to register to: NIfTI, MGZ, NRRD or MHA.")],
    moving: Annotated[Path, typer.Argument(help="Image to move.")],
    output: OUTPUT,
    fixed_labels: file_option("--labels-fixed", "Label map of the fixed image, for overlap.") = None,
    moving_labels: file_option("--labels-moving", "Label map of the moving image, carried over.") = None,
    mask_fixed: file_option("--mask-fixed", "Non-zero where the fixed image may be compared.") = None,
    mask_moving: file_option("--mask-moving", "Non-zero where the moving image may be compared.") = None,
    lesion_fixed: file_option("--lesion-fixed", "Non-zero where the fixed image may not be compared.") = None,
    lesion_moving: file_option("--lesion-moving", "Non-zero where the moving image may not be compared.") = None,
    init: file_option("--init", "ITK affine (fixed to moving points) to start from.") = None,
    *,
    options: RegisterOptions,
) -> None:
    """Register MOVING to FIXED: affine, then deformable; writes images, ITK transforms and a report."""
    from medwave.workflows.register import register as run
    from medwave.workflows.save import output_folder

    files = {
        "fixed": fixed, "moving": moving, "fixed_labels": fixed_labels, "moving_labels": moving_labels,
        "mask_fixed": mask_fixed, "mask_moving": mask_moving, "lesion_fixed": lesion_fixed,
        "lesion_moving": lesion_moving, "init": init,
    }  # fmt: skip
    given = {role: path for role, path in files.items() if path is not None}
    with _progress() as (on_stage, on_progress):
        existed = output.exists()
        output_folder(output)
        try:
            result = run(**given, options=options, on_stage=on_stage, on_progress=on_progress)  # type: ignore[arg-type]
        except BaseException:
            if not existed:
                _remove_empty(output)
            raise
        on_stage("write")
        report = result.save(output, inputs=given, command_line=_command_line())
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"report: {report}")


def _remove_empty(folder: Path) -> None:
    """Take back the folders of a run that wrote nothing."""
    for path in (folder / "transform", folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def _command_line() -> str:
    return shlex.join(["medwave", *sys.argv[1:]])


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Any, Any]]:
    """Callbacks that show stages and iterations: a bar on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name: typer.echo(f"medwave: {name}", err=True), lambda _: None
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=None)

        def on_stage(name: str) -> None:
            bar.reset(task, total=None, description=name)

        def on_progress(at: Any) -> None:
            bar.update(
                task, total=at.levels, completed=at.level + (at.iteration + 1) / at.iterations,
                description=f"refine, scale {at.level + 1} of {at.levels}",
            )  # fmt: skip

        yield on_stage, on_progress


def main() -> None:
    """Run the command; user errors are one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except MedwaveError as error:
        typer.echo(f"medwave: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        typer.echo("medwave: interrupted; nothing half-written was left", err=True)
        raise SystemExit(130) from None
