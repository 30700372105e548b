"""``medwave train``: networks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

import typer

from medwave.cli.options import OUTPUT, config_option, with_options
from medwave.workflows.train_options import TrainFibreOptions, TrainPairOptions

train = typer.Typer(no_args_is_help=True, help="Train networks.")


@train.callback()
def first_rank_speaks() -> None:
    """Train networks.

    On several GPUs: torchrun --nproc-per-node 4 -m medwave train ... --device cuda; options mean the same as in one
    process, and --batch is shared out.
    """
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the process ends


@train.command("waveunet")
@with_options(TrainFibreOptions)
def waveunet(
    output: OUTPUT,
    config: config_option(TrainFibreOptions) = None,
    *,
    options: TrainFibreOptions,
) -> None:
    """Train a network that tells fibre from background. The same command goes on after an interruption.

    The folder then holds best.safetensors (for medwave segment --weights), checkpoint.pt and the logs of tensorboard.
    """
    from medwave.workflows.run_folder import result_folder
    from medwave.workflows.train_waveunet import train_waveunet

    total = options.epochs * options.steps
    with result_folder(output), training_progress(options.epochs, "fibre IoU") as (on_epoch, on_step):
        result = train_waveunet(output, options=options, on_epoch=on_epoch, on_step=lambda done: on_step(done, total))
    typer.echo(f"best: fibre IoU {result.best_score:.3f} in epoch {result.best_epoch}")
    typer.echo(f"weights: {result.weights}")


@train.command("winet")
@with_options(TrainPairOptions)
def winet(
    output: OUTPUT,
    config: config_option(TrainPairOptions) = None,
    *,
    options: TrainPairOptions,
) -> None:
    """Train a network that registers brains, from label maps or on images. The same command goes on when stopped.

    The folder then holds best.safetensors (for medwave register --weights), checkpoint.pt and the logs of tensorboard.
    """
    from medwave.workflows.run_folder import result_folder
    from medwave.workflows.train_winet import train_winet

    def on_start(score: float) -> None:
        typer.echo(f"medwave: score of the pairs to validate with, not deformed: {score:.4f}", err=True)

    total = options.epochs * options.steps
    with result_folder(output), training_progress(options.epochs, "score") as (on_epoch, on_step):
        result = train_winet(
            output, options=options, on_epoch=on_epoch, on_step=lambda done: on_step(done, total), on_start=on_start
        )
    typer.echo(f"best: score {result.best_score:.4f} in epoch {result.best_epoch}")
    typer.echo(f"weights: {result.weights}")


@contextlib.contextmanager
def training_progress(
    epochs: int, measure: str
) -> Iterator[tuple[Callable[[int, float, float], None], Callable[[int, int], None]]]:
    """A line per epoch, and on a terminal a bar over all steps (told: done, of all) with the time that is left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("steps", total=None)

        def on_epoch(epoch: int, loss: float, score: float) -> None:
            clock = time.strftime("%H:%M:%S")
            console.print(f"medwave: {clock} epoch {epoch}/{epochs}, loss {loss:.4f}, {measure} {score:.4f}")

        yield on_epoch, lambda done, total: bar.update(task, completed=done, total=total)
