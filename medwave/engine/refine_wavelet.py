"""Instance refinement with the wavelet coefficients of a stationary velocity field as unknowns, level by level.

At each scale the velocity v is a sum of wavelets; its displacement is exp(v) - id by scaling and squaring, so that
the map is diffeomorphic and exp(-v) its inverse. The force on the warped image is expanded in the same wavelets, and
each coefficient takes a step of its own size: the gradient preconditioned by a Sobolev norm, which is diagonal in
wavelets. Band j (1 = finest) holds frequencies around ``w_j = 3/4 pi 2^(1-j)``, where a Gaussian of sigma s passes
``exp(-s^2 w_j^2 / 2)``: that is the step of its coefficients for s = ``update_sigma``, and their decay per iteration
for s = ``field_sigma``, so that the scales of :mod:`medwave.engine.refine` serve both formulations. The next finer
scale starts from the synthesis of the coarser one with zero details, as in WiNet's incremental scheme.

The update ``v <- v + d`` is the first-order Baker-Campbell-Hausdorff step of log-domain registration (Vercauteren et
al., MICCAI 2008, doi 10.1007/978-3-540-85988-8_90).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medwave.engine.loops import Level, Loops, converged
from medwave.wavelets import dwt, idwt

FloatVolume = npt.NDArray[np.float32]
_DEPTH = 3  # levels of the expansion at each scale
_SQUARINGS = 5


def _expand(field: torch.Tensor, wavelet: str, depth: int) -> list[torch.Tensor]:
    """Bands ``(3, 8, ...)`` of a field ``(3, D, H, W)``, finest first; band 0 of the last is the approximation."""
    levels = []
    approximation = field[:, None]
    for _ in range(depth):
        bands = dwt(approximation, wavelet, ndim=3)[:, 0]
        levels.append(bands)
        approximation = bands[:, :1]
    return levels


def _synthesise(levels: list[torch.Tensor], wavelet: str, sizes: list[tuple[int, ...]]) -> torch.Tensor:
    """The field of :func:`_expand`'s bands; ``sizes[j]`` is the shape that level j was taken from."""
    approximation = levels[-1][:, 0]
    for bands, size in zip(reversed(levels), reversed(sizes), strict=True):
        full = torch.cat([approximation[:, None], bands[:, 1:]], dim=1)
        approximation = idwt(full[:, None], wavelet, ndim=3, output_size=size)[:, 0]
    return approximation


class WaveletVelocityRun:
    """The iterations of one scale; the unknown is the velocity field by its wavelet coefficients."""

    def __init__(
        self, loops: Loops, level: Level, metric: str, radius: int, step: float,
        fixed: Any, moving: Any, weight: Any, wavelet: str = "bior4.4",
    ) -> None:  # fmt: skip
        self.loops, self.level, self.step, self.wavelet = loops, level, step, wavelet
        self.moving = moving
        self.similarity = loops.similarity(metric, fixed, weight, radius, level.force_limit)
        self.warped = loops.empty(*fixed.shape)
        self.update, self.field, self.other = (loops.empty(3, *fixed.shape) for _ in range(3))
        self.sizes = [tuple(-(-n // 2**j) for n in fixed.shape) for j in range(_DEPTH)]
        frequencies = [0.75 * np.pi * 2.0 ** (1 - j) for j in range(1, _DEPTH + 1)]
        self.gains = [float(np.exp(-0.5 * (level.update_sigma * w) ** 2)) for w in frequencies]
        self.decays = [float(np.exp(-0.5 * (level.field_sigma * w) ** 2)) for w in frequencies]

    def displacement(self, velocity: Any) -> Any:
        """exp(velocity) - id, in memory of this object."""
        return self._exponential(velocity)

    def _exponential(self, velocity: Any) -> Any:
        """exp(velocity) - id, in memory of this object."""
        self.field[:] = velocity * (1.0 / 2**_SQUARINGS)
        for _ in range(_SQUARINGS):
            self.loops.compose(self.field, self.field, 1.0, self.other)
            self.field, self.other = self.other, self.field
        return self.field

    def __call__(self, velocity: Any, report: Callable[[int, float], Any]) -> tuple[Any, list[float]]:
        unknowns = _expand(torch.as_tensor(velocity), self.wavelet, _DEPTH)
        history: list[float] = []
        for iteration in range(self.level.iterations):
            self.loops.warp(self.moving, self._exponential(velocity), self.warped)
            history.append(self.similarity.force(self.warped, self.update))
            report(iteration, history[-1])
            if converged(history):
                break
            changes = _expand(torch.as_tensor(self.update), self.wavelet, _DEPTH)
            for bands, gain in zip(changes, self.gains, strict=True):
                bands[:, 1:] *= gain
            step = _synthesise(changes, self.wavelet, self.sizes)
            longest = float(step.square().sum(0).max().sqrt())
            if longest < 1e-12:
                break
            for bands, change, decay in zip(unknowns, changes, self.decays, strict=True):
                bands += change * (self.step / longest)
                bands[:, 1:] *= decay
            velocity = self._as_array(_synthesise(unknowns, self.wavelet, self.sizes))
        return velocity, history

    def _as_array(self, tensor: torch.Tensor) -> Any:
        return tensor.numpy() if isinstance(self.update, np.ndarray) else tensor
