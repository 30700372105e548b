"""Labels for an image from several atlases: each is registered to it, and their labels vote.

``DIR/labels.nii.gz`` lies on the grid of the target, ``DIR/agreement.nii.gz`` beside it tells which share of the vote
each label got, and ``DIR/runs/NAME`` are the registrations, as ``medwave batch`` makes them: repeated, the job passes
over those that are complete. All atlases must register; one that fails is named, and nothing is fused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from medwave import __version__
from medwave.core.errors import InputError
from medwave.core.files import StrPath, write_json
from medwave.core.geometry import Volume
from medwave.core.provenance import StageClock, check_unchanged, seen, versions
from medwave.core.threads import limited_threads
from medwave.engine.label_fusion import fuse_labels
from medwave.volumes import read_labels, read_volume, write_volume
from medwave.workflows.batch import FAILED, BatchProgress, Outcome, own_names
from medwave.workflows.cohort import RUNS, register_cohort
from medwave.workflows.cohort_items import PairItem, Subject, cohort_subjects
from medwave.workflows.options_cohort import PropagateOptions
from medwave.workflows.run_folder import FILES, MARK, result_folder, spare_inputs

LABELS, AGREEMENT = "labels.nii.gz", "agreement.nii.gz"
_ROLES = {"image": "moving", "labels": "moving_labels"}


def atlases_of(source: StrPath) -> list[Subject]:
    """The atlases of a folder or a table: images that have a label map.

    Raises:
        InputError: when there is none.
    """
    found = [subject for subject in cohort_subjects(source) if subject.labels is not None]
    if not found:
        raise InputError(
            f"{source}: no image with a label map; in a folder X.nii.gz goes with X_labels.nii.gz, a table has the "
            "columns image and labels"
        )
    return found


def propagate_labels(
    target: StrPath,
    atlases: Sequence[Subject],
    output: StrPath,
    *,
    source: StrPath | None = None,
    options: PropagateOptions | None = None,
    command_line: str = "",
    on_outcome: Callable[[Outcome[PairItem], BatchProgress], None] | None = None,
) -> Path:
    """Label an image by atlases.

    Args:
        target: image to label.
        atlases: images with label maps, such as :func:`atlases_of` gives; a name that comes again gets a number.
        output: folder for the results; made when absent.
        source: the table, if any, that the atlases come from; like images it is not replaced.
        options: of the registrations and of the fusion.
        command_line: the command that repeats the run.
        on_outcome: as for :func:`medwave.workflows.batch.run_items`.

    Returns:
        The path of the label map.

    Raises:
        InputError: when there is no atlas, or one could not be registered, or changed meanwhile.
        OutputError: when a result would replace the target, an atlas or the table.
    """
    options, clock = options or PropagateOptions(), StageClock()
    if not atlases:
        raise InputError("labels come from atlases: name at least one image with its label map")
    names = own_names(atlas.name for atlas in atlases)
    items = [_item(Path(target), atlas, name) for atlas, name in zip(atlases, names, strict=True)]
    inputs = seen(_inputs(Path(target), items))
    with result_folder(output) as folder, limited_threads(options.threads):
        given = [path for item in items for path in item.files.values()]
        spare_inputs((folder / name for name in (LABELS, AGREEMENT, MARK)), given)
        (folder / MARK).unlink(missing_ok=True)
        with clock.stage("register"):
            outcomes = register_cohort(
                items, folder, source=source, options=options.cohort, command_line=command_line, on_outcome=on_outcome
            )  # fmt: skip
        failed = [outcome for outcome in outcomes if outcome.status == FAILED]
        if failed:
            raise InputError(f"{len(failed)} of {len(items)} atlases could not be registered: {failed[0].error}")
        with clock.stage("fuse"):
            share = _fuse(target, [folder / RUNS / item.name for item in items], folder, options)
        check_unchanged(inputs)
        _record(folder, inputs, options, share, clock, command_line)
    return folder / LABELS


def _item(target: Path, atlas: Subject, name: str) -> PairItem:
    if atlas.labels is None:
        raise InputError(f"{atlas.image}: an atlas is an image with a label map; name its label map")
    return PairItem(name, {"fixed": target, "moving": atlas.image, "moving_labels": atlas.labels})


def _inputs(target: Path, items: Sequence[PairItem]) -> dict[str, Path]:
    atlases = {f"{item.name} {what}": item.files[role] for item in items for what, role in _ROLES.items()}
    return {"target": target, **atlases}


def _fuse(target: StrPath, runs: Sequence[Path], folder: Path, options: PropagateOptions) -> float:
    """Fuse what the runs carried over, and write it; the mean share of the vote where there is a label."""
    image = read_volume(target)
    labels = np.stack([read_labels(run / FILES["warped labels"][0]).data for run in runs])
    images = None
    if options.fusion == "joint":
        images = np.stack([np.asarray(read_volume(run / FILES["warped"][0]).data, np.float32) for run in runs])
    fused, share = fuse_labels(
        labels, method=options.fusion, target=np.asarray(image.data, np.float32), images=images,
        radius_voxels=options.patch_radius,
    )  # fmt: skip
    low, high = int(fused.min()), int(fused.max())
    kinds = (np.uint8, np.int16, np.int32, np.int64)
    small = next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    write_volume(folder / LABELS, Volume(fused.astype(small), image.grid, LABELS))
    write_volume(folder / AGREEMENT, Volume(share, image.grid, AGREEMENT), dtype=np.float32)
    return float(share[fused != 0].mean()) if (fused != 0).any() else 1.0


def _record(
    folder: Path, inputs: Mapping[str, Mapping[str, str]], options: PropagateOptions, share: float, clock: StageClock,
    command_line: str,
) -> None:  # fmt: skip
    write_json(folder / MARK, {
        "medwave": __version__,
        "command": command_line,
        "options": asdict(options),
        "inputs": inputs,
        "mean_share_of_vote": share,
        "stages": [asdict(stage) for stage in clock.stages],
        "files": {"labels": LABELS, "agreement": AGREEMENT},
        "versions": versions(),
    })  # fmt: skip
