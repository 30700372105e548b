"""Colour tables of the reports, made in OKLab so that equal steps of the value look equally large.

Conventions
    A table is uint8 ``(256, 3)``, sRGB. Blue and orange stand for the two signs: the pair that people with any
    colour vision tell apart. ``DIVERGING_DARK`` has a dark middle (zero disappears into the black of a picture),
    ``DIVERGING_LIGHT`` a light one (zero reads as paper); ``SEQUENTIAL`` and ``WARM`` rise from dark to light.

Source
    OKLab: B. Ottosson, "A perceptual color space for image processing", 2020, bottosson.github.io/posts/oklab.
    Colour vision: G. M. Machado et al., IEEE TVCG 15:1291, 2009, doi 10.1109/TVCG.2009.113, severity 1.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_LAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)

_VISIONS = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
"""What linear RGB becomes for people with all cones, and for those without long, middle or short ones."""


def _table(*stops: tuple[float, float, float]) -> UInt8Array:
    """256 colours through evenly spaced ``(lightness, chroma, hue in degrees)``, straight lines in OKLab."""
    lightness, chroma, hue = np.array(stops).T
    lab = np.stack([lightness, chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))], axis=1)
    where = np.linspace(0, len(stops) - 1, 256)
    path = np.stack([np.interp(where, np.arange(len(stops)), lab[:, c]) for c in range(3)], axis=1)
    linear = np.clip((path @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * srgb).astype(np.uint8)


DIVERGING_DARK = _table(
    (0.93, 0.05, 225),
    (0.75, 0.13, 240),
    (0.50, 0.13, 255),
    (0.0, 0.0, 0),
    (0.52, 0.12, 45),
    (0.76, 0.15, 62),
    (0.95, 0.06, 90),
)
DIVERGING_LIGHT = _table(
    (0.36, 0.12, 258),
    (0.58, 0.13, 250),
    (0.80, 0.08, 240),
    (0.975, 0.0, 0),
    (0.83, 0.10, 72),
    (0.64, 0.15, 55),
    (0.42, 0.11, 45),
)
SEQUENTIAL = _table(
    (0.16, 0.03, 285), (0.36, 0.11, 275), (0.54, 0.12, 230), (0.72, 0.12, 180), (0.86, 0.14, 130), (0.96, 0.12, 105)
)
WARM = _table(
    (0.16, 0.02, 20), (0.36, 0.11, 15), (0.55, 0.18, 30), (0.72, 0.17, 55), (0.86, 0.15, 85), (0.97, 0.06, 100)
)


def distinct(count: int) -> UInt8Array:
    """``(count, 3)`` colours for labels: black, then hues that a golden angle sets apart, in three lightnesses."""
    stops = [(0.0, 0.0, 0.0), *((0.62 + 0.13 * (n % 3), 0.14, 137.508 * n) for n in range(1, count))]
    return np.concatenate([_table(stop, stop)[:1] for stop in stops])


FOLD = (255, 0, 200)
"""Folds: a magenta that is in none of the tables."""
BLUE = (88, 184, 255)
ORANGE = (255, 158, 44)
CYAN = (120, 226, 240)


def seen(colours: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """OKLab ``(4, n, 3)`` of sRGB colours ``(n, 3)`` as people see them who have all cones, or lack one kind."""
    srgb = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lms = np.clip(linear @ _VISIONS.transpose(0, 2, 1), 0, 1) @ np.linalg.inv(_LMS_TO_RGB).T
    return np.cbrt(lms) @ np.linalg.inv(_LAB_TO_LMS).T


@functools.cache
def told_apart(count: int) -> UInt8Array:
    """``(count, 3)`` bright colours that people with any colour vision tell apart, and from FOLD and ORANGE.

    Each next one is the farthest, in the vision that sees least of it, from all before it and from these two. Hues
    within 35 degrees of FOLD's are left to it.
    """
    levels = np.linspace(0, 255, 16).astype(np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = seen(candidates)
    lightness, chroma = lab[0, :, 0], np.hypot(lab[0, :, 1], lab[0, :, 2])
    magenta = seen([FOLD])[0, 0, 1:]
    turned = lab[0, :, 1:] @ magenta / (chroma * np.linalg.norm(magenta) + 1e-9)
    usable = (lightness > 0.52) & (lightness < 0.93) & (chroma > 0.09) & (turned < np.cos(np.deg2rad(35)))
    candidates, lab = candidates[usable], lab[:, usable]
    away = np.min([_distance(lab, seen([colour])) for colour in (FOLD, ORANGE)], axis=0)
    chosen = []
    for _ in range(count):
        chosen.append(int(np.argmax(away)))
        away = np.minimum(away, _distance(lab, lab[:, chosen[-1:]]))
    return candidates[chosen].reshape(count, 3)


def _distance(lab: npt.NDArray[np.float64], one: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far colours are from one, in the vision that sees least of it."""
    return np.linalg.norm(lab - one, axis=-1).min(axis=0)


def css(colour: tuple[int, int, int]) -> str:
    """A colour as CSS writes it, ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def grey(picture: FloatArray, low: float, high: float) -> UInt8Array:
    """Grey levels as RGB ``(h, w, 3)``: ``low`` is black, ``high`` white."""
    level = np.clip((picture - low) * (255.0 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


def colourise(picture: FloatArray, table: UInt8Array, low: float, high: float) -> UInt8Array:
    """Colours of a picture ``(h, w)`` from a table: ``low`` takes its first colour, ``high`` its last."""
    level = np.clip((picture - low) * (255.0 / max(high - low, 1e-12)), 0, 255)
    return table[np.nan_to_num(level, nan=127.5).astype(np.uint8)]


def paint(rgb: UInt8Array, coverage: FloatArray, colour: tuple[int, int, int]) -> UInt8Array:
    """Lay one colour over a picture; ``coverage (h, w)`` in [0, 1] says how much of it covers each pixel."""
    under = rgb.astype(np.float32)
    return np.rint(under + coverage[..., None] * (np.array(colour, dtype=np.float32) - under)).astype(np.uint8)
