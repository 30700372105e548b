"""Predictions of overlapping cubes become one volume, block by block.

Blocks that are assembled together share sums: each of their cubes is predicted once, in the order of the plan, and
added where it lies; a block is finished when the last cube that touches it has been added. Along :func:`long_axis` the
sums reach from the first block that is not finished to the end of the cube at hand, however long a column of blocks is.
A voxel is a sum in the order of the plan whatever blocks are asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.cubes.plan import Box, CubePlan, Triple, around

FloatArray = npt.NDArray[np.float32]
Reader = Callable[[Box], npt.NDArray[np.generic]]
Predictor = Callable[[list[npt.NDArray[np.generic]]], Iterable[npt.NDArray[np.floating]]]


def gaussian_weight(size: Triple, *, sigma_share: float = 0.125, floor: float = 1e-3) -> FloatArray:
    """Weight of a cube's voxels ``(z, y, x)``: the product of a Gaussian along each axis, 1 in the middle.

    The floor holds along each axis by itself. Were it one of the product, corners would weigh as much as what lies
    deeper between them, and cubes would be averaged there as equals, good with bad.

    Args:
        size: the cube.
        sigma_share: standard deviation as a share of the size of each axis.
        floor: least weight along an axis, so that a voxel seen by corners only still has a prediction.
    """
    axes = []
    for axis, length in enumerate(size):
        distance = (np.arange(length) - (length - 1) / 2) / (sigma_share * length)
        shape = [-1 if a == axis else 1 for a in range(3)]
        along = np.exp(-0.5 * distance**2)
        axes.append(np.maximum(along / along.max(), floor).reshape(shape))
    return np.asarray(reduce(np.multiply, axes), dtype=np.float32)


def long_axis(plan: CubePlan) -> int:
    """The axis along which blocks are finished first: z, or y where one cube is as deep as the volume."""
    return 0 if len(plan.starts[0]) > 1 else 1


def assemble(
    plan: CubePlan,
    blocks: Iterable[Box],
    *,
    read: Reader,
    predict: Predictor,
    skip: Callable[[npt.NDArray[np.generic]], bool] = lambda _: False,
    weight: FloatArray | None = None,
) -> Iterator[tuple[Box, FloatArray]]:
    """Predict blocks of a volume together.

    Each block is the weighted mean of all cubes that touch it. Memory holds 8 bytes for each voxel of the sums, as wide
    as the box around all blocks.

    Args:
        plan: where the cubes lie.
        blocks: the boxes wanted, such as those of ``plan.blocks`` that are not written yet.
        read: gives the voxels of a box that lies inside the volume, or in the margin of the plan.
        predict: list of cubes of the plan's size -> their probabilities, each of the same shape; it is given one.
        skip: whether a cube is empty; its probability is then 0.
        weight: weight of a cube's voxels; Gaussian by default.

    Yields:
        Each block with its probabilities, float32, in the order in which they are finished.

    Raises:
        InputError: when a prediction has another shape than its cube.
    """
    weight = gaussian_weight(plan.size) if weight is None else weight
    left, cubes, ends = set(blocks), set[Box](), defaultdict[Box, list[Box]](list)
    for block in sorted(left):
        touching = plan.touching(block)
        cubes.update(touching)
        ends[touching[-1]].append(block)
    if not left:
        return
    sums = _Sums(left, long_axis(plan))
    for cube in sorted(cubes):
        prediction = _predicted(plan, cube, read, predict, skip)
        sums.add(cube, weight, prediction)
        for block in ends.pop(cube, ()):
            yield block, sums.mean(block)
            left.remove(block)
        sums.keep(left)


class _Sums:
    """Weighted predictions and weights over the box around some blocks, of the layers that are still needed."""

    def __init__(self, blocks: Iterable[Box], axis: int) -> None:
        self.whole, self.axis = around(blocks), axis
        self.box = _with_layers(self.whole, axis, self.whole.start[axis], self.whole.start[axis])
        self.total = np.zeros(self.box.shape, dtype=np.float32)
        self.weights = np.zeros(self.box.shape, dtype=np.float32)

    def add(self, cube: Box, weight: FloatArray, prediction: npt.NDArray[np.float16] | None) -> None:
        """Add a cube; None stands for an empty one."""
        inside = cube.overlap(self.whole)
        if inside is None:
            return
        self._reach(self.box.start[self.axis], max(self.box.stop[self.axis], inside.stop[self.axis]))
        common = cube.overlap(self.box)
        if common is None:
            return
        share = weight[common.within(cube)]
        self.weights[common.within(self.box)] += share
        if prediction is not None:
            self.total[common.within(self.box)] += share * prediction[common.within(cube)]

    def mean(self, block: Box) -> FloatArray:
        """The mean in a block that all its cubes have been added to."""
        at = block.within(self.box)
        return np.asarray(self.total[at] / self.weights[at], dtype=np.float32)

    def keep(self, blocks: set[Box]) -> None:
        """Let go of the layers before all blocks that are left."""
        stop = self.box.stop[self.axis]
        self._reach(min((block.start[self.axis] for block in blocks), default=stop), stop)

    def _reach(self, start: int, stop: int) -> None:
        """Change the layers to ``[start, stop)``; new ones are 0."""
        before, start = self.box, min(start, stop)
        self.box = _with_layers(before, self.axis, start, stop)
        if self.box == before:
            return
        kept = _with_layers(before, self.axis, start, before.stop[self.axis]).within(before)
        more = np.zeros(_with_layers(before, self.axis, before.stop[self.axis], stop).shape, dtype=np.float32)
        self.total = np.concatenate([self.total[kept], more], axis=self.axis)
        self.weights = np.concatenate([self.weights[kept], more], axis=self.axis)


def _with_layers(box: Box, axis: int, start: int, stop: int) -> Box:
    bounds = list(zip(box.start, box.stop, strict=True))
    bounds[axis] = (start, stop)
    (a, b), (c, d), (e, f) = bounds
    return Box((a, c, e), (b, d, f))


def _predicted(
    plan: CubePlan, cube: Box, read: Reader, predict: Predictor, skip: Callable[[npt.NDArray[np.generic]], bool]
) -> npt.NDArray[np.float16] | None:
    """The prediction of a cube in half precision, or None when it is empty."""
    voxels = _cut(plan, cube, read)
    if skip(voxels):
        return None
    (prediction,) = predict([voxels])
    if prediction.shape != plan.size:
        raise InputError(f"a prediction has the shape of its cube, {plan.size}, got {prediction.shape}")
    return prediction.astype(np.float16)


def _cut(plan: CubePlan, cube: Box, read: Reader) -> npt.NDArray[np.generic]:
    """The voxels of a cube; beyond the far side of the volume and its margin the border is repeated."""
    z, y, x = plan.margin
    d, h, w = (n + m for n, m in zip(plan.shape, plan.margin, strict=True))
    inside = cube.overlap(Box((-z, -y, -x), (d, h, w)))
    if inside is None:
        raise InputError(f"{cube} lies outside the volume of shape {plan.shape}")
    voxels = read(inside)
    beyond = [(0, n - m) for n, m in zip(cube.shape, inside.shape, strict=True)]
    return np.pad(voxels, beyond, mode="edge") if any(b for _, b in beyond) else voxels
