"""Register a cohort: a folder per pair, a page over all of them, a list of those that failed.

``DIR/runs/NAME`` is what ``medwave register`` writes, with ``preview.jpg`` beside it. Repeated, the job passes over
the runs that are complete and were asked the same: their ``run.json``, written last, holds hashes of the inputs, the
names of the results and the options (but for the number of threads, which changes no result). ``index.html``,
``summary.csv`` and, when something failed, ``failed.csv`` are written at the end. A cohort from a BIDS dataset is
itself one, a derivative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, MedwaveError
from medwave.core.files import StrPath, json_text, sweep_partial
from medwave.core.locks import only_run_in
from medwave.core.memory import freed_memory_kept
from medwave.core.provenance import check_unchanged, seen
from medwave.scale import Workers
from medwave.workflows.batch import FAILED, BatchProgress, Outcome, run_items, threads_each, write_table
from medwave.workflows.bids import OWN_FILES, check_label, link_results, result_names, write_dataset
from medwave.workflows.cohort_index import SUMMARY_COLUMNS, cohort_rows, summary_row
from medwave.workflows.cohort_items import CHANNELS, ROLES, SIDES, PairItem, stem
from medwave.workflows.options import RegisterOptions
from medwave.workflows.options_cohort import CohortOptions
from medwave.workflows.run_folder import MARK, files_behind, result_folder, run_files, spare_inputs

RUNS, INDEX, SUMMARY, FAILURES = "runs", "index.html", "summary.csv", "failed.csv"
PREVIEW = "preview.jpg"
_PROCESS_BYTES, _BYTES_PER_VOXEL, _USUAL_VOXELS = 500_000_000, 60, 256**3


def pair_request(inputs: Mapping[str, Mapping[str, str]], options: RegisterOptions) -> dict[str, Any]:
    """What a registration was asked for, as plain values: hashes of its inputs, and the options that shape it."""
    asked = {name: value for name, value in asdict(options).items() if name != "threads"}
    hashes = {role: {key: entry[key] for key in entry if key != "path"} for role, entry in inputs.items()}
    return dict(json.loads(json_text({**hashes, "options": asked})))


def register_arguments(files: Mapping[str, StrPath]) -> dict[str, Any]:
    """The files of an item as arguments of :func:`medwave.register`: further channels become lists."""
    single = {role: path for role, path in files.items() if role not in CHANNELS}
    lists = {f"{side}_channels": [files[r] for r in CHANNELS if r in files and r.startswith(side)] for side in SIDES}
    return single | lists


def complete_run(folder: Path, files: Mapping[str, StrPath], options: RegisterOptions) -> dict[str, Any] | None:
    """The record of a run that was asked the same and whose files are all there, or None."""
    try:
        run = json.loads((folder / MARK).read_text(encoding="utf-8"))
        there = all((folder / name).is_file() for name in (*run["files"].values(), "report.html", PREVIEW))
        return run if there and run["request"] == pair_request(seen(files), options) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MedwaveError):
        return None


@dataclass(frozen=True)
class Registrations:
    """The work on each pair of a cohort."""

    folder: Path
    options: RegisterOptions
    weights: StrPath | None = None
    command_line: str = ""

    def name(self, item: PairItem) -> str:
        return item.name

    def files(self, item: PairItem) -> dict[str, StrPath]:
        return {**item.files, **({} if self.weights is None else {"weights": self.weights})}

    def known(self, item: PairItem) -> dict[str, Any] | None:
        return complete_run(self.folder / item.name, self.files(item), self.options)

    @freed_memory_kept()
    def run(self, item: PairItem) -> dict[str, Any]:
        from medwave.reports.cohort import write_preview
        from medwave.workflows.register import register

        folder, files = self.folder / item.name, self.files(item)
        inputs = seen(files)
        result = register(**register_arguments(files), options=self.options)
        check_unchanged(inputs)
        asked = pair_request(inputs, self.options)
        with result_folder(folder, "transform"):
            sweep_partial(folder)
            (folder / MARK).unlink(missing_ok=True)
            write_preview(folder / PREVIEW, result.fixed, result.warped.data)
            result.save(folder, inputs=inputs, command_line=self.command_line, request=asked)
        return dict(json.loads((folder / MARK).read_text(encoding="utf-8")))


def register_cohort(
    items: Sequence[PairItem],
    output: StrPath,
    *,
    weights: StrPath | None = None,
    options: CohortOptions | None = None,
    source: StrPath | None = None,
    bids_source: StrPath | None = None,
    space: str | None = None,
    command_line: str = "",
    on_outcome: Callable[[Outcome[PairItem], BatchProgress], None] | None = None,
    workers: Workers | None = None,
) -> list[Outcome[PairItem]]:
    """Register all pairs; one that fails is noted, and the next one begins.

    Args:
        items: such as :func:`medwave.workflows.cohort_items.cohort_pairs` gives.
        output: the folder; made when absent.
        weights, command_line: as for :func:`medwave.register`.
        options: of each registration, and how many run at a time.
        source: the table, if any, that the items come from; like images it is not replaced.
        bids_source: the dataset the items come from: the folder becomes a derivative of it.
        space: label of the template in names of BIDS; letters and digits of its file name when left out.
        on_outcome: as for :func:`medwave.workflows.batch.run_items`.
        workers: of a cluster (:func:`medwave.scale.open_workers`), in place of processes of this one; all of them read
            the images and write to the folder under the same names.

    Raises:
        MissingFileError: when there are no such weights.
        InputError: when a name of BIDS cannot have the label of the template, or two results would have one name.
        OutputError: when the folder or a table cannot be written, a result would replace an input, or another run
            works in the folder.
    """
    options = options or CohortOptions()
    if bids_source is not None:
        _check_names(items, space)
    if weights is not None:
        from medwave.models.weights import weight_file  # torch takes a second to import

        weights = weight_file(weights)
    jobs = max(1, min(options.jobs, len(items)))
    threads = threads_each(options.threads, jobs) if workers is None else options.threads or workers.threads
    each = replace(options.registration, threads=threads)
    needs = None
    if workers is not None:
        items = [everywhere(item) for item in items]
        needs = [registration_bytes(item) for item in items]
        weights = None if weights is None else Path(weights).absolute()
    with result_folder(output, RUNS) as folder, only_run_in(folder):
        _spare_inputs(folder, items, [path for path in (weights, source) if path is not None], bids_source)
        sweep_partial(folder)
        work = Registrations(folder.absolute() / RUNS, each, weights, command_line)
        outcomes = run_items(
            items, work, jobs=jobs, threads=threads, on_outcome=on_outcome, workers=workers, memory_bytes=needs
        )
        if bids_source is not None:
            write_dataset(folder, source=Path(bids_source), command_line=command_line)
            for outcome in outcomes:
                _link(folder, outcome, space)
        _write_overview(folder, outcomes, options, command_line)
    return outcomes


def _spare_inputs(
    folder: Path, items: Sequence[PairItem], others: Sequence[StrPath], bids_source: StrPath | None
) -> None:
    """Refuse a folder in which a result would replace what the cohort is made from."""
    targets = [folder / name for name in (INDEX, SUMMARY, FAILURES, *(() if bids_source is None else OWN_FILES))]
    runs = [file for item in items for file in run_files(folder / RUNS / item.name)]
    described = [] if bids_source is None else [Path(bids_source) / name for name in OWN_FILES]
    given = files_behind(*(path for item in items for path in item.files.values()))
    spare_inputs([*targets, *runs], [*described, *others, *given])


def everywhere(item: PairItem) -> PairItem:
    """The item with whole paths, which mean the same in other processes."""
    return replace(item, files={role: Path(path).absolute() for role, path in item.files.items()})


def registration_bytes(item: PairItem) -> int:
    """Memory that a registration needs, at most: libraries, and both images in working precision."""
    import nibabel

    voxels = 0
    for role in ("fixed", "moving"):
        try:
            voxels += math.prod(nibabel.load(item.files[role]).shape)  # type: ignore[attr-defined]
        except Exception:  # another format, or unusable, which the registration itself will say
            voxels += _USUAL_VOXELS
    return _PROCESS_BYTES + _BYTES_PER_VOXEL * voxels


def _link(folder: Path, outcome: Outcome[PairItem], space: str | None) -> None:
    item = outcome.item
    if item.bids is None:
        return
    fixed, moving = item.bids
    sources = {role: str(item.files[role]) for role in ("fixed", "moving")}
    run = None if outcome.status == FAILED else folder / RUNS / item.name
    link_results(folder, run, fixed, moving, _label(item, space), sources)


def _check_names(items: Sequence[PairItem], space: str | None) -> None:
    """Refuse a label that names of BIDS cannot have, and images whose results would get the same name."""
    owners: dict[str, PairItem] = {}
    for item in items:
        label = _label(item, space)
        check_label(label)
        for name in () if item.bids is None else result_names(*item.bids, label).values():
            if (other := owners.setdefault(name, item)) is not item:
                raise InputError(
                    f"{other.files['moving']} and {item.files['moving']}: results of both would be called {name}; name "
                    "pairs in a table (columns fixed and moving), whose results stay in folders of their own"
                )


def _label(item: PairItem, space: str | None) -> str:
    """What names of BIDS call the fixed image: it itself, or the space of a template."""
    if item.bids is not None and item.bids[0] is not None:
        return item.bids[0].label
    return space or "".join(c for c in stem(item.files["fixed"]) if c.isascii() and c.isalnum())


def _write_overview(
    folder: Path, outcomes: Sequence[Outcome[PairItem]], options: CohortOptions, command_line: str
) -> None:
    from medwave.reports.cohort import write_cohort_index

    write_table(folder / SUMMARY, SUMMARY_COLUMNS, (summary_row(outcome) for outcome in outcomes))
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    if failed:
        rows = [{"name": o.item.name, **everywhere(o.item).files, "error": o.error} for o in failed]
        roles = [role for role in (*ROLES, *CHANNELS) if any(role in row for row in rows)]
        write_table(folder / FAILURES, ("name", *roles, "error"), rows)
    else:
        (folder / FAILURES).unlink(missing_ok=True)
    asked = {name: value for name, value in asdict(options).items() if name not in ("jobs", "threads")}
    shown = cohort_rows(outcomes, folder, RUNS, PREVIEW)
    write_cohort_index(folder / INDEX, shown, options=asked, command_line=command_line)
