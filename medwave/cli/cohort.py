"""``medwave batch``, ``medwave propagate-labels`` and ``medwave template``: registrations of many images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from medwave.cli.options import CLUSTER, JSON, OUTPUT, WINET, file_option, wants_table, with_options
from medwave.cli.progress import command_line, item_progress, resumable, workers_of
from medwave.workflows.options_cohort import CohortOptions, PropagateOptions, TemplateOptions

LANDMARKS = ("landmark_weight", "landmark_reach", "space")
"""Options of landmarks, which only ``batch`` is given."""

SUFFIX = Annotated[str, typer.Option("--suffix", help="Images to take from a BIDS dataset.")]


@with_options(CohortOptions)
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS.csv|FOLDER|BIDS_DIR",
            help="Table with columns fixed and moving (free are name, fixed_labels, moving_labels, mask_fixed, "
            "mask_moving, lesion_fixed, lesion_moving, landmarks_fixed, landmarks_moving, init, fixed_channel_1, "
            "moving_channel_1, ...), folder of images or of pairs, or BIDS dataset.",
        ),
    ],
    output: OUTPUT,
    template: file_option("--to-template", "Register every image to this one.") = None,
    template_labels: file_option("--template-labels", "Label map of the template, for overlap.") = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Register every image to every other one.")] = False,
    weights: WINET = None,
    suffix: SUFFIX = "T1w",
    bids_space: Annotated[
        Optional[str],  # noqa: UP045  typer needs the old form
        typer.Option("--bids-space", help="Label of the template in BIDS names, such as MNI152NLin2009cAsym."),
    ] = None,
    cluster: CLUSTER = None,
    json: JSON = None,
    *,
    options: CohortOptions,
) -> None:
    """Register a cohort, with one page over all results. Repeat the command to go on after a stop.

    It goes on past a registration that fails, lists it in failed.csv, and its exit code is then 1.
    """
    from medwave.core.errors import InputError
    from medwave.core.files import input_file
    from medwave.workflows.batch import FAILED
    from medwave.workflows.bids import is_bids
    from medwave.workflows.cohort import FAILURES, INDEX, register_cohort
    from medwave.workflows.cohort_index import summary_values
    from medwave.workflows.cohort_items import cohort_pairs

    for path in (template, template_labels):
        if path is not None:
            input_file(path)
    if template_labels is not None and template is None:
        raise InputError(f"{template_labels}: --template-labels belongs to --to-template; name both")
    items = cohort_pairs(source, template=template, template_labels=template_labels, all_pairs=all_pairs, suffix=suffix)
    with (
        resumable(),
        workers_of(cluster, threads=options.threads, device=options.device) as workers,
        item_progress(_result) as on_outcome,
    ):
        outcomes = register_cohort(
            items, output, weights=weights, options=options, space=bids_space, command_line=command_line(),
            source=source, bids_source=source if source.is_dir() and is_bids(source) else None,
            on_outcome=on_outcome, workers=workers,
        )  # fmt: skip
    tell = wants_table([summary_values(outcome) for outcome in outcomes], json)
    if tell:
        typer.echo(f"index: {output / INDEX}")
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    if failed:
        if tell:
            typer.echo(f"failures: {output / FAILURES}")
        typer.echo(f"medwave: {failed} of {len(outcomes)} registrations failed", err=True)
        raise typer.Exit(1)


def _result(outcome: Any) -> str:
    from medwave.workflows.cohort_index import measures

    found = measures(outcome.run)
    if found["dice"] is not None:
        return f"Dice {found['dice']:.3f}"
    return "" if found["similarity_after"] is None else f"correlation {found['similarity_after']:.3f}"


@with_options(PropagateOptions, without=LANDMARKS)
def propagate_labels(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Image to label.")],
    atlases: Annotated[
        Path,
        typer.Argument(
            metavar="ATLASES",
            help="Folder of images X.nii.gz with X_labels.nii.gz, or CSV table with columns image and labels.",
        ),
    ],
    output: OUTPUT,
    *,
    options: PropagateOptions,
) -> None:
    """Label TARGET by atlases that are registered to it. Repeat the command to go on after a stop."""
    from medwave.workflows.propagate import AGREEMENT, atlases_of, propagate_labels

    found = atlases_of(atlases)
    with resumable(), item_progress(_result) as on_outcome:
        labels = propagate_labels(
            target, found, output, source=atlases, options=options, command_line=command_line(), on_outcome=on_outcome
        )  # fmt: skip
    typer.echo(f"labels: {labels}")
    typer.echo(f"agreement: {output / AGREEMENT}")


@with_options(TemplateOptions, without=LANDMARKS)
def template(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            help="Images of one contrast; also folders, BIDS datasets, and CSV tables with a column image.",
        ),
    ],
    output: OUTPUT,
    suffix: SUFFIX = "T1w",
    *,
    options: TemplateOptions,
) -> None:
    """Make the template of a cohort: the mean image in the mean shape. Repeat the command to go on after a stop.

    It goes on without an image that fails, lists it in failed.csv, and its exit code is then 1.
    """
    from medwave.workflows.template import FAILURES, TEMPLATE, build_template

    with resumable(), item_progress(lambda _: "") as on_outcome:
        made = build_template(
            images, output, options=options, suffix=suffix, command_line=command_line(), on_outcome=on_outcome,
            on_iteration=lambda number, of: typer.echo(f"medwave: iteration {number} of {of}", err=True),
        )  # fmt: skip
    typer.echo(f"template: {output / TEMPLATE}")
    typer.echo(f"page: {made.index}")
    if made.failed:
        typer.echo(f"failures: {output / FAILURES}")
        typer.echo(f"medwave: {len(made.failed)} images were left out", err=True)
        raise typer.Exit(1)
