"""What a command shows while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer


def command_line() -> str:
    """The command that runs, for the record."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _console() -> Any:
    """A console of rich where bars can be drawn, or None, which spares its import."""
    if sys.stderr is None or not (sys.stderr.isatty() or {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys()):
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal else None


@contextlib.contextmanager
def progress() -> Iterator[tuple[Callable[[str], None], Callable[[Any], None]]]:
    """Callbacks for the name of each stage, and for each iteration of the refinement."""
    console = _console()
    if console is None:
        yield lambda name: typer.echo(f"medwave: {name}", err=True), lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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


@contextlib.contextmanager
def block_progress() -> Iterator[tuple[Callable[[str], None], Callable[[Any], None]]]:
    """Callbacks for the name of each stage, and for each block of its steps: how many are done, time left."""
    console = _console()
    if console is None:
        lines = _BlockLines()
        yield lambda name: typer.echo(f"medwave: {name}", err=True), lines
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<40}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=None)
        yield (
            lambda name: bar.reset(task, total=None, description=name),
            lambda at: bar.update(task, total=at.total, completed=at.done, description=describe_blocks(at)),
        )


@contextlib.contextmanager
def item_progress(result: Callable[[Any], str]) -> Iterator[Callable[[Any, Any], None]]:
    """A callback for what became of an item of a batch: a line each, and the time left.

    Args:
        result: what to say of an outcome, in a few words.
    """
    console = _console()

    def line(outcome: Any, at: Any) -> str:
        words = " ".join((outcome.error or result(outcome)).split())
        said = f", {words}" if words else ""
        spent = "" if not outcome.wall_s else f" in {_duration(outcome.wall_s)}"
        left = "" if at.seconds_left is None or at.done == at.total else f"; about {_duration(at.seconds_left)} left"
        return f"{at.done} of {at.total}: {outcome.item.name}: {outcome.status}{spent}{said}{left}"

    if console is None:
        yield lambda outcome, at: typer.echo(f"medwave: {line(outcome, at)}", err=True)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=None)

        def on_outcome(outcome: Any, at: Any) -> None:
            bar.console.print(line(outcome, at), highlight=False, markup=False)
            left = "" if at.seconds_left is None else f", about {_duration(at.seconds_left)} left"
            bar.update(task, total=at.total, completed=at.done, description=f"{at.done} of {at.total}{left}")

        yield on_outcome


@contextlib.contextmanager
def item_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A callback for how much of a work is done, and how much there is: a bar on a terminal, else nothing."""
    console = _console()
    if console is None:
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


@contextlib.contextmanager
def workers_of(cluster: str | None, *, threads: int = 0, device: str = "cpu") -> Iterator[Any]:
    """The workers of ``--cluster``, whose dashboard is named, or None without it."""
    if cluster is None:
        yield None
        return
    from medwave.scale import open_workers

    devices = 0
    if device == "cuda":
        import torch

        devices = torch.cuda.device_count()
    with open_workers(cluster, threads=threads, devices=devices) as workers:
        typer.echo(f"medwave: dashboard: {workers.dashboard}", err=True)
        yield workers


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("medwave: what is finished stays; repeat the command to go on", err=True)
        raise


def describe_blocks(at: Any) -> str:
    """Progress in words."""
    left = "" if at.seconds_left is None else f", about {_duration(at.seconds_left)} left"
    speed = "" if at.voxels_per_s is None else f", {at.voxels_per_s / 1e6:.3g} Mvoxel/s"
    return f"{at.step}, {at.done} of {at.total} {at.things}{speed}{left}"


class _BlockLines:
    """A plain line at the first and the last block of each step, and otherwise one in half a minute at most."""

    def __init__(self) -> None:
        self.last, self.step = -math.inf, ""

    def __call__(self, at: Any) -> None:
        if at.step != self.step or at.done == at.total or time.monotonic() - self.last >= 30:
            self.last, self.step = time.monotonic(), at.step
            typer.echo(f"medwave: {describe_blocks(at)}", err=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
