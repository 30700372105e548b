"""The ``medwave`` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from medwave import __version__
from medwave.cli import register
from medwave.core.errors import MedwaveError

app = typer.Typer(
    name="medwave",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Wavelet deep learning for volumetric imaging: register brains.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
demo = typer.Typer(no_args_is_help=True, help="Run a main job on a sample made on the spot.")
app.add_typer(demo, name="demo")
app.command("register")(register.register)
demo.command("brains")(register.demo_brains)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medwave {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; user errors are one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except MedwaveError as error:
        typer.echo(f"medwave: error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        typer.echo("medwave: interrupted; nothing half-written was left", err=True)
        raise SystemExit(130) from None
