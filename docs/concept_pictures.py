"""Panels for the pages on concepts: pooling, displacement fields, and cubes. Drawn by :mod:`make_pictures`.

``pooling``: edges of a section of the template, a feature map as a first convolution and its ReLU make it, and what
three ways to halve it keep; below, the same for the section with noise. The wavelet's is the layer that stands in the
place of the max pool in a WaveResNet.
``fields``: a smooth random displacement over a section of the template, the grid that it bends, its Jacobian
determinant, and the same displacement three times as strong, with its folds in pink. ``cubes``: a plane of the demo
neuron under overlapping cubes, the weight of one cube, and the sum of the weights of all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from medwave import fields
from medwave.cubes import CubePlan, gaussian_weight
from medwave.reports import colours
from medwave.reports.colours import UInt8Array
from medwave.wavelets import WaveletPool, dwt

SIDE_PX = 190
FINER = 2
GRID_STEP = 10
FOLD_COLOUR = (255, 90, 160)
CUBE, STRIDE = 64, 42
POOLING = "ch3.3"
NOISE = 0.06
"""Standard deviation of the noise, of a picture with values from 0 to 1."""


def pooling_panels(section: npt.NDArray[np.float32], *, seed: int = 4) -> list[list[tuple[str, str, UInt8Array]]]:
    """Two rows, without and with noise: caption, remark and picture of each panel.

    The remark of a panel with noise is how far the map moved: ``|noisy - clean| / |clean|``.

    Args:
        section: a picture ``(h, w)``, both even, with values from 0 to 1.
    """
    noise = np.random.default_rng(seed).normal(0, NOISE, section.shape).astype(np.float32)
    clean, noisy = (halvings(edges(picture)) for picture in (section, section + noise))
    captions = {
        "map": ("Feature map", "brightening along H, after a ReLU"),
        "low": ("LL of ch3.3: kept", "what a WaveResNet goes on with"),
        "details": ("LH, HL, HH: dropped", "root of the sum of their squares"),
        "max": ("Max pool", "the largest of 2 x 2"),
        "stride": ("Stride 2", "every other sample"),
    }
    tops = {name: float(np.percentile(value, 99.7)) for name, value in clean.items()}
    pictures = [
        [("Picture", "an axial section", _shades(section, 1.0))],
        [("Picture and noise", f"standard deviation {NOISE:g} of white", _shades(section + noise, 1.0))],
    ]
    for name, (caption, remark) in captions.items():
        table = colours.SEQUENTIAL if name == "details" else None
        moved = np.linalg.norm(noisy[name] - clean[name]) / np.linalg.norm(clean[name])
        pictures[0].append((caption, remark, _shades(clean[name], tops[name], table)))
        pictures[1].append(
            (caption, f"moved by {100 * moved:.0f} % of its norm", _shades(noisy[name], tops[name], table))
        )
    return pictures


def edges(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Where the picture brightens along its rows of samples: a filter of 3 x 3 and a ReLU."""
    kernel = torch.tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]) / 4
    x = torch.from_numpy(np.ascontiguousarray(picture))[None, None]
    return torch.conv2d(x, kernel[None, None], padding=1).relu()[0, 0].numpy()


def halvings(feature: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """The map, what each way to halve it keeps, and what the wavelet drops; each ``(h / 2, w / 2)`` but the map."""
    x = torch.from_numpy(feature)[None, None]
    roles = {"filter_roles": "reference", "mode": "zero_truncated"}
    details = dwt(x, POOLING, ndim=2, **roles)[0, 0, 1:]
    return {
        "map": feature,
        "low": WaveletPool(POOLING, 2, **roles)(x)[0, 0].numpy(),
        "details": details.square().sum(0).sqrt().numpy(),
        "max": torch.max_pool2d(x, 2)[0, 0].numpy(),
        "stride": feature[::2, ::2],
    }


def _shades(values: npt.NDArray[np.float32], top: float, table: UInt8Array | None = None) -> UInt8Array:
    return colours.grey(values, 0.0, top) if table is None else colours.colourise(values, table, 0.0, top)


def field_panels(section: npt.NDArray[np.float32], *, seed: int = 3) -> list[tuple[str, str, UInt8Array]]:
    """Caption, remark and picture of each panel.

    Args:
        section: a picture ``(SIDE_PX, SIDE_PX)`` with values from 0 to 1.
    """
    displacement = _smooth(seed)
    grey = np.repeat((255 * section).astype(np.uint8)[..., None], 3, axis=2)
    strong = 3 * displacement
    weak_j, strong_j = _determinant(displacement), _determinant(strong)
    folds = int((strong_j <= 0).sum())
    return [
        ("Displacement", "from where each voxel is read", _arrows(grey, displacement)),
        ("Deformed grid", "the map p + u(p)", _grid(grey, displacement)),
        ("Jacobian determinant", "blue shrinks, orange grows, log scale", _volume_change(weak_j)),
        ("Three times as strong", f"pink: {folds} voxels fold", _volume_change(strong_j)),
    ]


def cube_panels(plane: npt.NDArray[np.uint8]) -> list[tuple[str, str, UInt8Array]]:
    """Caption, remark and picture of each panel.

    Args:
        plane: a projection of a volume ``(h, w)``, cut to :data:`SIDE_PX` squared.
    """
    picture = np.repeat(plane[:SIDE_PX, :SIDE_PX, None], 3, axis=2)
    plan = CubePlan((1, SIDE_PX, SIDE_PX), size=(1, CUBE, CUBE), stride=(1, STRIDE, STRIDE))
    # the weight of a plane through the middle of a cube: along z a Gaussian of one voxel is 1
    weight = np.asarray(gaussian_weight((CUBE, CUBE, CUBE)))[CUBE // 2]
    one, total, seen = (np.zeros((SIDE_PX, SIDE_PX), np.float32) for _ in range(3))
    boxes = [(box.start[1], box.start[2]) for box in plan]
    for y, x in boxes:
        total[y : y + CUBE, x : x + CUBE] += weight
        seen[y : y + CUBE, x : x + CUBE] += 1
    y, x = boxes[len(boxes) // 2]
    one[y : y + CUBE, x : x + CUBE] = weight
    return [
        ("Cubes", f"{len(plan)} of {CUBE} x {CUBE}, a new one every {STRIDE} voxels", _frames(picture, boxes)),
        ("Weight of one cube", "its middle counts most", _levels(one, weight.max())),
        ("Sum of all weights", "what the mean is divided by", _levels(total, total.max())),
        ("Cubes that see a voxel", f"1 to {int(seen.max())}", _levels(seen, seen.max())),
    ]


def _smooth(seed: int) -> npt.NDArray[np.float32]:
    """A displacement ``(2, h, w)`` in voxels that fades out at the border."""
    noise = np.random.default_rng(seed).standard_normal((2, SIDE_PX, SIDE_PX))
    field = ndimage.gaussian_filter(noise, (0, 13, 13), mode="wrap")
    place = np.arange(SIDE_PX)
    fade = np.sin(np.pi / 2 * np.clip(np.minimum(place, place[::-1]) / 45, 0, 1)) ** 2
    return (field / np.abs(field).max() * 11 * np.outer(fade, fade)).astype(np.float32)


def _determinant(displacement: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of the map in the plane: a volume of three equal slices that do not move along their axis."""
    still = np.zeros_like(displacement[:1])
    volume = np.repeat(np.concatenate([still, displacement])[:, None], 3, axis=1)
    return fields.jacobian_determinant(torch.from_numpy(volume)[None])[0, 0, 1].numpy()


def _volume_change(determinant: npt.NDArray[np.float32]) -> UInt8Array:
    shades = colours.colourise(np.log(np.maximum(determinant, 1e-3)), colours.DIVERGING_DARK, -1.0, 1.0)
    return np.where((determinant <= 0)[..., None], np.uint8(FOLD_COLOUR), shades)


def _pen(picture: UInt8Array) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    height, width = picture.shape[:2]
    canvas = Image.fromarray(picture).resize((width * FINER, height * FINER), Image.Resampling.BICUBIC)
    return canvas, ImageDraw.Draw(canvas)


def _arrows(grey: UInt8Array, displacement: npt.NDArray[np.float32]) -> UInt8Array:
    canvas, pen = _pen((grey * 0.7).astype(np.uint8))
    for y in range(GRID_STEP, SIDE_PX, GRID_STEP):
        for x in range(GRID_STEP, SIDE_PX, GRID_STEP):
            dy, dx = displacement[:, y, x]
            start, end = (x * FINER, y * FINER), ((x + dx) * FINER, (y + dy) * FINER)
            pen.line([start, end], fill=colours.ORANGE, width=3)
            pen.ellipse([end[0] - 2, end[1] - 2, end[0] + 2, end[1] + 2], fill=colours.ORANGE)
    return np.asarray(canvas)


def _grid(grey: UInt8Array, displacement: npt.NDArray[np.float32]) -> UInt8Array:
    canvas, pen = _pen((grey * 0.7).astype(np.uint8))
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    places = np.stack([x + displacement[1], y + displacement[0]], axis=-1) * FINER
    for k in range(0, SIDE_PX, GRID_STEP):
        for line in (places[k], places[:, k]):
            pen.line([tuple(p) for p in line.tolist()], fill=(225, 230, 235), width=1)
    return np.asarray(canvas)


def _frames(picture: UInt8Array, boxes: list[tuple[int, int]]) -> UInt8Array:
    canvas, pen = _pen(picture)
    last = len(boxes) // 2
    for number, (y, x) in enumerate(boxes):
        if number != last:
            pen.rectangle(
                [x * FINER, y * FINER, (x + CUBE) * FINER - 1, (y + CUBE) * FINER - 1], outline=(95, 105, 115)
            )
    y, x = boxes[last]
    corners = [x * FINER, y * FINER, (x + CUBE) * FINER - 1, (y + CUBE) * FINER - 1]
    pen.rectangle(corners, outline=colours.ORANGE, width=3)
    return np.asarray(canvas)


def _levels(values: npt.NDArray[np.float32], top: float) -> UInt8Array:
    return colours.colourise(values, colours.SEQUENTIAL, 0.0, float(top))
