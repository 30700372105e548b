"""Figures and tables of the pages of networks on photographs: confusion, images that were got wrong, overlays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from medwave.reports import colours
from medwave.reports.page import Cell, Figure, Picture, Strip, Table, colour_bar, picture

LARGEST_MATRIX = 60
"""A confusion matrix of more classes is shown as its largest entries only."""

_MATRIX_PIXELS, _TILE_PIXELS, _WORST_PAIRS = 480, 128, 12


class ShownImage(NamedTuple):
    """An image that was got wrong, and what is said below it."""

    pixels: npt.NDArray[np.uint8]
    caption: str


class Overlay(NamedTuple):
    """An image with its true and its predicted classes; 255 is unknown."""

    name: str
    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.integer]
    answer: npt.NDArray[np.integer]
    mean_iou: float


def matrix_figures(matrix: npt.NDArray[np.integer], classes: Sequence[str]) -> list[Figure]:
    """Shares of each true class as colours; nothing where there are too many classes to see."""
    if len(classes) > LARGEST_MATRIX:
        return []
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(1, _MATRIX_PIXELS // len(classes))
    grown = np.kron(share, np.ones((side, side))).astype(np.float32)
    shown = picture(
        colours.colourise(grown, colours.SEQUENTIAL, 0, 1),
        alt=f"Confusion matrix of {len(classes)} classes",
        caption="top to bottom and left to right: " + ", ".join(classes),
    )  # fmt: skip
    bar = colour_bar(colours.SEQUENTIAL, label="share of the true class (%)", ticks=((0, "0"), (0.5, "50"), (1, "100")))
    return [Figure("matrix", "Confusion matrix", "What is right lies on the diagonal.", [Strip("", [shown])], bar)]


def confused_tables(matrix: npt.NDArray[np.integer], classes: Sequence[str]) -> list[Table]:
    """The pairs of classes that are confused most often."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, share)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_WORST_PAIRS]
    pairs = [np.unravel_index(n, wrong.shape) for n in order]
    rows = [
        [Cell(classes[t]), Cell(classes[a]), Cell(percent(float(wrong[t, a])))] for t, a in pairs if wrong[t, a] > 0
    ]
    head = ("True class", "Taken for", "Share (%)")
    return [Table("Most frequent mistakes", head, rows, numeric=frozenset({2}))] if rows else []


def shown_picture(image: ShownImage) -> Picture:
    """The image enlarged or made smaller to be seen, with its caption."""
    pixels = rgb(image.pixels)
    factor = max(1, round(_TILE_PIXELS / max(pixels.shape[:2])))
    if factor > 1:
        pixels = np.kron(pixels, np.ones((factor, factor, 1), np.uint8))
    elif max(pixels.shape[:2]) > 2 * _TILE_PIXELS:
        pixels = _smaller(pixels, 2 * _TILE_PIXELS)
    return picture(pixels, alt=image.caption, caption=image.caption)


def overlay_figures(classes: Sequence[str], overlays: Sequence[Overlay]) -> list[Figure]:
    """Each image, its true classes, the answer, and what is wrong, side by side."""
    palette = colours.told_apart(len(classes))
    strips = []
    for each in overlays:
        base = rgb(each.pixels)
        known = each.truth < len(classes)
        painted = [_painted(base, labels, palette) for labels in (each.truth, each.answer)]
        wrong = colours.paint(base, (known & (each.truth != each.answer)).astype(np.float32) * 0.8, colours.FOLD)
        titles = ("image", "true classes", f"answer, mean IoU {percent(each.mean_iou)} %", "wrong")
        shown = [
            picture(_smaller(p, 480), alt=f"{each.name}: {title}", caption=title)
            for p, title in zip((base, *painted, wrong), titles, strict=True)
        ]
        strips.append(Strip(each.name, shown))
    keys = [(colours.css(tuple(int(v) for v in palette[n])), name) for n, name in enumerate(classes)]
    text = "Images with the lowest mean IoU; pixels of unknown class are not painted."
    return [Figure("overlays", "Overlays", text, strips, keys=keys)]


def _painted(
    base: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    known = labels < len(palette)
    colour = palette[np.where(known, labels, 0)].astype(np.float32)
    mixed = np.where(known[..., None], 0.4 * base + 0.6 * colour, base)
    return np.rint(mixed).astype(np.uint8)


def rgb(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Three channels ``(H, W, 3)`` of one or more; those beyond three are left out."""
    flat = pixels.reshape(*pixels.shape[:2], -1)
    return flat[..., :3] if flat.shape[2] >= 3 else np.repeat(flat[..., :1], 3, axis=2)


def _smaller(pixels: npt.NDArray[np.uint8], longest: int) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest))
    return np.asarray(image)


def percent(share: float) -> str:
    """A share in per cent; a dash where it is not known."""
    return "–" if np.isnan(share) else f"{100 * share:.2f}"
