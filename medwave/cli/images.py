"""``medwave train classify|segment|detect`` and ``evaluate-classifier|segmenter|detector``: networks on images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from medwave.cli.options import JSON, OUTPUT, config_option, file_option, wants_table, with_options
from medwave.cli.progress import command_line
from medwave.workflows.image_options import (
    EvaluateClassifierOptions,
    EvaluateDetectorOptions,
    EvaluateSegmenterOptions,
    TrainClassifierOptions,
    TrainSegmenterOptions,
)
from medwave.workflows.train_options import TrainDetectorOptions

CLASSIFIED = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="Folder SPLIT/CLASS/IMAGE, or an .npz file of SPLIT_images, SPLIT_labels."),
]
SEGMENTED = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder in the layout of CamVid, Pascal VOC or Cityscapes.")
]


@with_options(TrainClassifierOptions)
def train_classify(
    data: CLASSIFIED,
    output: OUTPUT,
    config: config_option(TrainClassifierOptions) = None,
    *,
    options: TrainClassifierOptions,
) -> None:
    """Train a network that classifies the images of DATA. The same command goes on after an interruption.

    The folder then holds best.safetensors (for medwave evaluate-classifier), checkpoint.pt and tensorboard's logs.
    """
    from medwave.workflows.run_folder import result_folder
    from medwave.workflows.train_images import train_classifier

    with result_folder(output), _progress(options.epochs, options.steps, "accuracy") as (on_epoch, on_step):
        result = train_classifier(data, output, options=options, on_epoch=on_epoch, on_step=on_step)
    typer.echo(f"best: accuracy {result.best_score:.4f} in epoch {result.best_epoch}")
    typer.echo(f"weights: {result.weights}")


@with_options(TrainSegmenterOptions)
def train_segment(
    data: SEGMENTED,
    output: OUTPUT,
    config: config_option(TrainSegmenterOptions) = None,
    *,
    options: TrainSegmenterOptions,
) -> None:
    """Train a network that segments the images of DATA. The same command goes on after an interruption.

    The folder then holds best.safetensors (for medwave evaluate-segmenter), checkpoint.pt and tensorboard's logs.
    """
    from medwave.workflows.run_folder import result_folder
    from medwave.workflows.train_images import train_segmenter

    with result_folder(output), _progress(options.epochs, options.steps, "mean IoU") as (on_epoch, on_step):
        result = train_segmenter(data, output, options=options, on_epoch=on_epoch, on_step=on_step)
    typer.echo(f"best: mean IoU {result.best_score:.4f} in epoch {result.best_epoch}")
    typer.echo(f"weights: {result.weights}")


BOXED = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="An .npz file of SPLIT_images, SPLIT_boxes, SPLIT_labels, SPLIT_owner, for train and val."
    ),
]


@with_options(TrainDetectorOptions)
def train_detect(
    data: BOXED,
    output: OUTPUT,
    config: config_option(TrainDetectorOptions) = None,
    *,
    options: TrainDetectorOptions,
) -> None:
    """Train a network that finds objects in the images or volumes of DATA. The same command goes on when stopped.

    The folder then holds best.safetensors (for medwave evaluate-detector), checkpoint.pt and tensorboard's logs.
    """
    from medwave.workflows.detect import train_detector
    from medwave.workflows.run_folder import result_folder

    with result_folder(output), _progress(options.epochs, options.steps, "mAP@.5") as (on_epoch, on_step):
        result = train_detector(data, output, options=options, on_epoch=on_epoch, on_step=on_step)
    typer.echo(f"best: mAP@.5 {result.best_score:.4f} in epoch {result.best_epoch}")
    typer.echo(f"weights: {result.weights}")


WEIGHTS = Annotated[Path, typer.Option("--weights", help="Weights of the network (safetensors).")]
_REFERENCE = "Weights of another network on the same data, such as the twin without wavelets, to compare with."


@with_options(EvaluateClassifierOptions)
def evaluate_classifier(
    data: CLASSIFIED,
    weights: WEIGHTS,
    output: OUTPUT,
    reference: file_option("--reference", _REFERENCE) = None,
    json: JSON = None,
    *,
    options: EvaluateClassifierOptions,
) -> None:
    """Measure a network that classifies: accuracy, corruptions, shifts, attacks; tables and figures on a page."""
    from medwave.workflows.evaluate_images import evaluate_classifier as run

    result = run(data, weights, output, reference=reference, options=options, **_record())
    if not wants_table(result, json):
        return
    typer.echo(f"accuracy {result['accuracy']:.4f} of {result['images']} images")
    if result["mce"] is not None:
        typer.echo(f"mCE {result['mce']:.1f} % of {reference}")
    if result["shift_consistency"] is not None:
        typer.echo(f"shift consistency {result['shift_consistency']:.4f}")
    for attack in result["attacks"]:
        typer.echo(f"{attack['kind']} {attack['epsilon']}/255: accuracy {attack['accuracy']:.4f}")
    if result["carlini_wagner"] is not None:
        typer.echo(f"median length of the changes of Carlini and Wagner: {result['carlini_wagner']:.4f}")
    typer.echo(f"report: {output / 'report.html'}")


@with_options(EvaluateSegmenterOptions)
def evaluate_segmenter(
    data: SEGMENTED,
    weights: WEIGHTS,
    output: OUTPUT,
    reference: file_option("--reference", _REFERENCE) = None,
    json: JSON = None,
    *,
    options: EvaluateSegmenterOptions,
) -> None:
    """Measure a network that segments: overlap by class, confusion, worst images; tables and figures on a page."""
    from medwave.workflows.evaluate_images import evaluate_segmenter as run

    result = run(data, weights, output, reference=reference, options=options, **_record())
    if not wants_table(result, json):
        return
    typer.echo(f"mean IoU {result['mean_iou']:.4f}, pixels right {result['pixel_accuracy']:.4f}")
    typer.echo(f"report: {output / 'report.html'}")


@with_options(EvaluateDetectorOptions)
def evaluate_detector(
    data: BOXED,
    weights: WEIGHTS,
    output: OUTPUT,
    reference: file_option("--reference", _REFERENCE) = None,
    json: JSON = None,
    *,
    options: EvaluateDetectorOptions,
) -> None:
    """Measure a network that finds objects: average precision, mistakes; tables and figures on a page."""
    from medwave.workflows.evaluate_detector import evaluate_detector as run

    result = run(data, weights, output, reference=reference, options=options, **_record())
    if not wants_table(result, json):
        return
    typer.echo(f"mAP@.5 {result['map_50']:.4f}, mAP@.5:.95 {result['map_50_95']:.4f} of {result['images']} images")
    for name, precision in result["ap_50"].items():
        typer.echo(f"{name}: {result['objects'][name]} objects, " + (
            "AP@.5 not known" if precision is None else f"AP@.5 {precision:.4f}"
        ))  # fmt: skip
    typer.echo(f"report: {output / 'report.html'}")


def _record() -> dict[str, Any]:
    """What every evaluation is told of the command: its line, and to name its stages."""
    return {"command_line": command_line(), "on_stage": lambda name: typer.echo(f"medwave: {name}", err=True)}


@contextlib.contextmanager
def _progress(
    epochs: int, steps: int, score_name: str
) -> Iterator[tuple[Callable[[int, float, float], None], Callable[[int], None]]]:
    """A line per epoch, and on a terminal a bar over all steps, as far as their number is known."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("step {task.completed}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("steps", total=epochs * steps or None)

        def on_epoch(epoch: int, loss: float, score: float) -> None:
            clock = time.strftime("%H:%M:%S")
            console.print(f"medwave: {clock} epoch {epoch}/{epochs}, loss {loss:.4f}, {score_name} {score:.4f}")

        yield on_epoch, lambda done: bar.update(task, completed=done)
