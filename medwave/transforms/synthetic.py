"""Seeded generators of deformations, contrasts, bias fields and noise.

Conventions
    ``seed`` is an integer or a ``numpy.random.Generator``; the same integer gives the same result. Pass one
    generator through several calls to draw them from one stream.
    Volumes are ``(D, H, W)``; fields ``(3, D, H, W)`` float32 with channel i along array axis i, in voxels,
    pull-back. Lengths are in mm and are turned into voxels with ``spacing_mm`` (one number per array axis).
    Affines are 4x4, RAS+ mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from medwave import fields
from medwave.core.errors import InputError

Seed = int | np.random.Generator
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


def random_velocity(
    shape: Sequence[int],
    *,
    seed: Seed,
    amplitude_mm: float = 6.0,
    smoothness_mm: float = 16.0,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Float32Array:
    """Random smooth stationary velocity that vanishes at the border of the grid.

    Args:
        shape: ``(D, H, W)``.
        seed: integer or generator.
        amplitude_mm: largest length of the velocity vectors.
        smoothness_mm: standard deviation of the Gaussians the noise is made of, and of the fall-off at the border.
        spacing_mm: voxel size per axis.

    Returns:
        ``(3, D, H, W)`` float32 in voxels.

    Raises:
        InputError: when a length is not positive.
    """
    spacing = _positive("spacing_mm", spacing_mm)
    if smoothness_mm <= 0 or amplitude_mm < 0:
        raise InputError(f"smoothness_mm must be positive, amplitude_mm not negative: {smoothness_mm}, {amplitude_mm}")
    sigma = smoothness_mm / spacing
    noise = _smooth_noise(shape, sigma, np.random.default_rng(seed), channels=3)
    for axis, n in enumerate(shape):
        depth = np.minimum(np.arange(n), np.arange(n)[::-1]) / sigma[axis]
        line = 1 - np.exp(-0.5 * depth**2)
        noise *= line.reshape([-1 if a == axis + 1 else 1 for a in range(4)])
    longest = float(np.sqrt((noise**2).sum(0)).max())
    scale = amplitude_mm / longest if longest > 0 else 0.0
    return (noise * scale / spacing.reshape(3, 1, 1, 1)).astype(np.float32)


def random_diffeomorphism(
    shape: Sequence[int],
    *,
    seed: Seed,
    amplitude_mm: float = 6.0,
    smoothness_mm: float = 16.0,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Float32Array:
    """Random smooth invertible displacement: :func:`random_velocity` integrated with 7 squarings.

    The Jacobian stays positive while ``amplitude_mm`` is below about ``smoothness_mm``.

    Returns:
        ``(3, D, H, W)`` float32 in voxels.
    """
    velocity = random_velocity(
        shape, seed=seed, amplitude_mm=amplitude_mm, smoothness_mm=smoothness_mm, spacing_mm=spacing_mm
    )
    return fields.integrate(torch.from_numpy(velocity)[None], squarings=7)[0].numpy()


def random_affine(
    *,
    seed: Seed,
    rotation_degrees: float = 10.0,
    scale: float = 0.1,
    shear: float = 0.05,
    translation_mm: float = 10.0,
    center_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> Float64Array:
    """Random affine about a centre: translation * rotation * shear * scale.

    Args:
        seed: integer or generator.
        rotation_degrees: largest angle about each of the three axes.
        scale: largest relative change of size per axis; factors are drawn from ``exp(+-log(1 + scale))``.
        shear: largest off-diagonal shear per pair of axes.
        translation_mm: largest shift per axis.
        center_mm: the point that only the translation moves, RAS+ mm.

    Returns:
        4x4 float64 matrix in RAS+ mm; its determinant is positive.

    Raises:
        InputError: when a range is negative.
    """
    if min(rotation_degrees, scale, shear, translation_mm) < 0:
        raise InputError("the ranges of a random affine must not be negative")
    rng = np.random.default_rng(seed)
    angles, sizes, shears, shift = (rng.uniform(-1, 1, 3) for _ in range(4))
    linear = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rotation_degrees) * angles):
        linear = linear @ _rotation(axis, float(angle))
    upper = np.eye(3)
    upper[np.triu_indices(3, 1)] = shear * shears
    linear = linear @ upper @ np.diag(np.exp(np.log1p(scale) * sizes))
    center = np.asarray(center_mm, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = center - linear @ center + translation_mm * shift
    return matrix


def contrast_curve(
    *, seed: Seed, knots: int = 6, monotone: bool = True
) -> Callable[[npt.NDArray[np.floating]], Float32Array]:
    """Random continuous piecewise linear curve from [0, 1] to [0, 1] that keeps background (0) at 0.

    Args:
        seed: integer or generator.
        knots: number of knots, at 0 and 1 and evenly between.
        monotone: an increasing curve (each piece rises by at least a fifth of the mean slope); otherwise the
            values at the knots are free, as between MRI sequences.

    Returns:
        A function of arrays of intensities; values outside [0, 1] are taken at the ends.

    Raises:
        InputError: when there are fewer than two knots.
    """
    if knots < 2:
        raise InputError(f"a contrast curve has at least two knots, got {knots}")
    rng = np.random.default_rng(seed)
    positions = np.linspace(0.0, 1.0, knots)
    if monotone:
        steps = 0.2 + rng.exponential(1.0, knots - 1)
        values = np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])
    else:
        values = np.concatenate([[0.0], rng.uniform(0.1, 1.0, knots - 1)])

    def curve(intensities: npt.NDArray[np.floating]) -> Float32Array:
        return np.interp(intensities, positions, values).astype(np.float32)

    return curve


def bias_field(
    shape: Sequence[int],
    *,
    seed: Seed,
    strength: float = 0.3,
    smoothness_mm: float = 40.0,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Float32Array:
    """Smooth positive multiplicative field with geometric mean 1, as of a receive coil.

    Args:
        shape: ``(D, H, W)``.
        seed: integer or generator.
        strength: largest absolute logarithm of the field.
        smoothness_mm: standard deviation of the Gaussians the noise is made of.
        spacing_mm: voxel size per axis.
    """
    spacing = _positive("spacing_mm", spacing_mm)
    if smoothness_mm <= 0 or strength < 0:
        raise InputError(f"smoothness_mm must be positive, strength not negative: {smoothness_mm}, {strength}")
    log_field = _smooth_noise(shape, smoothness_mm / spacing, np.random.default_rng(seed), channels=1)[0]
    log_field -= log_field.mean()
    peak = float(np.abs(log_field).max())
    return np.exp(log_field * (strength / peak if peak > 0 else 0.0)).astype(np.float32)


def add_noise(image: npt.NDArray[np.floating], *, seed: Seed, sigma: float, kind: str = "rician") -> Float32Array:
    """Image with noise of standard deviation ``sigma`` per channel.

    Args:
        image: any shape, real.
        seed: integer or generator.
        sigma: standard deviation in the units of the image.
        kind: ``"gaussian"``, or ``"rician"``: magnitude of a complex signal with noise in both parts, never
            negative (doi:10.1002/mrm.1910340618).

    Raises:
        InputError: when sigma is negative or the kind unknown.
    """
    if sigma < 0 or kind not in ("rician", "gaussian"):
        raise InputError(f"noise is rician or gaussian with sigma >= 0, got {kind!r} and {sigma}")
    rng = np.random.default_rng(seed)
    real = np.asarray(image, dtype=np.float32) + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    if kind == "gaussian":
        return real
    return np.hypot(real, sigma * rng.standard_normal(image.shape, dtype=np.float32))


def _positive(name: str, values: Sequence[float]) -> Float64Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (3,) or not (array > 0).all():
        raise InputError(f"{name} takes three positive numbers, got {values}")
    return array


def _rotation(axis: int, angle: float) -> Float64Array:
    first, second = [a for a in range(3) if a != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def _smooth_noise(
    shape: Sequence[int], sigma_voxels: Float64Array, rng: np.random.Generator, *, channels: int
) -> Float64Array:
    """Smooth noise ``(channels, D, H, W)``: random numbers on a lattice one sigma apart, spread by Gaussians.

    One small matrix per axis: filtering white noise on a full brain with a Gaussian of many voxels would take
    longer than a registration.
    """
    weights = []
    for n, sigma in zip(shape, sigma_voxels, strict=True):
        lattice = np.arange(-3, np.ceil((n - 1) / sigma) + 4)
        weights.append(np.exp(-0.5 * (np.arange(n)[:, None] / sigma - lattice[None]) ** 2))
    field = rng.standard_normal((channels, *(w.shape[1] for w in weights)))
    for axis, matrix in enumerate(weights, start=1):
        field = np.moveaxis(np.tensordot(matrix, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)
