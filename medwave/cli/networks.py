"""``medwave segment`` and ``medwave reconstruct``: fibre networks on volumes of microscopy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medwave.cli.neurons import counts, show_warnings
from medwave.cli.options import OUTPUT, file_option, with_options
from medwave.cli.progress import block_progress, command_line, resumable
from medwave.workflows.options_neurons import ReconstructOptions, SegmentOptions

if TYPE_CHECKING:
    from medwave.workflows.reconstruct_batch import Item
    from medwave.workflows.segment import Segmentation

_KINDS = "TIFF, folder of slices, v3draw, v3dpbd, OME-Zarr, NIfTI, NRRD or MHA volume."
VOLUME = Annotated[Path, typer.Argument(metavar="VOLUME", help=_KINDS)]
_WEIGHTS = "Weights of a fibre network (safetensors); those of medwave when left out."


@with_options(SegmentOptions)
def segment(
    volume: VOLUME,
    output: OUTPUT,
    weights: file_option("--weights", _WEIGHTS) = None,
    *,
    options: SegmentOptions,
) -> None:
    """Segment the fibres of VOLUME: probabilities (0 to 255) and a mask, as OME-Zarr. Repeat it to go on after a stop.

    Empty cubes are passed over, see --skip-empty. Memory does not grow with the volume.
    """
    from medwave.workflows.segment import segment as run

    with resumable(), block_progress() as (on_stage, on_progress):
        result = run(
            volume, output, weights=weights, options=options, command_line=command_line(),
            on_stage=on_stage, on_progress=on_progress,
        )  # fmt: skip
    _show(result)


@with_options(ReconstructOptions)
def reconstruct(
    volumes: Annotated[
        list[Path],
        typer.Argument(
            metavar="VOLUME...",
            help=f"{_KINDS} Several of them, a folder of them, or a CSV table with a column volume (gold and name "
            "are free) make a batch.",
        ),
    ],
    output: OUTPUT,
    gold: file_option("--gold", "SWC file of the true tree, to score the trace with.") = None,
    weights: file_option("--weights", _WEIGHTS) = None,
    *,
    options: ReconstructOptions,
) -> None:
    """Segment VOLUME and trace its fibres: probabilities, a mask, and a tree as SWC. Repeat it to go on after a stop.

    A batch has a folder per volume and a table, summary.csv; it goes on past a volume that fails, and its exit code is
    then 1. Repeated, it passes over those that are complete.
    """
    from medwave.core.errors import InputError
    from medwave.workflows.reconstruct_batch import batch_items

    items = batch_items(volumes)
    if items is None:
        _reconstruct_one(volumes[0], output, gold, weights, options)
        return
    if gold is not None:
        raise InputError(f"{gold}: --gold is for one volume; for a batch give a table with the columns volume and gold")
    _reconstruct_all(items, output, weights, options)


def _reconstruct_one(
    volume: Path, output: Path, gold: Path | None, weights: Path | None, options: ReconstructOptions
) -> None:
    from medwave.workflows.reconstruct import reconstruct as run

    with resumable(), block_progress() as (on_stage, on_progress):
        result = run(
            volume, output, gold=gold, weights=weights, options=options, command_line=command_line(),
            on_stage=on_stage, on_progress=on_progress,
        )  # fmt: skip
    show_warnings(result.warnings)
    typer.echo(counts(result.tree, options.units))
    if result.scores is not None:
        found, distances = result.scores.scores.at_tolerance.by_samples, result.scores.scores.distances
        typer.echo(
            f"against {gold}: precision {found.precision:.3f}, recall {found.recall:.3f}, F1 {found.f1:.3f}, "
            f"ESA {distances.esa:.3f}"
        )
    for name in ("probability.ome.zarr", "mask.ome.zarr", "tree.swc", "report.html"):
        typer.echo(f"{name.split('.')[0]}: {result.folder / name}")


def _reconstruct_all(items: Sequence[Item], output: Path, weights: Path | None, options: ReconstructOptions) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from medwave.workflows.batch import FAILED
    from medwave.workflows.reconstruct_batch import SUMMARY, reconstruct_batch

    with resumable(), block_progress() as (on_stage, on_progress):
        results = reconstruct_batch(
            items, output, weights=weights, options=options, command_line=command_line(),
            on_item=lambda item, number: on_stage(f"{item.name}, {number + 1} of {len(items)}"),
            on_stage=on_stage, on_progress=on_progress,
        )  # fmt: skip
    table = Table("volume", "status", "length", "F1", "ESA")
    for result in results:
        row = result.row()
        table.add_row(Text(result.item.name), result.status, *(_short(row[c]) for c in ("length", "f1", "esa")))
    Console().print(table)
    failed = [result for result in results if result.status == FAILED]
    for result in failed:
        typer.echo(f"failed: {' '.join(result.error.split())}", err=True)
    typer.echo(f"summary: {output / SUMMARY}")
    if failed:
        typer.echo(f"medwave: {len(failed)} of {len(results)} volumes failed", err=True)
        raise typer.Exit(1)


def demo_neuron(
    output: OUTPUT = Path("medwave-demo-neuron"),
    weights: file_option("--weights", _WEIGHTS) = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045  typer needs the old form
        typer.Option("--seed", help="Another neuron.", show_default=False),
    ] = None,
) -> None:
    """Reconstruct a synthetic neuron whose true tree is known, and state how much of it was found."""
    from medwave.workflows.demo import demo_neuron as run
    from medwave.workflows.run_folder import result_folder

    with resumable(), block_progress() as (on_stage, on_progress), result_folder(output, "sample"):
        report, scores = run(
            output, weights=weights, command_line=command_line(), on_stage=on_stage, on_progress=on_progress,
            **({} if seed is None else {"seed": seed}),
        )  # fmt: skip
    found = scores.at_tolerance.by_samples
    typer.echo(
        f"within 2 voxels of the true tree: precision {found.precision:.3f}, recall {found.recall:.3f}, "
        f"F1 {found.f1:.3f}; mean distance {scores.distances.esa:.2f} voxels"
    )
    typer.echo(f"report: {report.resolve()}")


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _show(result: Segmentation) -> None:
    show_warnings(result.warnings)
    before = f", {result.blocks_before} of them by an earlier run" if result.blocks_before else ""
    typer.echo(
        f"{result.blocks} blocks{before}; {result.cubes.predicted} cubes predicted, {result.cubes.empty} empty; "
        f"{result.fibre_share:.3%} is fibre"
    )
    typer.echo(f"probability: {result.probability}")
    typer.echo(f"mask: {result.mask}")
