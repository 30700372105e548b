"""Figures of boxes over images: what is there, what was found, and what of both was missed or wrong.

Boxes are ``(K, 2 * ndim)``, first corner and far corner in samples along the axes. Volumes are shown as their brightest
values along the first axis, boxes as what they cover there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medwave.reports import colours
from medwave.reports.image_plates import percent, rgb
from medwave.reports.page import Figure, Strip, picture

Array = npt.NDArray[np.floating | np.integer]
Colour = tuple[int, int, int]

MISSED, WRONG = colours.ORANGE, colours.FOLD
_PIXELS, _TEXT_PIXELS = 360, 13


class ShownBoxes(NamedTuple):
    """An image uint8 ``(..., C)`` with its true boxes and those that were found.

    ``taken`` is the number of the true box that each found box takes, -1 for none (a box that is wrong).
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    boxes: Array
    labels: npt.NDArray[np.integer]
    found: Array
    found_labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating]
    taken: npt.NDArray[np.integer]

    @property
    def missed(self) -> npt.NDArray[np.bool_]:
        """Of each true box, whether no found one takes it."""
        return ~np.isin(np.arange(len(self.labels)), self.taken)

    @property
    def mistakes(self) -> int:
        """True boxes that were missed, and found ones that are wrong."""
        return int(self.missed.sum() + (self.taken < 0).sum())


def box_figures(classes: Sequence[str], shown: Sequence[ShownBoxes]) -> list[Figure]:
    """Each image with its true boxes, the answer, and what is wrong with it, side by side."""
    palette = [tuple(int(v) for v in colour) for colour in colours.told_apart(len(classes))]
    strips = []
    for each in shown:
        wrong, missed = each.taken < 0, each.missed
        answer = [f"{100 * score:.0f}" for score in each.scores]
        panels = {
            "image": _drawn(each, []),
            f"true boxes: {len(each.labels)}": _drawn(each, [(each.boxes, [palette[n] for n in each.labels], ())]),
            f"answer: {len(each.found)}, with scores in %": _drawn(
                each, [(each.found, [palette[n] for n in each.found_labels], answer)]
            ),
            f"{int(missed.sum())} missed, {int(wrong.sum())} wrong": _drawn(
                each, [(each.boxes[missed], [MISSED] * int(missed.sum()), [classes[n] for n in each.labels[missed]]),
                       (each.found[wrong], [WRONG] * int(wrong.sum()), [classes[n] for n in each.found_labels[wrong]])],
            ),
        }  # fmt: skip
        shown_panels = [picture(p, alt=f"{each.name}: {title}", caption=title) for title, p in panels.items()]
        strips.append(Strip(each.name, shown_panels))
    keys = [(colours.css(palette[n]), name) for n, name in enumerate(classes)]
    keys += [(colours.css(MISSED), "missed"), (colours.css(WRONG), "wrong")]
    text = "Images with the most mistakes; a box is right where it overlaps a true box of its class by half."
    if shown and shown[0].pixels.ndim == 4:
        text += " Volumes are shown as their brightest values along the first axis."
    return [Figure("boxes", "Boxes", text, strips, keys=keys)]


def recall_text(precision: float, recall: float) -> str:
    """Precision and recall in words."""
    return f"precision {percent(precision)} %, recall {percent(recall)} %"


def _drawn(shown: ShownBoxes, groups: Sequence[tuple[Array, Sequence[Colour], Sequence[str]]]) -> npt.NDArray[np.uint8]:
    """The image enlarged, with outlines and words of groups of boxes."""
    flat = shown.pixels if shown.pixels.ndim == 3 else shown.pixels.max(axis=0)
    axes = shown.pixels.ndim - 1
    image = Image.fromarray(rgb(flat))
    scale = _PIXELS / max(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_TEXT_PIXELS)
    for boxes, paints, words in groups:
        for number, (box, paint) in enumerate(zip(boxes, paints, strict=True)):
            top, left, bottom, right = (scale * float(box[n]) for n in (axes - 2, axes - 1, 2 * axes - 2, 2 * axes - 1))
            corners = (left, top, max(left, right - 1), max(top, bottom - 1))
            draw.rectangle(corners, outline=(0, 0, 0), width=4)  # a dark rim, seen on bright ground
            draw.rectangle((corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1), outline=paint, width=2)
            if words:
                _label(draw, words[number], (left, top, bottom), size, font)
    return np.asarray(image)


def _label(
    draw: ImageDraw.ImageDraw, word: str, at: tuple[float, float, float], size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:  # fmt: skip
    """A word, white on black, above a box, below it where there is no room, within the picture."""
    left, top, bottom = at
    width, height = draw.textlength(word, font) + 6, _TEXT_PIXELS + 5
    x = max(0.0, min(left, size[0] - width))
    y = top - height if top >= height else min(bottom, size[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=(0, 0, 0))
    draw.text((x + 3, y + 1), word, (255, 255, 255), font)
