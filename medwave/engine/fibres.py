"""Probability of fibre in a volume of any size: cubes are cut, predicted by a network that is handed in, and blended.

Conventions
    All boxes and shapes are (z, y, x) in voxels of the volume. Beyond the volume it is mirrored.

Cubes
    All cubes begin at multiples of 16, on which the networks repeat themselves: a volume is predicted as if it reached
    to the next multiple of 16. A cube has at most :data:`CUBE_VOXELS` voxels, so that in flat volumes cubes are wide.
    Cubes overlap by :data:`OVERLAP` at least, and are averaged with Gaussian weights. Along each axis they are as small
    as their number allows. An axis that one cube spans has it from 0; where there are more, they begin and end
    :data:`MARGIN` voxels beyond the volume, so that its border lies as little on a face of a cube as its inside.

Empty cubes
    A cube is not predicted, and its probability is 0, when nowhere in it 4x4x4 voxels are on average brighter than the
    median of the volume by 0.7 of its noise (the width of :class:`IntensityScale`): 5.6 standard deviations of the mean
    of 64 noisy voxels, looked at in steps of 2. A fibre of 3 voxels across that is 1.3 times as bright as the noise
    stands out by that; a background of pure noise, a constant one, and parts that were never stored do not.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medwave.core.errors import InputError
from medwave.cubes import Box, CubePlan, assemble
from medwave.cubes.assembly import Reader, long_axis
from medwave.cubes.plan import Triple
from medwave.engine.predict import PRECISIONS, native_bfloat16, usable_device
from medwave.transforms.microscopy import IntensityScale

CUBE_VOXELS = 160**3
OVERLAP = 64
"""Voxels that neighbours share along an axis. In the middle of an overlap both cubes count alike, and 32 voxels away a
network with replicated borders hardly feels a cut (:data:`medwave.models.waveunet.BORDERS`): when all cubes moved, the
fibre of the two volumes of benchmarks/README.md had an IoU of 0.993 and 0.999 with itself."""

MARGIN = 32
"""Voxels beyond the volume, at both ends of an axis that is cut. Without, when all cubes moved, the fibre of the outer
16 voxels had an IoU of 0.87 to 0.98 with itself, and what lies deeper 0.99; benchmarks/README.md has both wholes."""

ALIGNMENT = 16
BLOCK: Triple = (128, 128, 128)
"""Blocks in which a prediction is assembled and written."""

SUMS_BYTES = 640 << 20
"""Of the sums of the blocks that are predicted together; in deep volumes 512 x 512 voxels across."""
_EMPTY_EXCESS = 0.7
_LONGEST_SCALED = 1 << 22


def fibre_plan(shape: Triple, *, size: Triple | None = None, overlap: int = OVERLAP) -> CubePlan:
    """Cubes over a volume; the plan's shape is the volume's, rounded up to multiples of 16.

    Args:
        shape: the volume.
        size: the largest cubes; by default those of :data:`CUBE_VOXELS` that suit the shape.
        overlap: least voxels that neighbours share.
    """
    z, y, x = (-(-n // ALIGNMENT) * ALIGNMENT for n in shape)
    largest = _largest((z, y, x)) if size is None else size
    axes = [_evened(n, most, overlap) for n, most in zip((z, y, x), largest, strict=True)]
    (cz, sz, mz), (cy, sy, my), (cx, sx, mx) = axes
    return CubePlan((z, y, x), (cz, cy, cx), (sz, sy, sx), (mz, my, mx))


def _largest(shape: Triple) -> Triple:
    """As near to a cube of :data:`CUBE_VOXELS` as the shape allows: what a short axis leaves, the longer ones share."""
    sizes, left = [0, 0, 0], float(CUBE_VOXELS)
    for done, axis in enumerate(np.argsort(shape, kind="stable")):
        fair = int((left * (1 + 1e-9)) ** (1 / (3 - done))) // ALIGNMENT * ALIGNMENT
        sizes[axis] = min(shape[axis], fair)
        left /= sizes[axis]
    return sizes[0], sizes[1], sizes[2]


def _evened(length: int, most: int, overlap: int) -> tuple[int, int, int]:
    """Size, stride and margin of cubes along an axis: as few as ``most`` allows, and no larger than these must be."""
    if length <= most:
        return length, length, 0
    margin = min(MARGIN, (most - overlap) // ALIGNMENT * ALIGNMENT)  # no cube lies outside altogether
    length += 2 * margin
    count = math.ceil((length - overlap) / (most - overlap))
    size = -(-(length + (count - 1) * overlap) // (count * ALIGNMENT)) * ALIGNMENT
    return size, size - overlap, margin


def blocks_within(shape: Triple, region: Box | None = None, *, size: Triple = BLOCK) -> list[Box]:
    """The blocks of a volume, or their parts within a region, in the order of their voxels.

    Blocks lie at multiples of ``size`` whatever the region.
    """
    region = region or Box((0, 0, 0), shape)
    axes = [
        [(max(at, start), min(at + step, stop)) for at in range(start // step * step, stop, step)]
        for start, stop, step in zip(region.start, region.stop, size, strict=True)
    ]
    return [Box((z[0], y[0], x[0]), (z[1], y[1], x[1])) for z, y, x in itertools.product(*axes)]


def columns_of(plan: CubePlan, blocks: Iterable[Box]) -> list[list[Box]]:
    """Blocks by the columns in which they are predicted, along the axis along which they are finished first.

    Columns are as wide as :data:`SUMS_BYTES` allow, in whole blocks, and as nearly square as the volume.
    """
    wanted = list(blocks)
    if not wanted:
        return []
    size = [max(block.shape[axis] for block in wanted) for axis in range(3)]
    along = long_axis(plan)
    one, other = (axis for axis in range(3) if axis != along)
    area = SUMS_BYTES // (8 * min(plan.shape[along], size[along] + plan.size[along]))
    height = max(1, min(math.isqrt(area), -(-plan.shape[one] // size[one]) * size[one]) // size[one]) * size[one]
    width = max(1, area // height // size[other]) * size[other]
    found: dict[tuple[int, int], list[Box]] = {}
    for block in wanted:
        found.setdefault((block.start[one] // height, block.start[other] // width), []).append(block)
    return [sorted(column) for _, column in sorted(found.items())]


def bordered(read: Reader, shape: Triple) -> Reader:
    """A reader that also takes boxes beyond the volume, which is mirrored: repeated noise would look like fibre."""
    whole = Box((0, 0, 0), shape)

    def cut(box: Box) -> npt.NDArray[np.generic]:
        inside = box.overlap(whole)
        if inside is None:
            raise InputError(f"{box} lies outside the volume of shape {shape}")
        beyond = [
            (i - b, B - I)
            for b, B, i, I in zip(box.start, box.stop, inside.start, inside.stop, strict=True)  # noqa: E741
        ]
        voxels = read(inside)
        return np.pad(voxels, beyond, mode="reflect") if any(map(any, beyond)) else voxels

    return cut


class FibrePredictor:
    """Probability of fibre in cubes.

    Args:
        model: gives logits ``(N, 2, D, H, W)`` of images ``(N, 1, D, H, W)``, such as
            :class:`medwave.models.FibreNet`; it is set to evaluation, and copied.
        scale: the intensities of the volume.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``, as for :mod:`medwave.engine.predict`.

    Attributes:
        precision: the one used.

    Raises:
        InputError: when the precision is unknown.
        DeviceError: when the device is not there.
    """

    def __init__(
        self, model: nn.Module, scale: IntensityScale, *, device: str = "cpu", precision: str = "auto"
    ) -> None:
        self.device = usable_device(device)
        self.precision = resolved_precision(precision, self.device)
        layout = torch.channels_last_3d if self.precision == "bfloat16" or self.device.type == "cpu" else None
        self.model = without_batch_norms(model.eval()).to(self.device)
        if layout is not None:
            self.model = self.model.to(memory_format=layout)
        self.scale = scale

    def __call__(self, cubes: list[npt.NDArray[np.generic]]) -> Iterator[npt.NDArray[np.float32]]:
        """One probability ``(D, H, W)`` per cube of voxels ``(D, H, W)``.

        Raises:
            InputError: when voxels or results are not finite.
        """
        for cube in cubes:
            image = torch.from_numpy(scaled(self.scale, cube))[None, None].to(self.device)
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
            ):
                logits = self.model(image)
                excess = logits[0, 1].float() - logits[0, 0].float()
                probability = torch.sigmoid(excess).cpu().numpy()
            if not torch.isfinite(excess).all():
                raise InputError("the network predicted values that are not finite: check the volume and the weights")
            yield probability


def without_batch_norms(model: nn.Module) -> nn.Module:
    """A copy for evaluation whose batch norms are part of the convolutions before them.

    The same network but for rounding, and a pass over memory less per convolution.
    """
    copied = copy.deepcopy(model)
    for stage in (module for module in copied.modules() if isinstance(module, nn.Sequential)):
        for n, (first, second) in enumerate(itertools.pairwise(stage)):
            if isinstance(first, nn.Conv3d) and isinstance(second, nn.BatchNorm3d):
                stage[n], stage[n + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return copied


def resolved_precision(precision: str, device: torch.device) -> str:
    """What ``"auto"`` means on a device.

    Raises:
        InputError: when the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    return "bfloat16" if native_bfloat16(device) else "float32"


def scaled(scale: IntensityScale, voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Voxels on the common scale, slab by slab: the scale itself takes a few copies of what it is given.

    Raises:
        InputError: when a voxel is not finite.
    """
    out = np.empty(voxels.shape, dtype=np.float32)
    depth = max(1, _LONGEST_SCALED // max(1, voxels[0].size))
    for z in range(0, len(voxels), depth):
        out[z : z + depth] = scale(voxels[z : z + depth])
    if not np.isfinite(out).all():
        raise InputError("the volume holds NaN or infinite values; replace them first")
    return out


def is_empty(scale: IntensityScale, cube: npt.NDArray[np.generic]) -> bool:
    """Whether a cube (an even number of voxels along each axis, 4 or more) shows only background, by the rule above."""
    mean = np.zeros(tuple(n // 2 for n in cube.shape), dtype=np.float32)
    for corner in itertools.product((0, 1), repeat=3):
        mean += cube[tuple(slice(c, None, 2) for c in corner)]
    for axis in range(3):
        mean = mean.take(range(1, mean.shape[axis]), axis) + mean.take(range(mean.shape[axis] - 1), axis)
    return bool(mean.max() / 64 <= scale.center + _EMPTY_EXCESS * scale.width)


@dataclass
class CubeCount:
    """Cubes that were predicted, and those that were empty; one that is met twice counts twice."""

    predicted: int = 0
    empty: int = 0


def predict_fibres(
    predictor: FibrePredictor, plan: CubePlan, blocks: Iterable[Box], *, read: Reader, shape: Triple,
    skip_empty: bool = True, count: CubeCount | None = None,
) -> Iterator[tuple[Box, npt.NDArray[np.float32]]]:  # fmt: skip
    """Probability of fibre in the blocks of a volume, one after another.

    Values depend neither on the blocks asked for nor on their order. Blocks are predicted in columns
    (:func:`columns_of`): a cube is predicted once in each column that it touches. Memory holds one cube in the network
    and the sums of a column, :data:`SUMS_BYTES`, or 8 bytes a voxel of a block that is larger than that.

    Args:
        predictor: the network with its intensities.
        plan: where the cubes lie, such as :func:`fibre_plan` of the shape.
        blocks: boxes within the volume.
        read: gives the voxels of a box within the volume.
        shape: the volume.
        skip_empty: whether empty cubes count as 0 without being predicted.
        count: told how many cubes there were.

    Yields:
        Each block with its probabilities, float32, column by column.
    """
    count = CubeCount() if count is None else count

    def skip(cube: npt.NDArray[np.generic]) -> bool:
        empty = skip_empty and is_empty(predictor.scale, cube)
        if empty:
            count.empty += 1
        else:
            count.predicted += 1
        return empty

    for column in columns_of(plan, blocks):
        yield from assemble(plan, column, read=bordered(read, shape), predict=predictor, skip=skip)
