"""Predictions of overlapping cubes become one volume, block by block, with memory for a block and a few cubes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.cubes.plan import Box, CubePlan, Triple

FloatArray = npt.NDArray[np.float32]
Reader = Callable[[Box], npt.NDArray[np.generic]]
Predictor = Callable[[list[npt.NDArray[np.generic]]], Iterable[npt.NDArray[np.floating]]]


def gaussian_weight(size: Triple, *, sigma_share: float = 0.125, floor: float = 1e-3) -> FloatArray:
    """Weight of a cube's voxels ``(z, y, x)``: a Gaussian about its middle, 1 there and at least ``floor``.

    Args:
        size: the cube.
        sigma_share: standard deviation as a share of the size of each axis.
        floor: least weight, so that a voxel seen by corners only still has a prediction.
    """
    axes = []
    for axis, length in enumerate(size):
        distance = (np.arange(length) - (length - 1) / 2) / (sigma_share * length)
        shape = [-1 if a == axis else 1 for a in range(3)]
        axes.append(np.exp(-0.5 * distance**2).reshape(shape))
    weight = reduce(np.multiply, axes)
    return np.asarray(np.maximum(weight / weight.max(), floor), dtype=np.float32)


def assemble(
    plan: CubePlan,
    blocks: Iterable[Box],
    *,
    read: Reader,
    predict: Predictor,
    skip: Callable[[npt.NDArray[np.generic]], bool] = lambda _: False,
    weight: FloatArray | None = None,
    batch: int = 1,
    keep: int = 32,
) -> Iterator[tuple[Box, FloatArray]]:
    """Predict the blocks of a volume one after another.

    Each block is the weighted mean of all cubes that touch it. A cube shared by two blocks is predicted once as long
    as it is among the ``keep`` last used; else again, with the same result.

    Args:
        plan: where the cubes lie.
        blocks: the boxes wanted, such as those of ``plan.blocks`` that are not written yet.
        read: gives the voxels of a box that lies inside the volume, or in the margin of the plan.
        predict: list of cubes of the plan's size -> their probabilities, each of the same shape.
        skip: whether a cube is empty; its probability is then 0.
        weight: weight of a cube's voxels; Gaussian by default.
        batch: cubes per call of ``predict``.
        keep: predictions kept for the blocks to come, in half precision.

    Yields:
        Each block with its probabilities, float32.

    Raises:
        InputError: when a prediction has another shape than its cube.
    """
    weight = gaussian_weight(plan.size) if weight is None else weight
    cache = _Cache(plan, read, predict, skip, batch, keep)
    for block in blocks:
        total = np.zeros(block.shape, dtype=np.float32)
        weights = np.zeros(block.shape, dtype=np.float32)
        for cube, prediction in cache.of(plan.touching(block)):
            common = cube.overlap(block)
            if common is None:
                continue
            share = weight[common.within(cube)]
            weights[common.within(block)] += share
            if prediction is not None:
                total[common.within(block)] += share * prediction[common.within(cube)]
        yield block, total / weights


class _Cache:
    """Predictions of cubes, the last used kept; None stands for an empty cube."""

    def __init__(
        self, plan: CubePlan, read: Reader, predict: Predictor,
        skip: Callable[[npt.NDArray[np.generic]], bool], batch: int, keep: int,
    ) -> None:  # fmt: skip
        self.plan, self.read, self.predict, self.skip, self.batch, self.keep = plan, read, predict, skip, batch, keep
        self.known: OrderedDict[Box, npt.NDArray[np.float16] | None] = OrderedDict()

    def of(self, cubes: list[Box]) -> Iterator[tuple[Box, npt.NDArray[np.float16] | None]]:
        """The cubes with their predictions, in the order given, so that sums do not depend on what was kept."""
        ready: dict[Box, npt.NDArray[np.float16] | None] = {}
        for n, cube in enumerate(cubes):
            if cube not in self.known and cube not in ready:
                missing = [c for c in cubes[n:] if c not in self.known][: self.batch]
                ready.update(zip(missing, self._predict(missing), strict=True))
            prediction = ready.pop(cube) if cube in ready else self.known[cube]
            self.known[cube] = prediction
            self.known.move_to_end(cube)
            yield cube, prediction
            while len(self.known) > self.keep:
                self.known.popitem(last=False)

    def _predict(self, cubes: list[Box]) -> list[npt.NDArray[np.float16] | None]:
        voxels = [self._cut(cube) for cube in cubes]
        full = [n for n, cut in enumerate(voxels) if not self.skip(cut)]
        results: list[npt.NDArray[np.float16] | None] = [None] * len(cubes)
        if full:
            for n, prediction in zip(full, self.predict([voxels[n] for n in full]), strict=True):
                if prediction.shape != self.plan.size:
                    raise InputError(
                        f"a prediction has the shape of its cube, {self.plan.size}, got {prediction.shape}"
                    )
                results[n] = prediction.astype(np.float16)
        return results

    def _cut(self, cube: Box) -> npt.NDArray[np.generic]:
        """The voxels of a cube; beyond the far side of the volume the border is repeated."""
        z, y, x = self.plan.margin
        d, h, w = (n + m for n, m in zip(self.plan.shape, self.plan.margin, strict=True))
        whole = Box((-z, -y, -x), (d, h, w))
        inside = cube.overlap(whole)
        if inside is None:
            raise InputError(f"{cube} lies outside the volume of shape {self.plan.shape}")
        voxels = self.read(inside)
        beyond = [(0, n - m) for n, m in zip(cube.shape, inside.shape, strict=True)]
        return np.pad(voxels, beyond, mode="edge") if any(b for _, b in beyond) else voxels
