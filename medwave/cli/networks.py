"""``medwave segment`` and ``medwave reconstruct``: fibre networks on volumes of microscopy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medwave.cli.neurons import counts, show_warnings
from medwave.cli.options import (
    CLUSTER,
    DRY_RUN,
    JSON,
    OUTPUT,
    VOLUME,
    VOLUME_KINDS,
    file_option,
    wants_table,
    with_options,
)
from medwave.cli.progress import block_progress, command_line, item_bar, resumable, workers_of
from medwave.workflows.options_neurons import ConvertVolumeOptions, ReconstructOptions, SegmentOptions

if TYPE_CHECKING:
    from medwave.workflows.reconstruct_batch import Item
    from medwave.workflows.segment import Segmentation
    from medwave.workflows.segment_plan import SegmentPlan

_WEIGHTS = (
    "Weights of a fibre network: a file (safetensors), or neuron or neuron_noise, which come with medwave (a file of "
    "that name comes first); the one of these two that suits the volume when left out."
)


@with_options(SegmentOptions)
def segment(
    volume: VOLUME,
    output: OUTPUT,
    weights: file_option("--weights", _WEIGHTS) = None,
    cluster: CLUSTER = None,
    dry_run: DRY_RUN = False,
    json: JSON = None,
    *,
    options: SegmentOptions,
) -> None:
    """Segment the fibres of VOLUME: probabilities (0 to 255) and a mask, as OME-Zarr. Repeat it to go on after a stop.

    Empty cubes are passed over, see --skip-empty. Memory does not grow with the volume.
    """
    from medwave.workflows.segment import segment as run

    if dry_run:
        from medwave.workflows.segment_plan import plan_segmentation

        with workers_of(cluster, threads=options.threads, device=options.device) as workers:
            plan = plan_segmentation(volume, weights=weights, options=options, workers=workers)
        if wants_table(plan.as_dict(), json):
            _show_plan(volume, plan)
        return
    with (
        resumable(),
        workers_of(cluster, threads=options.threads, device=options.device) as workers,
        block_progress() as (on_stage, on_progress),
    ):
        result = run(
            volume, output, weights=weights, options=options, command_line=command_line(),
            on_stage=on_stage, on_progress=on_progress, workers=workers,
        )  # fmt: skip
    _show(result, json)


@with_options(ReconstructOptions)
def reconstruct(
    volumes: Annotated[
        list[str],
        typer.Argument(
            metavar="VOLUME...",
            help=f"{VOLUME_KINDS} Several of them, a folder of them, or a CSV table with a column volume (gold and "
            "name are free) make a batch.",
        ),
    ],
    output: OUTPUT,
    gold: file_option("--gold", "SWC file of the true tree, to score the trace with.") = None,
    weights: file_option("--weights", _WEIGHTS) = None,
    cluster: CLUSTER = None,
    dry_run: DRY_RUN = False,
    json: JSON = None,
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
    if items is not None and gold is not None:
        raise InputError(f"{gold}: --gold is for one volume; for a batch give a table with the columns volume and gold")
    with workers_of(cluster, threads=options.threads, device=options.device) as workers:
        if dry_run:
            named = [volumes[0]] if items is None else [str(item.volume) for item in items]
            _show_plans(named, weights, options, workers, json)
        elif items is None:
            _reconstruct_one(volumes[0], output, gold, weights, options, workers, json)
        else:
            _reconstruct_all(items, volumes, output, weights, options, workers, json)


def _reconstruct_one(
    volume: str, output: Path, gold: Path | None, weights: Path | None, options: ReconstructOptions, workers: Any,
    json: str | None,
) -> None:  # fmt: skip
    from medwave.workflows.reconstruct import reconstruct as run

    with resumable(), block_progress() as (on_stage, on_progress):
        result = run(
            volume, output, gold=gold, weights=weights, options=options, command_line=command_line(),
            on_stage=on_stage, on_progress=on_progress, workers=workers,
        )  # fmt: skip
    show_warnings(result.warnings)
    if not wants_table(_record(result.folder), json):
        return
    typer.echo(counts(result.tree, options.units))
    if result.scores is not None:
        found, distances = result.scores.scores.at_tolerance.by_samples, result.scores.scores.distances
        typer.echo(
            f"against {gold}: precision {found.precision:.3f}, recall {found.recall:.3f}, F1 {found.f1:.3f}, "
            f"ESA {distances.esa:.3f}"
        )
    typer.echo(f"probability: {result.segmentation.probability}")
    typer.echo(f"mask: {result.segmentation.mask}")
    for name in ("tree.swc", "report.html"):
        typer.echo(f"{name.split('.')[0]}: {result.folder / name}")


def _reconstruct_all(
    items: Sequence[Item], sources: Sequence[str], output: Path, weights: Path | None, options: ReconstructOptions,
    workers: Any, json: str | None,
) -> None:  # fmt: skip
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from medwave.workflows.batch import FAILED
    from medwave.workflows.reconstruct_batch import SUMMARY, reconstruct_batch

    with resumable(), block_progress() as (on_stage, on_progress):
        results = reconstruct_batch(
            items, output, sources=sources, weights=weights, options=options, command_line=command_line(),
            on_item=lambda item, number: on_stage(f"{item.name}, {number + 1} of {len(items)}"),
            on_stage=on_stage, on_progress=on_progress, workers=workers,
        )  # fmt: skip
    rows = [result.row() for result in results]
    tell = wants_table([{name: None if v == "" else v for name, v in row.items()} for row in rows], json)
    if tell:
        table = Table("volume", "status", "length", "F1", "ESA")
        for row in rows:
            table.add_row(Text(row["name"]), row["status"], *(_short(row[c]) for c in ("length", "f1", "esa")))
        Console().print(table)
    failed = [result for result in results if result.status == FAILED]
    for result in failed:
        typer.echo(f"failed: {' '.join(result.error.split())}", err=True)
    if tell:
        typer.echo(f"summary: {output / SUMMARY}")
    if failed:
        typer.echo(f"medwave: {len(failed)} of {len(results)} volumes failed", err=True)
        raise typer.Exit(1)


@with_options(ConvertVolumeOptions)
def convert_volume(
    volume: Annotated[str, typer.Argument(metavar="VOLUME", help=f"{VOLUME_KINDS[:-1]}, or a folder of TeraFly.")],
    output: Annotated[str, typer.Option("--output", "-o", help="OME-Zarr to make, a folder or s3://...")],
    *,
    options: ConvertVolumeOptions,
) -> None:
    """Convert VOLUME to OME-Zarr with a pyramid, in memory that does not grow with it."""
    from medwave.workflows.convert_volume import convert_volume as run

    with item_bar("convert") as on_progress:
        made = run(volume, output, options=options, on_progress=on_progress)
    typer.echo(f"volume: {made}")


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


def _show_plans(
    volumes: Sequence[str], weights: Path | None, options: SegmentOptions, workers: Any, json: str | None
) -> None:
    from medwave.workflows.segment_plan import plan_segmentation

    plans = [plan_segmentation(v, weights=weights, options=options, workers=workers) for v in volumes]
    if wants_table([{"volume": v, **plan.as_dict()} for v, plan in zip(volumes, plans, strict=True)], json):
        for volume, plan in zip(volumes, plans, strict=True):
            _show_plan(volume, plan)


def _show_plan(volume: str, plan: SegmentPlan) -> None:
    """What a segmentation will take, a line per fact."""
    size = " x ".join(map(str, plan.region.shape))
    busy = "all cubes looked at are empty" if plan.predict_s is None else f"predicted in {plan.predict_s:.3g} s"
    typer.echo(f"volume: {volume}, {size} voxels (z y x) to segment")
    typer.echo(f"tasks: {plan.tasks}, of {plan.blocks} blocks; {plan.slots} at a time")
    typer.echo(
        f"cubes: {plan.cubes}, {plan.cubes / plan.cubes_once:.2f} times as many as there are places; about "
        f"{plan.empty_share:.0%} empty"
    )
    typer.echo(f"in: {plan.bytes_in / 1e9:.3g} GB read; out: at most {plan.bytes_out / 1e9:.3g} GB before compression")
    typer.echo(f"memory: {plan.task_bytes / 1e9:.2g} GB for a worker")
    typer.echo(f"probe: a cube read in {plan.read_s:.3g} s, {busy}")
    typer.echo(f"expected: {plan.hours:.3g} hours")


def _record(folder: Path) -> dict[str, Any]:
    """Everything about a run: its ``run.json``."""
    from json import loads

    from medwave.workflows.run_folder import MARK

    return dict(loads((folder / MARK).read_text(encoding="utf-8")))


def _show(result: Segmentation, json: str | None) -> None:
    show_warnings(result.warnings)
    if not wants_table(_record(result.folder), json):
        return
    before = f", {result.blocks_before} of them by an earlier run" if result.blocks_before else ""
    typer.echo(
        f"{result.blocks} blocks{before}; {result.cubes.predicted} cubes predicted, {result.cubes.empty} empty; "
        f"{result.fibre_share:.3%} is fibre"
    )
    typer.echo(f"probability: {result.probability}")
    typer.echo(f"mask: {result.mask}")
