"""Smooth random fields, a batch at a time in torch, on any device: noise, and velocities for training pairs.

Conventions
    Batches ``(N, C, D, H, W)`` float32; lengths in voxels, one per volume. Random numbers come from the generator of a
    device, so that a seed gives the same batch on the same kind of device. (:mod:`medwave.transforms.synthetic` makes
    single fields in numpy, the same everywhere.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def on_device(values: npt.ArrayLike, device: torch.device) -> Tensor:
    """Float32 numbers of this process on a device, without waiting for what the device is doing."""
    tensor = torch.as_tensor(np.asarray(values), dtype=torch.float32)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def smooth_noise(
    shape: Sequence[int], sigma_voxels: npt.NDArray[np.floating], generator: torch.Generator, *, channels: int
) -> Tensor:
    """Smooth noise ``(N, channels, D, H, W)``: random numbers on a lattice, spread by Gaussians.

    Args:
        shape: ``(D, H, W)``.
        sigma_voxels: ``(N,)``, deviation of the Gaussians of each volume; the lattice is as fine as the smallest.
        generator: of the random numbers, on the device of the result.
        channels: of each volume.
    """
    device, step = generator.device, float(np.min(sigma_voxels))
    reach = int(np.ceil(3 * np.max(sigma_voxels) / step))
    lattices = [torch.arange(-reach, int(np.ceil((n - 1) / step)) + reach + 1, device=device) * step for n in shape]
    sigma = on_device(sigma_voxels, device).view(-1, 1, 1)
    size = (len(sigma_voxels), channels, *(len(line) for line in lattices))
    noise = torch.randn(size, generator=generator, device=device)
    for axis, (n, line) in enumerate(zip(shape, lattices, strict=True)):
        apart = torch.arange(n, device=device).view(1, n, 1) - line.view(1, 1, -1)
        weights = torch.exp(-0.5 * (apart / sigma) ** 2)
        noise = torch.einsum("nxl,ncl...->ncx...", weights, noise.movedim(2 + axis, 2)).movedim(2, 2 + axis)
    return noise.contiguous()


def random_velocities(
    shape: Sequence[int], amplitude_voxels: npt.NDArray[np.floating], sigma_voxels: npt.NDArray[np.floating],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Smooth velocities ``(N, 3, D, H, W)`` in voxels that vanish at the border of the grid.

    Args:
        shape: ``(D, H, W)``.
        amplitude_voxels: ``(N,)``, length of the longest vector of each.
        sigma_voxels: ``(N,)``, deviation of the Gaussians they are made of, and of the fall-off at the border.
        generator: of the random numbers, on the device of the result.
    """
    field = smooth_noise(shape, sigma_voxels, generator, channels=3)
    sigma = on_device(sigma_voxels, field.device).view(-1, 1)
    for axis, n in enumerate(shape):
        line = torch.arange(n, device=field.device)
        depth = torch.minimum(line, line.flip(0)) / sigma
        field *= (1 - torch.exp(-0.5 * depth**2)).view(len(field), 1, *(n if a == axis else 1 for a in range(3)))
    longest = field.square().sum(1).amax((1, 2, 3)).sqrt()
    amplitude = on_device(amplitude_voxels, field.device)
    return field * (amplitude / longest.clamp_min(1e-12)).view(-1, 1, 1, 1, 1)
