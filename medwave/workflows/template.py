"""The template of a cohort: the image in the middle of all of them, in shape and in grey levels.

At first all images are aligned linearly to the one of middle size, and averaged in the middle of these maps. Then, as
often as asked, all are registered to the template, and a new one is made (:mod:`medwave.workflows.template_average`).

``DIR/template.nii.gz`` is the last one; ``DIR/iterations/N`` has each with its measures. ``DIR/index.html`` shows them,
``failed.csv`` lists the images that could not be used: one that fails is left out from there on. Repeated, the job
tries it again (for which ``iterations/N/runs`` keeps the fields of that step), and goes on where it was stopped: each
step notes hashes of what it was made from. Removing ``DIR/iterations`` begins anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medwave import __version__
from medwave.core.errors import InputError, MedwaveError
from medwave.core.files import StrPath, json_text, sweep_partial, write_json
from medwave.core.geometry import Volume
from medwave.core.locks import only_run_in
from medwave.core.provenance import check_unchanged, fingerprint, versions
from medwave.core.threads import limited_threads
from medwave.engine.affine import AffineResult, align
from medwave.fields.middle import to_common_world
from medwave.volumes import FieldStep, read_field, read_volume, write_field, write_volume
from medwave.workflows.batch import FAILED, BatchProgress, Outcome, run_items, threads_each, write_table
from medwave.workflows.options import RegisterOptions
from medwave.workflows.options_cohort import TemplateOptions
from medwave.workflows.run_folder import MARK, result_folder, spare_inputs
from medwave.workflows.template_average import Average, Moved, average, shape_update
from medwave.workflows.template_images import TemplateImage, first_reference, images_of, look_at, template_grid

TEMPLATE, STEPS, RUNS, FIELD, RECORD = "template.nii.gz", "iterations", "runs", "field.nii.gz", "iteration.json"
INDEX, FAILURES = "index.html", "failed.csv"
FEWEST = 2

Record = dict[str, Any]


@dataclass(frozen=True)
class TemplateResult:
    """What :func:`build_template` made.

    Attributes:
        template: the last template.
        iterations: measures of each: ``shift_mm``, ``change``, ``spread`` (see
            :class:`medwave.workflows.template_average.Average`) and ``images``, how many it is made of.
        failed: images that were left out: name -> (file, reason).
        index: path of the page.
    """

    template: Volume
    iterations: list[Record]
    failed: dict[str, tuple[Path, str]]
    index: Path


@dataclass(frozen=True)
class Alignments:
    """The work on each image in one iteration: ``A_i`` at first, ``A_i`` and ``u_i`` later.

    Attributes:
        folder: of the iteration.
        target: the image or the template to register to.
        options: of the registrations.
        starts: name -> matrix to start from; empty in the first iteration, which is linear.
    """

    folder: Path
    target: Path
    options: RegisterOptions
    starts: Mapping[str, list[list[float]]]

    def name(self, item: TemplateImage) -> str:
        return item.name

    def request(self, item: TemplateImage) -> Record:
        """What is asked for an image, as plain values."""
        asked = {name: value for name, value in asdict(self.options).items() if name != "threads"}
        plain = {
            "name": item.name, "image": item.digest, "target": fingerprint(self.target), "options": asked,
            "start": self.starts.get(item.name),
        }  # fmt: skip
        return dict(json.loads(json_text(plain)))

    def known(self, item: TemplateImage) -> Record | None:
        return _read_record(self.folder / RUNS / item.name / MARK, self.request(item))

    def run(self, item: TemplateImage) -> Record:
        folder = self.folder / RUNS / item.name
        with result_folder(folder):
            (folder / MARK).unlink(missing_ok=True)
            found = self._deform(item, folder) if self.starts else self._align(item)
            check_unchanged({item.name: {"path": item.path, "sha256": item.digest}})
            record = {"request": self.request(item), **found}
            write_json(folder / MARK, record)
        return record

    def _align(self, item: TemplateImage) -> Record:
        if self.options.affine == "none":
            return {"matrix": np.eye(4).tolist()}
        with limited_threads(self.options.threads):
            found = align(read_volume(self.target), read_volume(item.path), kind=self.options.affine)
        return {"matrix": _trusted(item, found)}

    def _deform(self, item: TemplateImage, folder: Path) -> Record:
        from medwave.workflows.register import register

        start = np.array(self.starts[item.name])
        result = register(self.target, item.path, init=start, options=self.options)
        write_field(folder / FIELD, result.displacement_voxels, result.fixed.grid)
        if result.affine is None:
            return {"matrix": result.matrix.tolist()}
        return {"matrix": _trusted(item, result.affine)}


def build_template(
    images: Sequence[StrPath],
    output: StrPath,
    *,
    options: TemplateOptions | None = None,
    suffix: str = "T1w",
    command_line: str = "",
    on_iteration: Callable[[int, int], None] | None = None,
    on_outcome: Callable[[Outcome[TemplateImage], BatchProgress], None] | None = None,
    **changes: Any,
) -> TemplateResult:
    """Make the template of a cohort.

    Args:
        images: image files of one contrast; also folders, BIDS datasets and tables with a column ``image``.
        output: folder for the results; made when absent.
        options: all other options; single ones can be given by name: ``build_template(files, d, preset="fast")``.
        suffix: of the images of a BIDS dataset.
        command_line: the command that repeats the run.
        on_iteration: told the number of each iteration, and of how many, when it begins.
        on_outcome: as for :func:`medwave.workflows.batch.run_items`, in each iteration.

    Raises:
        InputError: when fewer than two images can be used.
        OutputError: when the folder cannot be written, a result would replace an image or a table, or another run
            works in the folder.
    """
    options = replace(options or TemplateOptions(), **changes)
    paths = images_of(images, suffix=suffix)
    with result_folder(output, STEPS) as folder, only_run_in(folder):
        spare_inputs((folder / name for name in (TEMPLATE, INDEX, FAILURES, MARK)), [*paths, *images])
        sweep_partial(folder)
        (folder / MARK).unlink(missing_ok=True)
        good, failed = look_at(paths)
        _enough(good, failed)
        records: list[Record] = []
        template = first_reference(good).path
        for number in range(options.iterations + 1):
            if on_iteration:
                on_iteration(number, options.iterations)
            place = folder / STEPS / str(number)
            record = _iteration(place, template, good, records[-1] if records else None, options, on_outcome)
            failed |= {image.name: (image.path, record["failed"][image.name]) for image in _lost(good, record)}
            good = [image for image in good if image.name not in record["failed"]]
            records.append(record)
            template = place / TEMPLATE
        result = read_volume(template)
        write_volume(folder / TEMPLATE, result)
        told = [{key: record[key] for key in ("images", "shift_mm", "change", "spread")} for record in records]
        _write_overview(folder, told, good, failed, options, command_line)
    return TemplateResult(result, told, failed, folder / INDEX)


def _iteration(
    place: Path, target: Path, images: Sequence[TemplateImage], before: Record | None, options: TemplateOptions,
    on_outcome: Callable[[Outcome[TemplateImage], BatchProgress], None] | None,
) -> Record:  # fmt: skip
    """Register all images to a target and make a template of them; the record, as ``iteration.json`` has it."""
    starts = {} if before is None else before["starts"]
    jobs = max(1, min(options.jobs, len(images)))
    each = replace(options.registration, threads=threads_each(options.threads, jobs))
    work = Alignments(place, target, each, starts)
    asked = {"runs": [work.request(image) for image in images], "sharpen": options.sharpen, "spacing": options.spacing}
    known = _read_record(place / RECORD, asked)
    if known is None or known["failed"] or not (place / TEMPLATE).is_file():
        with result_folder(place, RUNS):
            (place / RECORD).unlink(missing_ok=True)
            outcomes = run_items(images, work, jobs=jobs, threads=each.threads, on_outcome=on_outcome)
            failed = {outcome.item.name: outcome.error for outcome in outcomes if outcome.status == FAILED}
            done = [outcome for outcome in outcomes if outcome.status != FAILED]
            _enough([outcome.item for outcome in done], failed)
            with limited_threads(options.threads):
                found, homes = _merge(place, target, done, before is not None, options)
            write_volume(place / TEMPLATE, found.template)
            known = {
                "request": asked, "failed": failed, "starts": homes, "images": len(done), "shift_mm": found.shift_mm,
                "change": found.change, "spread": found.spread,
            }  # fmt: skip
            write_json(place / RECORD, known)
    if not known["failed"]:  # else a repeat merges them anew, with what failed
        shutil.rmtree(place / RUNS, ignore_errors=True)  # the fields are large, and their work is done
    return known


def _merge(
    place: Path, target: Path, done: Sequence[Outcome[TemplateImage]], deformed: bool, options: TemplateOptions
) -> tuple[Average, dict[str, list[list[float]]]]:
    """The new template, and name -> matrix from its world to each image's."""
    moved = [
        Moved(o.item, np.array(o.run["matrix"]), _FieldFile(place / RUNS / o.item.name / FIELD) if deformed else None)
        for o in done
    ]
    last = read_volume(target)
    middle = np.mean([_center(one) for one in moved], axis=0)
    home = to_common_world([one.matrix for one in moved], middle)
    homes = {one.image.name: (one.matrix @ home).tolist() for one in moved}
    if deformed:
        grid = last.grid
    else:
        grid = template_grid(
            [one.image for one in moved], [np.array(homes[one.image.name]) for one in moved], options.spacing
        )
    step = shape_update(moved, home, last.grid if deformed else None, grid)
    return average(moved, step, sharpen=options.sharpen, last=last if deformed else None, name=TEMPLATE), homes


@dataclass(frozen=True)
class _FieldFile:
    """A field that is read when it is called for."""

    path: Path

    def __call__(self) -> FieldStep:
        return FieldStep(*read_field(self.path))


def _center(one: Moved) -> np.ndarray:
    """The middle of an image's subject, in the world it was registered to."""
    center = one.image.corners_mm.mean(axis=0)
    return np.asarray(np.linalg.solve(one.matrix, [*center, 1.0])[:3])


def _trusted(item: TemplateImage, found: AffineResult) -> list[list[float]]:
    if found.failed:
        raise InputError(f"{item.path}: it could not be aligned to the others: {found.reason}")
    return [[float(x) for x in row] for row in found.matrix]


def _read_record(path: Path, asked: Any) -> Record | None:
    """A record of the same request, or None."""
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        return record if record["request"] == asked else None
    except (OSError, ValueError, KeyError, TypeError, MedwaveError):
        return None


def _lost(images: Sequence[TemplateImage], record: Record) -> list[TemplateImage]:
    return [image for image in images if image.name in record["failed"]]


def _enough(images: Sequence[TemplateImage], failed: Mapping[str, Any]) -> None:
    if len(images) < FEWEST:
        reasons = [reason if isinstance(reason, str) else reason[1] for reason in failed.values()]
        first = f", {len(reasons)} failed: {reasons[0]}" if reasons else ""
        raise InputError(f"a template is made of {FEWEST} or more images, {len(images)} can be used{first}")


def _write_overview(
    folder: Path, told: Sequence[Record], images: Sequence[TemplateImage], failed: Mapping[str, tuple[Path, str]],
    options: TemplateOptions, command_line: str,
) -> None:  # fmt: skip
    from medwave.reports.template import TemplateRow, write_template_page

    if failed:
        rows = [{"name": n, "image": path.absolute(), "error": error} for n, (path, error) in sorted(failed.items())]
        write_table(folder / FAILURES, ("name", "image", "error"), rows)
    else:
        (folder / FAILURES).unlink(missing_ok=True)
    asked = {name: value for name, value in asdict(options).items() if name not in ("jobs", "threads")}
    files = [f"{STEPS}/{number}/{TEMPLATE}" for number in range(len(told))]
    rows_of_page = [
        TemplateRow(file, read_volume(folder / file), **record) for file, record in zip(files, told, strict=True)
    ]
    write_template_page(
        folder / INDEX, rows_of_page, failed={name: reason for name, (_, reason) in failed.items()}, options=asked,
        versions=versions(), command_line=command_line,
    )  # fmt: skip
    write_json(folder / MARK, {
        "medwave": __version__,
        "command": command_line,
        "options": asked,
        "inputs": {image.name: {"path": str(image.path), "sha256": image.digest} for image in images},
        "failed": {name: {"path": str(path), "error": error} for name, (path, error) in failed.items()},
        "iterations": list(told),
        "files": {"template": TEMPLATE},
        "versions": versions(),
    })  # fmt: skip
