"""The fifteen kinds of corruption of ImageNet-C at five severities, drawn from a seed.

Conventions
    Images are uint8 ``(H, W)`` or ``(H, W, C)``; results have their shape and type. Lengths (radii, shifts, flakes) are
    shares of the shorter side, so that a severity looks alike at 32 and at 224 pixels. Kinds, their groups and their
    meaning are those of ImageNet-C; strengths and textures are medwave's own, so that errors are comparable between
    networks measured here, not with published tables.

Source
    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic", "pixelate", "jpeg"),
}
"""Kinds of corruption by group."""

CORRUPTIONS = tuple(name for names in GROUPS.values() for name in names)
"""All kinds, in the order of the published tables."""

SEVERITIES = (1, 2, 3, 4, 5)

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
_Rng = np.random.Generator


def corrupt(image: Bytes, kind: str, severity: int, *, seed: int = 0) -> Bytes:
    """A corrupted copy of an image.

    Args:
        image: uint8 ``(H, W)`` or ``(H, W, C)``, at least 8 x 8.
        kind: one of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        seed: the result follows from image, kind, severity and seed.

    Raises:
        InputError: for an unknown kind or severity.
        GeometryError: for another type or number of axes, or a smaller image.
    """
    if kind not in _KINDS or severity not in SEVERITIES:
        raise InputError(f"a corruption is one of {', '.join(CORRUPTIONS)} at 1 to 5, got {kind!r} at {severity}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or min(image.shape[:2]) < 8:
        raise GeometryError(
            f"images to corrupt are uint8 (H, W) or (H, W, C) of 8 x 8 or more, got {image.dtype} {image.shape}"
        )
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode())))  # the same for all severities
    work = image.reshape(*image.shape[:2], -1) / 255.0
    made = _KINDS[kind](work, severity - 1, rng)
    return np.rint(255 * np.clip(made, 0, 1)).astype(np.uint8).reshape(image.shape)


def _gaussian_noise(x: Floats, level: int, rng: _Rng) -> Floats:
    return x + rng.normal(0, (0.04, 0.07, 0.11, 0.16, 0.22)[level], x.shape)


def _shot_noise(x: Floats, level: int, rng: _Rng) -> Floats:
    photons = (400.0, 150.0, 65.0, 30.0, 15.0)[level]
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Floats, level: int, rng: _Rng) -> Floats:
    hit = rng.random(x.shape) < (0.01, 0.03, 0.06, 0.11, 0.18)[level]
    return np.where(hit, rng.integers(0, 2, x.shape), x)


def _defocus_blur(x: Floats, level: int, rng: _Rng) -> Floats:
    radius = (0.018, 0.026, 0.036, 0.048, 0.064)[level] * _side(x)
    reach = int(np.ceil(radius + 0.5))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)  # a disc whose rim is soft
    return ndimage.convolve(x, (kernel / kernel.sum())[..., None], mode="mirror")


def _glass_blur(x: Floats, level: int, rng: _Rng) -> Floats:
    reach = (0.015, 0.022, 0.03, 0.04, 0.055)[level] * _side(x)
    moved = _displaced(x, rng.uniform(-reach, reach, (2, *x.shape[:2])))
    return _smooth(moved, 0.15 * reach)


def _motion_blur(x: Floats, level: int, rng: _Rng) -> Floats:
    length = (0.06, 0.1, 0.15, 0.2, 0.26)[level] * _side(x)
    return _smeared(x, length, rng.uniform(-np.pi / 4, np.pi / 4))


def _zoom_blur(x: Floats, level: int, rng: _Rng) -> Floats:
    zooms = np.linspace(1, (1.08, 1.13, 1.18, 1.24, 1.32)[level], 9)
    centre = (np.array(x.shape[:2]) - 1) / 2

    def enlarged(zoom: float) -> Floats:
        offset = (*(centre - centre / zoom), 0)
        return ndimage.affine_transform(x, [1 / zoom, 1 / zoom, 1], offset, order=1, mode="mirror")

    return np.mean([enlarged(zoom) for zoom in zooms], axis=0)


def _snow(x: Floats, level: int, rng: _Rng) -> Floats:
    share, whiteness = ((0.04, 0.15), (0.07, 0.22), (0.1, 0.3), (0.14, 0.36), (0.18, 0.44))[level]
    flakes = _smooth((rng.random(x.shape[:2]) < share).astype(float)[..., None], 0.006 * _side(x))
    streaks = _smeared(flakes, 0.07 * _side(x), rng.uniform(np.pi / 4, 3 * np.pi / 4))
    streaks /= max(float(streaks.max()), 1e-9)
    grey = x.mean(axis=2, keepdims=True)
    washed = (1 - whiteness) * x + whiteness * np.maximum(x, 0.5 + 0.5 * grey)
    return washed + 0.8 * streaks


def _frost(x: Floats, level: int, rng: _Rng) -> Floats:
    cover, dimming = ((0.25, 0.95), (0.35, 0.88), (0.45, 0.8), (0.52, 0.74), (0.6, 0.68))[level]
    ice = _clouds(x.shape[:2], 0.9, rng)
    ridges = 1 - np.abs(2 * _clouds(x.shape[:2], 1.3, rng) - 1)  # thin bright lines, as of crystals
    texture = np.clip((ice - 1 + cover) / cover, 0, 1) ** 0.7 * (0.6 + 0.4 * ridges)
    return dimming * x + texture[..., None] * np.linspace(0.75, 0.9, x.shape[2])


def _fog(x: Floats, level: int, rng: _Rng) -> Floats:
    density = (0.3, 0.45, 0.6, 0.75, 0.95)[level]
    haze = density * (0.35 + 0.65 * _clouds(x.shape[:2], 1.8, rng))[..., None]
    return (x + haze) / (1 + density)


def _brightness(x: Floats, level: int, rng: _Rng) -> Floats:
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(1, value + (0.1, 0.18, 0.26, 0.35, 0.45)[level])
    return np.where(value > 0, x * brighter / np.maximum(value, 1e-9), brighter)


def _contrast(x: Floats, level: int, rng: _Rng) -> Floats:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + (0.7, 0.5, 0.36, 0.24, 0.14)[level] * (x - mean)


def _elastic(x: Floats, level: int, rng: _Rng) -> Floats:
    strength, smoothness = ((0.03, 0.11), (0.032, 0.08), (0.034, 0.06), (0.036, 0.045), (0.04, 0.035))[level]
    noise = rng.uniform(-1, 1, (2, *x.shape[:2]))
    field = ndimage.gaussian_filter(noise, (0, *(2 * (smoothness * _side(x),))), mode="mirror")
    return _displaced(x, field * strength * _side(x) / max(float(field.std()), 1e-9))


def _pixelate(x: Floats, level: int, rng: _Rng) -> Floats:
    size = [max(2, round(n * (0.7, 0.55, 0.42, 0.32, 0.24)[level])) for n in x.shape[:2]]
    layers = [np.rint(255 * x[..., c]).astype(np.uint8) for c in range(x.shape[2])]
    small = [Image.fromarray(layer).resize(size[::-1], Image.Resampling.BOX) for layer in layers]
    return np.stack([np.asarray(s.resize(x.shape[1::-1], Image.Resampling.NEAREST)) for s in small], axis=2) / 255.0


def _jpeg(x: Floats, level: int, rng: _Rng) -> Floats:
    pixels = np.rint(255 * x).astype(np.uint8)
    parts = [pixels] if x.shape[2] == 3 else [pixels[..., c] for c in range(x.shape[2])]
    made = []
    for part in parts:
        stream = io.BytesIO()
        Image.fromarray(part).save(stream, "JPEG", quality=(50, 30, 18, 11, 6)[level])
        made.append(np.asarray(Image.open(stream)).reshape(*x.shape[:2], -1))
    return np.concatenate(made, axis=2) / 255.0


_KINDS: dict[str, Callable[[Floats, int, _Rng], Floats]] = {
    "gaussian_noise": _gaussian_noise, "shot_noise": _shot_noise, "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur, "glass_blur": _glass_blur, "motion_blur": _motion_blur, "zoom_blur": _zoom_blur,
    "snow": _snow, "frost": _frost, "fog": _fog, "brightness": _brightness,
    "contrast": _contrast, "elastic": _elastic, "pixelate": _pixelate, "jpeg": _jpeg,
}  # fmt: skip


def _side(x: Floats) -> int:
    return min(x.shape[:2])


def _smooth(x: Floats, sigma: float) -> Floats:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="mirror")


def _displaced(x: Floats, field: Floats) -> Floats:
    """The image read at each pixel plus its displacement ``(2, H, W)``."""
    where = np.indices(x.shape[:2]) + field
    layers = [ndimage.map_coordinates(x[..., c], where, order=1, mode="mirror") for c in range(x.shape[2])]
    return np.stack(layers, axis=2)


def _smeared(x: Floats, length: float, angle: float) -> Floats:
    """The mean over a straight path of the camera."""
    steps = np.linspace(-length / 2, length / 2, max(3, 2 * int(np.ceil(length / 2)) + 1))
    moves = [(s * np.sin(angle), s * np.cos(angle), 0) for s in steps]
    return np.mean([ndimage.shift(x, move, order=1, mode="mirror") for move in moves], axis=0)


def _clouds(shape: tuple[int, ...], roughness: float, rng: _Rng) -> Floats:
    """Noise whose spectrum falls as a power of the frequency, from 0 to 1."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=shape)) * frequency**-roughness
    clouds = np.fft.irfft2(spectrum, shape)
    clouds -= clouds.min()
    return clouds / max(float(clouds.max()), 1e-9)
