"""Brain images made up from label maps: any contrast, bias field, resolution, noise, with or without the head.

A network trained on such images learns anatomy and not a scanner: each image shows its label map in a contrast that
is drawn anew (SynthSeg, doi:10.1016/j.media.2023.102789; SynthMorph, doi:10.1109/TMI.2021.3116879).

Conventions
    Label maps are ``(D, H, W)`` of whole numbers after FreeSurfer, as in the training maps of SynthSeg: 0 is
    background, 1 to 99 lie in the brain, larger ones outside. Images are ``(D, H, W)`` float32 on the scale of
    :class:`medwave.transforms.brains.ScaleForegroundd`. ``seed`` as in :mod:`medwave.transforms.synthetic`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.transforms.synthetic import Float32Array, Seed, add_noise, bias_field

Labels = npt.NDArray[np.integer]

OUTSIDE_BRAIN = 100
"""Labels from here on are skull, skin, eyes and other tissue outside the brain."""

CSF = 24
"""Label of the fluid around the brain, which skull stripping keeps or takes away."""

STRUCTURES = (
    2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 26, 28,
    41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60,
)  # fmt: skip
"""The structures that SynthSeg segments, but for the fluid around the brain: what overlap is measured on."""

_RIGHT_TO_LEFT = {
    41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 57: 25, 58: 26, 60: 28,
    62: 30, 137: 136, 164: 163,
}  # fmt: skip
_TISSUES = {"white": (2, 7, 13, 16, 28, 85), "grey": (3, 8, 10, 11, 12, 17, 18, 26), "fluid": (4, 5, 14, 15, 24, 72)}
_SEQUENCES = {
    "t1": {"white": 0.85, "grey": 0.55, "fluid": 0.15},
    "t2": {"white": 0.35, "grey": 0.55, "fluid": 0.95},
}
_CONTRASTS = (("t1", 0.4), ("t2", 0.15), ("free", 0.45))
_LARGEST_LABEL = 1024


def random_contrast(*, seed: Seed, kind: str | None = None) -> Float32Array:
    """Mean intensity of every label, drawn at random: a table that a label map indexes.

    Left and right are alike. In 45 of 100 draws the mean of each structure is free in [0.05, 1]; in the others the
    tissues of the brain follow a T1- or T2-weighted image, loosely, and the structures their tissue.

    Args:
        seed: integer or generator.
        kind: ``"t1"``, ``"t2"`` or ``"free"`` rather than a draw of these.

    Returns:
        ``(1024,)`` float32; background, label 0, is 0.

    Raises:
        InputError: for another kind.
    """
    rng = np.random.default_rng(seed)
    names, shares = zip(*_CONTRASTS, strict=True)
    if kind is None:
        kind = str(rng.choice(names, p=shares))
    elif kind not in names:
        raise InputError(f"a contrast is one of {', '.join(names)}, got {kind!r}")
    means = rng.uniform(0.05, 1.0, _LARGEST_LABEL)
    for tissue, level in _SEQUENCES.get(kind, {}).items():
        ids = list(_TISSUES[tissue])
        means[ids] = level + rng.uniform(-0.12, 0.12) + rng.uniform(-0.06, 0.06, len(ids))
    for right, left in _RIGHT_TO_LEFT.items():
        means[right] = means[left]
    means[0] = 0.0
    return np.clip(means, 0.0, 1.0).astype(np.float32)


def image_of_labels(
    labels: Labels, contrast: npt.NDArray[np.floating], *, seed: Seed, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> Float32Array:
    """An image of a label map in a given contrast, as a scanner could have taken it.

    Every voxel gets the mean of its label and the texture of its tissue; then come, with strengths drawn at random,
    blur (in a quarter of the images along one axis more than the others, as of thick slices), a bias field, a gamma
    curve and Rician noise. What is background in the label map is 0.

    Args:
        labels: ``(D, H, W)``, labels below 1024.
        contrast: mean of each label, such as :func:`random_contrast` gives.
        seed: integer or generator.
        spacing_mm: voxel size per axis; the bias field is smooth over millimetres, the blur counts in voxels.

    Raises:
        InputError: when a label is negative or too large, or there is no label but background.
    """
    if labels.size == 0 or labels.min() < 0 or labels.max() >= _LARGEST_LABEL or not labels.any():
        raise InputError(f"a label map to draw holds a label and all lie between 0 and {_LARGEST_LABEL - 1}")
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.0, 0.08, _LARGEST_LABEL).astype(np.float32)
    image = contrast[labels] + spread[labels] * rng.standard_normal(labels.shape, dtype=np.float32)
    sigma = np.full(3, rng.uniform(0.3, 0.9))
    if rng.random() < 0.25:
        sigma[rng.integers(3)] += rng.uniform(0.3, 1.2)
    image = ndimage.gaussian_filter(image.astype(np.float32), sigma, mode="nearest", truncate=2.5)
    image *= bias_field(labels.shape, seed=rng, strength=rng.uniform(0.0, 0.5), spacing_mm=spacing_mm)
    image = np.clip(image, 0.0, None) ** np.float32(np.exp(rng.normal(0.0, 0.2)))
    image = add_noise(image, seed=rng, sigma=rng.uniform(0.0, 0.06)) * (labels > 0)
    return scaled_to_foreground(image)


def strip_skull(labels: Labels, *, fluid: bool) -> Labels:
    """The label map of the brain alone; ``fluid`` says whether the fluid around it stays."""
    outside = labels >= OUTSIDE_BRAIN
    if not fluid:
        outside |= labels == CSF
    return np.where(outside, 0, labels)


def scaled_to_foreground(image: Float32Array) -> Float32Array:
    """Background 0 and the 99.5th percentile of what lies above a tenth of the range at 1, clipped to [0, 1]."""
    sample = image.ravel()[::5]  # a percentile of a fifth of the voxels, in a fifth of the time
    low, top = np.percentile(sample, [0.5, 99.9])
    inside = sample[sample > low + 0.1 * (top - low)]
    high = np.percentile(inside, 99.5) if inside.size else low + 1.0
    return np.clip((image - low) / max(high - low, 1e-6), 0.0, 1.0).astype(np.float32)
