"""What a command shows while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer


def command_line() -> str:
    """The command that runs, for the record."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


@contextlib.contextmanager
def progress() -> Iterator[tuple[Callable[[str], None], Callable[[Any], None]]]:
    """Callbacks for the name of each stage, and for each iteration of the refinement."""
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
                task,
                total=at.levels,
                completed=at.level + (at.iteration + 1) / at.iterations,
                description=f"refine, scale {at.level + 1} of {at.levels}",
            )

        yield on_stage, on_progress
