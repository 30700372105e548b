"""``medwave train recognise``, ``medwave embed``, ``medwave verify`` and ``medwave identify``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medwave.cli.options import JSON, OUTPUT, config_option, file_option, wants_table, with_options
from medwave.cli.progress import command_line
from medwave.cli.train import training_progress
from medwave.core.files import check_output
from medwave.workflows.recognition_options import EmbedOptions, TrainRecogniseOptions, VerifyOptions

if TYPE_CHECKING:
    from medwave.workflows.recognise import Verification

_SET = "Folder with a folder of pictures per identity, a .rec with its .idx, or an .npz of images and labels."
PICTURES = Annotated[Path, typer.Argument(metavar="PICTURES", help=_SET)]
FEATURES = Annotated[Path, typer.Option("--output", "-o", help="File to write: .npz, or .parquet.")]
WEIGHTS = file_option("--weights", "Weights of a network, as medwave train recognise writes them.")


@with_options(TrainRecogniseOptions)
def recognise(
    data: PICTURES,
    output: OUTPUT,
    config: config_option(TrainRecogniseOptions) = None,
    *,
    options: TrainRecogniseOptions,
) -> None:
    """Train a network that tells identities apart. The same command goes on after an interruption.

    The folder then holds best.safetensors (for --weights), checkpoint.pt and the logs of tensorboard.
    """
    from medwave.workflows.run_folder import result_folder
    from medwave.workflows.train_recognise import train_recognise

    with result_folder(output), training_progress(options.epochs, "score") as (on_epoch, on_step):
        result = train_recognise(data, output, options=options, on_epoch=on_epoch, on_step=on_step)
    typer.echo(f"best: score {result.best_score:.4f} in epoch {result.best_epoch}")
    typer.echo(f"weights: {result.weights}")


@with_options(EmbedOptions)
def embed(
    pictures: PICTURES,
    output: FEATURES,
    weights: Annotated[Path, typer.Option("--weights", help="Weights of a network, from medwave train recognise.")],
    *,
    options: EmbedOptions,
) -> None:
    """Write the features of all PICTURES, a row each with its source and identity."""
    from medwave.workflows.recognise import embed as run

    with _counting() as on_done:
        found = run(pictures, output, weights=weights, options=options, on_done=on_done)
    rows, length = found.features.shape
    typer.echo(f"{rows} pictures of {len(set(found.identities))} identities, {length} values each")
    typer.echo(f"features: {output}")


@with_options(VerifyOptions)
def verify(
    pairs: Annotated[
        Path,
        typer.Argument(metavar="PAIRS", help="List of pairs (as LFW's, or PATH PATH 1), or an InsightFace .bin."),
    ],
    images: Annotated[Optional[Path], typer.Option("--images", help="Folder of the pictures in the list.")] = None,  # noqa: UP045
    weights: WEIGHTS = None,
    embeddings: file_option("--embeddings", "Features from medwave embed, in place of --images and --weights.") = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045  typer needs the old form
        typer.Option("--output", "-o", help="Folder for scores.csv, report.html and run.json; made when absent."),
    ] = None,
    json: JSON = None,
    *,
    options: VerifyOptions,
) -> None:
    """Tell whether the two pictures of each of PAIRS show one identity, and how often that is right."""
    from medwave.workflows.recognise import verify as run

    with _counting() as on_done:
        told = {"images": images, "weights": weights, "embeddings": embeddings, "options": options, "on_done": on_done}
        if output is None:
            result = run(pairs, **told)
        else:
            from medwave.workflows.verify_page import verify_with_page

            result = verify_with_page(pairs, output, command_line=command_line(), **told)
    if not wants_table(result.as_dict(), json):
        return
    _print_verification(result)
    if output is not None:
        typer.echo(f"report: {output / 'report.html'}")


@with_options(EmbedOptions)
def identify(
    probes: Annotated[Path, typer.Argument(metavar="PROBES", help=f"{_SET} Or features from medwave embed.")],
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="Likewise: the pictures of those who are known.")],
    weights: WEIGHTS = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045  typer needs the old form
        typer.Option("--output", "-o", help="Table to write: probe, identity, found, found_identity, score (CSV)."),
    ] = None,
    json: JSON = None,
    *,
    options: EmbedOptions,
) -> None:
    """Find the picture of the GALLERY that is nearest to each of PROBES."""
    from medwave.workflows.recognise import identify as run
    from medwave.workflows.recognise import write_matches

    if output is not None:
        check_output(output, probes, gallery, *filter(None, [weights, options.points]))
    with _counting() as on_done:
        result = run(probes, gallery, weights=weights, options=options, on_done=on_done)
    if output is not None:
        write_matches(output, result)
    if not wants_table(result.as_dict(), json):
        return
    strangers = len(result.probes) - result.known
    rank1 = "none of them" if result.rank1 is None else f"{100 * result.rank1:.2f} % of {result.known}"
    typer.echo(f"rank 1: {rank1} whose identity the gallery has" + (f"; {strangers} strangers" if strangers else ""))
    if output is not None:
        typer.echo(f"matches: {output}")


def _print_verification(result: Verification) -> None:
    accuracy = result.accuracy
    same = int(result.same.sum())
    typer.echo(f"pairs: {same} of one identity, {len(result.same) - same} of two")
    typer.echo(
        f"accuracy: {100 * accuracy.mean:.2f} ± {100 * accuracy.std:.2f} % over {len(accuracy.accuracies)} folds, "
        f"thresholds {accuracy.thresholds.min():.3f} to {accuracy.thresholds.max():.3f}"
    )
    typer.echo(f"equal error rate: {100 * result.equal_error_rate:.2f} %, AUROC: {100 * result.auroc:.2f} %")
    for far, found in result.accepted.items():
        said = "too few pairs of two identities to say" if found is None else f"{100 * found.tar:.2f} %"
        typer.echo(f"recognised at a false acceptance of {far:g}: {said}")


@contextlib.contextmanager
def _counting() -> Iterator[Callable[[int, int], None]]:
    """On a terminal a bar over the pictures."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
