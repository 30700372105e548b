"""Brain images made up from label maps: any contrast, bias field, resolution, noise, with or without the head.

A network trained on such images learns anatomy and not a scanner: each image shows its label map in a contrast that
is drawn anew (SynthSeg, doi:10.1016/j.media.2023.102789; SynthMorph, doi:10.1109/TMI.2021.3116879).

Conventions
    Label maps are whole numbers after FreeSurfer, as in the training maps of SynthSeg: 0 is background, 1 to 99 lie in
    the brain, larger ones outside. Images are float32 on the scale of
    :class:`medwave.transforms.brains.ScaleForegroundd`. Both come in batches ``(N, D, H, W)`` on any device. Each image
    has strengths of its own, from a numpy generator; the noise in its voxels is drawn on the device.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medwave.core.errors import InputError
from medwave.transforms.smooth_fields import on_device, smooth_noise
from medwave.transforms.synthetic import Float32Array, Seed

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
_TAPS = 6
_BIAS_SMOOTHNESS_MM = 40.0


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


def images_of_labels(
    labels: Tensor, means: npt.NDArray[np.floating], *, rng: np.random.Generator, generator: torch.Generator,
    spacing_mm: float,
) -> Tensor:  # fmt: skip
    """Images of label maps in given contrasts, as a scanner could have taken them.

    Every voxel gets the mean of its label and the texture of its tissue; then come, with strengths drawn at random,
    blur (in a quarter of the images along one axis more than the others, as of thick slices), a bias field, a gamma
    curve and Rician noise. What is background in the label map is 0.

    Args:
        labels: ``(N, D, H, W)``, whole numbers below K; 0 is background.
        means: ``(N, K)``, mean of each label in each image, such as :func:`random_contrast` gives.
        rng: of the strengths.
        generator: of the noise, on the device of the labels.
        spacing_mm: voxel size.

    Returns:
        ``(N, D, H, W)`` float32 in [0, 1].

    Raises:
        InputError: when a label on the CPU has no mean (on a GPU, looking would stop the work).
    """
    if labels.device.type == "cpu" and (labels.min() < 0 or labels.max() >= means.shape[1]):
        raise InputError(f"labels to draw lie between 0 and {means.shape[1] - 1}, as many as there are means")
    count, device = len(labels), labels.device

    def each(values: npt.NDArray[np.floating]) -> Tensor:
        return on_device(values, device).view(count, 1, 1, 1)

    def noise() -> Tensor:
        return torch.randn(labels.shape, generator=generator, device=device)

    tables = np.stack([means, rng.uniform(0.0, 0.08, means.shape)], axis=-1)
    place = labels.long() + torch.arange(count, device=device).view(count, 1, 1, 1) * means.shape[1]
    level, spread = F.embedding(place, on_device(tables, device).flatten(0, 1)).unbind(-1)
    image = _blur(level + spread * noise(), _blur_sigmas(count, rng))
    bias = smooth_noise(labels.shape[1:], np.full(count, _BIAS_SMOOTHNESS_MM / spacing_mm), generator, channels=1)[:, 0]
    bias -= bias.mean((1, 2, 3), keepdim=True)
    peak = bias.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    image = image * torch.exp(bias * (each(rng.uniform(0.0, 0.5, count)) / peak))
    image = image.clamp_min(0) ** each(np.exp(rng.normal(0.0, 0.2, count)))
    sigma = each(rng.uniform(0.0, 0.06, count))
    return scaled_to_foreground(torch.hypot(image + sigma * noise(), sigma * noise()) * (labels > 0))


def strip_skull(labels: Tensor, *, fluid: Tensor | bool) -> Tensor:
    """The label maps of the brains alone; ``fluid``, ``(N,)`` or one for all, says where the fluid around stays."""
    kept = torch.as_tensor(fluid, device=labels.device).view(-1, 1, 1, 1)
    return labels.masked_fill((labels >= OUTSIDE_BRAIN) | ((labels == CSF) & ~kept), 0)


def _blur_sigmas(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """``(N, 3)`` voxels; a quarter of the images have thick slices along one axis."""
    sigmas = np.repeat(rng.uniform(0.3, 0.9, (count, 1)), 3, axis=1)
    thick = np.flatnonzero(rng.random(count) < 0.25)
    sigmas[thick, rng.integers(3, size=len(thick))] += rng.uniform(0.3, 1.2, len(thick))
    return sigmas


def _blur(images: Tensor, sigmas: npt.NDArray[np.float64]) -> Tensor:
    """Separable Gaussians, ``(N, 3)`` voxels, borders repeated."""
    taps = np.arange(-_TAPS, _TAPS + 1)
    sigma = sigmas[..., None]
    kernels = np.exp(-0.5 * (taps / sigma) ** 2) * (np.abs(taps) <= np.ceil(2.5 * sigma))
    kernels = on_device(kernels / kernels.sum(-1, keepdims=True), images.device)
    for axis in range(3):
        n = images.shape[1 + axis]
        padding = [0, 0] * (2 - axis) + [_TAPS, _TAPS] + [0, 0] * axis
        padded = F.pad(images[:, None], padding, mode="replicate")[:, 0]
        images = torch.zeros_like(images)
        for tap in range(len(taps)):
            images.addcmul_(padded.narrow(1 + axis, tap, n), kernels[:, axis, tap].view(-1, 1, 1, 1))
    return images


def scaled_to_foreground(images: Tensor) -> Tensor:
    """Background 0 and the 99.5th percentile of what lies above a tenth of the range at 1, clipped to [0, 1]."""
    sample = images.flatten(1)[:, ::5].sort(1).values
    count = sample.shape[1]

    def at(rank: Tensor) -> Tensor:
        below = rank.floor().long().clamp(0, count - 1)
        pair = sample.gather(1, torch.stack([below, (below + 1).clamp_max(count - 1)], 1))
        return pair[:, 0] + (rank - below) * (pair[:, 1] - pair[:, 0])

    low, top = (at(torch.full((len(images),), q * (count - 1), device=images.device)) for q in (0.005, 0.999))
    inside = (sample > (low + 0.1 * (top - low))[:, None]).sum(1)
    high = torch.where(inside > 0, at(count - inside + 0.995 * (inside - 1)), low + 1.0)
    shape = (-1, 1, 1, 1)
    return ((images - low.view(shape)) / (high - low).clamp_min(1e-6).view(shape)).clamp(0, 1)
