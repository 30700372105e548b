"""Evaluations of networks on photographs that leave a folder: ``report.html``, and ``run.json``, which comes last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medwave.core.files import StrPath
from medwave.core.provenance import StageClock
from medwave.data import ClassifiedImages, SegmentedImages, read_classified, read_segmented
from medwave.engine.predict import usable_device
from medwave.metrics import confusion_matrix, corruption_errors, overlap_scores
from medwave.models import ImageNetwork
from medwave.reports import (
    ClassifierReport,
    Overlay,
    SegmenterReport,
    ShownImage,
    write_classifier_report,
    write_segmenter_report,
)
from medwave.transforms.corruptions import GROUPS
from medwave.transforms.images import UNKNOWN_LABEL, unit_tensor
from medwave.workflows.classifier_measures import attacked, consistency, corrupted, least_change_length, spread
from medwave.workflows.evaluation_folder import REPORT, run_record, write_run
from medwave.workflows.image_answers import OfUnit, answers, open_image_network, pictures, pixel_answers
from medwave.workflows.image_options import EvaluateClassifierOptions, EvaluateSegmenterOptions
from medwave.workflows.run_folder import MARK, result_folder

THIN = ("pole", "sign", "pedestrian", "bicyclist", "traffic light", "traffic sign", "person", "rider", "bicycle")
"""Classes of street scenes that are a few pixels wide."""

WORST = 18
"""So many images are shown that a classifier is most confident and wrong about."""


def evaluate_classifier(
    data: StrPath,
    weights: StrPath,
    folder: StrPath,
    *,
    reference: StrPath | None = None,
    options: EvaluateClassifierOptions | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] = lambda name: None,
    **changes: Any,
) -> dict[str, Any]:
    """Measure a classifier and write the folder.

    Args:
        data: as for :func:`medwave.workflows.train_images.train_classifier`.
        weights: of the network.
        folder: made when absent; an earlier result in it is replaced.
        reference: weights of a network that corruption errors are relative to, usually its twin without wavelets.
        options: all options; single ones can be given by name.
        command_line: shown on the page.
        on_stage: told what is done.

    Returns:
        What ``run.json`` says under ``result``.

    Raises:
        MedwaveError: one of its leaves, for unusable data, weights of another kind of network, or a folder that cannot
            be written.
    """
    options = replace(options or EvaluateClassifierOptions(), **changes)
    usable_device(options.device)
    source = read_classified(data, options.split, on_corrupt=options.on_corrupt)
    source = source.subset(spread(len(source), options.images))
    network = open_image_network(weights, source.classes, segments=False)
    other = None if reference is None else open_image_network(reference, source.classes, segments=False)
    clock = StageClock(on_stage)
    with result_folder(folder) as target:
        (target / MARK).unlink(missing_ok=True)
        report, result = _measure_classifier(source, network, other, options, clock)
        run = run_record(clock, options, command_line)
        write_classifier_report(target / REPORT, replace(report, run=run))
        inputs = {"data": data, "weights": weights, "reference": reference}
        write_run(target, result, inputs, options, clock, command_line)
    return result


def evaluate_segmenter(
    data: StrPath,
    weights: StrPath,
    folder: StrPath,
    *,
    reference: StrPath | None = None,
    options: EvaluateSegmenterOptions | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] = lambda name: None,
    **changes: Any,
) -> dict[str, Any]:
    """Measure a segmenter on whole images and write the folder.

    Args:
        data: as for :func:`medwave.workflows.train_images.train_segmenter`.
        weights: of the network.
        folder: made when absent; an earlier result in it is replaced.
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
    options = replace(options or EvaluateSegmenterOptions(), **changes)
    usable_device(options.device)
    source = read_segmented(data, options.split)
    source = replace(source, pairs=tuple(source.pairs[i] for i in spread(len(source), options.images)))
    network = open_image_network(weights, source.classes, segments=True)
    other = None if reference is None else open_image_network(reference, source.classes, segments=True)
    clock = StageClock(on_stage)
    with result_folder(folder) as target:
        (target / MARK).unlink(missing_ok=True)
        with clock.stage("segment"):
            matrices = _matrices(network, source, options.device)
        other_matrix = None
        if other is not None:
            with clock.stage("segment by the reference"):
                other_matrix = _matrices(other, source, options.device).sum(axis=0)
        scores = overlap_scores(matrices.sum(axis=0))
        report = SegmenterReport(
            _title(network), source.classes, matrices.sum(axis=0), THIN,
            "" if other is None else _title(other, network), other_matrix,
            _overlays(network, source, matrices, options), run_record(clock, options, command_line),
        )  # fmt: skip
        write_segmenter_report(target / REPORT, report)
        result = {
            "images": len(source), "mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy,
            "class_accuracy": scores.class_accuracy, "weighted_iou": scores.weighted_iou,
            "iou": dict(zip(source.classes, scores.iou.tolist(), strict=True)),
            "reference_mean_iou": None if other_matrix is None else overlap_scores(other_matrix).mean_iou,
        }  # fmt: skip
        inputs = {"data": data, "weights": weights, "reference": reference}
        write_run(target, result, inputs, options, clock, command_line)
    return result


def _measure_classifier(
    source: ClassifiedImages, network: ImageNetwork, other: ImageNetwork | None, options: EvaluateClassifierOptions,
    clock: StageClock,
) -> tuple[ClassifierReport, dict[str, Any]]:  # fmt: skip
    how: dict[str, Any] = {"batch": options.batch, "device": options.device}
    unit = OfUnit(network).to(options.device).eval()
    twin = None if other is None else OfUnit(other).to(options.device).eval()
    with clock.stage("classify"):
        images, truth = pictures(source, options.size)
        found = answers(unit, images, **how)
        twin_error = None if twin is None else float(np.mean(answers(twin, images, **how) != truth))
    right = float(np.mean(found == truth))
    told: dict[str, Any] = {}
    if options.corruptions:
        with clock.stage("corrupt"):
            told |= _corruptions(unit, twin, images, truth, right, twin_error, options)
    if options.shifts:
        with clock.stage("shift"):
            told["consistency"] = consistency(unit, images, passes=options.shifts, seed=options.seed, **how)
    if options.attacks:
        few = spread(len(images), options.attacks)
        with clock.stage("attack"):
            told["attacks"] = attacked(
                unit, [images[i] for i in few], truth[few], steps=options.attack_steps, seed=options.seed, **how
            )
            told["least_change"] = least_change_length(unit, [images[i] for i in few], truth[few], steps=50, **how)
            if options.carlini_wagner:
                told["carlini_wagner"] = least_change_length(
                    unit, [images[i] for i in few], truth[few], steps=options.carlini_wagner, optimised=True, **how
                )
        told["attacked"] = len(few)
    matrix = confusion_matrix(truth, found, len(source.classes))
    name = "" if other is None else _title(other, network)
    report = ClassifierReport(
        _title(network), source.classes, matrix, groups=GROUPS, reference=name,
        worst=_worst(unit, source, images, truth, found, options), **told,
    )  # fmt: skip
    ce = report.corruption
    result = {
        "images": len(images), "accuracy": right, "errors": dict(report.errors),
        "reference_errors": dict(report.reference_errors), "mce": None if ce is None else ce.mce,
        "group_ce": None if ce is None else ce.by_group, "relative_mce": None if ce is None else ce.relative_mce,
        "shift_consistency": report.consistency, "attacks": [a._asdict() for a in told.get("attacks", ())],
        "least_change": report.least_change, "carlini_wagner": report.carlini_wagner,
    }  # fmt: skip
    return report, result


def _corruptions(
    unit: OfUnit, twin: OfUnit | None, images: list[np.ndarray], truth: np.ndarray, right: float,
    twin_error: float | None, options: EvaluateClassifierOptions,
) -> dict[str, Any]:  # fmt: skip
    how: dict[str, Any] = {"batch": options.batch, "device": options.device}
    errors: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    for kind, _, made in corrupted(images, options.seed):
        errors.setdefault(kind, []).append(float(np.mean(answers(unit, made, **how) != truth)))
        if twin is not None:
            others.setdefault(kind, []).append(float(np.mean(answers(twin, made, **how) != truth)))
    if twin is None:
        return {"errors": errors}
    if min(np.mean(values) for values in others.values()) == 0:
        says = "The reference makes no error under one kind of corruption, so that there is no corruption error."
        return {"errors": errors, "reference_errors": others, "messages": (says,)}
    ce = corruption_errors(errors, others, GROUPS, clean=1 - right, reference_clean=twin_error)
    return {"errors": errors, "reference_errors": others, "corruption": ce}


@torch.inference_mode()
def _worst(
    unit: OfUnit, source: ClassifiedImages, images: list[np.ndarray], truth: np.ndarray, found: np.ndarray,
    options: EvaluateClassifierOptions,
) -> list[ShownImage]:  # fmt: skip
    wrong = np.flatnonzero(found != truth)
    sure = []
    for start in range(0, len(wrong), options.batch):
        part = torch.stack([unit_tensor(images[i]) for i in wrong[start : start + options.batch]])
        sure += unit(part.to(options.device)).softmax(1).max(1).values.tolist()
    order = wrong[np.argsort(-np.array(sure), kind="stable")][:WORST] if len(wrong) else wrong
    confidence = dict(zip(wrong.tolist(), sure, strict=True))
    return [
        ShownImage(
            images[i], f"{source.classes[found[i]]}, is {source.classes[truth[i]]} ({100 * confidence[int(i)]:.0f} %)"
        )
        for i in order
    ]


def _matrices(network: ImageNetwork, source: SegmentedImages, device: str) -> np.ndarray:
    """A confusion matrix for each image ``(images, classes, classes)``."""
    unit = OfUnit(network).to(device).eval()
    made = []
    for index in range(len(source)):
        image, label = source.item(index)
        found = pixel_answers(unit, image, device=device)
        made.append(confusion_matrix(label, found, len(source.classes), ignore=UNKNOWN_LABEL))
    return np.stack(made)


def _overlays(
    network: ImageNetwork, source: SegmentedImages, matrices: np.ndarray, options: EvaluateSegmenterOptions
) -> list[Overlay]:
    """The images with the lowest mean IoU; those without a known pixel are left out."""
    unit = OfUnit(network).to(options.device).eval()
    means = {i: overlap_scores(matrix).mean_iou for i, matrix in enumerate(matrices) if matrix.sum()}
    shown = []
    for index in sorted(means, key=means.__getitem__)[: options.overlays]:
        image, label = source.item(index)
        found = pixel_answers(unit, image, device=options.device)
        shown.append(Overlay(source.pairs[index][0].name, image, label, found, means[index]))
    return shown


def _title(network: ImageNetwork, beside: ImageNetwork | None = None) -> str:
    """Class, depth and wavelet of a network; two networks of one name are told apart by a word."""
    depth, wavelet = network.options.get("depth", ""), network.common.wavelet
    name = type(network).__name__
    title = f"{name}{depth} {wavelet}" if wavelet else f"{name.removeprefix('Wave').removeprefix('W')}{depth}"
    return f"{title} (reference)" if beside is not None and title == _title(beside) else title
