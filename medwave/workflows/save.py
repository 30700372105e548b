"""Write a registration to a folder: images, transforms, measures, report.

Every file is written whole or not at all; ``run.json`` comes last and marks a complete run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medwave import __version__
from medwave.core.files import StrPath, write_json
from medwave.core.geometry import Grid, Volume
from medwave.core.memory import freed_memory_kept
from medwave.core.provenance import StageClock, seen, versions
from medwave.core.threads import run_slabs
from medwave.engine.fixed_contrast import in_contrast_of
from medwave.fields.kernels import largest_square_within
from medwave.metrics.registration import dice, folding, inverse_consistency_mm, log_jacobian_sd
from medwave.reports.registration import FigureOfMerit, RegistrationReport, write_registration_report
from medwave.volumes import write_affine, write_composite, write_field, write_inverse_composite, write_volume
from medwave.volumes.displacement import stored_field
from medwave.workflows.pair import resample, resample_labels
from medwave.workflows.run_folder import FILES, MARK, channel_name, result_folder

if TYPE_CHECKING:
    from medwave.workflows.register import Registration


def save_registration(
    result: Registration,
    folder: StrPath,
    *,
    inputs: Mapping[str, str | Mapping[str, str]] | None = None,
    command_line: str = "",
    true_error_mm: npt.NDArray[np.floating] | None = None,
    true_error_mean_mm: tuple[float, float] | None = None,
    clock: StageClock | None = None,
    request: Mapping[str, Any] | None = None,
) -> Path:
    """Write everything about a registration.

    Args:
        result: what :func:`medwave.register` returned.
        folder: where to write; made when absent.
        inputs: role -> path of the input files, hashed into ``run.json``, or what
            :func:`medwave.core.provenance.seen` told of them before they were read; when left out, what
            :func:`medwave.register` noted.
        command_line: the command that repeats the run.
        true_error_mm, true_error_mean_mm: known error per voxel and its means before and after (demo only).
        clock: continues the stages of the run.
        request: what was asked, noted in ``run.json``; a cohort tells by it whether a run must be repeated.

    Returns:
        The path of ``report.html``.
    """
    with result_folder(folder, "transform") as path, freed_memory_kept():
        (path / MARK).unlink(missing_ok=True)
        given = result.inputs if inputs is None else inputs
        noted = {r: dict(p) if isinstance(p, Mapping) else seen({r: p})[r] for r, p in given.items()}
        true_error = true_error_mm, true_error_mean_mm
        return _save(result, path, noted, command_line, *true_error, clock or StageClock(), request)


def _save(
    result: Registration, path: Path, inputs: Mapping[str, Mapping[str, str]], command_line: str,
    true_error_mm: npt.NDArray[np.floating] | None, true_error_mean_mm: tuple[float, float] | None, clock: StageClock,
    request: Mapping[str, Any] | None,
) -> Path:  # fmt: skip
    with clock.stage("write"):
        files = _write_files(result, path)
    with clock.stage("measure"):
        images = _images(result)
        figures = _figures(result, images)
        overlaps = _overlaps(result)
    bends, packages = _bends(result), versions()
    with clock.stage("report"):
        report = RegistrationReport(
            fixed=result.fixed, moving=result.moving, warped=result.warped.data, before=images["before"],
            affine_only=images["after_affine"], displacement_voxels=result.displacement_voxels if bends else None,
            jacobian=result.jacobian if bends else None, fixed_labels=_data(result.fixed_labels),
            warped_labels=_data(result.warped_labels), figures=figures, dice=overlaps,
            true_error_mm=true_error_mm, true_error_mean_mm=true_error_mean_mm,
            status="warning" if result.warnings else "ok", messages=result.warnings,
            stages=[tuple(asdict(s).values()) for s in (*result.stages, *clock.stages)],
            options=asdict(result.options), versions=packages, files=files, command_line=command_line,
        )  # fmt: skip
        write_registration_report(path / "report.html", report)
    stages = [asdict(stage) for stage in (*result.stages, *clock.stages)]
    write_json(path / MARK, {
        "medwave": __version__,
        "command": command_line,
        "working_folder": _working_folder(),
        "status": report.status,
        "warnings": list(result.warnings),
        "options": asdict(result.options),
        **({} if request is None else {"request": request}),
        "inputs": inputs,
        "fixed_grid": result.fixed.grid.describe(),
        "moving_grid": result.moving.grid.describe(),
        "grids": {"fixed": _grid(result.fixed.grid), "moving": _grid(result.moving.grid)},
        "affine": None if result.affine is None else asdict(result.affine),
        "figures": {f.name: {k: v for k, v in f._asdict().items() if k not in ("name", "note")} for f in figures},
        "dice": {str(k): {"before": v[1], "after": v[2]} for k, v in overlaps.items()},
        "true_error_mean_mm": true_error_mean_mm,
        "similarity": result.similarity,
        "stages": stages,
        "total": {
            "cpu_s": sum(s["cpu_s"] for s in stages),
            "wall_s": sum(s["wall_s"] for s in stages),
            "peak_rss_mb": max(s["peak_rss_mb"] for s in stages),
        },
        "files": {name: relative for name, (relative, _) in files.items()},
        "versions": packages,
    })  # fmt: skip
    return path / "report.html"


def _working_folder() -> str | None:
    """Where relative paths of the command and the inputs begin."""
    try:
        return str(Path.cwd())
    except OSError:  # it was removed meanwhile
        return None


def _write_files(result: Registration, path: Path) -> dict[str, tuple[str, str]]:
    grid = result.fixed.grid
    present = dict(FILES)
    write_volume(path / FILES["warped"][0], result.warped, dtype=np.float32)
    write_volume(path / FILES["jacobian"][0], Volume(result.jacobian, grid, "jacobian"), dtype=np.float32)
    if result.warped_labels is not None:
        write_volume(path / FILES["warped labels"][0], result.warped_labels)
    else:
        present.pop("warped labels")
        (path / FILES["warped labels"][0]).unlink(missing_ok=True)  # of an older run
    for old in path.glob(channel_name("[0-9]*")):
        old.unlink()  # an older run may have had more
    for number, channel in enumerate(result.warped_channels, start=1):
        present[f"warped channel {number}"] = channel_name(number), f"further channel {number} on the fixed grid"
        write_volume(path / channel_name(number), channel, dtype=np.float32)
    write_affine(path / FILES["affine"][0], result.matrix)
    for prefix, displacement, write in (
        ("", result.displacement_voxels, write_composite), ("inverse ", result.inverse_voxels, write_inverse_composite),
    ):  # fmt: skip
        alone, composite = (path / FILES[f"{prefix}{kind}"][0] for kind in ("field", "composite"))
        field = stored_field(displacement, grid, path=alone)
        write_field(alone, field, grid)
        write(composite, result.matrix, field, grid)
        del field  # else the next one needs as much memory again
    return present


def _images(result: Registration) -> dict[str, npt.NDArray[np.float32]]:
    """The moving image on the fixed grid at each stage."""
    moving = Volume(np.ascontiguousarray(result.moving.data, dtype=np.float32), result.moving.grid)
    return {
        "before": resample(moving, np.eye(4), result.fixed.grid),
        "after_affine": resample(moving, result.matrix, result.fixed.grid),
        "after": np.asarray(result.warped.data),
    }


def _figures(result: Registration, images: Mapping[str, npt.NDArray[np.float32]]) -> list[FigureOfMerit]:
    """Measures of the run, most telling first."""
    region = result.subject
    fixed = np.asarray(result.fixed.data, dtype=np.float32)[region]
    compared = {stage: image[region] for stage, image in images.items()}
    if matched := result.options.metric != "lncc":
        compared = {stage: _in_contrast_of(fixed, values) for stage, values in compared.items()}
    correlation = {stage: _correlation(fixed, values) for stage, values in compared.items()}
    folds = folding(result.displacement_voxels, jacobian=result.jacobian)
    unevenness = log_jacobian_sd(result.displacement_voxels, region, jacobian=result.jacobian)
    consistency = inverse_consistency_mm(
        result.displacement_voxels, result.inverse_voxels, result.fixed.grid.affine, region
    )
    rows = [
        FigureOfMerit("Correlation in the subject", **correlation, better="higher" if fixed.size else "",
                      note="with the moving image in the contrast of the fixed one" if matched else ""),
        FigureOfMerit("Inverse consistency", after=consistency, unit="mm", note="mean |u o u_inv| in the subject"),
        FigureOfMerit("Folded voxels", after=float(folds.count), note="determinant of the Jacobian <= 0"),
        FigureOfMerit("SD of log Jacobian", after=unevenness, note="in the subject: how unevenly volume changes"),
        FigureOfMerit("Largest displacement", after=_largest_mm(result.displacement_voxels, result.fixed.grid, region),
                      unit="mm", note="of the deformable part, in the subject"),
        FigureOfMerit("Volume change of the affine", after=float(np.linalg.det(result.matrix[:3, :3]))),
    ]  # fmt: skip
    if result.landmarks is not None:
        measured, pulled = result.landmarks, result.options.deformable and result.options.landmark_weight
        told = "pulled on the deformation" if pulled else "held out"
        means = (float(d.mean()) for d in (measured.before_mm, measured.affine_mm, measured.after_mm))
        rows.insert(0, FigureOfMerit(
            "Target registration error", *means, unit="mm", better="lower",
            note=f"mean over {len(measured.after_mm)} landmarks, which {told}",
        ))  # fmt: skip
    if result.affine is not None:
        similarity = result.affine.similarity_before, result.affine.similarity_after
        rows.insert(1, FigureOfMerit(
            "Normalised mutual information", *similarity,
            note="around the subject, mean over channels, coarse grid; 1 = unrelated",
        ))  # fmt: skip
    return rows


def _bends(result: Registration) -> bool:
    """Whether there is a deformable part: a rigid or affine result has no plates of one."""
    return bool(result.options.deformable or result.displacement_voxels.any())


def _largest_mm(displacement: npt.NDArray[np.float32], grid: Grid, region: npt.NDArray[np.bool_]) -> float:
    largest = np.empty(len(region), dtype=np.float32)
    run_slabs(largest_square_within, len(region), displacement, grid.affine[:3, :3].astype(np.float32), region, largest)
    return math.sqrt(largest.max())


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    if a.size == 0:
        return 0.0
    a, b = (values - np.float32(values.mean(dtype=np.float64)) for values in (a, b))
    a, b = (np.ldexp(values, -int(np.frexp(np.abs(values).max())[1])) for values in (a, b))  # squares stay finite
    spread = float(np.dot(a, a)) * float(np.dot(b, b))
    return float(np.dot(a, b)) / math.sqrt(spread) if spread > 0 else 0.0


def _in_contrast_of(fixed: npt.NDArray[np.float32], moving: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intensities of another contrast as those of the fixed image: their own correlation may well be negative."""
    if moving.size == 0:
        return moving
    low, high = np.percentile(moving, (0.5, 99.5))
    scaled = (moving - np.float32(low)) / np.float32(max(high - low, 1e-12))
    return in_contrast_of(fixed, scaled, scaled, np.ones(scaled.shape, dtype=bool))


def _overlaps(result: Registration) -> dict[int, tuple[str, float, float]]:
    """Label -> name, Dice after the affine, Dice at the end."""
    if result.fixed_labels is None or result.moving_labels is None or result.warped_labels is None:
        return {}
    fixed = result.fixed_labels.data
    affine = dice(fixed, resample_labels(result.moving_labels, result.matrix, result.fixed.grid))
    after = dice(fixed, result.warped_labels.data)
    labels: Sequence[int] = sorted(set(affine) | set(after))
    return {label: (f"label {label}", affine.get(label, 0.0), after.get(label, 0.0)) for label in labels}


def _data(volume: Volume | None) -> npt.NDArray[Any] | None:
    return None if volume is None else volume.data


def _grid(grid: Grid) -> dict[str, Any]:
    return {"shape": grid.shape, "affine": grid.affine}
