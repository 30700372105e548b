"""``medwave pipelines``: recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from medwave.cli.options import JSON, wants_table

pipelines = typer.Typer(no_args_is_help=True, help="Recipes (MONAI bundles): list, copy and run them.")
NAME = Annotated[str, typer.Argument(metavar="NAME", help="Recipe, as medwave pipelines list names it.")]


@pipelines.command("list")
def list_(json: JSON = None) -> None:
    """List the recipes and the configurations that can be run."""
    from medwave.workflows.pipelines import list_pipelines

    found = list_pipelines()
    rows = [
        {"name": p.name, "title": p.title, "description": p.description, "configs": list(p.configs),
         "folder": str(p.folder)}
        for p in found
    ]  # fmt: skip
    if not wants_table(rows, json):
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "configurations", "what it does")
    for p in found:
        table.add_row(p.name, ", ".join(p.configs), p.description)
    Console().print(table)


@pipelines.command("copy")
def copy(
    name: NAME,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The copy; it must not be there yet.")],
) -> None:
    """Copy a recipe to a folder of your own, to change it."""
    from medwave.workflows.pipelines import copy_pipeline

    typer.echo(str(copy_pipeline(name, folder)))


@pipelines.command("run")
def run(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="Recipe, or a folder with a copy of one.")],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Configuration, without .yaml.")] = "inference",
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045  typer needs the old form
        typer.Option("--set", metavar="KEY=VALUE", help="Entry of the configuration with another value. Repeated."),
    ] = None,
) -> None:
    """Run a configuration of a recipe, as python -m monai.bundle run does. Recipes are code: run those you trust."""
    from medwave.workflows.pipelines import parse_changes, run_pipeline

    output = run_pipeline(name, config, parse_changes(settings or []))
    if output is not None:
        typer.echo(f"results: {output}")
