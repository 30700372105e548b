"""Evaluations of detectors that leave a folder: ``boxes.json``, ``report.html``, and ``run.json``, which comes last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath, write_json
from medwave.core.provenance import StageClock
from medwave.data import BoxedImages, read_boxed
from medwave.engine.predict import usable_device
from medwave.metrics import (
    AveragePrecision,
    FoundBoxes,
    OperatingPoint,
    average_precision,
    operating_point,
    right_boxes,
)
from medwave.models import WaveRetinaNet, open_network
from medwave.reports import DetectorReport, OutputFile, ShownBoxes, write_detector_report
from medwave.reports.detector import mean_over_overlaps
from medwave.transforms.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupt
from medwave.workflows.classifier_measures import spread
from medwave.workflows.detect import find_boxes, measure
from medwave.workflows.evaluation_folder import REPORT, run_record, write_run
from medwave.workflows.image_options import EvaluateDetectorOptions
from medwave.workflows.run_folder import MARK, result_folder

OVERLAPS = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))
"""Intersections over unions that average precision is measured at, those of COCO."""

BOXES = "boxes.json"
_FILES = {"boxes": OutputFile(BOXES, "boxes, labels and scores found in each image")}


def evaluate_detector(
    data: StrPath,
    weights: StrPath,
    folder: StrPath,
    *,
    reference: StrPath | None = None,
    options: EvaluateDetectorOptions | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] = lambda name: None,
    **changes: Any,
) -> dict[str, Any]:
    """Find boxes in a split, measure them and write the folder.

    Args:
        data: as for :func:`medwave.workflows.detect.train_detector`.
        weights: of the network.
        folder: made when absent; an earlier result in it is replaced. ``boxes.json`` has the boxes of each image.
        reference: weights of another network that stands beside it in the tables.
        options: all options; single ones can be given by name.
        command_line: shown on the page.
        on_stage: told what is done.

    Returns:
        What ``run.json`` says under ``result``.

    Raises:
        MedwaveError: one of its leaves, for unusable data, weights of another kind of network, or a folder that cannot
            be written.
    """
    options = replace(options or EvaluateDetectorOptions(), **changes)
    usable_device(options.device)
    source, numbers = _source(data, options)
    network = _network(weights, source, data)
    other = None if reference is None else _network(reference, source, data)
    clock = StageClock(on_stage)
    with result_folder(folder) as target:
        (target / MARK).unlink(missing_ok=True)
        with clock.stage("find"):
            found = find_boxes(network, source, device=options.device)
        others = None
        if other is not None:
            with clock.stage("find by the reference"):
                others = find_boxes(other, source, device=options.device)
        with clock.stage("measure"):
            precision = _precisions(found, source)
            reference_precision = None if others is None else _precisions(others, source)
            point = operating_point(found, source.boxes, source.labels)
        errors: dict[str, list[float]] = {}
        reference_errors: dict[str, list[float]] = {}
        if options.corruptions:
            with clock.stage("corrupt"):
                errors, reference_errors = _corrupted(network, other, source, options)
        report = DetectorReport(
            _title(network), len(source), source.classes, _counts(source), precision, point,
            "" if other is None else _title(other, network), reference_precision, errors, reference_errors, GROUPS,
            _worst(found, source, point, numbers, options), run_record(clock, options, command_line, _FILES),
        )  # fmt: skip
        write_json(target / BOXES, {
            "classes": source.classes, "split": options.split, "numbers": numbers,
            "images": [{name: value.tolist() for name, value in each._asdict().items()} for each in found],
        })  # fmt: skip
        write_detector_report(target / REPORT, report)
        result = _result(source, options, report)
        inputs = {"data": data, "weights": weights, "reference": reference}
        write_run(target, result, inputs, options, clock, command_line, _FILES)
    return result


def _source(data: StrPath, options: EvaluateDetectorOptions) -> tuple[BoxedImages, list[int]]:
    """The images to measure on, and their numbers in the split."""
    source = read_boxed(data, options.split)
    numbers = [int(i) for i in spread(len(source), options.images)]
    source = replace(
        source, images=source.images[numbers], boxes=tuple(source.boxes[i] for i in numbers),
        labels=tuple(source.labels[i] for i in numbers),
    )  # fmt: skip
    if not any(map(len, source.labels)):
        raise InputError(f"{data}: {options.split} holds no box to measure with")
    if options.corruptions and source.ndim != 2:
        raise InputError(f"{data}: corruptions are those of images, these are volumes; leave --corruptions out")
    return source, numbers


def _network(weights: StrPath, source: BoxedImages, data: StrPath) -> WaveRetinaNet:
    network = open_network(weights, WaveRetinaNet)
    if network.num_classes != len(source.classes):
        raise InputError(f"{weights}: finds {network.num_classes} classes, {data} has {len(source.classes)}")
    if (network.spatial_dims, network.in_channels) != (source.ndim, source.images.shape[-1]):
        raise InputError(
            f"{weights}: the network takes images of {network.spatial_dims} axes and {network.in_channels} channels, "
            f"these have {source.ndim} and {source.images.shape[-1]}"
        )
    return network


def _precisions(found: list[FoundBoxes], source: BoxedImages) -> dict[float, AveragePrecision]:
    return {
        overlap: average_precision(found, source.boxes, source.labels, source.classes, overlap=overlap)
        for overlap in OVERLAPS
    }


def _corrupted(
    network: WaveRetinaNet, other: WaveRetinaNet | None, source: BoxedImages, options: EvaluateDetectorOptions
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """1 - mean average precision of both networks by kind, at each severity; both see the same images."""
    errors: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    for kind in CORRUPTIONS:
        for severity in SEVERITIES:
            images = [corrupt(each, kind, severity, seed=options.seed + i) for i, each in enumerate(source.images)]
            changed = replace(source, images=np.stack(images))
            for each, told in ((network, errors), (other, others)):
                if each is not None:
                    told.setdefault(kind, []).append(1 - measure(each, changed, device=options.device).mean)
    return errors, others


def _counts(source: BoxedImages) -> list[int]:
    labels = np.concatenate(source.labels)
    return [int(n) for n in np.bincount(labels, minlength=len(source.classes))]


def _worst(
    found: list[FoundBoxes], source: BoxedImages, point: OperatingPoint, numbers: list[int],
    options: EvaluateDetectorOptions,
) -> list[ShownBoxes]:  # fmt: skip
    """The images with the most mistakes among boxes that score enough for the best F1."""
    shown = []
    for i, each in enumerate(found):
        order = np.argsort(each.scores, kind="stable")  # the surest is drawn last, over the others
        order = order[each.scores[order] >= point.score]
        kept = FoundBoxes(*(values[order] for values in each))
        _, taken = right_boxes(kept, source.boxes[i], source.labels[i])
        name = f"{options.split}, image {numbers[i]}"
        shown.append(ShownBoxes(name, source.images[i], source.boxes[i], source.labels[i], *kept, taken))
    shown.sort(key=lambda each: -each.mistakes)  # stable: the first of several
    return [each for each in shown if each.mistakes][: options.shown]


def _result(source: BoxedImages, options: EvaluateDetectorOptions, report: DetectorReport) -> dict[str, Any]:
    precision, other = report.precision, report.reference_precision
    point = report.point._asdict()
    if not np.isfinite(report.point.score):
        point["score"] = None
    return {
        "images": len(source), "split": options.split, "objects": dict(zip(source.classes, report.boxes, strict=True)),
        "map_50": precision[0.5].mean, "map_75": precision[0.75].mean, "map_50_95": mean_over_overlaps(precision),
        "ap_50": _known(precision[0.5].by_class), "map_by_overlap": {str(o): p.mean for o, p in precision.items()},
        "best_f1": point, "map_50_corrupted": {k: [1 - e for e in v] for k, v in report.errors.items()},
        "reference_map_50": None if other is None else other[0.5].mean,
        "reference_map_50_corrupted": {k: [1 - e for e in v] for k, v in report.reference_errors.items()},
    }  # fmt: skip


def _known(by_class: Mapping[str, float]) -> dict[str, float | None]:
    """Without a number for classes that do not occur."""
    return {name: None if np.isnan(value) else value for name, value in by_class.items()}


def _title(network: WaveRetinaNet, beside: WaveRetinaNet | None = None) -> str:
    """Backbone and wavelet of a network; two networks of one name are told apart by a word."""
    name = str(network.options["name"])
    wavelet = network.options.get("wavelet") if name.startswith("wave_") else None
    title = f"RetinaNet on {name}" + (f" {wavelet}" if wavelet else "")
    return f"{title} (reference)" if beside is not None and title == _title(beside) else title
